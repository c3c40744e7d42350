"""A device type, as written in `fleet/types/<type>.yaml`: the one place where anything about it is said.

From it come the contract at ingest, the lake's columns, the Great Expectations suite, the alert rules, the
simulator's profile and the retention. Loading with file and line in errors is `fleet.spec_file`.
"""

from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, model_validator

from fleet.anomaly import LEAST_DAYS
from fleet.area import Area
from fleet.command import Command, command_problems
from fleet.duration import Duration, Span, format_duration, parse_duration
from fleet.file_spec import FILE_WORDS, Files
from fleet.nearest import nearest
from fleet.quantity import Range, UnitName
from fleet.rule import (
    WORDS,
    Identifier,
    Number,
    Rule,
    Strict,
    check_expression,
    uses_metric,
    uses_site_functions,
)

Outside = Literal["warn", "quarantine", "fail"]
Kind = Literal["gauge", "counter", "state"]

RESERVED = {
    "device_id", "device_type", "site", "event_time", "seq", "carried", "values", "version", "value", "device", "type",
    "at", "true", "false", "and", "or", "not", "kafka_topic", "kafka_partition", "kafka_offset", "kafka_timestamp",
    "starts_at", "spec_version",
}  # fmt: skip
"""Names that mean something else in the lake, in rule tests or in conditions."""

REJECTED = "rejected"
"""Dead letters: system and type of their folder in the lake, and the last part of their Kafka topic."""
HOME_DASHBOARD = "fleet"
"""Grafana's first page. The others are called as their systems."""
MAX_VERSION = 1_000_000
SILENT_CADENCES = 3
"""So many readings that did not come are a silence, where a spec says nothing else."""
LEAST_HISTORY = timedelta(days=LEAST_DAYS)
FOLDER_SPANS = {"hour": timedelta(hours=1), "day": timedelta(days=1), "month": timedelta(days=28)}
"""What any folder of the lake spans at least."""


class Change(Strict):
    """What a value may change by within a time; over a longer time it may change in proportion."""

    by: Number = Field(gt=0)
    within: Span

    @model_validator(mode="before")
    @classmethod
    def _from_mapping(cls, value: object) -> object:
        if isinstance(value, Change | dict):
            return value
        raise ValueError("a change is {by: 5, within: 1m}")


class Profile(Strict):
    """How a simulator makes one metric: `uniform` draws anew each time, `walk` moves by at most `step`, `binary` is
    1 for the share `p` of readings, `counter` grows by up to `step` a reading."""

    shape: Literal["uniform", "walk", "binary", "counter"] = "uniform"
    range: Range | None = None
    step: Number | None = None
    p: Number = 0.1
    decimals: int = Field(default=2, ge=0, le=9)


class Metric(Strict):
    unit: UnitName
    kind: Kind = "gauge"
    title: str = ""
    range: Range | None = None
    outside: Outside = "warn"
    max_change: Change | None = None
    stuck_after: Span | None = None
    """The batch flags a gauge that changes by more, or says the same for longer, as an anomaly; neither is bad data."""
    history: Span | None = None
    """So does a value that lies beyond what the device said in so long before."""
    simulate: Profile | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "Metric":
        if "outside" in self.model_fields_set and self.range is None:
            raise ValueError("outside says what happens beyond the range, and there is no range")
        if self.kind != "gauge" and (self.max_change or self.stuck_after or self.history):
            raise ValueError("max_change, stuck_after and history are for gauges: a state stays, a counter grows")
        profile = self.simulate
        if profile and profile.range and self.range and not profile.range.inside(self.range):
            raise ValueError("simulate.range must lie inside range: a simulator says only what the sensor could")
        return self


