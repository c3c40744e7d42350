"""The sections of a dashboard beside the metrics: what is wrong now, alerts, the quality of the data, the books, the
chosen device. Weir's own dashboard has the data and the books of all systems."""

from collections.abc import Iterable

from fleet import panel
from fleet import panel_sql as sql
from fleet.catalog import System
from fleet.channels import OWN_TYPE
from fleet.metric_panel import title_of
from fleet.model import Model
from fleet.panel import BAD_ABOVE_ZERO, CHOSEN, FLEET, GOOD, SEVERITY_COLOURS, Json, Panel, Section, override, steps
from fleet.spec import DeviceType
from fleet.units import UNITS

COUNTED_BY = "1m"
LATE_SPAN = "1h"
FOLDERS = {"hour": "INTERVAL '1 hour'", "day": "INTERVAL '1 day'", "month": "INTERVAL '31 days'"}
"""How long before the range a partition may begin that reaches into it."""
ESTIMATES_APART = 3 * 60_000
"""Milliseconds: over a longer silence the line does not go on."""
WARNING = steps(GOOD, (1, SEVERITY_COLOURS["warning"]))
SECONDS = {"unit": "s", "decimals": 0}
STATUSES = panel.coloured_texts({"loaded": GOOD, "succeeded": GOOD, "running": "blue", "failed": panel.BAD})
STATUS = override("status", custom__displayMode="color-text", mappings=STATUSES)
BOOKS: Json = {"mappings": panel.shown_as("0", "balance"), "thresholds": BAD_ABOVE_ZERO}


def is_own(system: System) -> bool:
    return any(spec.type == OWN_TYPE for spec in system.types)


def metric_rows(types: Iterable[DeviceType]) -> str:
    """(type, metric, after what silence its devices are silent), for sql.HEARD."""
    rows = []
    for spec in types:
        after = spec.silent_after
        silence = "NULL::interval" if after is None else f"INTERVAL '{after.total_seconds():g} seconds'"
        rows += [(sql.literal(spec.type), sql.literal(name), silence) for name in spec.metrics]
    return sql.values(rows)


def lateness_rows(types: Iterable[DeviceType]) -> str:
    """(type, its first metric, its lateness), for sql.LATE."""
    return sql.values(
        [
            sql.literal(spec.type),
            sql.literal(next(iter(spec.metrics))),
            f"INTERVAL '{spec.lateness.total_seconds():g} seconds'",
        ]
        for spec in types
    )


def area_now(system: System, types: str) -> Section:
    """Of some types of a system alone: `types` is as of sql.of_types."""
    return Section("Now", [active_counts(system, types), heard(system)], per_row=2)


def active_counts(system: System, only: str = "") -> Panel:
    return panel.stat(
        "Active alerts, by severity",
        "Alerts that have not resolved, of those that began by the end of the range, by severity.",
        sql.ACTIVE_COUNTS.format(system=system.name, only=only),
        overrides=severity_numbers(),
    )


def heard(system: System) -> Panel:
    return panel.stat(
        "Devices",
        "Devices of the registry, how many are silent (three readings did not come), and how many values a"
        " minute came in the last five minutes of the range.",
        sql.HEARD.format(metrics=metric_rows(system.types)) + sql.DEVICES,
        overrides=[override("silent", thresholds=WARNING), override("values a minute", decimals=0)],
    )


def now(system: System) -> Section:
    scope = ", all systems" if is_own(system) else ""
    return Section(
        "Now",
        [
            active_counts(system),
            heard(system),
            panel.stat(
                f"Bad data in this range{scope}",
                "Values out of their range, readings of which nothing was left, and messages that are no readings. All"
                " of it is kept, in the table quarantine.",
                sql.BAD_DATA.format(**_of_system(system)),
            ),
            panel.stat(
                f"Books{scope}",
                "Whether each landed reading is valid, quarantined or a duplicate, and each value in the rollups. Else"
                " by how many they are off, partitions that failed among them.",
                sql.BALANCE.format(**_of_system(system)),
                **BOOKS,
            ),
        ],
        per_row=4,
    )


