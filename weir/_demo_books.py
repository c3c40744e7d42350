"""What the logs and the books say, for the demo: counted on Kafka itself, in the lake and in the warehouse."""

import time
from collections import Counter
from collections.abc import Collection, Container, Iterable, Mapping
from dataclasses import dataclass

import msgspec
from kafka import TopicPartition

from connections.kafka import consumer, end_offsets
from connections.kafka_batches import Batches
from connections.lake import Lake
from connections.warehouse import Warehouse
from fleet.catalog import Catalog
from fleet.channels import REJECTED, mark_of
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
    """Totals of the warehouse, by device type; `rejects` by reason; `rollups`, `anomalies` of the systems asked for."""

    types: dict[str, Observed]
    rejects: dict[str, int]
    rollups: int
    anomalies: int


def topics_of(catalog: Catalog) -> list[str]:
    return [*(system.topic for system in catalog.systems.values()), REJECTED]


def log_ends(settings: Settings, topics: Iterable[str]) -> Offsets:
    client = consumer(settings, "demo-ends")
    try:
        return {(tp.topic, tp.partition): offset for tp, offset in end_offsets(client, topics).items()}
    finally:
        client.close()


def count_on_kafka(
    settings: Settings, start: Offsets, end: Offsets, types: Container[str] | None = None
) -> tuple[Counter[str], Counter[str]]:
    """(readings by device type, dead letters by reason) between two positions, each record read. `types`: readings of
    these alone."""
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
        batches, deadline = Batches(client), time.monotonic() + 120
        while left:
            if time.monotonic() > deadline:
                raise Unavailable(f"Kafka stopped answering while its records were counted: {sorted(left)}")
            for batch in batches.poll(1000):
                tp = TopicPartition(batch.topic, batch.partition)
                for record in batch.records():
                    if record.offset >= partitions[tp] or mark_of(record.headers) is not None:
                        continue
                    if tp.topic == REJECTED:
                        rejected[reason_of(record.value or b"").reason] += 1
                        continue
                    name = type_of(record.value or b"").device_type
                    if types is None or name in types:
                        readings[name] += 1
            left = {tp for tp in left if client.position(tp) < partitions[tp]}
    finally:
        client.close()
    return readings, rejected


def wait_until_landed(settings: Settings, end: Offsets, seconds: float) -> None:
    """Until every reading and dead letter before `end` is in a manifest; heartbeats behind the last of them land
    when landing finds it worth a file. Raises Unavailable saying how far landing came."""
    lake = Lake.of(settings)
    deadline = time.monotonic() + seconds
    while True:
        landed = {key: lake.landed_to(*key) for key in end}
        waiting = {key: offset for key, offset in end.items() if landed[key] < offset}
        readings, rejected = count_on_kafka(settings, landed, waiting) if waiting else (Counter[str](), Counter[str]())
        left = readings.total() + rejected.total()
        if not left:
            return
        if time.monotonic() > deadline:
            raise Unavailable(f"landing left {left:,} records unwritten for {seconds:.0f} s: {sorted(waiting)}")
        time.sleep(POLL_SECONDS)


def loaded(settings: Settings, systems: Collection[str]) -> Loaded:
    warehouse = Warehouse.of(settings)
    try:
        rows = warehouse.rows(
            "SELECT type, coalesce(sum(landed), 0)::bigint AS landed, coalesce(sum(valid), 0)::bigint AS valid,"
            " coalesce(sum(quarantined), 0)::bigint AS quarantined, coalesce(sum(duplicate), 0)::bigint AS duplicate"
            " FROM ledger GROUP BY type"
        )
        # Counted in the tables themselves, so that books which only agree with each other do not pass.
        rolled = warehouse.rows("SELECT type, sum(count)::bigint AS n FROM rollups WHERE grain = '1m' GROUP BY type")
        bad = warehouse.rows("SELECT type, count(*) AS n FROM quarantine WHERE what = 'value' GROUP BY type")
        rejects = warehouse.rows("SELECT reason, sum(rows)::bigint AS rows FROM rejects GROUP BY reason")
        totals = warehouse.rows(
            "SELECT (SELECT count(*) FROM rollups WHERE system = ANY(:systems)) AS rollups,"
            " (SELECT count(*) FROM anomalies WHERE system = ANY(:systems)) AS anomalies",
            systems=list(systems),
        )[0]
    finally:
        warehouse.close()
    values, bad_values = ({r["type"]: r["n"] for r in found} for found in (rolled, bad))
    types = {
        name: Observed(**row, loaded=values.get(name, 0), quarantined_values=bad_values.get(name, 0))
        for row in rows
        if (name := row.pop("type"))
    }
    return Loaded(types, {r["reason"]: r["rows"] for r in rejects}, totals["rollups"], totals["anomalies"])


def count_live(settings: Settings, start: Offsets, end: Offsets, seconds: float) -> Counter[str]:
    """Readings by device type in the live table between two positions of the log, once the live sink has come to the
    second. Raises Unavailable where it does not come there."""
    wanted = {key: offset for key, offset in end.items() if key[0] != REJECTED and offset > start.get(key, 0)}
    deadline = time.monotonic() + seconds
    readings: Counter[str] = Counter()
    warehouse = Warehouse.of(settings)
    try:
        while True:
            rows = warehouse.rows("SELECT kafka_topic, kafka_partition, next_offset FROM live_offsets")
            reached = {(r["kafka_topic"], r["kafka_partition"]): r["next_offset"] for r in rows}
            behind = {key for key, offset in wanted.items() if reached.get(key, 0) < offset}
            if not behind:
                break
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"the live sink did not come to the end of the log in {seconds:.0f} s: {sorted(behind)}"
                )
            time.sleep(POLL_SECONDS)
        for (topic, partition), offset in wanted.items():
            # Event times of the demo begin three hours ago at most; older chunks of the table need not be read.
            for row in warehouse.rows(
                # Each reading has one row a metric; one that was written twice counts twice.
                "SELECT type, sum(times)::bigint AS n FROM ("
                " SELECT type, max(n) AS times FROM ("
                "  SELECT type, kafka_offset, metric, count(*) AS n FROM readings"
                "  WHERE event_time > now() - INTERVAL '1 day' AND kafka_topic = :topic"
                "  AND kafka_partition = :partition AND kafka_offset >= :first AND kafka_offset < :end"
                "  GROUP BY type, kafka_offset, metric) of_metric"
                " GROUP BY type, kafka_offset) of_reading GROUP BY type",
                topic=topic,
                partition=partition,
                first=start.get((topic, partition), 0),
                end=offset,
            ):
                readings[row["type"]] += row["n"]
    finally:
        warehouse.close()
    return readings


def total(of_types: Iterable[Observed]) -> Observed:
    found = list(of_types)
    return Observed(**{name: sum(getattr(one, name) for one in found) for name in vars(Observed())})


def outcome(
    readings: Counter[str],
    rejected: Counter[str],
    live: Counter[str],
    before: Loaded,
    after: Loaded,
    types: list[str],
) -> Outcome:
    """What this run added: the log's and the live table's counts beside what the warehouse has now and had not."""
    nothing = Observed()
    observed = {}
    for name in types:
        gained = after.types.get(name, nothing) - before.types.get(name, nothing)
        observed[name] = Observed(**{**vars(gained), "bridged": readings[name], "live": live[name]})
    reasons = set(after.rejects) | set(before.rejects)
    gained_rejects = {r: after.rejects.get(r, 0) - before.rejects.get(r, 0) for r in sorted(reasons)}
    return Outcome(observed, dict(rejected), {r: n for r, n in gained_rejects.items() if n})