class Adapter(Strict):
    """How the device's own messages become readings. All forms are JSON objects.

    - `canonical`: device_id, event_time (RFC 3339 or epoch ms), seq, values: {metric: number}
    - `flat`: metrics beside the other keys, `{"sensor_id": 7, "temperature": 21.5, "timestamp": 1732985789.4}`
    - `feature`: one metric, named by the last part of the MQTT topic, its value under `value`; a gateway sends for
      several devices, so device_id comes from the message
    """

    form: Literal["canonical", "flat", "feature"] = "canonical"
    device_id: str = "device_id"
    event_time: str = "event_time"
    event_time_unit: Literal["ms", "s"] = "ms"
    """Of a number; a string is always RFC 3339."""
    seq: str = "seq"
    value: str = "value"
    rename: dict[str, str] = {}
    """The field's own key → the metric."""
    feature_topics: list[str] = []
    """Metrics whose messages are also copied to a Kafka topic of their own, `<system>.<metric>`."""


class Retention(Strict):
    readings: Duration = timedelta(days=7)
    """Raw readings in the warehouse; the lake keeps them all, for good or for `lake`."""
    rollups: Duration = timedelta(days=1825)
    lake: Duration | None = None
    """From then on readings are deleted from the lake, a folder at a time. None: never."""


class Simulation(Strict):
    """`independent` draws each metric by its own profile; `room` is people in a room (simulators/room.py)."""

    model: Literal["independent", "room"] = "independent"
    devices: int = Field(default=10, ge=1, le=1_000_000)
    site: str = "site-1"
    device_prefix: str = Field(default="d", pattern=r"^([A-Za-z][A-Za-z0-9_.:-]*)?$", max_length=32)
    """Device ids are this and a number from 1; with an empty prefix they are numbers in the messages too."""
    gateway: str = Field(default="edge", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:-]*$", max_length=64)
    """Who sends for the devices where the adapter's form is `feature`: the device's level of the MQTT topic."""


class GoodExample(Strict):
    payload: dict[str, Any]
    metric: str | None = None
    """Of form `feature`: the last part of the MQTT topic."""
    values: dict[str, Number | None]
    """What must come out."""


class BadExample(Strict):
    payload: Any
    metric: str | None = None
    reason: str


class Examples(Strict):
    good: list[GoodExample] = Field(min_length=1)
    bad: list[BadExample] = Field(min_length=1)


def _cadence(value: object) -> object:
    if value == "event":
        return value
    try:
        cadence = parse_duration(value)
    except ValueError as error:
        raise ValueError(f"{error}; or `event` for devices that report only changes") from None
    if not cadence:
        raise ValueError("cadence is longer than 0s; or `event` for devices that report only changes")
    return cadence


