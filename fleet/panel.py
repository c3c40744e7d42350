"""What Grafana draws, as JSON: panels and their layout, and each rule of colour once.

Everything here is read by Grafana 9.4 and by those of today: the classic dashboard of schema 37, which later versions
migrate by themselves, and only panels that come with Grafana. docs/decisions/0026 has the reasons.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Json = dict[str, Any]

WAREHOUSE = {"type": "postgres", "uid": "weir-warehouse"}
ALERTMANAGER = {"type": "alertmanager", "uid": "weir-alertmanager"}
GRAFANA = {"type": "grafana", "uid": "-- Grafana --"}
"""What Grafana has stored itself: annotations. Nobody provisions it."""
SCHEMA_VERSION = 37
TAG = "weir"
"""Of every dashboard: the links at the top of each are to all that have it."""

SEVERITY_COLOURS = {"critical": "red", "warning": "orange", "info": "blue"}
GOOD, BAD, UNCOLOURED = "green", "red", "transparent"
OUTSIDE = "purple"
"""What the contract says no sensor can measure."""
FLEET, CHOSEN = "blue", "yellow"
"""Lines: of all devices together, and of the chosen one."""

COLUMNS = 24
PER_ROW = 3
POINTS = 200
"""A line has at most so many. An hour then has a point every 20 s, a week one an hour: see fleet.metric_sql."""


@dataclass(frozen=True)
class Panel:
    kind: Literal["timeseries", "stat", "table", "barchart"]
    title: str
    description: str
    sql: str
    defaults: Json = field(default_factory=dict)
    overrides: tuple[Json, ...] = ()
    options: Json = field(default_factory=dict)
    interval: str = "1s"
    """The shortest distance of two points."""
    height: int = 8
    span: str = ""
    """So long before the end of the range it shows, such as `1h`; empty: all of the range."""


@dataclass(frozen=True)
class Section:
    """A row's title and what stands below it, at most `per_row` side by side."""

    title: str
    panels: Sequence[Panel]
    per_row: int = PER_ROW


def steps(first: str, *others: tuple[float, str]) -> Json:
    """Thresholds: `first` up to the first value, then each colour from its value on."""
    return {
        "mode": "absolute",
        "steps": [{"color": first, "value": None}, *({"color": colour, "value": value} for value, colour in others)],
    }


BAD_ABOVE_ZERO = steps(GOOD, (1, BAD))


def override(column: str, **properties: Any) -> Json:
    """Of one column; `__` in a property's name stands for a dot."""
    listed = [{"id": name.replace("__", "."), "value": value} for name, value in properties.items()]
    return {"matcher": {"id": "byName", "options": column}, "properties": listed}


def coloured_texts(colours: dict[str, str]) -> list[Json]:
    """A mapping of values to colours, each shown as it is."""
    return [
        {"type": "value", "options": {text: {"color": c, "index": i}}} for i, (text, c) in enumerate(colours.items())
    ]


def shown_as(value: str, text: str) -> list[Json]:
    return [{"type": "value", "options": {value: {"text": text, "index": 0}}}]


SEVERITY_COLUMN = override(
    "severity", mappings=coloured_texts(SEVERITY_COLOURS), custom__displayMode="color-background", custom__width=90
)


def timeseries(title: str, description: str, sql: str, *, overrides: Iterable[Json] = (), interval: str = "1s",
               height: int = 8, span: str = "", **defaults: Any) -> Panel:  # fmt: skip
    """`custom__lineWidth=2` is the default's `custom.lineWidth`."""
    custom = {"lineWidth": 2, "fillOpacity": 0, "showPoints": "auto", "spanNulls": False}
    own = {k.removeprefix("custom__"): v for k, v in defaults.items() if k.startswith("custom__")}
    plain = {k: v for k, v in defaults.items() if not k.startswith("custom__")}
    options = {
        "legend": {"showLegend": True, "displayMode": "list", "placement": "bottom", "calcs": []},
        "tooltip": {"mode": "multi", "sort": "none"},
    }
    return Panel("timeseries", title, description, sql, {**plain, "custom": {**custom, **own}}, tuple(overrides),
                 options, interval, height, span)  # fmt: skip


