"""What was quarantined and is good now goes where it belongs.

- A dead letter that is a reading now is written to Kafka as the bridge would have written it, marked RETURNED; landing,
  live and the batch take it from there, late, and alert rules pass over it, so that nobody is paged. It is written
  once: `quarantine_replays` says which have been. One that was written and has no row there, after a kill in between,
  comes again as a duplicate, which the batch drops.
- A value that is in range now is still in the lake: its partition is processed again, whole.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from kafka.errors import KafkaError
from sqlalchemy import Connection, text

from connections import kafka
from connections.warehouse import Warehouse, copy_rows
from etl.lake_frames import reject_batches
from etl.lake_index import read_index
from etl.load import ALL_VALUES_BAD, OUT_OF_RANGE
from etl.quarantine import ACCEPTED, Filter, limits
from etl.run import Job
from fleet.channels import MARK_HEADER, RETURNED, parse_request_source, readings_topics
from fleet.channels import REJECTED as REJECTED_TOPIC
from fleet.contract import Reject
from fleet.errors import ConfigurationError
from fleet.file_row import SOURCE as FILE
from fleet.lake_layout import REJECTED, partition_of
from fleet.reading import encode_reading
from fleet.requalify import Requalified, Requalifier

AT_ONCE = 500
"""Dead letters in one transaction: so many may come twice after a kill."""
CONFIRM_SECONDS = 30
LOCK = "quarantine_replay"
COLUMNS = (
    "kafka_topic", "kafka_partition", "kafka_offset", "replay_id", "system", "type", "device_id", "event_time",
    "lake_partition", "to_topic", "to_partition", "to_offset", "more_offsets", "more_partitions",
)  # fmt: skip


@dataclass
class Replay:
    """What is good now: of dead letters how many by type, of values how many by metric; what stays, by reason."""

    letters: Counter[str] = field(default_factory=Counter)
    values: Counter[str] = field(default_factory=Counter)
    still: Counter[str] = field(default_factory=Counter)
    before: int = 0
    """Dead letters that had come back before."""
    partitions: set[str] = field(default_factory=set)
    """Of the lake, that are to be processed again."""
    ends: dict[str, int] = field(default_factory=dict)
    """topic/partition → the offset after the last record that was written: when it has landed, all of it has."""


def replay(job: Job, asked: Filter, replay_id: str, dry_run: bool = False) -> Replay:
    """Of a replay that was broken off and is tried again by the same id, `partitions` and `ends` are those of all its
    tries. Raises Unavailable, Refused, DataError, ConfigurationError for a reason of which nothing comes back."""
    if asked.reason == ALL_VALUES_BAD:
        raise ConfigurationError(
            f"a reading that is {ALL_VALUES_BAD} comes back with its values: reason {OUT_OF_RANGE}"
        )
    found = Replay()
    _values(job, asked, found)
    judge = requalifier(job)
    letters = _letters(job, asked)
    producer = None
    if not dry_run:
        kafka.check_access(job.settings, kafka.WRITE, readings_topics(job.catalog).keys() - {REJECTED_TOPIC})
        producer = kafka.producer(job.settings, "weir-replay")
    try:
        while some := list(islice(letters, AT_ONCE)):
            with job.warehouse.transaction() as c:
                c.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:key, 0))"), {"key": LOCK})
                good = _good(c, judge, some, asked, found)
                if producer is not None:
                    _give_back(c, judge, producer, good, replay_id)
    except KafkaError as error:
        raise kafka.unavailable(job.settings, error) from error
    finally:
        if producer is not None:
            kafka.close(producer)
    if not dry_run:
        _add_places(job.warehouse, replay_id, found)
    return found


def has_landed(job: Job, ends: Mapping[str, int]) -> bool:
    for name, end in ends.items():
        topic, _, partition = name.rpartition("/")
        if job.lake.landed_to(topic, int(partition)) < end:
            return False
    return True


def requalifier(job: Job) -> Requalifier:
    """By today's specs and registry."""
    rows = job.warehouse.rows("SELECT type, device_id, site, retired_at IS NULL AS serves FROM devices")
    of_device = {(row["type"], row["device_id"]): row for row in rows}
    return Requalifier(
        job.catalog,
        {device: row["serves"] for device, row in of_device.items()},
        {device: row["site"] for device, row in of_device.items()},
    )


def _values(job: Job, asked: Filter, found: Replay) -> None:
    """A reading all of whose values were bad has them here too."""
    where, given = asked.where()
    rows = job.warehouse.rows(
        "SELECT q.partition, q.type, q.metric, count(good.type) AS good, count(*) AS held"  # noqa: S608
        f" FROM quarantine q{ACCEPTED} WHERE q.what = 'value' AND {where} GROUP BY 1, 2, 3",
        **limits(job.catalog), **given,
    )  # fmt: skip
    for row in rows:
        if row["good"]:
            found.values[f"{row['type']}.{row['metric']}"] += row["good"]
            found.partitions.add(row["partition"])
        if row["held"] > row["good"]:
            found.still[OUT_OF_RANGE] += row["held"] - row["good"]


def _letters(job: Job, asked: Filter) -> Iterator[dict[str, Any]]:
    """Dead letters of the asked times and reason, oldest first, with their whole payloads."""
    if asked.metric is not None:
        return
    start, end = asked.window
    for files in read_index(job.lake).partitions.values():
        if files.partition.type != REJECTED or not asked.window.has(files.partition):
            continue
        for batch in reject_batches(job.lake, files):
            for row in batch.to_pylist():
                is_in_time = (start is None or row["kafka_timestamp"] >= start) and (
                    end is None or row["kafka_timestamp"] < end
                )
                if is_in_time and asked.reason in (None, row["reason"]):
                    yield row


