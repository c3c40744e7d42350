"""A snapshot of a partition's alert state as Kafka records, and back: cut into chunks, each checked.

The topic is compacted. Two slots take turns, so that the snapshot before the newest stays whole while the newest is
written, and is there where the newest turns out to be damaged.
"""

import hashlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec

CHUNK_BYTES = 512 * 1024
SLOTS = 2


class Snapshot(NamedTuple):
    """The state after every record of the partition below `offset`."""

    offset: int
    number: int
    """Of this partition's snapshots; the next one's slot is `number + 1` modulo SLOTS."""
    state: bytes


class _Chunk(msgspec.Struct, frozen=True, array_like=True):
    offset: int
    number: int
    place: int
    of: int
    digest: bytes
    """SHA-256 of the whole state."""
    data: bytes
    """This part of the state; the producer compresses it."""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Chunk).decode


def chunks(snapshot: Snapshot) -> Iterator[tuple[bytes, bytes]]:
    """(key, value) of each record."""
    state = snapshot.state
    digest = hashlib.sha256(state).digest()
    parts = [state[at : at + CHUNK_BYTES] for at in range(0, max(len(state), 1), CHUNK_BYTES)]
    slot = snapshot.number % SLOTS
    for place, part in enumerate(parts):
        chunk = _Chunk(snapshot.offset, snapshot.number, place, len(parts), digest, part)
        yield f"{slot}.{place}".encode(), _encode(chunk)


def assemble(records: Iterable[tuple[bytes | None, bytes | None]]) -> tuple[list[Snapshot], list[str]]:
    """The whole snapshots among a partition's records, newest first, and what is wrong with the others, in words.

    Records are (key, value) in the log's order; the last of a key counts, whether or not it was compacted.
    """
    problems: list[str] = []
    newest = {key: value for key, value in records if key is not None}
    slots: dict[int, dict[int, _Chunk]] = {}
    for key, value in newest.items():
        try:
            slot, place = (int(part) for part in key.split(b"."))
            chunk = _decode(value or b"")
        except (ValueError, msgspec.MsgspecError) as error:
            problems.append(f"record {key[:40]!r} is no part of a snapshot: {error}")
            continue
        slots.setdefault(slot, {})[place] = chunk
    whole = []
    for slot, parts in sorted(slots.items()):
        # A longer, older snapshot leaves chunks behind in its slot: they have an older number.
        number = max(chunk.number for chunk in parts.values())
        current = {place: chunk for place, chunk in parts.items() if chunk.number == number}
        try:
            whole.append(_join(current))
        except ValueError as error:
            problems.append(f"snapshot {number} in slot {slot} is damaged: {error}")
    return sorted(whole, key=lambda s: s.number, reverse=True), problems


def _join(parts: dict[int, _Chunk]) -> Snapshot:
    """Raises ValueError where they are not all of one snapshot."""
    first = next(iter(parts.values()))
    if sorted(parts) != list(range(first.of)):
        raise ValueError(f"{len(parts)} of {first.of} parts are there")
    if len({(c.offset, c.of, c.digest) for c in parts.values()}) != 1:
        raise ValueError("its parts are of different snapshots")
    state = b"".join(parts[place].data for place in range(first.of))
    if hashlib.sha256(state).digest() != first.digest:
        raise ValueError("its SHA-256 is another")
    return Snapshot(first.offset, first.number, state)