def bars_over_time(title: str, description: str, sql: str, *, interval: str, span: str = "",
                   overrides: Iterable[Json] = ()) -> Panel:  # fmt: skip
    """Counts by kind, stacked."""
    return timeseries(
        title, description, sql, interval=interval, span=span, unit="short", min=0, decimals=0,
        noValue="none in this range", overrides=overrides,
        custom__drawStyle="bars", custom__fillOpacity=80, custom__lineWidth=0,
        custom__stacking={"mode": "normal", "group": "A"},
    )  # fmt: skip


def stat(title: str, description: str, sql: str, *, overrides: Iterable[Json] = (), **defaults: Any) -> Panel:
    """One number a column of the only row."""
    options = {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "colorMode": "value", "graphMode": "none", "textMode": "value_and_name", "orientation": "auto",
        "justifyMode": "auto",
    }  # fmt: skip
    return Panel("stat", title, description, sql, {"thresholds": steps("text"), "unit": "short", **defaults},
                 tuple(overrides), options, height=4)  # fmt: skip


def table(title: str, description: str, sql: str, *, overrides: Iterable[Json] = (), height: int = 8,
          nothing: str = "") -> Panel:  # fmt: skip
    """`nothing`: what stands there when there is no row, and in a cell without a value, unless overridden."""
    defaults: Json = {"custom": {"align": "auto", "filterable": False}, **({"noValue": nothing} if nothing else {})}
    return Panel("table", title, description, sql, defaults, tuple(overrides), {"showHeader": True}, height=height)


def bars(title: str, description: str, sql: str, *, names: str) -> Panel:
    """A horizontal bar a row; `names` is the column that says of what."""
    defaults = {"color": {"mode": "fixed", "fixedColor": FLEET}, "min": 0, "decimals": 0, "unit": "short",
                "custom": {"fillOpacity": 80, "lineWidth": 0}}  # fmt: skip
    options = {
        "orientation": "horizontal", "xField": names, "showValue": "auto", "stacking": "none", "barWidth": 0.8,
        "groupWidth": 0.7, "legend": {"showLegend": False, "displayMode": "list", "placement": "bottom", "calcs": []},
        "tooltip": {"mode": "single", "sort": "none"},
    }  # fmt: skip
    return Panel("barchart", title, description, sql, defaults, (), options)


def target(sql: str, of_series: bool) -> Json:
    return {
        "refId": "A", "datasource": WAREHOUSE, "rawSql": sql, "format": "time_series" if of_series else "table",
        "rawQuery": True, "editorMode": "code",
    }  # fmt: skip


def _panel(panel: Panel) -> Json:
    return {
        "type": panel.kind, "title": panel.title, "description": panel.description, "datasource": WAREHOUSE,
        "targets": [target(panel.sql, panel.kind == "timeseries")], "interval": panel.interval, "maxDataPoints": POINTS,
        "fieldConfig": {"defaults": panel.defaults, "overrides": list(panel.overrides)}, "options": panel.options,
        **({"timeFrom": panel.span} if panel.span else {}),
    }  # fmt: skip


def placed(sections: Iterable[Section]) -> list[Json]:
    """Panels with their ids and places: rows as even as can be, each panel of a row as wide as the others."""
    found: list[Json] = []
    y = 0
    for section in sections:
        place = {"h": 1, "w": COLUMNS, "x": 0, "y": y}
        found.append({"type": "row", "title": section.title, "collapsed": False, "panels": [], "gridPos": place})
        y += 1
        for line in _lines(section.panels, section.per_row):
            width, height = COLUMNS // len(line), max(panel.height for panel in line)
            for column, panel in enumerate(line):
                place = {"h": height, "w": width, "x": column * width, "y": y}
                found.append({**_panel(panel), "gridPos": place})
            y += height
    return [{"id": number, **panel} for number, panel in enumerate(found, start=1)]


def _lines(panels: Sequence[Panel], per_row: int) -> Iterator[Sequence[Panel]]:
    lines, start = -(-len(panels) // per_row), 0
    for line in range(lines):
        end = start + -(-(len(panels) - start) // (lines - line))
        yield panels[start:end]
        start = end
