"""Records of one layout, read by numpy: one encoder writes the canonical form, so the records of a type that carry the
same metrics differ only in what stands between the same texts.
"""

from typing import NamedTuple

import msgspec
import numpy as np

from fleet.names import LONGEST, Names
from fleet.reading import Record
from fleet.text import LONGEST_NUMBER, Doubles, Ints, Text

LATEST_MS = 2**53 // 1000
"""In the year 2255: a double is exact to the microsecond up to there."""


class Layout(NamedTuple):
    """What records have in common that differ only in device, site, time, values and seq. `metrics` in the order of the
    record."""

    type: str
    metrics: tuple[str, ...]
    version: int
    has_seq: bool

    def parts(self) -> list[bytes]:
        """The texts around device, site, time, each value, and seq if there is one."""
        keys = [msgspec.json.encode(metric) for metric in self.metrics]
        parts = [b'{"device_id":"', b'","device_type":%b,"site":"' % msgspec.json.encode(self.type), b'","event_time":']
        parts += [(b"," if place else b',"values":{') + key + b":" for place, key in enumerate(keys)]
        end = b'},"version":%d' % self.version
        return [*parts, end + b',"seq":', b"}"] if self.has_seq else [*parts, end + b"}"]


class Found(NamedTuple):
    """Records of a layout. One entry a record; `values` one row a metric of the layout."""

    rows: Ints
    devices: Ints
    sites: Ints
    times_ms: Doubles
    values: list[Doubles]
    seqs: Ints | None


def layout_of(record: bytes) -> Layout:
    """Of a canonical reading. That of records written in another way is no use, and does no harm."""
    read = msgspec.json.decode(record, type=Record)
    return Layout(read.device_type, tuple(read.values), read.version, read.seq is not None)


def read_layout(
    layout: Layout, text: Text, rows: Ints, starts: Ints, ends: Ints, devices: Names, sites: Names
) -> Found:
    """Those of the rows that are of this layout to the byte, with names for names (which mean in JSON what they spell)
    and numbers for numbers."""
    parts = layout.parts()
    at, end = starts[rows], ends[rows]
    tokens: list[tuple[Ints, Ints]] = []
    good = np.ones(len(rows), np.bool_)
    for place, part in enumerate(parts):
        good &= text.is_at(at, part)
        if place == 1 and not good.all():  # another type, or no canonical form at all
            rows, at, end = rows[good], at[good], end[good]
            tokens = [(begin[good], length[good]) for begin, length in tokens]
            good = np.ones(len(rows), np.bool_)
        at = at + len(part)
        if place + 1 < len(parts):
            longest = LONGEST + 8 if place < 2 else LONGEST_NUMBER
            length = text.find(at, parts[place + 1][0], longest)
            good &= length < longest
            tokens.append((at, length))
            at = at + length
    good &= at == end
    if not good.all():
        rows = rows[good]
        tokens = [(begin[good], length[good]) for begin, length in tokens]
    return _read_tokens(layout, text, rows, tokens, devices, sites)


def _read_tokens(
    layout: Layout, text: Text, rows: Ints, tokens: list[tuple[Ints, Ints]], devices: Names, sites: Names
) -> Found:
    device_numbers, site_numbers = devices.numbers(text, *tokens[0]), sites.numbers(text, *tokens[1])
    good = (device_numbers >= 0) & (site_numbers >= 0)
    seqs = None
    if layout.has_seq:
        seqs, are = text.whole_numbers(*tokens.pop())
        good &= are
    numbers = []
    for token in tokens[2:]:
        found, are = text.numbers(*token)
        good &= are
        numbers.append(found)
    times_ms, *values = numbers
    good &= np.abs(times_ms) <= LATEST_MS
    if good.all():
        return Found(rows, device_numbers, site_numbers, times_ms, values, seqs)
    return Found(
        rows[good], device_numbers[good], site_numbers[good], times_ms[good], [v[good] for v in values],
        None if seqs is None else seqs[good],
    )  # fmt: skip
