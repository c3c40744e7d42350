"""What stands in Kafka, from the beginning to the end that it has now."""

from typing import Any, NamedTuple

from kafka import TopicPartition

from connections import kafka
from connections.kafka_batches import Batches
from fleet.channels import is_reading, mark_of
from fleet.settings import Settings


class Seen(NamedTuple):
    position: int
    """The offset to go on from."""
    records: list[Any]


_seen: dict[tuple[str, str, TopicPartition], Seen] = {}
"""What this process has read, by password (each stack has its own), options and partition: tests that wait ask for all
again and again."""


def records(settings: Settings, *topics: str, **options: Any) -> list[Any]:
    """Every record of the topics, in order of partition and offset. `options`: of kafka-python's consumer."""
    whose = settings.kafka_password.get_secret_value(), str(options)
    consumer = kafka.consumer(settings, "tests", **options)
    try:
        places = sorted(kafka.partitions(consumer, topics))
        extents = {place: extent for place, extent in kafka.extents(consumer, places).items() if extent.end > 0}
        if not extents:
            return []
        consumer.assign(list(extents))
        found = dict[TopicPartition, list[Any]]()
        for place, (begin, end) in extents.items():
            seen = _seen.get((*whose, place), Seen(begin, []))
            if not begin <= seen.position <= end:  # deleted, or made anew
                seen = Seen(begin, [])
            found[place] = [record for record in seen.records if record.offset >= begin]
            consumer.seek(place, seen.position)
        batches = Batches(consumer)
        while any(consumer.position(place) < extent.end for place, extent in extents.items()):
            for batch in batches.poll(200):
                found[TopicPartition(batch.topic, batch.partition)] += batch.records()
        for place, of_place in found.items():
            _seen[*whose, place] = Seen(consumer.position(place), of_place)
        return [record for place in sorted(found) for record in found[place]]
    finally:
        consumer.close(autocommit=False)


def readings(settings: Settings, *topics: str) -> list[Any]:
    """Without heartbeats and control records."""
    return [r for r in records(settings, *topics) if is_reading(mark_of(r.headers))]
