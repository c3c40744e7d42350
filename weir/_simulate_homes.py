"""`weir simulate home`: homes with residents, and what goes wrong in them."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from fleet.catalog import Catalog
from fleet.reading import to_datetime, to_epoch_us
from fleet.settings import Settings
from simulators.homes import Town, messages
from simulators.household import DEVICES, device_id, sites
from simulators.obedience import SUBSCRIPTION
from simulators.session import Order, Source, conduct
from simulators.timeline import Timeline

FIRST = datetime(2026, 3, 30, tzinfo=UTC)
"""Of runs that are scored, unless --until says otherwise: they are the same every time. A month ends on the second day,
by which its rules are scored."""


def first_of_score(span_us: int, until_us: int | None) -> int:
    return to_epoch_us(FIRST) if until_us is None else until_us - span_us


def run(
    settings: Settings, catalog: Catalog, order: Order, town: Town, with_seq: bool, follow: bool, about: dict[str, Any]
) -> dict[str, Any]:
    """`town` but for its first moment, which the run's timeline says."""

    def placed(timeline: Timeline) -> Town:
        return replace(town, first_us=timeline.first_us)

    def said(timeline: Timeline) -> Iterable[Any]:
        here = placed(timeline)
        return messages(here, here.schedule(), catalog, with_seq, follow)

    source = Source(
        town.span_us, tuple(dict.fromkeys(placed.type for placed in DEVICES)), lambda timeline: (), said,
        lambda timeline: truth_lines(placed(timeline)), SUBSCRIPTION,
    )  # fmt: skip
    return conduct(settings, catalog, order, source, about | {"homes": town.homes})


def truth_lines(town: Town) -> Iterable[dict[str, Any]]:
    """What went wrong, a line each, and what must be told of it: `rule` of `device`, from `begin` to `end`."""
    planned = town.schedule()

    def when(begin: float, end: float) -> dict[str, str]:
        return {"begin": to_datetime(town.micros(begin)).isoformat(), "end": to_datetime(town.micros(end)).isoformat()}

    for number, site in enumerate(sites(town.homes)):
        for incident in planned.of(number):
            device = device_id(site, incident.device)
            yield {"incident": incident.kind, "site": site, "device": device} | when(incident.begin, incident.end)
        for told in town.truth(number, planned):
            yield {"rule": told.rule, "site": site, "device": device_id(site, told.device)} | when(told.begin, told.end)
