"""Text in a buffer, looked at in many places at once: eight bytes of each are one 64-bit word.

What takes Python 100 ns an item takes numpy 5 ns to fetch a word anywhere and 0.3 ns for each operation on it, so
searching, comparing and reading decimal numbers are done with a word's eight bytes in parallel (known as SWAR).
"""

from typing import Any

import msgspec
import numpy as np

Ints = np.ndarray[Any, np.dtype[np.int64]]
Words = np.ndarray[Any, np.dtype[np.uint64]]
Doubles = np.ndarray[Any, np.dtype[np.float64]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]

PADDING = 8
"""Bytes before the first number and behind the last text: words are fetched whole."""
LONGEST_NUMBER = 32


def _repeated(byte: int) -> np.uint64:
    return np.uint64(int.from_bytes(bytes([byte]) * 8, "little"))


_ONES, _HIGHS, _ZEROS = _repeated(0x01), _repeated(0x80), _repeated(ord("0"))
_UPPER, _SIX = _repeated(0xF0), _repeated(0x06)
_FIRST = np.array([(1 << 8 * n) - 1 for n in range(9)], np.uint64)
"""By n: the bits of a word's first n bytes."""
_WHOLE_TEN_TO = np.array([10**n for n in range(17)], np.uint64)
_TEN_TO = _WHOLE_TEN_TO.astype(np.float64)
_EXACT = np.uint64(2**53)
_TEN_TO_8 = np.uint64(10**8)
_decode_number = msgspec.json.Decoder(float | None).decode