def alerts(system: System, only: str = "") -> Section:
    """`only`: of these types alone, which are the system's then, as of sql.of_types."""
    rules = [(sql.literal(spec.type), sql.literal(rule.id)) for spec in system.types for rule in spec.alerts]
    panels = [
        panel.table(
            "Alerts now",
            "Active alerts, the worst and newest first, at most a hundred.",
            sql.ACTIVE.format(system=system.name, only=only),
            overrides=[panel.SEVERITY_COLUMN],
            nothing="no active alerts",
        ),
        panel.bars_over_time(
            "Alerts fired, by kind",
            "How many alerts of each rule began at a time.",
            sql.FIRED.format(system=system.name, only=only),
            interval=COUNTED_BY,
        ),
    ]
    if rules:
        told = sql.FIRED_BY_RULE.format(system=system.name, rules=sql.values(rules))
        description = "How many alerts of each rule began in this range."
        panels.append(panel.bars("Number of alerts, by kind", description, told, names="alert"))
    return Section("Alerts", panels)


def model(of: Model) -> Section:
    """What it estimates beside the truth, and how well each of its kind does."""
    share = {"unit": "percentunit", "decimals": 1}
    return Section(
        f"Model: {of.title.lower()}",
        [
            panel.timeseries(
                f"{of.title}: estimate and truth",
                "What the model estimates of each minute, and what was counted, where somebody counted. Estimates come"
                " with the nightly run.",
                sql.ESTIMATES.format(model=of.name),
                interval="1m",
                min=0,
                decimals=0,
                noValue="no estimates in this range",
                overrides=[
                    override("truth", color={"mode": "fixed", "fixedColor": FLEET}),
                    override("estimate", color={"mode": "fixed", "fixedColor": CHOSEN}),
                ],
                custom__lineInterpolation="stepAfter",
                custom__spanNulls=ESTIMATES_APART,
            ),
            panel.table(
                f"{of.title}: models",
                "The champion and those before and beside it: how well each did on the minutes held out from its"
                " training, and on the minutes of this range that it was not trained on.",
                sql.MODELS.format(model=of.name),
                overrides=[
                    override("held out: accuracy", **share),
                    override("held out: F1", decimals=3),
                    override("since: accuracy", noValue="-", **share),
                    override("since: off by", noValue="-", decimals=3),
                ],
                nothing="no model was trained yet",
            ),
        ],
        per_row=1,
    )


def quality(system: System) -> Section:
    """Of Weir itself what is late has a panel already: its metric `late`, of all systems."""
    late = panel.bars_over_time(
        "Late readings",
        "Of the last hour of this range, at the time they were measured: readings that came after others of the same"
        " device which were measured later, by more than their type's lateness. Rules pass over them, and over those"
        " that are late beside other devices of the same partition; the rollups have them. Counted by the first metric"
        " of each type.",
        sql.LATE.format(metrics=lateness_rows(system.types), span=LATE_SPAN),
        interval=COUNTED_BY,
        span=LATE_SPAN,
    )
    return Section(
        "Quality of the data",
        [
            panel.bars_over_time(
                f"Quarantined and rejected, by reason{', all systems' if is_own(system) else ''}",
                "Values out of their range at the time they were measured, and messages that are no readings at the"
                " time they came in.",
                sql.BAD_DATA_BY_REASON.format(**_of_system(system)),
                interval=COUNTED_BY,
            ),
            *([] if is_own(system) else [late]),
            panel.bars_over_time(
                f"Anomalies, by kind{', all systems' if is_own(system) else ''}",
                "Values that the batch job flagged, at the time they were measured: docs/data-model.md says as what.",
                sql.ANOMALIES.format(**_of_system(system)),
                interval=COUNTED_BY,
            ),
            panel.table(
                "Silent devices",
                "Devices of the registry of which three readings or more did not come, the longest silent first."
                " Without a last reading: not heard in this range at all.",
                sql.HEARD.format(metrics=metric_rows(system.types)) + sql.SILENT,
                overrides=[
                    override("last reading", noValue="not in this range"),
                    override("silent for", noValue="all of it", **SECONDS),
                ],
                nothing="all devices report",
            ),
            panel.bars_over_time(
                f"Expectations not met{', all systems' if is_own(system) else ''}",
                "Values of each column that Great Expectations found other than the spec, or a suite written by hand,"
                " says, at the time they were validated; Airflow's task links the page on it.",
                sql.UNMET.format(**_of_system(system)),
                interval=COUNTED_BY,
            ),
        ],
    )


