"""Control records on their way from the registry's log to Kafka: each after its commit, in order, and marked when Kafka
has it. One publisher at a time; one that dies between Kafka and the mark leaves records that the next sends again,
which their revisions make harmless.
"""

from collections.abc import Collection
from typing import Any

from kafka.errors import KafkaError
from sqlalchemy import text

from connections import kafka
from connections.warehouse import Warehouse
from fleet.channels import CONTROL, MARK_HEADER
from fleet.control import Routed, decode_control
from fleet.errors import Unavailable, WeirError
from fleet.settings import Settings

WAVE = 1000
"""Records that are confirmed and marked together."""
CONFIRM_SECONDS = 20
LOCK = 0x57656A72
"""Advisory lock key: whoever holds it publishes."""
LOCK_SECONDS = 30


def open_producer(settings: Settings) -> Any:
    """For `publish`. Raises Unavailable, Refused."""
    return kafka.producer(
        settings, f"weir-{settings.role}-control", max_block_ms=3_000,
        delivery_timeout_ms=int(CONFIRM_SECONDS * 1000 * 0.9), request_timeout_ms=10_000,
    )  # fmt: skip


def publish(warehouse: Warehouse, producer: Any, topics: Collection[str]) -> int:
    """Sends what these topics have not had yet; returns how many records were marked. Raises Unavailable; what one
    topic's trouble leaves waiting holds up no other."""
    marked, failure = 0, None
    for topic in sorted(topics):
        try:
            while sent := _publish_wave(warehouse, producer, topic):
                marked += sent
        except KafkaError as error:
            failure = failure or Unavailable(f"control records for topic {topic} wait in the registry: {error!r}")
    if failure:
        raise failure
    return marked


def _publish_wave(warehouse: Warehouse, producer: Any, topic: str) -> int:
    with warehouse.transaction() as connection:
        connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})
        rows = connection.execute(
            text(
                "SELECT key, except_key, record FROM control_records WHERE published_at IS NULL"
                " AND kafka_topic = :topic ORDER BY revision LIMIT :wave"
            ),
            {"topic": topic, "wave": WAVE},
        ).all()
        wave = wave_of([Routed(topic, r.key, decode_control(r.record.encode()), r.except_key) for r in rows])
        if not wave:
            return 0
        confirmations = []
        for row, routed in zip(rows, wave, strict=False):
            value = row.record.encode()
            for partition in partitions_of(routed, sorted(producer.partitions_for(topic))):
                key = routed.key.encode() if routed.key is not None else None
                headers = [(MARK_HEADER, CONTROL)]
                confirmations.append(producer.send(topic, value, key, headers, partition))
        for confirmation in confirmations:
            confirmation.get(timeout=CONFIRM_SECONDS)
        connection.execute(
            text("UPDATE control_records SET published_at = clock_timestamp() WHERE revision = ANY(:revisions)"),
            {"revisions": [routed.record.revision for routed in wave]},
        )
        return len(wave)


def wave_of(waiting: list[Routed]) -> list[Routed]:
    """The first of them, up to the second of a subject: Kafka may refuse one and take a later one, and of a subject
    the later one must not come first."""
    subjects = set()
    for place, routed in enumerate(waiting):
        if routed.record.subject in subjects:
            return waiting[:place]
        subjects.add(routed.record.subject)
    return waiting


def partitions_of(routed: Routed, partitions: list[int]) -> list[int]:
    """Where a record goes, of all partitions of its topic."""
    if routed.key is None:
        return partitions
    home = partition_of_key(routed.key, partitions)
    away = routed.except_key is not None and partition_of_key(routed.except_key, partitions) == home
    return [] if away else [home]


def partition_of_key(key: str, partitions: list[int]) -> int:
    """As the producers of readings choose it."""
    return partitions[kafka.hash_of(key.encode()) % len(partitions)]


def publish_now(settings: Settings, warehouse: Warehouse, topics: Collection[str]) -> str:
    """After a command's commit: publishes, and says in words why not yet where Kafka cannot be reached, for the change
    stands and a running bridge publishes it later. Empty: Kafka has all."""
    try:
        producer = open_producer(settings)
    except WeirError as error:
        return str(error)
    try:
        publish(warehouse, producer, topics)
    except WeirError as error:
        return str(error)
    finally:
        kafka.close(producer, 1)
    return ""
