"""The engine against the oracle: same transitions, same order, every key of RULES §5 but detected_at equal.

The suite runs few examples, always the same. `WEIR_ORACLE_EXAMPLES=20000 WEIR_ORACLE_SEED=7` runs many, others with
each seed.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.oracle.oracle import run
from tests.oracle.streams import cases
from tests.oracle.subject import in_words, transitions_of

EXAMPLES = int(os.environ.get("WEIR_ORACLE_EXAMPLES", "0"))
SEED = int(os.environ.get("WEIR_ORACLE_SEED", "0"))
FEW = 160


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
    if not EXAMPLES:
        return options
    return lambda test: pytest.mark.timeout(0)(seed(SEED)(options(test)))  # 20,000 take longer than a test may


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


def first_difference(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> str:
    for place in range(max(len(ours), len(theirs))):
        one = ours[place] if place < len(ours) else None
        other = theirs[place] if place < len(theirs) else None
        if one != other:
            keys = [key for key in one if one[key] != other[key]] if one and other else []
            return f"transition {place}, {keys}:\n  oracle {one}\n  engine {other}"
    return "none"


@budget()
@given(cases())
def test_engine_is_the_oracle(case: dict[str, Any]) -> None:
    with told(case):
        ours, theirs = run(case["specs"], case), in_words(transitions_of(case))
        assert ours == theirs, first_difference(ours, theirs)
