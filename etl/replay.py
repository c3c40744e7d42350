"""What was quarantined and is good now goes where it belongs.

- A dead letter that is a reading now is written to Kafka as the bridge would have written it; landing, live and the
  batch take it from there, late. It is written once: `quarantine_replays` says which have been. One that was written
  and has no row there, after a kill in between, comes again as a duplicate, which the batch drops.
- A value that is in range now is still in the lake: its partition is processed again.

The alert rules pass over readings as late as that, so a replay pages nobody.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from kafka.errors import KafkaError
from sqlalchemy import Connection, text

from connections import kafka
from connections.warehouse import Warehouse
from etl.lake_frames import reject_batches
from etl.lake_index import LakeIndex, read_index
from etl.quarantine import Filter
from etl.run import Job
from fleet.contract import Reject
from fleet.lake_layout import REJECTED, partition_of
from fleet.reading import encode_reading
from fleet.requalify import Requalified, Requalifier, is_good_now

AT_ONCE = 500
"""Dead letters in one transaction: so many may come twice after a kill."""
CONFIRM_SECONDS = 30
LOCK = "quarantine_replay"


@dataclass
class Replay:
    """What is good now: of dead letters how many by type, of values how many by metric; what stays, by reason."""

    letters: dict[str, int] = field(default_factory=dict)
    values: dict[str, int] = field(default_factory=dict)
    still: dict[str, int] = field(default_factory=dict)
    before: int = 0
    """Dead letters that had come back before."""
    partitions: set[str] = field(default_factory=set)
    """Of the lake, that are to be processed again."""
    ends: dict[str, int] = field(default_factory=dict)
    """topic/partition → the offset after the last record that was written: when it has landed, all of it has."""


def replay(job: Job, asked: Filter, replay_id: str, dry_run: bool = False) -> Replay:
    """Raises Unavailable, Refused."""
    found = Replay()
    _values(job, asked, found)
    index = read_index(job.lake)
    judge = Requalifier(job.catalog, in_service(job.warehouse))
    letters = _letters(job, index, asked)
    producer = None if dry_run else kafka.producer(job.settings, "weir-replay")
    try:
        while some := list(islice(letters, AT_ONCE)):
            with job.warehouse.transaction() as c:
                c.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:key, 0))"), {"key": LOCK})
                _chunk(c, judge, producer, some, replay_id, asked.device, found)
    except KafkaError as error:
        raise kafka.unavailable(job.settings, error) from error
    finally:
        if producer is not None:
            kafka.close(producer)
    return found


def has_landed(job: Job, ends: Mapping[str, int]) -> bool:
    marks = read_index(job.lake).marks
    return all(marks.get(name, 0) >= end for name, end in ends.items())


def in_service(warehouse: Warehouse) -> dict[tuple[str, str], bool]:
    rows = warehouse.rows("SELECT type, device_id, retired_at IS NULL AS serves FROM devices")
    return {(row["type"], row["device_id"]): row["serves"] for row in rows}


def _letters(job: Job, index: LakeIndex, asked: Filter) -> Iterator[dict[str, Any]]:
    """Dead letters of the filter, oldest first, with their whole payloads."""
    if asked.metric is not None:
        return
    for files in index.partitions.values():
        if files.partition.type != REJECTED or not asked.window.has(files.partition):
            continue
        for batch in reject_batches(job.lake, files):
            for row in batch.to_pylist():
                if _is_asked_for(row, asked):
                    yield row


def _is_asked_for(row: dict[str, Any], asked: Filter) -> bool:
    moment, window = row["kafka_timestamp"], asked.window
    if (window.start and moment < window.start) or (window.end and moment >= window.end):
        return False
    pairs = ((asked.system, row["system"]), (asked.type, row["device_type"]), (asked.reason, row["reason"]))
    return all(wanted is None or wanted == got for wanted, got in pairs)


def _chunk(
    c: Connection, judge: Requalifier, producer: Any, letters: list[dict[str, Any]], replay_id: str,
    device: str | None, found: Replay,
) -> None:  # fmt: skip
    done = _replayed(c, letters)
    sent: list[tuple[dict[str, Any], Requalified, list[Any]]] = []
    for letter in letters:
        if _place(letter) in done:
            found.before += 1
            continue
        now = _judged(judge, letter)
        if device is not None and (isinstance(now, Reject) or now.reading.device_id != device):
            continue  # whose a letter is that cannot be read, nobody knows
        if isinstance(now, Reject):
            found.still[now.reason] = found.still.get(now.reason, 0) + 1
            continue
        reading = now.reading
        found.letters[reading.device_type] = found.letters.get(reading.device_type, 0) + 1
        found.partitions.add(partition_of(judge.catalog.type(reading.device_type), reading.event_time).key)
        if producer is not None:
            value = encode_reading(reading)
            sent.append((letter, now, [producer.send(topic, value, now.key) for topic in now.topics]))
    if not sent:
        return
    rows = []
    for letter, now, futures in sent:
        at, *_ = [future.get(CONFIRM_SECONDS) for future in futures]
        name = f"{at.topic}/{at.partition}"
        found.ends[name] = max(found.ends.get(name, 0), at.offset + 1)
        rows.append(_row(judge, letter, now, at, replay_id))
    c.execute(
        text(
            "INSERT INTO quarantine_replays (kafka_topic, kafka_partition, kafka_offset, replay_id, system, type,"
            " device_id, event_time, lake_partition, to_topic, to_partition, to_offset) VALUES (:kafka_topic,"
            " :kafka_partition, :kafka_offset, :replay_id, :system, :type, :device_id, :event_time, :lake_partition,"
            " :to_topic, :to_partition, :to_offset)"
        ),
        rows,
    )


def _judged(judge: Requalifier, letter: dict[str, Any]) -> Requalified | Reject:
    received = letter["received_at"]
    if letter["mqtt_topic"] is not None:
        return judge.message(letter["mqtt_topic"], letter["payload"], round(received.timestamp() * 1_000_000))
    if letter["source_topic"] is not None:
        return judge.record(letter["source_topic"], letter["payload"], round(received.timestamp() * 1000))
    return Reject(letter["reason"], "nobody knows where it came from")


def _place(row: dict[str, Any]) -> tuple[str, int, int]:
    return row["kafka_topic"], row["kafka_partition"], row["kafka_offset"]


def _replayed(c: Connection, letters: list[dict[str, Any]]) -> set[tuple[str, int, int]]:
    places = {"topics": [], "partitions": [], "offsets": []}  # type: dict[str, list[Any]]
    for topic, partition, offset in map(_place, letters):
        places["topics"].append(topic)
        places["partitions"].append(partition)
        places["offsets"].append(offset)
    found = c.execute(
        text(
            "SELECT kafka_topic, kafka_partition, kafka_offset FROM quarantine_replays JOIN unnest(CAST(:topics AS"
            " text[]), CAST(:partitions AS int[]), CAST(:offsets AS bigint[])) AS asked(kafka_topic, kafka_partition,"
            " kafka_offset) USING (kafka_topic, kafka_partition, kafka_offset)"
        ),
        places,
    )
    return {tuple(row) for row in found}


def _row(judge: Requalifier, letter: dict[str, Any], now: Requalified, at: Any, replay_id: str) -> dict[str, Any]:
    reading = now.reading
    spec = judge.catalog.type(reading.device_type)
    topic, partition, offset = _place(letter)
    return {
        "kafka_topic": topic, "kafka_partition": partition, "kafka_offset": offset, "replay_id": replay_id,
        "system": spec.system, "type": spec.type, "device_id": reading.device_id, "event_time": reading.event_time,
        "lake_partition": partition_of(spec, reading.event_time).key, "to_topic": at.topic,
        "to_partition": at.partition, "to_offset": at.offset,
    }  # fmt: skip


def _values(job: Job, asked: Filter, found: Replay) -> None:
    """Values and whole readings that are good now. A reading all of whose values were bad has them here too."""
    where, given = asked.where()
    rows = job.warehouse.rows(
        f"SELECT q.partition, q.type, q.metric, q.value FROM quarantine q WHERE q.what = 'value' AND {where}",  # noqa: S608
        **given,
    )
    for row in rows:
        spec = job.catalog.types.get(row["type"])
        if spec is not None and is_good_now(spec, row["metric"], row["value"]):
            name = f"{row['type']}.{row['metric']}"
            found.values[name] = found.values.get(name, 0) + 1
            found.partitions.add(row["partition"])
        else:
            found.still["out_of_range"] = found.still.get("out_of_range", 0) + 1
