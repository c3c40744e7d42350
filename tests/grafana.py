"""What Grafana does with a dashboard before PostgreSQL sees it: macros, variables, the distance of two points."""

import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Connection

ROUNDED = (
    (1_500, 1_000), (3_500, 2_000), (7_500, 5_000), (12_500, 10_000), (17_500, 15_000), (25_000, 20_000),
    (45_000, 30_000), (90_000, 60_000), (210_000, 120_000), (450_000, 300_000), (750_000, 600_000),
    (1_050_000, 900_000), (1_500_000, 1_200_000), (2_700_000, 1_800_000), (5_400_000, 3_600_000),
    (9_000_000, 7_200_000), (16_200_000, 10_800_000),
)  # fmt: skip
"""Below so many milliseconds → so many."""
UNITS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


class Query(NamedTuple):
    """`where`: dashboard and title. `kind`: the panel's type, `variable` or `annotation`."""

    where: str
    kind: str
    sql: str
    points: int
    shortest: str
    span: str = ""
    """So long before the end of the range; empty: all of the range."""


@dataclass(frozen=True)
class Range:
    start: datetime
    end: datetime


def queries(name: str, dashboard: Mapping[str, Any]) -> Iterator[Query]:
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            where = f"{name}: {panel['title']}"
            points, span = panel["maxDataPoints"], panel.get("timeFrom", "")
            yield Query(where, panel["type"], target["rawSql"], points, panel["interval"], span)
    for variable in dashboard["templating"]["list"]:
        yield Query(f"{name}: ${variable['name']}", "variable", variable["query"], 100, "1s")
    for annotation in dashboard["annotations"]["list"]:
        if annotation["target"].get("type") == "tags":  # Grafana asks itself
            continue
        yield Query(f"{name}: {annotation['name']}", "annotation", annotation["target"]["rawSql"], 100, "1s")


def milliseconds(duration: str) -> int:
    number, unit = re.fullmatch(r"(\d+)(ms|s|m|h|d)", duration).groups()  # type: ignore[union-attr]
    return int(number) * UNITS[unit]


def since(dashboard: Mapping[str, Any]) -> timedelta:
    """How long the range is at first."""
    return timedelta(milliseconds=milliseconds(dashboard["time"]["from"].removeprefix("now-")))


def distance(shown: Range, points: int, shortest: str) -> int:
    """Of two points, in milliseconds."""
    exact = (shown.end - shown.start) / timedelta(milliseconds=1) / points
    return max(milliseconds(shortest), next((to for below, to in ROUNDED if exact < below), 86_400_000))


def expanded(query: Query, shown: Range, variables: Mapping[str, str | Sequence[str]]) -> str:
    """SQL as PostgreSQL gets it. Raises ValueError for what would be left of macros and variables."""
    step = distance(shown, query.points, query.shortest)
    start, end = (f"'{moment.isoformat()}'" for moment in (shown.start, shown.end))
    sql = query.sql
    for name, value in variables.items():
        text = value.replace("'", "''") if isinstance(value, str) else ", ".join(f"'{v}'" for v in value)
        sql = sql.replace(f"${name}", text)
    sql = sql.replace("$__interval_ms", str(step)).replace("$__interval", f"{step}ms")
    bucket = f"time_bucket('{step / 1000}s', " + r'\1) AS "time"'
    sql = re.sub(r"\$__timeGroupAlias\((\w+), \w+(?:, (?:NULL|0))?\)", bucket, sql)
    sql = re.sub(r"\$__timeFilter\((\w+)\)", rf"\1 BETWEEN {start} AND {end}", sql)
    sql = sql.replace("$__timeFrom()", start).replace("$__timeTo()", end)
    if "$" in sql:
        raise ValueError(f"{query.where}: not a macro or variable: {sql[sql.index('$') :][:40]!r}")
    return sql


MOST_MILLISECONDS = 200
"""That a query may take."""


class Answer(NamedTuple):
    """Times are in milliseconds, each the least of three: of the server's own CPU, and from the question until all rows
    are here. Of what took longer than it may the latter is the least of up to twenty, as others have the processors
    too; the former tells the two cases apart."""

    query: Query
    columns: list[str]
    rows: list[tuple[Any, ...]]
    cpu_milliseconds: float
    milliseconds: float


def answer(connection: Connection, query: Query, shown: Range, variables: Mapping[str, str | Sequence[str]]) -> Answer:
    sql = expanded(query, shown, variables)
    pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
    connection.exec_driver_sql("SET max_parallel_workers_per_gather = 0")  # whose CPU would be that of others
    spent, elapsed = list[float](), list[float]()
    while len(spent) < 3 or (min(elapsed) > MOST_MILLISECONDS and len(spent) < 20):
        before, began = _cpu_milliseconds(pid), time.perf_counter()
        result = connection.exec_driver_sql(sql, execution_options={"no_parameters": True})  # a % is a %
        columns, rows = list(result.keys()), [tuple(row) for row in result]
        elapsed.append((time.perf_counter() - began) * 1e3)
        spent.append(_cpu_milliseconds(pid) - before)
    return Answer(query, columns, rows, min(spent), min(elapsed))


def _cpu_milliseconds(pid: int) -> float:
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e6


def answers(connection: Connection, name: str, dashboard: Mapping[str, Any], end: datetime) -> Iterator[Answer]:
    """Of every query, over the range that the dashboard shows at first, with all sites and the first device."""
    shown, variables = Range(end - since(dashboard), end), dict[str, str | Sequence[str]]()
    asked = list(queries(name, dashboard))
    for query in asked:
        if query.kind == "variable":
            found = answer(connection, query, shown, variables)
            yield found
            values = [row[0] for row in found.rows]
            assert values, query.where
            variables[query.where.rpartition("$")[2]] = values if query.where.endswith("$site") else values[0]
    for query in asked:
        if query.kind != "variable":
            own = Range(end - timedelta(milliseconds=milliseconds(query.span)), end) if query.span else shown
            yield answer(connection, query, own, variables)


def too_slow(answers: Iterable[Answer]) -> dict[str, tuple[float, float]]:
    """Milliseconds of the server's CPU, and elapsed, of what took longer than it may."""
    took = {found.query.where: (found.cpu_milliseconds, found.milliseconds) for found in answers}
    return {where: times for where, times in took.items() if max(times) > MOST_MILLISECONDS}


def missing_columns(dashboard: Mapping[str, Any], answers: Iterable[Answer]) -> list[str]:
    """Columns that overrides and options name and no answer has."""
    columns = {found.query.where.partition(": ")[2]: found.columns for found in answers}
    wrong = []
    for panel in dashboard["panels"]:
        if panel["type"] != "row":
            named = [o["matcher"]["options"] for o in panel["fieldConfig"]["overrides"]]
            named += [panel["options"]["xField"]] if "xField" in panel["options"] else []
            named += [p["value"] for o in panel["fieldConfig"]["overrides"] for p in o["properties"]
                      if p["id"] == "custom.fillBelowTo"]  # fmt: skip
            wrong += [f"{panel['title']}: {n}" for n in named if n not in columns[panel["title"]]]
    return wrong
