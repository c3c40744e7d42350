"""How many examples a property gets, and what is said of one that fails."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import yaml
from hypothesis import HealthCheck, Phase, seed, settings

EXAMPLES = int(os.environ.get("WEIR_ORACLE_EXAMPLES", "0"))
SEED = int(os.environ.get("WEIR_ORACLE_SEED", "0"))
FEW = 250


def budget(share: float = 1.0):  # type: ignore[no-untyped-def]
    """How many examples, and whether always the same."""
    options = settings(
        max_examples=max(20, round((EXAMPLES or FEW) * share)),
        derandomize=not EXAMPLES,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    return (lambda test: seed(SEED)(options(test))) if EXAMPLES else options


def written(case: dict[str, Any]) -> str:
    return yaml.safe_dump(case, sort_keys=False, default_flow_style=None, width=200)


@contextmanager
def told(case: dict[str, Any]) -> Iterator[None]:
    """Writes the example down as a rule test where it fails."""
    try:
        yield
    except Exception as error:
        error.add_note(written(case))
        raise
