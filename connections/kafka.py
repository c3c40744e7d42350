"""Kafka: producers, consumers and what is asked of the broker, with errors that say what to check.

kafka-python shows a wrong password, a wrong CA and a dead broker alike, as "Unable to bootstrap". A look at the port
tells them apart.
"""

import socket
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, NamedTuple

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import AuthorizationError, KafkaError
from kafka.partitioner.default import DefaultPartitioner, murmur2

from fleet.errors import ConfigurationError, Refused, Unavailable
from fleet.settings import Settings

INTERNALS_OF = "3.0.12"
"""Of kafka-python: the only version whose inside was looked at by those who reach into it."""
BOOTSTRAP_TIMEOUT_MS = 5_000
LINGER_MS = 5
MAX_RECORD_BYTES = 3 * 1024 * 1024
"""As the broker's message.max.bytes."""
READ, WRITE = "READ", "WRITE"
UNKNOWN_TOPIC = 3


def _common(settings: Settings, client_id: str) -> dict[str, Any]:
    options: dict[str, Any] = {
        "bootstrap_servers": settings.kafka_bootstrap,
        "client_id": client_id,
        "security_protocol": settings.kafka_protocol,
        "bootstrap_timeout_ms": BOOTSTRAP_TIMEOUT_MS,
        "reconnect_backoff_max_ms": 2_000,
    }
    if settings.kafka_protocol.startswith("SASL"):
        if not settings.kafka_user:
            raise ConfigurationError(
                f"no Kafka user for role {settings.role!r}: set WEIR_KAFKA_USER and WEIR_KAFKA_PASSWORD,"
                f" or name a role's file in WEIR_ENV_FILE (now: {settings.env_file or 'none'})"
            )
        options |= {
            "sasl_mechanism": settings.kafka_mechanism,
            "sasl_plain_username": settings.kafka_user,
            "sasl_plain_password": settings.kafka_password.get_secret_value(),
        }
    if settings.kafka_ca:
        if not settings.kafka_ca.is_file():
            raise ConfigurationError(f"WEIR_KAFKA_CA names {settings.kafka_ca}, which does not exist")
        options["ssl_cafile"] = str(settings.kafka_ca)
    return options


@lru_cache(maxsize=100_000)
def hash_of(key: bytes) -> int:
    """By which kafka-python and Java choose a key's partition: the remainder by their number."""
    return int(murmur2(key)) & 0x7FFFFFFF


class Remembering(DefaultPartitioner):
    """The same partitions, at an eighth of the cost: what a key's hash is stays so."""

    def partition(
        self, topic: str, key: Any, serialized_key: bytes | None, value: Any, serialized_value: Any, cluster: Any
    ) -> int:
        if serialized_key is None or not (partitions := cluster.partitions_for_topic(topic)):
            return int(super().partition(topic, key, serialized_key, value, serialized_value, cluster))
        return hash_of(serialized_key) % len(partitions)


def producer(settings: Settings, client_id: str, **overrides: Any) -> KafkaProducer:
    """Idempotent, acks=all, lz4. Raises Unavailable or Refused where the broker cannot be reached or says no."""
    options = {
        "acks": "all",
        "enable_idempotence": True,
        "compression_type": "lz4",
        "linger_ms": LINGER_MS,
        "partitioner": Remembering(),
        "batch_size": 128 * 1024,
        "max_block_ms": 10_000,
        "delivery_timeout_ms": int(settings.kafka_delivery_seconds * 1000),
        "request_timeout_ms": min(15_000, int(settings.kafka_delivery_seconds * 1000) - LINGER_MS),
        "retry_backoff_ms": 20,
        "allow_auto_create_topics": False,
        "metrics_enabled": False,
    }
    return _open(KafkaProducer, settings, client_id, options | overrides)


def close(client: KafkaProducer, seconds: float = 0) -> None:
    """Ends a producer, its thread included, whatever was not confirmed: close() alone raises before it ends the
    thread where records are left, and the thread would send them later, after somebody else has."""
    try:
        client.close(timeout=seconds)
    except KafkaError:
        client._sender.force_close()
        client._closed = True


def consumer(settings: Settings, client_id: str, group: str | None = None, **overrides: Any) -> KafkaConsumer:
    """Never commits by itself; starts at the earliest record. Subscribe or assign it."""
    options: dict[str, Any] = {
        "group_id": group,
        "enable_auto_commit": False,
        "auto_offset_reset": "earliest",
        "max_partition_fetch_bytes": 4 * 1024 * 1024,
        "max_poll_records": 5_000,
        "retry_backoff_ms": 50,
        "allow_auto_create_topics": False,
        "metrics_enabled": False,
    }
    return _open(KafkaConsumer, settings, client_id, options | overrides)