class RuledType(Strict):
    """One device type, as rules need it; in a spec file `examples` are required (DeviceType). `version` bumps on any
    change of meaning and travels with every derived row."""

    type: Identifier
    version: int = Field(ge=1, le=MAX_VERSION)
    system: Identifier
    area: Area | None = None
    """The page of its system's dashboards that it is on; None: the system's own."""
    outdoors: bool = False
    """Its devices stand outside: what they measure is the weather at their site."""
    title: str = ""
    description: str = ""
    cadence: Annotated[
        timedelta | Literal["event"],
        BeforeValidator(_cadence),
        PlainSerializer(lambda cadence: cadence if cadence == "event" else format_duration(cadence)),
    ]
    """Expected time between readings; `event` for devices that report only changes."""
    partition_by: Literal["device", "site"] = "device"
    kafka_topic: str | None = Field(default=None, pattern=r"^[a-zA-Z0-9._-]{1,200}$")
    partitions: int = Field(default=4, ge=1, le=1000)
    stale_after: Duration | None = None
    lateness: Duration = timedelta(seconds=10)
    max_active_alerts: int = Field(default=10_000, ge=1)
    """Of one rule in one partition. Those that fire beyond it are marked `capped` in the log, and nobody is told."""
    self_registration: bool = False
    """A device's first reading registers it; else readings of devices that are not in the registry are rejected. A
    device that was retired comes back by `weir devices add` alone."""
    max_devices: int = Field(default=100_000, ge=1)
    """Beyond so many in service none registers itself any more: its readings are rejected as `unknown_device`. Ids that
    a client invents would else fill the registry and the rules' state without end. `weir devices add` takes more."""
    adapter: Adapter = Adapter()
    files: Files = Files()
    metrics: dict[Identifier, Metric] = Field(min_length=1)
    commands: dict[Identifier, Command] = {}
    """What a device obeys."""
    retention: Retention = Retention()
    simulation: Simulation | None = None
    examples: Examples | None = None
    alerts: list[Rule] = []

    @property
    def topic(self) -> str:
        """The Kafka topic with the readings of its system."""
        return self.kafka_topic or f"readings.{self.system}"

    @property
    def silent_after(self) -> timedelta | None:
        """Of a device, and of each of its metrics; None where only changes are reported."""
        return self.stale_after or (None if self.cadence == "event" else SILENT_CADENCES * self.cadence)

    @property
    def folder_grain(self) -> Literal["hour", "day", "month"]:
        """The span of one folder in the lake: about 10^3 to 10^5 readings of a device."""
        if self.cadence == "event" or self.cadence >= timedelta(hours=1):
            return "month"
        return "hour" if self.cadence < timedelta(minutes=1) else "day"

    @model_validator(mode="after")
    def _consistent(self) -> "RuledType":
        problems = [*self._names(), *self._metrics(), *self._adapter(), *self._files(), *self._rules()]
        problems += [*command_problems(self.commands, self.metrics), *self._retention()]
        if problems:
            # One message a line: `path: problem`, so that the loader can find each one's line.
            raise ValueError("\n".join(problems))
        return self

    def _names(self) -> list[str]:
        reserved = sorted(RESERVED & set(self.metrics))
        problems = [f"metrics.{name}: {name!r} is a reserved name; call it something else" for name in reserved]
        for key in ("type", "system"):
            if getattr(self, key) == REJECTED:
                problems.append(f"{key}: {REJECTED!r} is a reserved name: the dead letters' folder in the lake has it")
        if self.system == HOME_DASHBOARD:
            problems.append(f"system: {HOME_DASHBOARD!r} is a reserved name: Grafana's first page has it")
        if f"readings.{REJECTED}" in (self.topic, *(f"{self.system}.{m}" for m in self.adapter.feature_topics)):
            key = "kafka_topic" if self.kafka_topic else "system"
            problems.append(f"{key}: topic 'readings.{REJECTED}' is reserved for dead letters")
        seen: set[str] = set()
        for place, rule in enumerate(self.alerts):
            if rule.id in seen:
                problems.append(f"alerts.{place}.id: rule id {rule.id!r} is used twice in this type")
            seen.add(rule.id)
        return problems

    def _metrics(self) -> list[str]:
        """The batch looks for what is stuck within a folder of the lake, and keeps the past as rollups."""
        span, problems = FOLDER_SPANS[self.folder_grain], []
        for name, metric in self.metrics.items():
            if metric.stuck_after is not None and metric.stuck_after >= span:
                problems.append(
                    f"metrics.{name}.stuck_after: {format_duration(metric.stuck_after)} is never seen: the batch looks"
                    f" at one {self.folder_grain} at a time, as this cadence has it;"
                    f" shorter than {format_duration(span)}"
                )
            if metric.history is not None and not LEAST_HISTORY <= metric.history <= self.retention.rollups:
                problems.append(
                    f"metrics.{name}.history: {format_duration(metric.history)} is not between"
                    f" {format_duration(LEAST_HISTORY)}, of which less says too little, and what is kept,"
                    f" {format_duration(self.retention.rollups)} (retention.rollups)"
                )
        return problems

    def _retention(self) -> list[str]:
        """What the warehouse has is made from the lake, and made again where a late reading comes."""
        if self.retention.lake is None:
            return []
        return [
            f"retention.lake: {format_duration(self.retention.lake)} is shorter than retention.{name},"
            f" {format_duration(kept)}: the warehouse's {name} are made from the lake; at least as long, or left out"
            " for good"
            for name in ("readings", "rollups")
            if (kept := getattr(self.retention, name)) > self.retention.lake
        ]

    def _adapter(self) -> list[str]:
        problems = []
        for key, metric in self.adapter.rename.items():
            if metric not in self.metrics:
                problems.append(f"adapter.rename.{key}: {metric!r} is not a metric of this type")
        for metric in self.adapter.feature_topics:
            if metric not in self.metrics:
                problems.append(f"adapter.feature_topics: {metric!r} is not a metric of this type")
        problems += self._message_keys()
        if self.adapter.feature_topics and self.adapter.form != "feature":
            problems.append("adapter.feature_topics: only the form `feature` has messages of one metric")
        return problems

    def _files(self) -> list[str]:
        there = (*self.metrics, *FILE_WORDS)
        problems = [
            f"files.columns.{key}: {meaning!r} is no metric of this type{nearest(meaning, there)}"
            for key, meaning in self.files.columns.items()
            if meaning is not None and meaning not in there
        ]
        return problems + [
            f"files.scale.{name}: {name!r} is not a metric of this type"
            for name in self.files.scale
            if name not in self.metrics
        ]

    def _message_keys(self) -> list[str]:
        """Each key of a message means one thing."""
        adapter, problems = self.adapter, []
        own_key: dict[str, str] = {}
        for key, metric in adapter.rename.items():
            if own_key.setdefault(metric, key) != key:
                problems.append(f"adapter.rename.{key}: {metric!r} is renamed from {own_key[metric]!r} already")
        keys = [("adapter.device_id", adapter.device_id), ("adapter.event_time", adapter.event_time)]
        keys.append(("adapter.seq", adapter.seq))
        of_metrics = [
            (f"adapter.rename.{own_key[m]}", own_key[m]) if m in own_key else (f"metrics.{m}", m) for m in self.metrics
        ]
        if adapter.form == "flat":
            objects = [[*keys, *of_metrics]]
        elif adapter.form == "feature":
            objects = [[*keys, ("adapter.value", adapter.value)]]
        else:
            fixed = [("adapter", name) for name in ("values", "device_type", "site")]
            objects = [[*fixed, *keys], of_metrics]
        for fields in objects:
            meaning: dict[str, str] = {}
            for where, key in fields:
                if key in meaning:
                    problems.append(f"{where}: the message's key {key!r} is that of {meaning[key]} already")
                meaning.setdefault(key, where)
        return problems

    def _rules(self) -> list[str]:
        problems = []
        kinds = {name: metric.kind for name, metric in self.metrics.items()}
        cadence = None if self.cadence == "event" else self.cadence
        for place, rule in enumerate(self.alerts):
            for name in sorted(set(rule.params) & {*self.metrics, *WORDS}):
                meaning = "a word of the language" if name in WORDS else "a metric"
                problems.append(f"alerts.{place}.params.{name}: {name!r} is {meaning}; name the param otherwise")
            texts = {
                ".".join(filter(None, ("alerts", str(place), path, key))): text
                for path, condition in rule.conditions()
                for key in ("when", "clear")
                if (text := getattr(condition, key)) is not None
            }
            before = len(problems)
            for where, text in texts.items():
                found = check_expression(
                    text, metrics=kinds, params=set(rule.params), cadence=cadence, other_types=None
                )  # fmt: skip
                if self.partition_by != "site" and uses_site_functions(text):
                    found.append("site functions need partition_by: site")
                problems += [f"{where}: {problem}" for problem in found]
            if texts and len(problems) == before and not any(uses_metric(text, kinds) for text in texts.values()):
                problems.append(f"{next(iter(texts))}: a rule uses at least one metric or site function")
        return problems


class DeviceType(RuledType):
    """A whole spec."""

    examples: Examples