def books(system: System) -> Section:
    red = {"thresholds": BAD_ABOVE_ZERO, "custom__displayMode": "color-text"}
    panels = [
        panel.table(
            f"The ledger, by partition{', all systems' if is_own(system) else ''}",
            "What landed of each partition of the lake, and what became of it. Both differences are 0 in books that"
            " balance.",
            sql.BOOKS.format(**_of_system(system)),
            overrides=[STATUS, override("rows off by", **red), override("values off by", **red)],
        )
    ]
    if is_own(system):
        panels += [
            panel.table(
                "Kafka and the lake",
                "How far landing had come in each Kafka partition when the batch job last looked.",
                sql.LANDED,
                overrides=[override("missing", **red)],
            ),
            panel.table(
                "Runs of the batch job",
                "Each run of the batch job, and how many partitions it set out to process.",
                sql.RUNS,
                overrides=[STATUS, override("took", noValue="running", **SECONDS)],
            ),
            panel.table(
                "Parity of alerts, by audit",
                "Of each span of the last week that was audited, a day by night: which share of the published"
                " transitions the rules say once more of the landed log, and what differs. Unexplained is what nothing"
                " but a mistake explains. What a later audit looked at again counts there alone.",
                sql.PARITY,
                overrides=[override("parity", unit="percent", decimals=3), override("unexplained", **red)],
                nothing="no audit yet",
            ),
            panel.table(
                "Where alerts differ",
                "The differences of those audits, the unexplained and newest first, at most a hundred. weir rules"
                " parity says what each cause means.",
                sql.PARITY_DIFFERENCES,
                nothing="no differences",
            ),
        ]
    return Section("Books", panels)


def device(system: System) -> Section:
    titles = [
        [
            sql.literal(text)
            for text in (spec.type, name, title_of(spec, name), f" {UNITS[metric.unit].symbol}".rstrip())
        ]
        for spec in system.types
        for name, metric in spec.metrics.items()
    ]
    return Section(
        "Device $device",
        [
            panel.table(
                "Last values of $device",
                "The newest value of each metric in this range, and what the registry says of the device.",
                sql.DEVICE_VALUES.format(titles=sql.values(titles)),
            ),
            panel.table(
                "Alerts of $device",
                "Alerts of this device that were active in this range, the newest first.",
                sql.DEVICE_ALERTS.format(system=system.name),
                overrides=[
                    panel.SEVERITY_COLUMN,
                    override("resolved", noValue="active"),
                    override("lasted", **SECONDS),
                ],
                nothing="no alerts",
            ),
        ],
    )


def severity_numbers() -> list[Json]:
    return [override(s, thresholds=steps(GOOD, (1, colour))) for s, colour in SEVERITY_COLOURS.items()]


def _of_system(system: System) -> dict[str, str]:
    """Which rows of the quarantine and of the books."""
    if is_own(system):
        return {"of_system": "true", "folder": FOLDERS["month"]}
    longest = max((spec.folder_grain for spec in system.types), key=list(FOLDERS).index)
    return {"of_system": f"system = {sql.literal(system.name)}", "folder": FOLDERS[longest]}
