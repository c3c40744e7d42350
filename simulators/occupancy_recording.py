"""The occupancy recording: a wide CSV, a row about every 30 s, a column a sensor.

Columns: Date (2017/12/22), Time (10:49:41), S1_Temp…S4_Temp °C, S1_Light…S4_Light lux, S1_Sound…S4_Sound V, S5_CO2 ppm,
S5_CO2_Slope ppm a sample, S6_PIR, S7_PIR 0/1, Room_Occupancy_Count 0-3 (the truth). Its clock has no zone: taken as
UTC, which a replay shifts away.
"""

import csv
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from fleet.errors import DataError
from fleet.reading import Reading, to_epoch_us
from simulators.recording_format import Dirty, Format, Row

TYPE = "room_node"
COLUMNS: dict[str, tuple[str, str]] = {
    **{f"S{n}_Temp": (f"s{n}", "temperature") for n in range(1, 5)},
    **{f"S{n}_Light": (f"s{n}", "light") for n in range(1, 5)},
    **{f"S{n}_Sound": (f"s{n}", "sound") for n in range(1, 5)},
    "S5_CO2": ("s5", "co2"),
    "S5_CO2_Slope": ("s5", "co2_slope"),
    "S6_PIR": ("s6", "pir"),
    "S7_PIR": ("s7", "pir"),
    "Room_Occupancy_Count": ("edge", "occupancy"),
}
"""Column → (device, metric); the edge node tells the truth."""


def read_occupancy(text: Iterable[str], site: str, file: str) -> Iterator[Row | Dirty]:
    rows = csv.reader(text)
    try:
        header = [name.strip().lstrip("\ufeff") for name in next(rows, [])]
        missing = [name for name in ("Date", "Time", *COLUMNS) if name not in header]
        if missing:
            raise DataError(f"{file}:1: not an occupancy recording: column {missing[0]} is missing")
        places = [(header.index(column), device, metric) for column, (device, metric) in COLUMNS.items()]
        date, time = header.index("Date"), header.index("Time")
        for cells in rows:
            yield _row(rows.line_num, cells, len(header), date, time, places, site)
    except csv.Error as error:
        raise DataError(f"{file}:{rows.line_num}: not CSV: {error}") from None


def _row(
    line: int, cells: list[str], width: int, date: int, time: int, places: list[tuple[int, str, str]], site: str
) -> Row | Dirty:
    if len(cells) != width:
        return Dirty(line, "field_count", f"{len(cells)} fields; the header has {width}")
    try:
        moment = datetime.strptime(f"{cells[date]} {cells[time]}", "%Y/%m/%d %H:%M:%S").replace(tzinfo=UTC)
    except ValueError:
        return Dirty(line, "bad_time", f"{cells[date]!r} {cells[time]!r}"[:80])
    time_us = to_epoch_us(moment)
    readings = []
    for place, device, metric in places:
        try:
            value = float(cells[place])
        except ValueError:
            return Dirty(line, "bad_number", f"{metric} of {device}: {cells[place]!r:.60}")
        if not -float("inf") < value < float("inf"):
            return Dirty(line, "bad_number", f"{metric} of {device}: {cells[place]!r:.60}")
        readings.append(Reading(device, TYPE, site, time_us, {metric: value}))
    return Row(line, time_us, readings)


OCCUPANCY = Format(
    (TYPE,), read_occupancy, "the room occupancy CSV: Date, Time, S1_Temp … S7_PIR, Room_Occupancy_Count"
)
