"""The state of the rules that an audit ended with, kept in the lake for the next one to begin with.

By induction it is as good as the log from its beginning, which Kafka does not keep; and it is the audit's own, not the
alert service's, whose mistakes it would share.
"""

from typing import NamedTuple

import msgspec

from connections.lake import Lake
from fleet.engine import Engine
from fleet.snapshot import SnapshotError

FOLDER = "_parity"
KEPT = 8
"""Of each Kafka partition the newest: a week of nights."""


class State(NamedTuple):
    offset: int
    """The next one to be taken."""
    began_us: int | None
    """As of fleet.parity.Circumstances."""
    snapshot: bytes


def newest(lake: Lake, topic: str, partition: int, first: int, last: int) -> State | None:
    """That can be read, at an offset from `first` to `last`."""
    folder = _folder(topic, partition)
    for name in reversed(lake.names(folder)):
        offset, _, suffix = name.partition(".")
        if suffix != "state" or not first <= int(offset) <= last:
            continue
        try:
            state = State(*msgspec.msgpack.decode(lake.read(f"{folder}/{name}"), type=tuple[int, int | None, bytes]))
            Engine.restore(state.snapshot)
        except (msgspec.MsgspecError, SnapshotError):  # of another version of Weir
            continue
        return state
    return None


def keep(lake: Lake, topic: str, partition: int, state: State) -> None:
    folder = _folder(topic, partition)
    lake.write(f"{folder}/{state.offset:020d}.state", msgspec.msgpack.encode(tuple(state)))
    lake.sweep(f"{folder}/{name}" for name in sorted(lake.names(folder))[:-KEPT])


def _folder(topic: str, partition: int) -> str:
    return f"{FOLDER}/{topic}/{partition}"
