"""Devices as a CSV file: all of it is right, or all that is wrong is told by file and line."""

import csv
import io
from dataclasses import dataclass, field
from pathlib import Path

from fleet.catalog import Catalog
from fleet.errors import ConfigurationError, RegistryError
from fleet.registry import parse_params, problems_of, time_zone_problem

REQUIRED = ("type", "device_id", "site")
COLUMNS = (*REQUIRED, "room", "time_zone", "params")
"""`time_zone` is the site's; `params` are NAME=NUMBER, separated by blanks."""


@dataclass(frozen=True)
class Row:
    line: int
    type: str
    device_id: str
    site: str
    room: str | None = None
    time_zone: str | None = None
    params: dict[str, float] = field(default_factory=dict)


def read_csv(path: Path, catalog: Catalog) -> list[Row]:
    """Raises RegistryError with a line for everything that is wrong."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise RegistryError(f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8") from None
    except OSError as error:
        raise RegistryError(f"{path}: {error.strerror}") from None
    return parse_csv(text, str(path), catalog)


def parse_csv(text: str, file: str, catalog: Catalog) -> list[Row]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    problems: list[str] = []
    rows: list[Row] = []
    try:
        head = [name.strip() for name in next(reader, [])]
        _check_head(head, file)
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            where = f"{file}:{reader.line_num}"
            if len(cells) != len(head):
                problems.append(f"{where}: {len(cells)} cells, and the first line names {len(head)} columns")
                continue
            given = {name: cell.strip() for name, cell in zip(head, cells, strict=True)}
            row, wrong = _row(reader.line_num, given, catalog)
            problems += [f"{where}: {problem}" for problem in wrong]
            if row:
                rows.append(row)
    except csv.Error as error:
        problems.append(f"{file}:{reader.line_num}: not CSV: {error}")
    problems += _contradictions(rows, file, catalog)
    if problems:
        raise RegistryError("\n".join(problems))
    if not rows:
        raise RegistryError(f"{file}:1: no devices below the first line")
    return rows


def _check_head(head: list[str], file: str) -> None:
    for name in head:
        if name not in COLUMNS:
            raise RegistryError(f"{file}:1: unknown column {name[:80]!r}; allowed: {', '.join(COLUMNS)}")
        if head.count(name) > 1:
            raise RegistryError(f"{file}:1: column {name!r} stands twice")
    missing = [name for name in REQUIRED if name not in head]
    if missing:
        raise RegistryError(f"{file}:1: the first line must name the columns; missing: {', '.join(missing)}")


def _row(line: int, given: dict[str, str], catalog: Catalog) -> tuple[Row | None, list[str]]:
    problems = []
    params: dict[str, float] = {}
    try:
        params = parse_params(given.get("params", "").split())
    except ValueError as error:
        problems.append(str(error))
    zone = given.get("time_zone") or None
    if zone and (problem := time_zone_problem(zone)):
        problems.append(problem)
    row = Row(line, given["type"], given["device_id"], given["site"], given.get("room") or None, zone, params)
    try:
        spec = catalog.type(row.type)
    except ConfigurationError as error:
        problems.append(str(error))
    else:
        problems += problems_of(spec, row.device_id, row.site, row.room, row.params)
    return (None if problems else row), problems


def _contradictions(rows: list[Row], file: str, catalog: Catalog) -> list[str]:
    """One device twice, or one site with two time zones."""
    problems = []
    devices: dict[tuple[str, str], int] = {}
    zones: dict[tuple[str, str], Row] = {}
    for row in rows:
        first = devices.setdefault((row.type, row.device_id), row.line)
        if first != row.line:
            problems.append(f"{file}:{row.line}: {row.type} {row.device_id} stands on line {first} already")
        if row.time_zone is None:
            continue
        other = zones.setdefault((catalog.type(row.type).system, row.site), row)
        if other.time_zone != row.time_zone:
            problems.append(
                f"{file}:{row.line}: site {row.site} is in {row.time_zone} here and in {other.time_zone} on line"
                f" {other.line}"
            )
    return problems
