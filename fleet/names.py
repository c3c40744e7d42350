"""Dense numbers for the names of devices and sites, so that state is held in arrays."""

from typing import Any

import numpy as np

from fleet.channels import LEVEL
from fleet.text import PADDING, Ints, Text, Words

LONGEST = 64
"""Of a name, by fleet.channels.LEVEL."""
_ODDS = [np.uint64((0x9E3779B97F4A7C15 * (2 * place + 1)) % 2**64) for place in range(LONGEST // 8)]


class Names(dict[str, int]):
    """Names → numbers from 0 in the order in which they were first asked for; -1 for what cannot be an id or a site.
    A number is never given up.

    Beside the dict, which decides, the names are in a hash table of arrays that finds thousands at once in a buffer:
    30 ns a name, where cutting it out and asking the dict takes 250.
    """

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        """By number."""
        self._lengths = np.empty(0, np.int64)
        self._words: list[Words] = []
        """Each eight bytes of the names, by number; zeros behind their ends."""
        self._hashes = np.empty(0, np.uint64)
        self._slots = np.full(1024, -1, np.int64)
        """A number stands in the slot that its hash says, or where that is taken in one of the next. At most a quarter
        is taken."""

    def __missing__(self, name: str) -> int:
        if not LEVEL.fullmatch(name):
            return -1
        self[name] = number = len(self.names)
        self.names.append(name)
        return number

    def numbers(self, text: Text, places: Ints, lengths: Ints) -> Ints:
        """Of the names that stand at these places."""
        if len(self._lengths) < len(self.names):
            self._take_in()
        words = text.words_of(places, np.minimum(lengths, LONGEST))
        slots = self._slot(_hash(words, lengths))
        found = self._slots[slots]
        rows = np.flatnonzero(~self._same(found, words, lengths))
        while (others := rows[found[rows] >= 0]).size:  # another name stands there
            slots[others] = (slots[others] + 1) % len(self._slots)
            found[others] = self._slots[slots[others]]
            same = self._same(found[others], [of_all[others] for of_all in words], lengths[others])
            rows = np.concatenate([rows[found[rows] < 0], others[~same]])
        for row in np.unique(rows).tolist():
            begin = int(places[row])
            found[row] = self[text.buffer[begin : begin + int(lengths[row])].decode("ascii", "replace")]
        return found

    def _same(self, numbers: Ints, words: list[Words], lengths: Ints) -> Any:
        if not len(self._lengths):
            return np.zeros(len(numbers), np.bool_)
        same = (numbers >= 0) & (self._lengths[numbers] == lengths)
        for known, word in zip(self._words, words, strict=False):  # of equal lengths none has more
            same &= known[numbers] == word
        return same

    def _take_in(self) -> None:
        """Into the arrays, what is only in the dict."""
        first = len(self._lengths)
        added = [name.encode() for name in self.names[first:]]
        lengths = np.array([len(name) for name in added], np.int64)
        words = Text(b"".join([*added, bytes(PADDING)])).words_of(np.cumsum(lengths) - lengths, lengths)
        none = np.zeros(1, np.uint64)
        for place in range(max(len(words), len(self._words))):
            before = self._words[place] if place < len(self._words) else none.repeat(first)
            after = words[place] if place < len(words) else none.repeat(len(added))
            self._words[place : place + 1] = [np.concatenate([before, after])]
        self._lengths = np.concatenate([self._lengths, lengths])
        self._hashes = np.concatenate([self._hashes, _hash(words, lengths)])
        if len(self.names) * 4 > len(self._slots):
            first = 0
            self._slots = np.full(1 << (len(self.names) * 8).bit_length(), -1, np.int64)
        numbers = np.arange(first, len(self.names))
        slots = self._slot(self._hashes[first:])
        while numbers.size:
            free = self._slots[slots] < 0
            self._slots[slots[free]] = numbers[free]  # of several for one slot the last has it
            left = self._slots[slots] != numbers
            numbers, slots = numbers[left], (slots[left] + 1) % len(self._slots)

    def _slot(self, hashes: Words) -> Ints:
        return (hashes >> np.uint64(65 - len(self._slots).bit_length())).astype(np.int64)


def _hash(words: list[Words], lengths: Ints) -> Words:
    """Words of zeros behind a name's end change nothing."""
    mixed = lengths.astype(np.uint64)
    for odd, word in zip(_ODDS, words, strict=False):
        mixed += word * odd
    return (mixed ^ (mixed >> np.uint64(32))) * _ODDS[0]
