"""Which partition a record goes to: as the library's own partitioner has it, and Kafka's Java client."""

from hypothesis import given
from hypothesis import strategies as st
from kafka.partitioner.default import DefaultPartitioner

from connections.kafka import Remembering


class Cluster:
    def __init__(self, count: int):
        self.count = count

    def topics(self) -> set[str]:
        return {"readings"}

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        return set(range(self.count)) if topic == "readings" else None

    available_partitions_for_topic = partitions_for_topic


@given(st.binary(max_size=40), st.integers(1, 64))
def test_as_the_librarys(key: bytes, count: int) -> None:
    asked = ("readings", None, key, None, b"", Cluster(count))
    assert Remembering().partition(*asked) == DefaultPartitioner().partition(*asked)


def test_without_a_key_any_partition_will_do() -> None:
    found = {Remembering().partition("readings", None, None, None, b"", Cluster(3)) for _ in range(200)}
    assert found == {0, 1, 2}
