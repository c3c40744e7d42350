"""What energy costs: the models of `fleet/tariffs.yaml`. Their docstrings are what the file may say."""

import re
from collections import defaultdict
from collections.abc import Iterable
from datetime import date, datetime
from itertools import combinations, product
from typing import Annotated, NamedTuple

from pydantic import Field, field_validator, model_validator

from fleet.errors import SpecError
from fleet.rule import Number, Strict
from fleet.spec_file import parse_yaml, validated

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
"""By the number of the weekday."""
HOURS = re.compile(r"([01]?\d|2[0-4])-([01]?\d|2[0-4])")
REST = "rest"
"""The band of hours that no band names."""

PerKilowattHour = Annotated[Number, Field(ge=0)]


class Band(Strict):
    """`{name: night, days: [mon, tue], hours: 22-6, price_per_kwh: 0.22}`: local hours of these weekdays, the last one
    left out. 22-6 is each day's first six hours and its last two."""

    name: str = Field(min_length=1)
    days: tuple[str, ...] = Field(default=DAYS, strict=False, min_length=1)
    hours: str = "0-24"
    price_per_kwh: PerKilowattHour

    @field_validator("days")
    @classmethod
    def _weekdays(cls, days: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [day for day in days if day not in DAYS]
        if unknown:
            raise ValueError(f"{unknown[0]!r} is no weekday; allowed: {', '.join(DAYS)}")
        return days

    @field_validator("hours")
    @classmethod
    def _span(cls, hours: str) -> str:
        found = HOURS.fullmatch(hours)
        if not found or int(found[1]) == int(found[2]) or int(found[1]) == 24:
            raise ValueError("hours are from-to of 0 to 24, such as 6-22, or 22-6 over midnight")
        return hours

    def has(self, weekday: int, hour: int) -> bool:
        begin, end = map(int, self.hours.split("-"))
        within = begin <= hour < end if begin < end else not end <= hour < begin
        return within and DAYS[weekday] in self.days


class Tariff(Strict):
    """Valid from the local day `from` up to the day before `until`, or for good; at the sites named, or at every site
    that no other tariff of that day names."""

    name: str = Field(min_length=1)
    currency: str = Field(pattern=r"^[A-Z]{3}$")
    begin: date = Field(alias="from")
    until: date | None = None
    sites: tuple[str, ...] = Field(default=(), strict=False)
    price_per_kwh: PerKilowattHour
    standing_charge_per_day: PerKilowattHour = 0.0
    bands: tuple[Band, ...] = Field(default=(), strict=False)

    @model_validator(mode="after")
    def _consistent(self) -> "Tariff":
        if self.until and self.until <= self.begin:
            raise ValueError(f"until {self.until} must be after from {self.begin}")
        for weekday, hour in product(range(7), range(24)):
            names = [band.name for band in self.bands if band.has(weekday, hour)]
            if len(names) > 1:
                raise ValueError(
                    f"bands {names[0]!r} and {names[1]!r} both have {DAYS[weekday]} {hour}:00; an hour has one price"
                )
        return self

    def covers(self, day: date) -> bool:
        return self.begin <= day and (self.until is None or day < self.until)

    def overlaps(self, other: "Tariff") -> bool:
        before = [one.until is not None and one.until <= two.begin for one, two in ((self, other), (other, self))]
        return not any(before) and (bool({*self.sites} & {*other.sites}) or not (self.sites or other.sites))

    def price(self, local: datetime) -> "Price":
        for band in self.bands:
            if band.has(local.weekday(), local.hour):
                return Price(band.price_per_kwh, self.currency, self.name, band.name)
        return Price(self.price_per_kwh, self.currency, self.name, REST)


class Price(NamedTuple):
    per_kwh: float
    currency: str
    tariff: str
    band: str

    def cost(self, watt_hours: float) -> float:
        return watt_hours / 1000.0 * self.per_kwh


class Tariffs(Strict):
    """`fleet/tariffs.yaml`."""

    tariffs: tuple[Tariff, ...] = Field(default=(), strict=False)

    @model_validator(mode="after")
    def _one_at_a_time(self) -> "Tariffs":
        problems = []
        for (_, one), (place, other) in combinations(enumerate(self.tariffs), 2):
            if one.overlaps(other):
                where = ", ".join(sorted({*one.sites} & {*other.sites})) or "every site"
                problems.append(
                    f"tariffs.{place}: {other.name!r} and {one.name!r} are both valid on {max(one.begin, other.begin)}"
                    f" for {where}; end one with `until`"
                )
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def of(self, site: str, day: date) -> Tariff | None:
        """The tariff that names the site, else the one that names none."""
        valid = [tariff for tariff in self.tariffs if tariff.covers(day) and (not tariff.sites or site in tariff.sites)]
        return max(valid, key=lambda tariff: bool(tariff.sites), default=None)

    def price(self, site: str, local: datetime) -> Price | None:
        tariff = self.of(site, local.date())
        return tariff.price(local) if tariff else None

    def standing_charges(self, days: Iterable[tuple[str, date]]) -> dict[tuple[str, str, str], tuple[int, float]]:
        """(site, tariff, currency) → days and what they cost before anything is used."""
        found: dict[tuple[str, str, str], tuple[int, float]] = defaultdict(lambda: (0, 0.0))
        for site, day in sorted(set(days)):
            tariff = self.of(site, day)
            if tariff and tariff.standing_charge_per_day:
                key = site, tariff.name, tariff.currency
                number, charge = found[key]
                found[key] = number + 1, charge + tariff.standing_charge_per_day
        return dict(found)


def load_tariffs(text: str, file: str) -> Tariffs:
    """Raises SpecError with all that is wrong, a line each."""
    if not re.sub(r"(?m)^\s*(#.*)?$", "", text).strip():
        return Tariffs()
    data, lines = parse_yaml(text, file)
    if not isinstance(data, dict):
        raise SpecError(f"{file}:1: expected `tariffs:`, found {type(data).__name__}")
    return validated(Tariffs, data, lines, file)
