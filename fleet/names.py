"""Dense numbers for the names of devices and sites, so that state is held in arrays."""

from typing import Any

import numpy as np

from fleet.channels import LEVEL
from fleet.text import Ints, Text, Words

LONGEST = 64
"""Of a name, by fleet.channels.LEVEL."""
_WORD = 2**64 - 1
_ODDS = [(0x9E3779B97F4A7C15 * (2 * place + 1)) & _WORD for place in range(LONGEST // 8)]


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
        self._words: list[Words] = []
        """By number: each eight bytes of the names, zeros behind their ends."""
        self._lengths = np.empty(0, np.int64)
        self._hashes: list[int] = []
        self._bits = 10
        self._slots = np.full(1 << self._bits, -1, np.int64)

    def __missing__(self, name: str) -> int:
        if not LEVEL.fullmatch(name):
            return -1
        self[name] = number = len(self.names)
        self.names.append(name)
        self._keep(number, name.encode())
        return number

    def numbers(self, text: Text, places: Ints, lengths: Ints) -> Ints:
        """Of the names that stand at these places."""
        words = text.words_of(places, np.minimum(lengths, LONGEST))
        slots = (_hash(words, lengths) >> np.uint64(64 - self._bits)).astype(np.int64)
        found = self._slots[slots]
        pending = np.flatnonzero(~self._same(found, words, lengths))
        unknown = [pending[found[pending] < 0]]
        pending = pending[found[pending] >= 0]
        while pending.size:  # another name has its slot: look in the next
            slots[pending] = (slots[pending] + 1) & (len(self._slots) - 1)
            found[pending] = self._slots[slots[pending]]
            pending = pending[~self._same(found[pending], [w[pending] for w in words], lengths[pending])]
            unknown.append(pending[found[pending] < 0])
            pending = pending[found[pending] >= 0]
        for row in np.sort(np.concatenate(unknown)).tolist():
            begin = int(places[row])
            found[row] = self[text.buffer[begin : begin + int(lengths[row])].decode("ascii", "replace")]
        return found

    def _same(self, numbers: Ints, words: list[Words], lengths: Ints) -> Any:
        if not self.names:
            return np.zeros(len(numbers), np.bool_)
        same = (numbers >= 0) & (self._lengths[numbers] == lengths)
        for known, word in zip(self._words, words, strict=False):  # equal lengths have equally many words
            same &= known[numbers] == word
        return same

    def _keep(self, number: int, name: bytes) -> None:
        if number == len(self._lengths):
            self._lengths = np.concatenate([self._lengths, np.zeros(max(number, 64), np.int64)])
            self._words = [np.concatenate([w, np.zeros(max(number, 64), np.uint64)]) for w in self._words]
        parts = [int.from_bytes(name[begin : begin + 8], "little") for begin in range(0, len(name), 8)]
        while len(self._words) < len(parts):
            self._words.append(np.zeros(len(self._lengths), np.uint64))
        for known, part in zip(self._words, parts, strict=False):
            known[number] = part
        self._lengths[number] = len(name)
        self._hashes.append(_hash_of(parts, len(name)))
        if number * 4 >= len(self._slots):
            self._bits += 2
            self._slots = np.full(1 << self._bits, -1, np.int64)
            for known_number in range(number):
                self._place(known_number)
        self._place(number)

    def _place(self, number: int) -> None:
        slot = self._hashes[number] >> (64 - self._bits)
        while self._slots[slot] >= 0:
            slot = (slot + 1) & (len(self._slots) - 1)
        self._slots[slot] = number


def _hash(words: list[Words], lengths: Ints) -> Words:
    mixed = lengths.astype(np.uint64)
    for odd, word in zip(_ODDS, words, strict=False):
        mixed += word * np.uint64(odd)
    return (mixed ^ (mixed >> np.uint64(32))) * np.uint64(_ODDS[0])


def _hash_of(words: list[int], length: int) -> int:
    """The same of one name, in Python's numbers. Words of zeros behind its end would change nothing."""
    mixed = (length + sum(odd * word for odd, word in zip(_ODDS, words, strict=False))) & _WORD
    return ((mixed ^ (mixed >> 32)) * _ODDS[0]) & _WORD
