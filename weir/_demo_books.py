"""What the logs and the books say, for the demo: counted on Kafka itself, in the lake and in the warehouse."""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
from kafka import TopicPartition

from connections.kafka import consumer, end_offsets
from connections.lake import Lake
from connections.warehouse import Warehouse
from fleet.catalog import Catalog
from fleet.channels import MARK_HEADER, REJECTED
from fleet.errors import Unavailable
from fleet.settings import Settings
from simulators.outcome import Observed, Outcome

Offsets = Mapping[tuple[str, int], int]
"""(topic, partition) → the offset that its next record gets."""
POLL_SECONDS = 2.0


class _TypeOf(msgspec.Struct):
    device_type: str


class _ReasonOf(msgspec.Struct):
    reason: str


@dataclass(frozen=True)
class Loaded:
    """Totals of the warehouse, by device type; `rejects` by reason, `bad_values` quarantined in readings that live."""

    types: dict[str, Observed]
    rejects: dict[str, int]
    bad_values: dict[str, int]
    rollups: int
    anomalies: int


def topics_of(catalog: Catalog) -> list[str]:
    return [*(system.topic for system in catalog.systems.values()), REJECTED]


def log_ends(settings: Settings, catalog: Catalog) -> Offsets:
    client = consumer(settings, "demo-ends")
    try:
        return {(tp.topic, tp.partition): offset for tp, offset in end_offsets(client, topics_of(catalog)).items()}
    finally:
        client.close()


def count_on_kafka(settings: Settings, start: Offsets, end: Offsets) -> tuple[Counter[str], Counter[str]]:
    """(readings by device type, dead letters by reason) between two positions, each record read."""
    readings: Counter[str] = Counter()
    rejected: Counter[str] = Counter()
    type_of, reason_of = msgspec.json.Decoder(_TypeOf).decode, msgspec.json.Decoder(_ReasonOf).decode
    client = consumer(settings, "demo-count")
    try:
        partitions = {TopicPartition(*key): offset for key, offset in end.items()}
        client.assign(list(partitions))
        for tp in partitions:
            client.seek(tp, start.get((tp.topic, tp.partition), 0))
        left = {tp for tp, last in partitions.items() if client.position(tp) < last}
        deadline = time.monotonic() + 120
        while left:
            if time.monotonic() > deadline:
                raise Unavailable(f"Kafka stopped answering while its records were counted: {sorted(left)}")
            for tp, records in client.poll(timeout_ms=1000).items():
                for record in records:
                    if record.offset >= partitions[tp] or any(key == MARK_HEADER for key, _ in record.headers):
                        continue
                    if tp.topic == REJECTED:
                        rejected[reason_of(record.value).reason] += 1
                    else:
                        readings[type_of(record.value).device_type] += 1
            left = {tp for tp in left if client.position(tp) < partitions[tp]}
    finally:
        client.close()
    return readings, rejected


def wait_until_landed(settings: Settings, end: Offsets, seconds: float) -> None:
    """Until every reading and dead letter before `end` is in a manifest; heartbeats behind the last of them land
    when landing finds it worth a file. Raises Unavailable saying how far landing came."""
    lake = Lake(settings.lake)
    deadline = time.monotonic() + seconds
    while True:
        landed = {key: 0 if (last := lake.last_manifest(*key)) is None else last.last_offset + 1 for key in end}
        waiting = {key: offset for key, offset in end.items() if landed[key] < offset}
        readings, rejected = count_on_kafka(settings, landed, waiting) if waiting else (Counter[str](), Counter[str]())
        left = readings.total() + rejected.total()
        if not left:
            return
        if time.monotonic() > deadline:
            raise Unavailable(f"landing left {left:,} records unwritten for {seconds:.0f} s: {sorted(waiting)}")
        time.sleep(POLL_SECONDS)


def loaded(settings: Settings) -> Loaded:
    warehouse = Warehouse.of(settings)
    try:
        rows = warehouse.rows(
            "SELECT type, coalesce(sum(landed), 0)::bigint AS landed, coalesce(sum(valid), 0)::bigint AS valid,"
            " coalesce(sum(quarantined), 0)::bigint AS quarantined, coalesce(sum(duplicate), 0)::bigint AS duplicate,"
            " coalesce(sum(valid) FILTER (WHERE status = 'loaded'), 0)::bigint AS loaded FROM ledger GROUP BY type"
        )
        bad = warehouse.rows(
            "SELECT type, sum(m.quarantined)::bigint AS n FROM ledger_metrics m JOIN ledger USING (partition)"
            " GROUP BY type"
        )
        rejects = warehouse.rows("SELECT reason, sum(rows)::bigint AS rows FROM rejects GROUP BY reason")
        totals = warehouse.rows(
            "SELECT (SELECT count(*) FROM rollups) AS rollups, (SELECT count(*) FROM anomalies) AS anomalies"
        )[0]
    finally:
        warehouse.close()
    types = {row.pop("type"): Observed(bridged=0, **row) for row in rows}
    return Loaded(
        types,
        {r["reason"]: r["rows"] for r in rejects},
        {b["type"]: b["n"] for b in bad},
        totals["rollups"],
        totals["anomalies"],
    )


def outcome(readings: Counter[str], rejected: Counter[str], before: Loaded, after: Loaded, types: list[str]) -> Outcome:
    """What this run added: the log's counts beside what the warehouse has now and did not have before."""
    nothing = Observed()
    observed = {}
    for name in types:
        gained = after.types.get(name, nothing) - before.types.get(name, nothing)
        observed[name] = Observed(**{**vars(gained), "bridged": readings[name]})
    reasons = set(after.rejects) | set(before.rejects)
    gained_rejects = {r: after.rejects.get(r, 0) - before.rejects.get(r, 0) for r in sorted(reasons)}
    return Outcome(observed, dict(rejected), {r: n for r, n in gained_rejects.items() if n})
