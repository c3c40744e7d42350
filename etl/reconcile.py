"""Do the books balance? Reads what manifests, Kafka and the warehouse say, compares by fleet.ledger."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from sqlalchemy import Connection, text

from connections.warehouse import Reader
from etl.lake_index import LakeIndex, PartitionFiles
from fleet.errors import ConfigurationError
from fleet.lake_layout import REJECTED, Partition
from fleet.ledger import (
    Imbalance,
    MetricBooks,
    PartitionBooks,
    Stored,
    TopicBooks,
    partition_imbalances,
    stored_imbalances,
    topic_books,
    topic_imbalances,
)
from fleet.settings import Settings


@dataclass(frozen=True)
class LedgerRow:
    """One row of the ledger; `books` is None where the partition never loaded."""

    partition: Partition
    status: str
    failure: str
    run_id: str
    digest: str | None
    anomalies: int
    rollups: int
    books: PartitionBooks | None


@dataclass
class Report:
    topics: list[TopicBooks] = field(default_factory=list)
    partitions: list[LedgerRow] = field(default_factory=list)
    imbalances: list[Imbalance] = field(default_factory=list)
    lost: dict[str, int] = field(default_factory=dict)
    """Kafka partition → offsets that were lost before landing came (accounted for, and gone)."""


def read_topics(index: LakeIndex, end_offsets: Mapping[tuple[str, int], int]) -> list[TopicBooks]:
    """Of each Kafka partition that landed or that Kafka knows."""
    keys = sorted({*index.manifests, *end_offsets})
    return [topic_books(t, p, index.manifests.get((t, p), []), end_offsets.get((t, p))) for t, p in keys]


def kafka_end_offsets(settings: Settings, topics: Iterable[str]) -> dict[tuple[str, int], int]:
    """(topic, partition) → the offset after its last record; nothing of a topic that is not made yet, as that of a
    type whose file is new. Raises Unavailable or Refused."""
    if not settings.kafka_user:
        raise ConfigurationError("WEIR_KAFKA_USER is not set; `make setup` writes it into var/env/")
    from connections import kafka

    client = kafka.consumer(settings, f"weir-{settings.role}-ledger")
    try:
        made = client.topics()
        ends = kafka.end_offsets(client, [topic for topic in topics if topic in made])
        return {(tp.topic, tp.partition): end for tp, end in ends.items()}
    finally:
        client.close()


def read_ledger(warehouse: Reader, keys: Iterable[str] | None = None, system: str | None = None) -> list[LedgerRow]:
    """By time. `keys` None is all; `system` leaves dead letters in."""
    where = "WHERE (CAST(:keys AS text[]) IS NULL OR partition = ANY(:keys))"
    where += f" AND (CAST(:system AS text) IS NULL OR ledger.system IN (:system, '{REJECTED}'))"
    parameters = {"keys": None if keys is None else list(keys), "system": system}
    rows = warehouse.rows(f"SELECT * FROM ledger {where} ORDER BY starts_at, partition", **parameters)  # noqa: S608
    metrics: dict[str, list[MetricBooks]] = {}
    for m in warehouse.rows(
        f"SELECT m.* FROM ledger_metrics m JOIN ledger USING (partition) {where} ORDER BY partition, metric",  # noqa: S608
        **parameters,
    ):
        books = MetricBooks(m["metric"], m["known"], {"1m": m["rolled_1m"], "1h": m["rolled_1h"]}, m["quarantined"])
        metrics.setdefault(m["partition"], []).append(books)
    rejects: dict[str, dict[str, int]] = {}
    for r in warehouse.rows(
        f"SELECT partition, reason, sum(rows)::bigint AS n FROM rejects JOIN ledger USING (partition) {where}"  # noqa: S608
        " GROUP BY partition, reason ORDER BY partition, reason",
        **parameters,
    ):
        rejects.setdefault(r["partition"], {})[r["reason"]] = r["n"]
    return [_ledger_row(row, metrics, rejects) for row in rows]


def _ledger_row(
    row: Mapping, metrics: Mapping[str, list[MetricBooks]], rejects: Mapping[str, dict[str, int]]
) -> LedgerRow:  # fmt: skip
    key = row["partition"]
    books = None
    if row["landed"] is not None:
        own_rejects = rejects.get(key, {}) if row["type"] == REJECTED else None
        books = PartitionBooks(
            key,
            row["landed"],
            row["valid"],
            row["quarantined"],
            row["duplicate"],
            tuple(metrics.get(key, ())),
            own_rejects,
        )
    return LedgerRow(
        Partition.from_key(key), row["status"], row["failure"], row["run_id"], row["files_digest"],
        row["anomalies"] or 0, row["rollups"] or 0, books,
    )  # fmt: skip


def read_stored(warehouse: Reader, partition: Partition) -> Stored:
    """Counted in the tables themselves, not in the books."""
    span = {"type": partition.type, "key": partition.key, "start": partition.start, "end": partition.end}
    rolled = warehouse.rows(
        "SELECT metric, grain, sum(count)::bigint AS n FROM rollups"
        " WHERE type = :type AND bucket >= :start AND bucket < :end GROUP BY metric, grain",
        **span,
    )
    quarantined = warehouse.rows(
        "SELECT what, metric, count(*) AS n FROM quarantine"
        " WHERE partition = :key AND at >= :start AND at < :end GROUP BY what, metric",
        **span,
    )
    anomalies = warehouse.rows(
        "SELECT count(*) AS n FROM anomalies WHERE type = :type AND event_time >= :start AND event_time < :end", **span
    )
    return Stored(
        {(r["metric"], r["grain"]): r["n"] for r in rolled},
        {r["metric"]: r["n"] for r in quarantined if r["what"] == "value"},
        sum(r["n"] for r in quarantined if r["what"] != "value"),
        anomalies[0]["n"],
    )


def reconcile(
    warehouse: Reader, topics: list[TopicBooks], ledger: list[LedgerRow], lake: Mapping[str, PartitionFiles]
) -> Report:
    """`ledger` are the rows to look at; where one is of other files than `lake` has, late ones among them are pending
    and only what was loaded is compared. By a snapshot that `ledger` is of too: a run that loads
    meanwhile would look like an imbalance."""
    report = Report(topics, ledger)
    for t in topics:
        report.imbalances += topic_imbalances(t)
        if t.missing:
            report.lost[t.name] = t.missing
    for row in ledger:
        key = row.partition.key
        if row.books is None:
            continue
        report.imbalances += partition_imbalances(row.books)
        files = lake.get(key)
        if files is None:
            report.imbalances.append(Imbalance(key, "in the ledger and not in the lake; rows", 0, row.books.landed))
            continue
        in_manifests = files.rows if files.digest == row.digest else row.books.landed
        report.imbalances += stored_imbalances(
            row.books, read_stored(warehouse, row.partition), in_manifests, row.anomalies
        )
    return report


def write_topics(c: Connection, topics: Iterable[TopicBooks]) -> None:
    """Leaves them where dashboards and the next run find them, in the caller's transaction."""
    statement = text(
        "INSERT INTO ledger_topics (kafka_topic, kafka_partition, first_offset, landed_to, end_offset, rows,"
        " unreadable, heartbeats, controls, missing) VALUES (:topic, :partition, :first_offset, :landed_to,"
        " :end_offset, :rows, :unreadable, :heartbeats, :controls, :missing)"
        " ON CONFLICT (kafka_topic, kafka_partition) DO UPDATE SET first_offset = excluded.first_offset,"
        " landed_to = excluded.landed_to, end_offset = coalesce(excluded.end_offset, ledger_topics.end_offset),"
        " rows = excluded.rows, unreadable = excluded.unreadable, heartbeats = excluded.heartbeats,"
        " controls = excluded.controls, missing = excluded.missing, checked_at = now()"
    )
    names = ("topic", "partition", "first_offset", "landed_to", "end_offset", "rows", "unreadable", "heartbeats")
    for t in sorted(topics, key=lambda t: t.name):
        c.execute(statement, {n: getattr(t, n) for n in (*names, "controls", "missing")})


def known_losses(warehouse: Reader) -> dict[str, int]:
    """Losses that an earlier run has reported already."""
    rows = warehouse.rows("SELECT kafka_topic, kafka_partition, missing FROM ledger_topics WHERE missing > 0")
    return {f"{r['kafka_topic']}/{r['kafka_partition']}": r["missing"] for r in rows}
