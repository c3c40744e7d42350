"""The records of Kafka's batches (message format 2) as spans of one buffer, found by numpy instead of record by record.

A record is `length, attributes, timestamp delta, offset delta, key length, key, value length, value, header count,
headers`; all but attributes (a byte), key, value and headers are zigzag varints. Lengths chain: each says where the
next record begins, which a loop must follow (200 ns a record). Records of JSON objects without headers end in `}` and
a zero byte, so their ends are guessed from those (75 ns) and the chain of lengths proves the guess; where it does not,
the loop is run.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

Ints = np.ndarray[Any, np.dtype[np.int64]]
Headers = list[tuple[str, bytes | None]]
PADDING = bytes(16)
"""Behind the last record: varints are read a byte at a time for all records at once."""
END_OF_OBJECT = ord("}")


class BadRecords(ValueError):
    """The bytes are no records of format 2, though their checksum may be right."""


class Spans(NamedTuple):
    """One entry a record, in the order of the buffer. A length of -1 is null."""

    offset_deltas: Ints
    timestamp_deltas_ms: Ints
    key_starts: Ints
    key_lengths: Ints
    value_starts: Ints
    value_lengths: Ints
    headers: dict[int, Headers]
    """Of those that have any, by their place."""


def spans_of(buffer: bytes, ends: Sequence[int], counts: Sequence[int]) -> Spans:
    """The records of several batches that stand one after the other: batch i ends at `ends[i]` and has `counts[i]`
    records, at least one; then comes PADDING. Raises BadRecords."""
    data = np.frombuffer(buffer, np.uint8)
    if buffer[ends[-1] :] != PADDING:
        raise ValueError("the buffer must end in PADDING")
    try:
        found = _guess(data, ends, counts)
        starts, record_ends = _walk(buffer, ends, counts) if found is None else found
        timestamp_deltas, at = _varints(data, starts + 1)
        offset_deltas, at = _varints(data, at)
        key_lengths, key_starts = _varints(data, at)
        value_lengths, value_starts = _varints(data, key_starts + np.maximum(key_lengths, 0))
        header_counts, at = _varints(data, value_starts + np.maximum(value_lengths, 0))
        headers: dict[int, Headers] = {}
        for place in np.flatnonzero(header_counts).tolist():
            headers[place], at[place] = _headers(buffer, int(at[place]), int(header_counts[place]))
    except (IndexError, ValueError) as error:
        raise BadRecords(f"{error!r}") from None
    wrong = np.flatnonzero(at != record_ends)
    if wrong.size:
        first = int(wrong[0])
        said, found_bytes = int(record_ends[first] - starts[first]), int(at[first] - starts[first])
        raise BadRecords(f"record {first} says that it has {said} bytes and has {found_bytes}")
    return Spans(offset_deltas, timestamp_deltas, key_starts, key_lengths, value_starts, value_lengths, headers)


def _guess(data: np.ndarray[Any, Any], ends: Sequence[int], counts: Sequence[int]) -> tuple[Ints, Ints] | None:
    """(starts behind the length, ends) of all records, or None where the guess is not proved."""
    zeros = np.flatnonzero(data[: ends[-1]] == 0)
    record_ends = zeros[data[zeros - 1] == END_OF_OBJECT] + 1
    if len(record_ends) != sum(counts):
        return None
    if not np.array_equal(record_ends[np.cumsum(counts) - 1], ends):
        return None
    before = np.empty_like(record_ends)
    before[0], before[1:] = 0, record_ends[:-1]
    lengths, starts = _varints(data, before)
    return (starts, record_ends) if np.array_equal(starts + lengths, record_ends) else None


def _walk(buffer: bytes, ends: Sequence[int], counts: Sequence[int]) -> tuple[Ints, Ints]:
    starts: list[int] = []
    lengths: list[int] = []
    at = 0
    for end, count in zip(ends, counts, strict=True):
        for _ in range(count):
            first, second = buffer[at], buffer[at + 1]
            if first & 1:  # the sign
                raise BadRecords("a negative length")
            if first >= 0x80 > second:  # 64 to 8,191 bytes, as most have
                length, at = ((first & 0x7F) | (second << 7)) >> 1, at + 2
            else:
                length, at = _varint(buffer, at)
            starts.append(at)
            lengths.append(length)
            at += length
        if at != end:
            raise BadRecords(f"{count} records end at byte {at} of their batch, which ends at {end}")
    found = np.array(starts, np.int64)
    return found, found + np.array(lengths, np.int64)


def _varints(data: np.ndarray[Any, Any], at: Ints) -> tuple[Ints, Ints]:
    """(values, positions after them) of the zigzag varints at these positions."""
    byte = data[at]
    value = (byte & 0x7F).astype(np.uint64)
    after = at + 1
    more, shift = byte >= 0x80, 7
    while more.any():
        if shift >= 64:
            raise ValueError("a varint of more than 64 bits")
        byte = np.where(more, data[after], 0)
        value |= (byte & 0x7F).astype(np.uint64) << np.uint64(shift)
        after = after + more
        more, shift = byte >= 0x80, shift + 7
    return (value >> np.uint64(1)).astype(np.int64) ^ -(value & np.uint64(1)).astype(np.int64), after


def _varint(buffer: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = buffer[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1), at
        if shift >= 64:
            raise BadRecords("a varint of more than 64 bits")


def _headers(buffer: bytes, at: int, count: int) -> tuple[Headers, int]:
    if count < 0:
        raise BadRecords(f"{count} headers")
    headers: Headers = []
    for _ in range(count):
        length, at = _varint(buffer, at)
        if length < 0:
            raise BadRecords("a header without a name")
        name, at = buffer[at : at + length].decode(errors="replace"), at + length
        length, at = _varint(buffer, at)
        headers.append((name, None if length < 0 else buffer[at : at + length]))
        at += max(length, 0)
    return headers, at
