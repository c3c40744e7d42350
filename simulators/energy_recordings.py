"""Recordings of energy: UCI 235, a household's meter each minute, and UCI 374, a house's circuits every 10 minutes.

The files say how much was used since the row before; the meters here count it up, from 0, and so begin anew with each
pass of a loop, as a meter that is reset. What a row lacks is not counted. The files' clocks have no zone: taken as UTC.
"""

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from fleet.errors import DataError
from fleet.reading import Reading, to_epoch_us
from simulators.recording_format import Dirty, Format, Row

METER, PLUG = "energy_meter", "smart_plug"
ROUNDED = 6
"""Decimals of a counter: a millionth of a kWh."""
TOO_MUCH = 1e9
"""In any column's unit: no house uses that. Sums of what is less stay numbers."""


class Column(NamedTuple):
    """What a column says of a device in the time of a row."""

    device: str
    type: str
    counts: float
    """The counter's unit for each unit of the column."""
    watts: float | None = None
    """The same of its power; None: it says nothing of that."""


HOUSEHOLD: dict[str, Column] = {
    # kW, mean of a minute; of the sub-meters Wh
    "Global_active_power": Column("main", METER, 1 / 60, 1000.0),
    "Sub_metering_1": Column("kitchen", PLUG, 1.0),
    "Sub_metering_2": Column("laundry", PLUG, 1.0),
    "Sub_metering_3": Column("climate", PLUG, 1.0),
}
APPLIANCES: dict[str, Column] = {
    # Wh in ten minutes
    "Appliances": Column("appliances", METER, 1 / 1000, 6.0),
    "lights": Column("lights", METER, 1 / 1000, 6.0),
}


def _reader(
    name: str, moments: tuple[str, ...], form: str, columns: Mapping[str, Column]
) -> Callable[[Iterable[str], str, str], Iterator[Row | Dirty]]:
    """`moments` are the columns of a row's time, in this form together."""

    def read(text: Iterable[str], site: str, file: str) -> Iterator[Row | Dirty]:
        rows = csv.reader(text)
        counters = dict.fromkeys(columns, 0.0)
        try:
            header = [cell.strip().lstrip("\ufeff") for cell in next(rows, [])]
            missing = [column for column in (*moments, *columns) if column not in header]
            if missing:
                raise DataError(f"{file}:1: not a recording of {name}: column {missing[0]} is missing")
            for cells in rows:
                if len(cells) != len(header):
                    yield Dirty(rows.line_num, "field_count", f"{len(cells)} fields; the header has {len(header)}")
                    continue
                yield _row(rows.line_num, dict(zip(header, cells, strict=True)), moments, form, columns, counters, site)
        except csv.Error as error:
            raise DataError(f"{file}:{rows.line_num}: not CSV: {error}") from None

    return read


def _row(
    line: int, cells: Mapping[str, str], moments: tuple[str, ...], form: str, columns: Mapping[str, Column],
    counters: dict[str, float], site: str,
) -> Row | Dirty:  # fmt: skip
    said = " ".join(cells[name] for name in moments)
    try:
        time_us = to_epoch_us(datetime.strptime(said, form).replace(tzinfo=UTC))
    except ValueError:
        return Dirty(line, "bad_time", f"{said!r}"[:80])
    figures = {}
    for name in columns:
        try:
            figures[name] = float(cells[name])
        except ValueError:
            return Dirty(line, "bad_number", f"{name}: {cells[name]!r:.60}")
        if not 0 <= figures[name] < TOO_MUCH:
            return Dirty(line, "bad_number", f"{name}: {cells[name]!r:.60}")
    readings = []
    for name, column in columns.items():
        counters[name] += figures[name] * column.counts
        values: dict[str, float | None] = {"energy": round(counters[name], ROUNDED)}
        if column.watts is not None:
            values["power"] = round(figures[name] * column.watts, 3)
        readings.append(Reading(column.device, column.type, site, time_us, values))
    return Row(line, time_us, readings)


HOUSEHOLD_POWER = Format(
    (METER, PLUG),
    _reader("household power", ("Date", "Time"), "%d/%m/%Y %H:%M:%S", HOUSEHOLD),
    "UCI 235: Date, Time, Global_active_power, …, Sub_metering_1 to 3",
)
APPLIANCES_ENERGY = Format(
    (METER,),
    _reader("appliances energy", ("date",), "%Y-%m-%d %H:%M:%S", APPLIANCES),
    "UCI 374: date, Appliances, lights, …",
)
