"""The texts of an alert: templates over {device}, {site}, {value} and metric names.

A number may carry a format, as in {temperature:.1f}. A template that fails, whatever the cause, shows its source.
"""

import re
from collections.abc import Mapping
from string import Formatter

NUMBER_FORMAT = re.compile(r"[<>=^]?[-+ ]?0?\d{0,2},?(\.\d{1,2})?[defgE%]?")
"""What may follow the colon: enough for people, too little for a text of a gigabyte."""
UNKNOWN = "unknown"

Scope = Mapping[str, str | float | None]


def render(template: str, scope: Scope) -> str:
    try:
        return "".join(_pieces(template, scope))
    except (ValueError, KeyError, TypeError, IndexError, OverflowError):
        return template


def _pieces(template: str, scope: Scope) -> list[str]:
    pieces = []
    for literal, name, form, conversion in Formatter().parse(template):
        pieces.append(literal)
        if name is None:
            continue
        value = scope[name]
        if conversion or not NUMBER_FORMAT.fullmatch(form or ""):
            raise ValueError(f"{{{name}}} takes no such format")
        if form:
            pieces.append(format(value, form))
        elif isinstance(value, str):
            pieces.append(value)
        else:
            pieces.append(UNKNOWN if value is None else f"{float(value):.10g}")
    return pieces
