"""What Grafana does with a dashboard before PostgreSQL sees it: macros, variables, the distance of two points."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

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


@dataclass(frozen=True)
class Range:
    start: datetime
    end: datetime


def queries(name: str, dashboard: Mapping[str, Any]) -> Iterator[Query]:
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            where = f"{name}: {panel['title']}"
            yield Query(where, panel["type"], target["rawSql"], panel["maxDataPoints"], panel["interval"])
    for variable in dashboard["templating"]["list"]:
        yield Query(f"{name}: ${variable['name']}", "variable", variable["query"], 100, "1s")
    for annotation in dashboard["annotations"]["list"]:
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
    sql = re.sub(
        r"\$__timeGroupAlias\((\w+), (\w+)(, (NULL|0))?\)", rf"time_bucket('{step / 1000}s',\1) AS " + '"time"', sql
    )
    sql = re.sub(r"\$__timeFilter\((\w+)\)", rf"\1 BETWEEN {start} AND {end}", sql)
    sql = sql.replace("$__timeFrom()", start).replace("$__timeTo()", end)
    if "$" in sql:
        raise ValueError(f"{query.where}: not a macro or variable: {sql[sql.index('$') :][:40]!r}")
    return sql