def _good(
    c: Connection, judge: Requalifier, letters: list[dict[str, Any]], asked: Filter, found: Replay
) -> list[tuple[dict[str, Any], list[Requalified]]]:
    """Those that are readings now, and have not come back; counts all."""
    done, good = _replayed(c, letters), []
    for letter in letters:
        now = _judged(judge, letter)
        if isinstance(now, Reject):
            # Whose a letter is that cannot be read, nobody knows.
            said: tuple[str | None, ...] = (letter["system"], letter["device_type"], None)
        else:
            reading = now[0].reading
            spec = judge.catalog.type(reading.device_type)
            said = (spec.system, spec.type, reading.device_id)
        wanted = (asked.system, asked.type, asked.device)
        if any(one not in (None, other) for one, other in zip(wanted, said, strict=True)):
            continue
        if _place(letter) in done:
            found.before += 1
        elif isinstance(now, Reject):
            found.still[now.reason] += 1
        else:
            found.letters[spec.type] += 1
            found.partitions.update(_partitions_of(judge, now))
            good.append((letter, now))
    return good


def _judged(judge: Requalifier, letter: dict[str, Any]) -> list[Requalified] | Reject:
    """As a rule one; of a row of a file and of what came to the gateway there may be several."""
    received_us = round(letter["received_at"].timestamp() * 1_000_000)
    source, payload = letter["mqtt_topic"], letter["payload"]
    if source is not None and source.startswith(FILE):
        return _judged_row(judge, letter, received_us)
    if source is not None and (came := parse_request_source(source)) is not None:
        address, is_senml = came
        return judge.request(address, payload, is_senml, received_us)
    if source is not None:
        found = judge.message(source, payload, received_us)
    elif letter["source_topic"] is not None:
        found = judge.record(letter["source_topic"], payload, received_us // 1000)
    else:
        return Reject(letter["reason"], "nobody knows where it came from")
    return found if isinstance(found, Reject) else [found]


def _judged_row(judge: Requalifier, letter: dict[str, Any], received_us: int) -> list[Requalified] | Reject:
    try:
        row = json.loads(letter["payload"])
    except ValueError:
        row = None
    if not isinstance(row, dict) or letter["device_type"] not in judge.catalog.types:
        return Reject(letter["reason"], letter["detail"])
    return judge.row(letter["device_type"], row, received_us)


def _give_back(
    c: Connection,
    judge: Requalifier,
    producer: Any,
    good: list[tuple[dict[str, Any], list[Requalified]]],
    replay_id: str,
) -> None:
    headers = [(MARK_HEADER, RETURNED)]
    sent = [
        [[producer.send(topic, encode_reading(one.reading), one.key, headers) for topic in one.topics] for one in now]
        for _, now in good
    ]
    places = [[_place_of(one) for one in of_row] for of_row in sent]
    rows = [_row(judge, letter, now, at, replay_id) for (letter, now), at in zip(good, places, strict=True)]
    copy_rows(c, "quarantine_replays", COLUMNS, rows)


def _place_of(sent: list[Any]) -> Any:
    """Where Kafka has a reading, on its type's own topic; that its copies are there is waited for, too."""
    first, *_ = [one.get(CONFIRM_SECONDS) for one in sent]
    return first


def _row(
    judge: Requalifier, letter: dict[str, Any], now: list[Requalified], at: list[Any], replay_id: str
) -> tuple[object, ...]:
    """`at`: where Kafka has the reading, and others of the same row of a file or SenML pack."""
    reading = now[0].reading
    first, *more = at
    spec = judge.catalog.type(reading.device_type)
    partition, *partitions = _partitions_of(judge, now)
    offsets = ",".join(str(one.offset) for one in more)
    return (*_place(letter), replay_id, spec.system, spec.type, reading.device_id, reading.event_time, partition,
            first.topic, first.partition, first.offset, f"{{{offsets}}}", f"{{{','.join(partitions)}}}")  # fmt: skip


def _partitions_of(judge: Requalifier, now: list[Requalified]) -> list[str]:
    """Of the lake, each once; the first reading's first."""
    found = (partition_of(judge.catalog.type(one.reading.device_type), one.reading.event_time) for one in now)
    return list(dict.fromkeys(partition.key for partition in found))


def _place(row: dict[str, Any]) -> tuple[str, int, int]:
    return row["kafka_topic"], row["kafka_partition"], row["kafka_offset"]


def _replayed(c: Connection, letters: list[dict[str, Any]]) -> set[tuple[str, int, int]]:
    topics, partitions, offsets = map(list, zip(*map(_place, letters), strict=True))
    found = c.execute(
        text(
            "SELECT kafka_topic, kafka_partition, kafka_offset FROM quarantine_replays JOIN unnest(CAST(:topics AS"
            " text[]), CAST(:partitions AS int[]), CAST(:offsets AS bigint[])) AS asked(kafka_topic, kafka_partition,"
            " kafka_offset) USING (kafka_topic, kafka_partition, kafka_offset)"
        ),
        {"topics": topics, "partitions": partitions, "offsets": offsets},
    )
    return {(row[0], row[1], row[2]) for row in found}


def _add_places(warehouse: Warehouse, replay_id: str, found: Replay) -> None:
    rows = warehouse.rows(
        "SELECT to_topic || '/' || to_partition AS name, max(place) + 1 AS after,"
        " array_agg(DISTINCT lake_key) AS partitions FROM quarantine_replays,"
        " unnest(to_offset || more_offsets) AS place, unnest(lake_partition || more_partitions) AS lake_key"
        " WHERE replay_id = :replay_id GROUP BY 1",
        replay_id=replay_id,
    )
    for row in rows:
        found.ends[row["name"]] = row["after"]
        found.partitions.update(row["partitions"])
