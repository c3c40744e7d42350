"""All the books at once, for people: every topic, every partition of a system, what is not yet processed."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from connections.lake import Lake
from connections.warehouse import Warehouse
from etl.lake_index import PartitionFiles, read_index
from etl.reconcile import Report, kafka_end_offsets, read_ledger, read_topics, reconcile
from fleet.catalog import load_catalog
from fleet.channels import REJECTED as REJECTED_TOPIC
from fleet.errors import WeirError
from fleet.lake_layout import REJECTED
from fleet.ledger import Verdict
from fleet.settings import Settings


@dataclass(frozen=True)
class SeqGaps:
    """Of one type, over all its devices that count: numbers seen, and numbers between the first and last not seen."""

    devices: int
    seen: int
    missing: int


@dataclass(frozen=True)
class MqttDrops:
    """What the broker threw away for any of its subscribers, as it counts since its start: such messages are on no
    log, so no other figure knows of them. Where `dropped` is None, `unknown` says why, or is empty for a role that
    has no MQTT user."""

    dropped: int | None
    unknown: str = ""


@dataclass(frozen=True)
class Books:
    report: Report
    unprocessed: dict[str, int]
    """Key of a partition that changed since it was loaded → rows in its files."""
    rejects: dict[str, int]
    seq: dict[str, SeqGaps]
    mqtt: MqttDrops = MqttDrops(None)

    @property
    def verdict(self) -> Verdict:
        report = self.report
        return Verdict(
            imbalances=len(report.imbalances),
            lost=sum(report.lost.values()),
            failed=sum(row.status == "failed" for row in report.partitions),
            unprocessed=sum(self.unprocessed.values()),
            pending=sum(max(0, t.pending or 0) for t in report.topics),
        )


def read_books(settings: Settings, system: str | None, now: datetime) -> Books:
    """`system` None is all. Partitions older than their type's retention are not compared: their rollups are gone."""
    catalog = load_catalog(settings.types_dir)
    systems = [catalog.system(system)] if system else [*catalog.systems.values()]
    topics = [*(s.topic for s in systems), REJECTED_TOPIC]
    lake, warehouse = Lake.of(settings), Warehouse.of(settings)
    index = read_index(lake, topics=topics)
    ends = kafka_end_offsets(settings, topics) if settings.kafka_user else {}
    oldest = {t.type: now - t.retention.rollups for t in catalog}
    oldest[REJECTED] = min(oldest.values(), default=now)
    partitions = index.partitions
    with warehouse.snapshot() as seen:
        every = read_ledger(seen, system=system)
        rows = [
            row
            for row in every
            if row.partition.type not in oldest or row.partition.start >= oldest[row.partition.type]
        ]
        report = reconcile(seen, read_topics(index, ends), rows, partitions)
    warehouse.close()
    digests = {row.partition.key: row.digest for row in every if row.status == "loaded"}
    rejects: dict[str, int] = {}
    for row in rows:
        for reason, n in ((row.books and row.books.rejects) or {}).items():
            rejects[reason] = rejects.get(reason, 0) + n
    return Books(
        report,
        {key: p.rows for key, p in partitions.items() if digests.get(key) != p.digest},
        dict(sorted(rejects.items())),
        _seq_gaps(lake, partitions),
        _mqtt_drops(settings),
    )


def _mqtt_drops(settings: Settings) -> MqttDrops:
    """A broker that is away is no reason not to show the rest."""
    if not settings.mqtt_user:
        return MqttDrops(None)
    from connections.mqtt import dropped_messages

    try:
        dropped = dropped_messages(settings)
    except WeirError as error:
        return MqttDrops(None, str(error))
    return MqttDrops(dropped, "" if dropped is not None else "it does not say")


def _seq_gaps(lake: Lake, partitions: Mapping[str, PartitionFiles]) -> dict[str, SeqGaps]:
    """Two columns of each file; types whose devices do not count are left out."""
    by_type: dict[str, list[pa.Table]] = {}
    for p in partitions.values():
        if p.partition.type == REJECTED:
            continue
        for file in p.to_read:
            table = pq.read_table(
                pa.BufferReader(lake.read(file.path)), columns=["device_id", "seq"], partitioning=None
            )
            by_type.setdefault(p.partition.type, []).append(table.filter(pc.is_valid(table["seq"])))
    found = {}
    for name, tables in sorted(by_type.items()):
        seen = pa.concat_tables(tables).group_by(["device_id", "seq"]).aggregate([])
        if seen.num_rows == 0:
            continue
        spans = seen.group_by("device_id").aggregate([("seq", "min"), ("seq", "max"), ("seq", "count")])
        between = sum(
            b - a + 1 for a, b in zip(spans["seq_min"].to_pylist(), spans["seq_max"].to_pylist(), strict=True)
        )
        found[name] = SeqGaps(spans.num_rows, seen.num_rows, between - seen.num_rows)
    return found
