"""What goes to `readings.rejected`: the original bytes, where they came from, and why they are no reading."""

import base64

import msgspec

from fleet.contract import Reject


class DeadLetter(msgspec.Struct, frozen=True, omit_defaults=True):
    """`received_at` is epoch milliseconds. Either `mqtt_topic`, or topic, partition and offset are set."""

    reason: str
    detail: str
    system: str
    device_type: str
    version: int
    received_at: int
    payload_base64: str
    mqtt_topic: str | None = None
    topic: str | None = None
    partition: int | None = None
    offset: int | None = None

    @property
    def payload(self) -> bytes:
        return base64.b64decode(self.payload_base64)


def dead_letter_of_message(reject: Reject, mqtt_topic: str, payload: bytes, now_us: int) -> DeadLetter:
    return DeadLetter(
        reject.reason, _plain(reject.detail), reject.system, reject.device_type, reject.version, now_us // 1000,
        base64.b64encode(payload).decode("ascii"), mqtt_topic=mqtt_topic[:1024],
    )  # fmt: skip


def dead_letter_of_row(reject: Reject, source: str, payload: bytes, now_us: int) -> DeadLetter:
    """`source`: as fleet.file_row.source_of says it; it stands where a message's topic does."""
    return dead_letter_of_message(reject, source, payload, now_us)


def dead_letter_of_record(
    reject: Reject, topic: str, partition: int, offset: int, value: bytes, append_time_ms: int
) -> DeadLetter:
    return DeadLetter(
        reject.reason, _plain(reject.detail), reject.system, reject.device_type, reject.version, append_time_ms,
        base64.b64encode(value).decode("ascii"), topic=topic, partition=partition, offset=offset,
    )  # fmt: skip


def _plain(detail: str) -> str:
    """JSON may name half a surrogate pair, which UTF-8 cannot: it is shown as its escape."""
    return detail.encode("utf-8", "backslashreplace").decode("utf-8")


encode_dead_letter = msgspec.json.Encoder().encode
decode_dead_letter = msgspec.json.Decoder(DeadLetter).decode