class Text:
    """A buffer of bytes that ends in PADDING bytes more. Places are byte numbers, int64; what is said of one beyond the
    end is anything. Numbers do not stand within the first PADDING bytes."""

    def __init__(self, buffer: bytes):
        self.buffer = buffer
        self.bytes = np.frombuffer(buffer, np.uint8)
        self._words: Words = np.ndarray((len(buffer) - 7,), "<u8", buffer, strides=(1,))

    def words(self, places: Ints) -> Words:
        """The eight bytes from each place on, the first the lowest."""
        return self._words[np.minimum(places, len(self._words) - 1)]

    def words_of(self, places: Ints, lengths: Ints) -> list[Words]:
        """Texts as words, the last one filled up with zeros; as many for all as the longest needs."""
        return [
            self.words(places + begin) & _FIRST[np.clip(lengths - begin, 0, 8)]
            for begin in range(0, max(int(lengths.max(initial=0)), 1), 8)
        ]

    def find(self, places: Ints, byte: int, longest: int, within: Ints | None = None) -> Ints:
        """How far after each place the byte first stands; at least `longest`, or `within`, where not before that."""
        pattern = _repeated(byte)
        found: Any = None
        active: Any = True
        for begin in range(0, longest, 8):
            steps = _steps(self.words(places + begin) ^ pattern)
            found = steps if active is True else found + np.where(active, steps, 0)
            active = found == begin + 8
            if within is not None:
                active &= within > begin + 8
            if not active.any():
                break
        return np.asarray(found)

    def is_at(self, places: Ints, text: bytes) -> Bools:
        same = np.ones(len(places), np.bool_)
        for begin in range(0, len(text), 8):
            begin = max(min(begin, len(text) - 8), 0)  # the last word laps over the one before
            part = text[begin : begin + 8]
            words = self.words(places + begin)
            if len(part) < 8:
                words = words & _FIRST[len(part)]
            same &= words == np.uint64(int.from_bytes(part, "little"))
        return same

    def numbers(self, places: Ints, lengths: Ints) -> tuple[Doubles, Bools]:
        """JSON numbers, correctly rounded, and whether each is one. null is NaN, and is one.

        Up to 16 digits and 2^53 without an exponent are a whole number divided by an exact power of ten: one rounding,
        so the double that any correct reader gives. The rest is decoded one by one (0.2 µs).
        """
        negative = self.bytes[places] == ord("-")
        begin, length = places + negative, lengths - negative
        longer = np.flatnonzero(length > 8)
        if len(longer) == len(length):
            digits, decimals, good = self._long_decimals(begin, length)
        else:
            digits, decimals, good = self._short_decimals(begin, length)
        if 0 < len(longer) < len(length):
            digits[longer], decimals[longer], good[longer] = self._long_decimals(begin[longer], length[longer])
        good &= ~(negative & (digits == 0) & (decimals == 0))  # -0 is a whole number, and then 0.0
        found = digits.view(np.int64).astype(np.float64) / _TEN_TO[decimals]
        np.negative(found, out=found, where=negative)
        for place in np.flatnonzero(~good).tolist():
            start = int(places[place])
            try:
                number = _decode_number(self.buffer[start : start + int(lengths[place])])
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                continue
            found[place], good[place] = np.nan if number is None else number, True
        return found, good

    def _short_decimals(self, begin: Ints, lengths: Ints) -> tuple[Words, Ints, Bools]:
        """(digits, how many of them stand behind the point, whether it is a decimal number) of up to 8 bytes."""
        words = self.words(begin)
        point = np.minimum(_steps(words ^ _repeated(ord("."))), lengths)
        has_point = point < lengths
        before = _FIRST[np.maximum(point, 0)]
        count = np.clip(lengths - has_point, 0, 8)
        behind = np.where(has_point, lengths - point - 1, 0)
        good = (point >= 1) & (lengths <= 8) & (has_point == (behind > 0))
        good &= (point == 1) | ((words & np.uint64(0xFF)) != np.uint64(ord("0")))
        digits = (words & before) | ((words >> np.uint64(8)) & ~before)  # without the point
        digits <<= (np.uint64(8) - count.view(np.uint64)) << np.uint64(3)
        return _number(digits | (_ZEROS & _FIRST[8 - count]), good), np.clip(behind, 0, 16), good

    def _long_decimals(self, begin: Ints, lengths: Ints) -> tuple[Words, Ints, Bools]:
        point = self.find(begin, ord("."), LONGEST_NUMBER, lengths)
        before = np.minimum(point, lengths)
        behind = np.maximum(lengths - point - 1, 0)
        digits, good = self._whole(begin, before)
        good &= ((point >= lengths) | (behind > 0)) & (behind <= 8) & (before + behind <= 16)
        behind = np.minimum(behind, 8)
        if behind.any():
            digits = digits * _WHOLE_TEN_TO[behind] + self._digits(begin + lengths, behind, good)
        return digits, behind, good & (digits <= _EXACT)

    def whole_numbers(self, places: Ints, lengths: Ints) -> tuple[Ints, Bools]:
        """Plain whole numbers of up to 16 digits, and whether each is one: nothing else is."""
        negative = self.bytes[places] == ord("-")
        digits, good = self._whole(places + negative, lengths - negative)
        found = digits.astype(np.int64)
        return np.where(negative, -found, found), good & ~(negative & (found == 0))

    def _whole(self, begin: Ints, lengths: Ints) -> tuple[Words, Bools]:
        good = (lengths >= 1) & (lengths <= 16) & ((lengths == 1) | (self.bytes[begin] != ord("0")))
        lengths = np.clip(lengths, 0, 16)
        found = self._digits(begin + lengths, np.minimum(lengths, 8), good)
        if (lengths > 8).any():
            found += self._digits(begin + lengths - 8, np.maximum(lengths - 8, 0), good) * _TEN_TO_8
        return found, good

    def _digits(self, ends: Ints, lengths: Ints, good: Bools) -> Words:
        """The number that so many bytes before each end make, 8 at most; where they are no digits `good` becomes
        false."""
        others = _FIRST[8 - lengths]
        words = (self.words(ends - 8) & ~others) | (_ZEROS & others)
        return _number(words, good)


def _steps(words: Words) -> Ints:
    """How many bytes of each word stand before the first that is zero; 8 where none is."""
    hits = (words - _ONES) & ~words & _HIGHS
    return (np.bitwise_count((hits & (~hits + np.uint64(1))) - np.uint64(1)) >> 3).astype(np.int64)


def _number(words: Words, good: Bools) -> Words:
    """The number that eight digits make; where they are no digits `good` becomes false."""
    good &= ((words & _UPPER) == _ZEROS) & (((words + _SIX) & _UPPER) == _ZEROS)
    words = ((words & np.uint64(0x0F0F0F0F0F0F0F0F)) * np.uint64(2561)) >> np.uint64(8)
    words = ((words & np.uint64(0x00FF00FF00FF00FF)) * np.uint64(6553601)) >> np.uint64(16)
    return ((words & np.uint64(0x0000FFFF0000FFFF)) * np.uint64(42949672960001)) >> np.uint64(32)
