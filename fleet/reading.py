"""A reading, and its canonical form on Kafka: compact JSON, epoch milliseconds, values as numbers or null."""

import zlib
from datetime import UTC, datetime, timedelta

import msgspec

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Reading(msgspec.Struct, frozen=True, gc=False):
    """What one device said at one moment. `values` has the metrics that it carried, null among them as None;
    true and false are 1.0 and 0.0. `seq` is the device's own count, never invented here."""

    device_id: str
    device_type: str
    site: str
    event_time_us: int
    values: dict[str, float | None]
    seq: int | None = None
    version: int = 1
    """Of the device type's spec that it was read by."""

    @property
    def event_time(self) -> datetime:
        return to_datetime(self.event_time_us)


class Record(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, forbid_unknown_fields=True):
    """The canonical form. `event_time` is epoch milliseconds, with a fraction only where there are microseconds."""

    device_id: str
    device_type: str
    site: str
    event_time: int | float
    values: dict[str, float | None]
    version: int
    seq: int | None = None


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Record).decode


def encode_reading(reading: Reading) -> bytes:
    milliseconds, rest = divmod(reading.event_time_us, 1000)
    return _encode(
        Record(
            reading.device_id,
            reading.device_type,
            reading.site,
            milliseconds if rest == 0 else reading.event_time_us / 1000,
            reading.values,
            reading.version,
            reading.seq,
        )
    )


def digest_of(value: bytes | memoryview) -> int:
    """Of the canonical form. Stands for a reading's seq where it has none (RULES §3, Duplicates). CRC-32 is the same on
    every machine and costs a tenth of BLAKE2b; it tells apart payloads of one device, event time and set of metrics
    alone."""
    return zlib.crc32(value)


def decode_reading(value: bytes) -> Reading:
    """Raises msgspec.MsgspecError where the bytes are not a canonical reading. Knows no spec: see fleet.contract."""
    r = _decode(value)
    return Reading(
        r.device_id, r.device_type, r.site, round(r.event_time * 1000), r.values, r.seq, r.version
    )  # fmt: skip


def to_datetime(epoch_us: int) -> datetime:
    return EPOCH + timedelta(microseconds=epoch_us)


def to_epoch_us(moment: datetime) -> int:
    """Raises ValueError for a time without a zone: it would be guessed."""
    if moment.tzinfo is None:
        raise ValueError("the time has no zone")
    return (moment - EPOCH) // timedelta(microseconds=1)
