"""The data-model page: every device type, what it measures, what happens to it. Made from the specs, never by hand."""

from collections.abc import Iterator

from fleet.anomaly import KINDS
from fleet.catalog import Catalog
from fleet.channels import routes_of
from fleet.command import Command
from fleet.contract import REASONS
from fleet.duration import format_duration
from fleet.lake_layout import JSON_COLUMNS, REJECTED_COLUMNS, TRANSITION_COLUMNS, columns
from fleet.rule import Rule
from fleet.spec import DeviceType, Metric
from fleet.units import UNITS

OUTSIDE = {
    "warn": "kept and flagged",
    "quarantine": "the value is quarantined, the reading's others live",
    "fail": "nothing of its partition is loaded, the run fails",
}
COLUMN_TYPES = {"timestamp_us": "timestamp, µs, UTC", "timestamp_ms": "timestamp, ms, UTC", "strings": "list of string"}


def page(catalog: Catalog) -> str:
    """Markdown. The same specs always give the same text."""
    return "\n".join(_lines(catalog)) + "\n"


def _lines(catalog: Catalog) -> Iterator[str]:
    yield "# Data model"
    yield ""
    yield "Written by `make generate` from `fleet/types/*.yaml`; changes belong there."
    yield ""
    for system in catalog.systems.values():
        names = ", ".join(f"[{t.type}](#{t.type})" for t in system.types)
        yield f"- **{system.name}**: {names}; Kafka topic `{system.topic}`, {system.partitions} partitions"
    for spec in catalog:
        yield from _type(spec)
    yield from _anomalies()
    yield from _alerts()
    yield from _reasons()


def _type(spec: DeviceType) -> Iterator[str]:
    cadence = "whenever something changes" if spec.cadence == "event" else f"every {_duration(spec.cadence)}"
    yield from ("", f"## {spec.type}", "")
    if spec.description:
        yield from (spec.description.strip(), "")
    yield f"System {spec.system}, version {spec.version}. A reading {cadence}; Kafka partitions by {spec.partition_by}."
    yield "Devices register themselves." if spec.self_registration else "Devices are registered by an operator."
    yield ""
    yield from _table(
        ("metric", "", "unit", "kind", "range", "outside it", "also an anomaly"),
        [_metric(n, m) for n, m in spec.metrics.items()],
    )
    subscriptions = [f"`{route.subscription}`" for route in routes_of(spec)]
    topics = [f"`{spec.topic}`", *(f"`{spec.system}.{m}`" for m in spec.adapter.feature_topics)]
    yield ""
    yield f"- MQTT: {', '.join(subscriptions)}"
    yield f"- Kafka: {', '.join(topics)}"
    kept = f"kept for {_duration(spec.retention.lake)}" if spec.retention.lake else "kept for good"
    yield f"- Lake: one folder a {spec.folder_grain}, {kept}; columns {', '.join(_columns(spec))}"
    yield (
        f"- Warehouse: raw readings for {_duration(spec.retention.readings)},"
        f" rollups for {_duration(spec.retention.rollups)}"
    )
    yield f"- Suite: `expectations/{spec.type}.json`"
    if spec.commands:
        yield ""
        rows = [_command(name, command) for name, command in spec.commands.items()]
        yield from _table(("command", "", "arguments", "sets", "expires after"), rows)
    if spec.alerts:
        yield ""
        yield from _table(("rule", "severity", "fires when", "for"), [_rule(rule) for rule in spec.alerts])


def _metric(name: str, metric: Metric) -> tuple[str, ...]:
    bounds = f"{metric.range.low:g} to {metric.range.high:g}" if metric.range else "any"
    symbol = UNITS[metric.unit].symbol or metric.unit
    outside = OUTSIDE[metric.outside] if metric.range else ""
    return (f"`{name}`", metric.title, symbol, metric.kind, bounds, outside, "; ".join(_limits(metric)))


def _limits(metric: Metric) -> Iterator[str]:
    if metric.max_change:
        yield f"a change of more than {metric.max_change.by:g} in {_duration(metric.max_change.within)}"
    if metric.stuck_after:
        yield f"the same for longer than {_duration(metric.stuck_after)}"
    if metric.history:
        yield f"unlike the {_duration(metric.history)} before"


def _rule(rule: Rule) -> tuple[str, ...]:
    """A rule has one of when, levels, no_data."""
    if rule.levels:
        severity = ", ".join(rule.levels)
        condition = "; ".join(f"{name}: `{level.when}`" for name, level in rule.levels.items())
    elif rule.no_data is not None:
        severity, condition = rule.severity or "warning", f"no reading for {_duration(rule.no_data)}"
    else:
        severity, condition = rule.severity or "warning", f"`{rule.when}`"
    held = "" if rule.levels else _duration(rule.for_)
    return (f"`{rule.id}`", severity, condition, held)


def _command(name: str, command: Command) -> tuple[str, ...]:
    args = [
        f"`{arg}` {argument.range or 'any'} {UNITS[argument.unit].symbol or argument.unit}"
        for arg, argument in command.args.items()
    ]
    sets = [f"`{m}` = {v if isinstance(v, str) else f'{v:g}'}" for m, v in command.sets.items()]
    return (f"`{name}`", command.title, ", ".join(args), ", ".join(sets), _duration(command.expires))


def _columns(spec: DeviceType) -> Iterator[str]:
    for name, kind in columns(spec).items():
        yield f"`{name}` {COLUMN_TYPES.get(kind, kind)}"


def _anomalies() -> Iterator[str]:
    yield from ("", "## Anomalies", "")
    yield "The batch flags values in `anomalies`, with the limits that they broke; flagged values count in rollups,"
    yield "quarantined ones do not. Each device and metric is looked at by itself, within one folder of the lake:"
    yield "what happens across its borders is not seen, but that `unseen` looks at days before."
    yield ""
    kinds: list[tuple[str, ...]] = [(f"`{kind}`", text) for kind, text in KINDS.items()]
    yield from _table(("kind", "what the value did, and its score"), kinds)


def _alerts() -> Iterator[str]:
    yield from ("", "## Alerts", "")
    yield "Transitions go to `alerts.transitions`, from there to the table `alert_transitions` and to the lake's"
    yield "`alerts/system=…/date=…`, the day being that of `event_time`."
    shown = (f"`{name}` {COLUMN_TYPES.get(kind, kind)}" for name, kind in TRANSITION_COLUMNS.items())
    yield f"Columns: {', '.join(shown)}; {', '.join(f'`{name}`' for name in JSON_COLUMNS)} are JSON."


def _reasons() -> Iterator[str]:
    yield from ("", "## Dead letters", "")
    yield "What is no reading goes to `readings.rejected`, from there to the lake's `rejected/` and to `quarantine`."
    yield f"Columns: {', '.join(f'`{n}`' for n in REJECTED_COLUMNS)}."
    yield ""
    yield from _table(("reason", "what it means"), [(f"`{code}`", text) for code, text in REASONS.items()])
    yield ""
    yield "In `quarantine` also: `out_of_range`, a value beyond its metric's range; `all_values_quarantined`, a reading"
    yield "of which every known value was."


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> Iterator[str]:
    for row in (head, ("---",) * len(head), *rows):
        yield f"| {' | '.join(cell.replace('|', '&#124;') for cell in row)} |"


def _duration(value) -> str:  # type: ignore[no-untyped-def]
    return format_duration(value)
