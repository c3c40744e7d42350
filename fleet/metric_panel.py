"""A metric over time: which query, which unit, and where its contract and its rules set limits."""

import math
from collections.abc import Sequence
from typing import Any

from fleet import metric_sql as sql
from fleet.channels import OWN_TYPE
from fleet.duration import format_duration
from fleet.limit import Interval, Limit, limits_of
from fleet.panel import CHOSEN, FLEET, OUTSIDE, SEVERITY_COLOURS, UNCOLOURED, Json, Panel, override, steps, timeseries
from fleet.spec import SILENT_CADENCES, DeviceType, Metric
from fleet.units import UNITS

WORST_FIRST = (OUTSIDE, *SEVERITY_COLOURS.values())
CHOSEN_DEVICE = override("device", displayName="$device", color={"mode": "fixed", "fixedColor": CHOSEN})


def metric_panel(spec: DeviceType, name: str) -> Panel:
    metric = spec.metrics[name]
    unit, title = UNITS[metric.unit].grafana, title_of(spec, name)
    common: dict[str, Any] = {
        "interval": interval_of(spec),
        "unit": unit,
        "custom__spanNulls": gap_milliseconds(spec),
    }
    places = {"type": spec.type, "metric": name}
    if metric.kind == "counter":
        query = sql.OF_DEVICE.format(**places, **sql.LAST) + sql.GROWTH
        said = "What was added since the point before, by all devices and by $device; nothing where one was not heard."
        common |= {"min": 0, "custom__drawStyle": "bars"}
        return timeseries(f"{title}, added", said, query, overrides=FLEET_AND_CHOSEN, **common)
    if unit == "bool":
        query = sql.OF_DEVICE.format(**places, **sql.MEAN) + sql.SHARE
        said = "How much of the time it was on, of all devices that measure it and of $device."
        common |= {"unit": "percentunit", "min": 0, "max": 1}
        return timeseries(f"{title}: share of the time", said, query, overrides=FLEET_AND_CHOSEN, **common)
    limits = [limit for rule in spec.alerts for limit in limits_of(rule, name, is_whole=metric.unit == "count")]
    told = limits_text(spec, name, limits)
    common |= {"thresholds": thresholds(limits, metric), "custom__thresholdsStyle": {"mode": "line+area"}}
    common |= {f"custom__{key}": value for key, value in axis(limits, metric).items()}
    if spec.type == OWN_TYPE:
        query = sql.OF_DEVICE.format(**places, **sql.MOST) + sql.EACH
        return timeseries(title, f"The highest of each point, a line for each service. {told}", query, **common)
    query = sql.OF_DEVICE.format(**places, **sql.MEAN) + sql.BAND
    said = f"The median of all devices, the band in which eight of ten are (p10 to p90), and $device by itself. {told}"
    return timeseries(title, said, query, overrides=BAND, **common)


def title_of(spec: DeviceType, name: str) -> str:
    return spec.metrics[name].title or name.replace("_", " ").capitalize()


def _colour(name: str) -> Json:
    return {"mode": "fixed", "fixedColor": name}


FLEET_AND_CHOSEN = (override("all devices", color=_colour(FLEET)), CHOSEN_DEVICE)
_EDGE: dict[str, Any] = {"color": _colour(FLEET), "custom__lineWidth": 0, "custom__showPoints": "never",
                         "custom__hideFrom": {"legend": True, "tooltip": False, "viz": False}}  # fmt: skip
BAND = (
    override("p10", **_EDGE),
    override("p90", **_EDGE, custom__fillBelowTo="p10", custom__fillOpacity=20),
    override("median", color=_colour(FLEET)),
    CHOSEN_DEVICE,
)


def interval_of(spec: DeviceType) -> str:
    """The shortest distance of two points that makes sense."""
    return "10s" if spec.cadence == "event" else format_duration(spec.cadence)


def gap_milliseconds(spec: DeviceType) -> int | bool:
    """Up to this silence a line goes on; over any for devices that report only changes."""
    if spec.cadence == "event":
        return True
    return round(spec.cadence.total_seconds() * 1000 * SILENT_CADENCES)


def thresholds(limits: Sequence[Limit], metric: Metric) -> Json:
    """Each stretch of the axis in the colour of the worst that it means."""
    coloured = [(SEVERITY_COLOURS[limit.severity], limit.interval) for limit in limits]
    if metric.range:
        coloured += [(OUTSIDE, Interval(high=metric.range.low)), (OUTSIDE, Interval(low=metric.range.high))]
    edges = sorted({edge for _, i in coloured for edge in (i.low, i.high) if math.isfinite(edge)})

    def colour(at: float) -> str:
        here = {name for name, i in coloured if i.low <= at < i.high}
        return next((name for name in WORST_FIRST if name in here), UNCOLOURED)

    found = [(edge, colour(edge)) for edge in edges]
    first = colour(edges[0] - 1) if edges else UNCOLOURED
    changes = [(e, c) for (e, c), (_, before) in zip(found, [(0.0, first), *found], strict=False) if c != before]
    return steps(first, *changes)


def axis(limits: Sequence[Limit], metric: Metric) -> Json:
    """The axis begins at 0 where the metric does, and shows the rules' limits. Of a metric without a range (a queue, a
    rate) a limit may be far beyond anything that happens: there the axis follows the data."""
    if metric.range is None:
        return {"axisSoftMin": 0}
    edges = [e for limit in limits for e in (limit.interval.low, limit.interval.high) if math.isfinite(e)]
    found: Json = {}
    if edges:
        found = {"axisSoftMin": min(edges), "axisSoftMax": max(edges) + 0.1 * abs(max(edges))}
    return {**found, "axisSoftMin": 0} if metric.range.low == 0 else found


def limits_text(spec: DeviceType, name: str, limits: Sequence[Limit]) -> str:
    """What the colours mean, in words."""
    metric, symbol = spec.metrics[name], UNITS[spec.metrics[name].unit].symbol
    conditions = dict.fromkeys((limit.severity, limit.when) for limit in limits)
    told = [f"{SEVERITY_COLOURS[severity]}, {severity}: {when}" for severity, when in conditions]
    if metric.range:
        bounds = f"{metric.range.low:g} to {metric.range.high:g} {symbol}".rstrip()
        told.append(f"{OUTSIDE}: not what the sensor can say ({bounds})")
    return f"Limits: {'; '.join(told)}." if told else ""
