"""The recording of two homes by Ordóñez, de Toledo and Sanchis (Sensors 2013, 13, 5460-5477): OrdonezA_Sensors.txt and
OrdonezB_Sensors.txt, each with its labels, …_ADLs.txt, beside it.

A row is an interval: `start  end  location  type  place`, of local time, taken as UTC, which a replay shifts away. The
main door becomes a door sensor; every other sensor says that somebody is there, and becomes a motion detector. The
label `Leaving` becomes the presence tag: away as a tag says it, three minutes after the door, and back when it ends.
Devices say each change, and once a minute how things are.
"""

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from fleet.channels import LEVEL
from fleet.errors import DataError
from fleet.reading import Reading, to_datetime, to_epoch_us
from simulators.recording_format import Dirty, Format, Row
from simulators.routine import AWAY_AFTER

MINUTE_US = 60_000_000
LONGEST_US = 366 * 86_400_000_000
"""From the first interval's begin: every minute has rows, and one wrong year would be millions of them."""
DOOR, TAG = ("door_sensor", "front-door", "open"), ("presence_tag", "resident", "present")
MAIN_DOOR, LEAVING = "Maindoor", "Leaving"
SENSORS, LABELS = "_Sensors", "_ADLs"
Device = tuple[str, str, str]
"""Type, id, metric."""


class Interval(NamedTuple):
    line: int
    device: Device
    begin_us: int
    end_us: int


def read_home(text: Iterable[str], site: str, file: str) -> Iterator[Row | Dirty]:
    """Raises DataError where it is not such a file, or its labels are not beside it."""
    intervals: list[Interval] = []
    for item in (*_intervals(text, file, _of_sensor), *_absences(file)):
        if isinstance(item, Dirty):
            yield item
            continue
        first_us = intervals[0].begin_us if intervals else item.begin_us
        if max(abs(item.begin_us - first_us), item.end_us - first_us) > LONGEST_US:
            said = f"{to_datetime(item.begin_us):%Y-%m-%d} to {to_datetime(item.end_us):%Y-%m-%d}"
            yield Dirty(item.line, "far_from_the_first", said)
        else:
            intervals.append(item)
    yield from _rows(intervals, site)


def _absences(file: str) -> Iterator[Interval | Dirty]:
    labels = Path(file).with_name(Path(file).name.replace(SENSORS, LABELS))
    try:
        text = labels.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise DataError(f"{file}: who is at home stands in {labels.name} beside it: {error.strerror}") from None
    for item in _intervals(text.splitlines(), str(labels), lambda cells: TAG if cells == [LEAVING] else None):
        if isinstance(item, Interval):
            away_us = item.begin_us + round(AWAY_AFTER * 1e6)
            if away_us < item.end_us:
                yield item._replace(begin_us=away_us)
        elif LEAVING in item.detail:  # the other labels are no business of ours
            yield item


def _of_sensor(cells: list[str]) -> Device | None:
    if len(cells) != 3:
        return None
    location, _, place = cells
    return DOOR if location == MAIN_DOOR else ("motion_detector", f"{place}-{location}".lower(), "motion")


def _intervals(
    lines: Iterable[str], file: str, device_of: Callable[[list[str]], Device | None]
) -> Iterator[Interval | Dirty]:
    header = False
    for line, text in enumerate(lines, start=1):
        cells = text.split()
        if not cells or set(text.strip()) <= {"-", "\t", " "}:
            continue
        if not header:
            if cells[:4] != ["Start", "time", "End", "time"]:
                raise DataError(f"{file}:{line}: not a recording of this kind: its first line begins `Start time`")
            header = True
            continue
        try:
            begin, end = (
                datetime.strptime(f"{day} {time}", "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
                for day, time in (cells[0:2], cells[2:4])
            )
        except ValueError:
            yield Dirty(line, "bad_time", text.strip()[:80])
            continue
        device = device_of(cells[4:])
        if device is None and len(cells) != 5:
            yield Dirty(line, "field_count", text.strip()[:80])
        elif end < begin:
            yield Dirty(line, "ends_before_it_begins", text.strip()[:80])
        elif device is not None and not LEVEL.fullmatch(device[1]):
            yield Dirty(line, "bad_id", f"{device[1]!r:.80}")
        elif device is not None:
            yield Interval(line, device, to_epoch_us(begin), to_epoch_us(end))


def _rows(intervals: list[Interval], site: str) -> Iterator[Row]:
    """Changes, and each minute all of it, in order of time."""
    if not intervals:
        return
    devices = sorted({TAG, *(each.device for each in intervals)})
    changes = sorted(
        change
        for each in intervals
        for change in ((each.begin_us, 1, each.line, each.device), (each.end_us, -1, each.line, each.device))
    )
    first_us, last_us = min(each.begin_us for each in intervals), max(each.end_us for each in intervals)
    minutes = ((at_us, 0, 0, TAG) for at_us in range(first_us // MINUTE_US * MINUTE_US, last_us + 1, MINUTE_US))
    active, line = Counter[Device](), 0

    def said(device: Device, at_us: int) -> Reading:
        type_name, device_id, metric = device
        is_on = active[device] > 0
        return Reading(device_id, type_name, site, at_us, {metric: float(is_on != (device == TAG))})

    for at_us, step, of_line, device in heapq.merge(minutes, changes):
        line = of_line or line
        if not step:
            yield Row(line, at_us, [said(each, at_us) for each in devices])
            continue
        before = active[device] > 0
        active[device] += step
        if before != (active[device] > 0):
            yield Row(line, at_us, [said(device, at_us)])


HOME = Format(
    ("presence_tag", "door_sensor", "motion_detector"), read_home,
    "a home of Ordóñez et al.: OrdonezA_Sensors.txt, with OrdonezA_ADLs.txt beside it",
)  # fmt: skip
