"""What stands in Kafka, read from the beginning to the end that it has now."""

from typing import Any

from connections import kafka
from connections.kafka_batches import Batches
from fleet.channels import is_reading, mark_of
from fleet.settings import Settings


def records(settings: Settings, *topics: str, **options: Any) -> list[Any]:
    """Every record of the topics, in order of partition and offset. `options`: of kafka-python's consumer."""
    consumer = kafka.consumer(settings, "tests", **options)
    try:
        places = kafka.partitions(consumer, topics)
        ends = {place: end for place, end in consumer.end_offsets(places).items() if end > 0}
        if not ends:
            return []
        consumer.assign(list(ends))
        consumer.seek_to_beginning()
        batches, found = Batches(consumer), list[Any]()
        while any(consumer.position(place) < end for place, end in ends.items()):
            for batch in batches.poll(200):
                found += batch.records()
        return sorted(found, key=lambda r: (r.topic, r.partition, r.offset))
    finally:
        consumer.close(autocommit=False)


def readings(settings: Settings, *topics: str) -> list[Any]:
    """Without heartbeats and control records."""
    return [r for r in records(settings, *topics) if is_reading(mark_of(r.headers))]
