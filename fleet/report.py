"""The figures of a report: what the warehouse has of one system in a span of time. Plain data; etl.report_figures reads
it, fleet.findings makes sentences of it, etl.report_page draws it."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from fleet.consumption import Hog

Series = list[tuple[datetime, float]]
"""Beginning of a step → its value, in the order of time; a step of which there is nothing is not there."""


@dataclass(frozen=True)
class Device:
    type: str
    device_id: str
    site: str


@dataclass(frozen=True)
class Coverage:
    """Of a type. `heard`: how often its devices were, which is less than `readings` where each metric is one by itself;
    `expected`: how often they should have been by their cadence, up to what is loaded; None: they report only changes.
    """

    type: str
    devices: int
    readings: int
    heard: int
    expected: int | None


@dataclass(frozen=True)
class AlertKind:
    """Alerts of a rule that fired in the span; `open` of them had not resolved at its end."""

    type: str
    rule: str
    severity: str
    fired: int
    open: int
    median_seconds: float | None


@dataclass(frozen=True)
class Worst:
    device: Device
    alerts: int
    rules: tuple[str, ...]


@dataclass(frozen=True)
class Latency:
    """`quantiles`: seconds at 0, 1, … 100 % of `count` cases. Beside them `past` cases were of events that were PAST
    when they were detected: how long ago they happened says nothing of how fast anything is."""

    count: int = 0
    quantiles: tuple[float, ...] = ()
    past: int = 0

    def at(self, percent: int) -> float:
        return self.quantiles[percent]


@dataclass(frozen=True)
class Energy:
    """`watt_hours`: of all homes, each counted once (fleet.consumption). `hogs`: the most energy first."""

    watt_hours: float
    costs: dict[str, float]
    """Of these, by currency."""
    hogs: list[Hog]
    unattributed: dict[str, tuple[int, float]]
    """Of what counts for a home, reason → (how often, watt hours); 0 where it is implausible, as it is not known."""
    by_step: dict[str, Series]
    """The appliances that used most, and `others`, in watt hours."""


@dataclass(frozen=True)
class Books:
    """Of the partitions that overlap the span. `off_by`: rows and values that the ledger's equations miss."""

    partitions: int = 0
    failed: int = 0
    landed: int = 0
    valid: int = 0
    quarantined: int = 0
    duplicate: int = 0
    off_by: int = 0


@dataclass(frozen=True)
class Validation:
    pieces: int = 0
    passed: int = 0
    rows: int = 0
    expectations: int = 0
    unmet: dict[str, int] = field(default_factory=dict)
    """`type.column expectation` → values."""


@dataclass(frozen=True)
class Parity:
    audits: int = 0
    same: int = 0
    explained: int = 0
    unexplained: int = 0

    @property
    def percent(self) -> float:
        all_ = self.same + self.explained + self.unexplained
        return 100 * self.same / all_ if all_ else 100.0


@dataclass(frozen=True)
class Figures:
    system: str
    start: datetime
    end: datetime
    step: timedelta
    coverage: list[Coverage] = field(default_factory=list)
    silent: list[tuple[Device, datetime | None]] = field(default_factory=list)
    """Devices that said nothing in the last hours of the span (SILENT), or of whose silence an alert had not resolved
    at its end; and the last minute in which they did; None: not in the span."""
    values: dict[str, Series] = field(default_factory=dict)
    """Type → values in the rollups."""
    alerts: list[AlertKind] = field(default_factory=list)
    alerts_by_step: dict[str, Series] = field(default_factory=dict)
    """Severity → alerts that fired."""
    worst: list[Worst] = field(default_factory=list)
    anomalies: dict[str, int] = field(default_factory=dict)
    """By kind."""
    oddest: list[tuple[Device, str, int]] = field(default_factory=list)
    """Device, metric and its anomalies, the most first."""
    events: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Security event → how often, and how often nobody was at home."""
    commands: dict[str, int] = field(default_factory=dict)
    """State → commands."""
    energy: Energy | None = None
    """None: no device of the system counts energy, or nothing was counted."""
    detection: Latency = Latency()
    """From an event to the alert's transition."""
    notification: Latency = Latency()
    """From an event to the message that somebody got of it."""
    books: Books = Books()
    bad_values: dict[str, int] = field(default_factory=dict)
    """Reason → values that are quarantined."""
    rejected: dict[str, int] = field(default_factory=dict)
    """Reason → messages that are no readings."""
    shares: dict[str, Series] = field(default_factory=dict)
    """What was not loaded → how much of it, in percent of such values or messages."""
    validation: Validation = Validation()
    validated: dict[str, Series] = field(default_factory=dict)
    """`passed`, `failed` → validations."""
    parity: Parity = Parity()

    @property
    def fired(self) -> int:
        return sum(kind.fired for kind in self.alerts)

    @property
    def readings(self) -> int:
        return sum(one.readings for one in self.coverage)

    @property
    def devices(self) -> int:
        return sum(one.devices for one in self.coverage)


SILENT = timedelta(hours=2)
"""Rollups come with the batch: a silence shorter than that is told from none by the rules alone."""
PAST = timedelta(minutes=10)
"""An event that came so late is of a backfill, a replay, a simulation faster than time, or of an outage."""
STEPS = [(timedelta(days=8), timedelta(hours=1)), (timedelta(days=70), timedelta(days=1))]
"""Up to which span a plot has which step; beyond, weeks."""


def step_of(span: timedelta) -> timedelta:
    return next((step for up_to, step in STEPS if span <= up_to), timedelta(days=7))
