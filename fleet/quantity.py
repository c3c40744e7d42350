"""What a number of a spec may be: its unit and its range; and numbers as people type them."""

from collections.abc import Iterable, Mapping
from typing import Annotated

from pydantic import AfterValidator, model_validator

from fleet.rule import Number, Strict
from fleet.units import UNITS


def _known_unit(unit: str) -> str:
    if unit not in UNITS:
        raise ValueError(f"unknown unit; allowed: {', '.join(UNITS)} (a new one is one line in fleet/units.py)")
    return unit


UnitName = Annotated[str, AfterValidator(_known_unit)]


class Range(Strict):
    """Both bounds belong to the range."""

    low: Number
    high: Number

    @model_validator(mode="before")
    @classmethod
    def _from_list(cls, value: object) -> object:
        if isinstance(value, list) and len(value) == 2:
            return {"low": value[0], "high": value[1]}
        if isinstance(value, Range | dict):
            return value
        raise ValueError("a range is [low, high]")

    @model_validator(mode="after")
    def _order(self) -> "Range":
        if self.low >= self.high:
            raise ValueError(f"low {self.low} must be below high {self.high}")
        return self

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}"

    def inside(self, other: "Range") -> bool:
        return other.low <= self.low and self.high <= other.high


def named_numbers(
    texts: Iterable[str], what: str, example: str, words: Mapping[str, float] | None = None
) -> dict[str, float]:
    """`["limit=35.5"]` → {"limit": 35.5}; `words`, in small letters, stand for numbers. Raises ValueError saying which
    is wrong; `what` they are."""
    found: dict[str, float] = {}
    for text in texts:
        name, sign, given = text.partition("=")
        try:
            if not sign:
                raise ValueError
            value = words[given.lower()] if words and given.lower() in words else float(given)
        except ValueError:
            raise ValueError(f"{what} {text[:80]!r}: expected NAME=NUMBER, such as {example}") from None
        if name in found:
            raise ValueError(f"{what} {name[:80]!r} is given twice")
        found[name] = value
    return found
