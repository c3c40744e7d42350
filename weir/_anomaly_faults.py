"""Anomalies of simulated readings with faults, from the batch's kernel, beside the faults as they were injected."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from math import ceil
from typing import Any

import pyarrow as pa

from connections.lake import arrow_schema
from etl import kernel
from etl.derive import metrics
from fleet.anomaly import KINDS
from fleet.backtest import Episode, Truth, score
from fleet.catalog import Catalog, load_catalog
from fleet.lake_layout import columns
from fleet.settings import Settings
from fleet.spec import DeviceType
from simulators.fault_plan import inject
from simulators.faults import Plan
from simulators.message import Message
from simulators.run import Wires
from simulators.simulation import Part, plan_parts, simulated_readings, simulated_types
from weir._anomaly_past import past_of
from weir._table import aligned

FIRST = datetime(2026, 1, 5, tzinfo=UTC)
DEVICES = 10
"""Of a type that may have any number: longer runs of fewer devices."""
SHARE = 0.001
"""Of the messages that a fault touches; more where one fault touches many."""
SILENT_FOR = 6
"""Cadences that a device says nothing."""
PAST, PAST_CADENCE = timedelta(days=8), timedelta(minutes=10)
"""What the days before were like, in less readings."""
FAULTS = ("spike", "out_of_range", "stuck", "dropout")
"""In the order in which they are shown."""


@dataclass(frozen=True)
class Scored:
    """Of one type. `recall`: kind of anomaly → kind of fault → share; None where there was nothing to take it of."""

    spec: DeviceType
    readings: int
    span: timedelta
    faults: Mapping[str, int]
    anomalies: Mapping[str, int]
    precision: Mapping[str, float | None]
    recall: Mapping[str, Mapping[str, float | None]]


def scored(name: str | None, readings: int, seed: int) -> list[Scored]:
    """Raises ConfigurationError where nothing of that name is simulated."""
    catalog = load_catalog(Settings.load().types_dir)
    types = [spec for spec in catalog if spec.simulation] if name is None else simulated_types(catalog, name)
    return [_of_type(catalog, spec, readings, seed) for spec in types]


def _of_type(catalog: Catalog, spec: DeviceType, readings: int, seed: int) -> Scored:
    messages, span = _messages(catalog, spec, readings, seed)
    truths = _truths(spec, messages)
    past = _past(spec, FIRST + span, seed)
    found = _episodes(kernel.derive(_table(spec, messages), metrics(spec), spec.folder_grain, past)["anomalies"])
    everything = [truth for of_kind in truths.values() for truth in of_kind]
    return Scored(
        spec, len(messages), span,
        {kind: len(of_kind) for kind, of_kind in truths.items()},
        {kind: len(episodes) for kind, episodes in found.items()},
        {kind: score(episodes, everything).precision for kind, episodes in found.items()},
        {
            kind: {fault: score(episodes, of_fault).recall for fault, of_fault in truths.items()}
            for kind, episodes in found.items()
        },
    )  # fmt: skip


def _messages(catalog: Catalog, spec: DeviceType, readings: int, seed: int) -> tuple[list[Message], timedelta]:
    """With faults; and how long they take."""
    part = _part(spec)
    span = timedelta(seconds=readings / part.rate)
    first_us = _epoch_us(FIRST)
    clean = simulated_readings([part], first_us=first_us, end_us=first_us + _micros(span), seed=seed)
    return list(inject(Wires.of(catalog).messages(clean), _plans(part), seed, catalog)), span


def _past(spec: DeviceType, end: datetime, seed: int) -> kernel.Past:
    """Of the days up to `end` and of metrics with a history, from other readings without faults, at a cadence of its
    own."""
    part = replace(_part(spec), cadence=PAST_CADENCE)
    before = simulated_readings(
        [part], first_us=_epoch_us(FIRST - PAST), end_us=_epoch_us(FIRST), seed=seed + 1
    )  # fmt: skip
    rollups = kernel.derive(_table(spec, [*Wires.of([spec]).messages(before)]), metrics(spec), "month")["rollups"]
    days = [FIRST + timedelta(days=n) for n in range((end - FIRST).days + 1)]
    found = past_of(rollups, days, PAST + (end - FIRST))
    return {key: limits for key, limits in found.items() if spec.metrics[key[0]].history}


def _part(spec: DeviceType) -> Part:
    is_free = spec.simulation is not None and spec.simulation.model == "independent"
    (part,) = plan_parts([spec], DEVICES if is_free else None)
    return part


def _plans(part: Part) -> list[Plan]:
    """What a sensor may do. What gets stuck is what the spec says must not, twice as long as it may."""
    spec = part.spec
    a_device = ceil(part.messages_a_round / part.devices)
    return [
        Plan("spike", SHARE),
        Plan("out_of_range", SHARE),
        Plan("dropout", 10 * SHARE, SILENT_FOR * a_device),
        *(
            Plan("stuck", 50 * SHARE, 2 * ceil(m.stuck_after / part.cadence), metric=name)
            for name, m in spec.metrics.items()
            if m.stuck_after
        ),
    ]


def _table(spec: DeviceType, messages: Sequence[Message]) -> pa.Table:
    """As they would lie in the lake."""
    sent = [message for message in messages if not message.dropped]
    schema = arrow_schema({**columns(spec), "spec_version": "int32"})
    times = [message.reading.event_time_us for message in sent]
    fixed: dict[str, list[Any]] = {
        "device_id": [m.reading.device_id for m in sent], "site": [m.reading.site for m in sent], "event_time": times,
        "seq": [None] * len(sent), "carried": [[*m.reading.values] for m in sent],
        **{name: [m.reading.values.get(name) for m in sent] for name in spec.metrics},
        "kafka_topic": [spec.topic] * len(sent), "kafka_partition": [0] * len(sent),
        "kafka_offset": [m.number for m in sent], "kafka_timestamp": [at // 1000 for at in times],
        "spec_version": [spec.version] * len(sent),
    }  # fmt: skip
    return pa.table({field.name: pa.array(fixed[field.name], field.type) for field in schema})


def _truths(spec: DeviceType, messages: Sequence[Message]) -> dict[str, list[Truth]]:
    """By kind of fault, of each device and metric. Messages in a row are one fault, and told until three readings
    after it: a value that comes back from where it should not have been, or after a silence, tells of it too. A gauge
    that is stuck may say what is true now and then."""
    reach_us = _micros(spec.silent_after)
    touched: dict[tuple[str, str], list[int]] = {}
    for message in messages:
        if message.fault is not None:
            names = [message.fault.metric] if message.fault.metric else [*message.reading.values]
            for name in names:
                touched.setdefault((message.fault.kind, _series(message.reading.device_id, name)), []).append(
                    message.due_us
                )
    found: dict[str, list[Truth]] = {kind: [] for kind in FAULTS}
    for (kind, series), times in touched.items():
        apart_us = _micros(spec.metrics[series.rpartition(" ")[2]].stuck_after) if kind == "stuck" else reach_us
        breaks = [(before, after) for before, after in pairwise(times) if after - before > apart_us]
        begins, ends = [times[0], *(after for _, after in breaks)], [*(before for before, _ in breaks), times[-1]]
        found[kind].extend(Truth(series, begin, end + reach_us) for begin, end in zip(begins, ends, strict=True))
    return found


def _episodes(anomalies: pa.Table) -> dict[str, list[Episode]]:
    """By kind of anomaly."""
    found: dict[str, list[Episode]] = {kind: [] for kind in KINDS}
    times = anomalies["event_time"].cast(pa.int64()).to_pylist()
    names = (anomalies[name].to_pylist() for name in ("kind", "device_id", "metric", "site"))
    for kind, device, metric, site, at in zip(*names, times, strict=True):
        found[kind].append(Episode(kind, _series(device, metric), site, "info", at, at, at))
    return found


def _epoch_us(moment: datetime) -> int:
    return round(moment.timestamp()) * 1_000_000


def _micros(time: timedelta | None) -> int:
    return (time or timedelta(0)) // timedelta(microseconds=1)


def _series(device: str, metric: str) -> str:
    return f"{device} {metric}"


def as_object(found: Sequence[Scored]) -> list[dict[str, Any]]:
    return [
        {
            "type": s.spec.type, "readings": s.readings, "hours": s.span / timedelta(hours=1), "faults": s.faults,
            "kinds": {
                kind: {"anomalies": s.anomalies[kind], "precision": s.precision[kind], "recall": s.recall[kind]}
                for kind in KINDS
            },
        }
        for s in found
    ]  # fmt: skip


def as_lines(found: Sequence[Scored]) -> Iterator[str]:
    for s in found:
        yield f"{s.spec.type}: {s.readings:,} readings in {s.span / timedelta(hours=1):.1f} h"
        head = ("", "found", "precision", *(f"of {fault}" for fault in s.faults))
        yield from aligned([head, ("faults", "", "", *map(str, s.faults.values())), *(_row(s, kind) for kind in KINDS)])


def _row(s: Scored, kind: str) -> tuple[str, ...]:
    shares = (s.precision[kind], *(s.recall[kind][fault] for fault in s.faults))
    return (kind, f"{s.anomalies[kind]:,}", *("-" if share is None else f"{share:.1%}" for share in shares))