def instance_id(settings: Settings, group: str) -> str:
    """A fixed name within the group: a worker that was killed has its partitions back in 0.5 s, not after its
    session timed out."""
    return f"{group}-{socket.gethostname()}-{settings.service_instance}"


def fenced(settings: Settings, group: str) -> Refused:
    return Refused(
        f"another worker calls itself {instance_id(settings, group)!r} and has taken over; give each its own"
        " WEIR_SERVICE_INSTANCE"
    )


def admin(settings: Settings, client_id: str = "weir-admin") -> KafkaAdminClient:
    return _open(KafkaAdminClient, settings, client_id, {})


def _open(kind: type, settings: Settings, client_id: str, options: dict[str, Any]) -> Any:
    try:
        return kind(**(_common(settings, client_id) | options))
    except AuthorizationError as error:
        raise Refused(f"Kafka refuses user {settings.kafka_user!r} as {client_id}: {error}") from error
    except KafkaError as error:
        raise unavailable(settings, error) from error


def unavailable(settings: Settings, error: Exception) -> Unavailable:
    """What to check, after a look at the port: nothing there, or somebody who does not let us in."""
    where = settings.kafka_bootstrap.split(",")[0]
    host, _, port = where.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except (OSError, ValueError) as refused:
        return Unavailable(
            f"nothing answers at Kafka's address {where} ({refused}). Is it running (`weir status`), and is"
            " WEIR_KAFKA_BOOTSTRAP right?"
        )
    return Unavailable(
        f"Kafka at {where} does not let user {settings.kafka_user!r} in, or is still starting ({error})."
        f" Check user and password in {settings.env_file or 'WEIR_KAFKA_USER, WEIR_KAFKA_PASSWORD'}, and"
        f" WEIR_KAFKA_PROTOCOL={settings.kafka_protocol}, WEIR_KAFKA_MECHANISM={settings.kafka_mechanism}"
        + (f", WEIR_KAFKA_CA={settings.kafka_ca}" if settings.kafka_ca else "")
    )


def check_access(settings: Settings, operation: str, topics: Iterable[str]) -> None:
    """Raises Refused naming the topics that are missing or on which this user lacks the operation (READ, WRITE).

    A consumer without READ polls forever and hears nothing, so services ask before they start.
    """
    problems = access_problems(settings, operation, topics)
    if problems:
        raise refused(settings, operation, problems)


def refused(settings: Settings, operation: str, problems: dict[str, str]) -> Refused:
    named = ", ".join(f"{topic} ({problem})" for topic, problem in problems.items())
    return Refused(
        f"Kafka user {settings.kafka_user!r} cannot {operation}: {named}; `make up` creates the topics of fleet/types,"
        " and the rights on them"
    )


def access_problems(settings: Settings, operation: str, topics: Iterable[str]) -> dict[str, str]:
    """Topic → `missing` or `not allowed`; empty when the user can do the operation on all of them."""
    wanted = sorted(set(topics))
    client = admin(settings)
    try:
        found = {t["name"]: t for t in client.describe_topics(wanted)}
    except KafkaError as error:
        raise unavailable(settings, error) from error
    finally:
        client.close()
    problems = {}
    for topic in wanted:
        about = found.get(topic)
        if about is None or about["error_code"] == UNKNOWN_TOPIC:
            problems[topic] = "missing"
        elif about["error_code"] or operation not in (about["authorized_operations"] or ()):
            # To a user without rights on it, Kafka does not say whether a topic exists.
            problems[topic] = "missing, or not allowed"
    return problems


ANSWER_MS = 5_000
"""How long a question about offsets waits for Kafka; kafka-python would wait for 30 s."""


class Extent(NamedTuple):
    """Where a partition's log begins, and the offset that the next record will get."""

    begin: int
    end: int


def extents(client: KafkaConsumer, places: Iterable[TopicPartition]) -> dict[TopicPartition, Extent]:
    """Raises KafkaError."""
    asked = list(places)
    begins = client.beginning_offsets(asked, timeout_ms=ANSWER_MS)
    ends = client.end_offsets(asked, timeout_ms=ANSWER_MS)
    return {place: Extent(begins[place], ends[place]) for place in asked}


def end_offsets(client: KafkaConsumer, topics: Iterable[str]) -> dict[TopicPartition, int]:
    """Raises KafkaError, Refused."""
    return dict(client.end_offsets(partitions(client, topics), timeout_ms=ANSWER_MS))


def partitions(client: KafkaConsumer, topics: Iterable[str]) -> list[TopicPartition]:
    """All partitions of the topics. Raises Refused for a topic that is not there, or not for this user."""
    found = []
    for topic in topics:
        numbers = client.partitions_for_topic(topic)
        if not numbers:
            raise Refused(f"Kafka has no topic {topic!r}, or this user may not see it")
        found += [TopicPartition(topic, number) for number in sorted(numbers)]
    return found
