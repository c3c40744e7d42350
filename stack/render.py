"""Configuration from the templates under `docker/`."""

import shlex
from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from stack.cache import CHECKOUT

TEMPLATES = CHECKOUT / "docker"


def for_supervisor(value: Any) -> str:
    """Words of a command quoted for supervisord, and `%`, which it would expand, doubled."""
    text = value if isinstance(value, str) else shlex.join(str(word) for word in value)
    return text.replace("%", "%%").replace('"', '\\"') if isinstance(value, str) else text.replace("%", "%%")


def rendered(template: str, values: Mapping[str, Any]) -> str:
    """A value that the template needs and nobody gave is an error."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, keep_trailing_newline=True, trim_blocks=True
    )
    environment.filters["supervisor"] = for_supervisor
    environment.filters["shell"] = lambda value: shlex.quote(str(value))
    return environment.get_template(template).render(values)
