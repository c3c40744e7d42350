"""A manifest commits one flush of one Kafka partition to the lake: what is not in a manifest is not there."""

import msgspec


class DataFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`partition` is the key of a fleet.lake_layout.Partition, `path` is relative to the lake."""

    path: str
    partition: str
    version: int
    rows: int
    bytes: int


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Every offset from first to last is counted exactly once: a reading, dead letter or transition in a file (`rows`),
    an unreadable record (also in a file, under rejected), a heartbeat, a control record, `missing`: the log no longer
    had it (Kafka's retention was shorter than landing's absence), or one of `unseen`: in a topic that is written by
    transactions, the marks that end them and what was never committed."""

    topic: str
    kafka_partition: int
    first_offset: int
    last_offset: int
    rows: int
    unreadable: int
    heartbeats: int
    controls: int
    missing: int
    first_append_ms: int
    last_append_ms: int
    files: list[DataFile]
    unseen: int = 0
    returned: list[tuple[int, int]] = []
    """Of the readings that rules pass over (fleet.channels.RETURNED), the first and last offset of each stretch."""

    @property
    def offsets(self) -> int:
        return self.last_offset - self.first_offset + 1

    @property
    def passed_over(self) -> frozenset[int]:
        """The offsets in `returned`."""
        return frozenset(offset for first, last in self.returned for offset in range(first, last + 1))

    def imbalance(self) -> int:
        """Offsets less all that was counted; 0 in a manifest that is right."""
        in_files = sum(file.rows for file in self.files)
        counted = self.rows + self.unreadable + self.heartbeats + self.controls + self.missing + self.unseen
        return (self.offsets - counted) or (in_files - self.rows - self.unreadable)


encode_manifest = msgspec.json.Encoder().encode
decode_manifest = msgspec.json.Decoder(Manifest).decode
