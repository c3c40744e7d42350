"""What is read of a text eight bytes at a time is what is read of it byte by byte."""

import math
import struct

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.channels import LEVEL
from fleet.names import Names
from fleet.text import LONGEST_NUMBER, PADDING, Text


def laid_out(texts: list[bytes], between: bytes = b"12,") -> tuple[Text, np.ndarray, np.ndarray]:
    lengths = np.array([len(text) for text in texts], np.int64)
    starts = np.cumsum(lengths + len(between)) - lengths + PADDING
    return Text(b"".join([bytes(PADDING), *(between + text for text in texts), bytes(PADDING)])), starts, lengths


_tokens = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.tuples(st.integers(-(10**17), 10**17), st.integers(0, 17)).map(
        lambda n: f"{'-' if n[0] < 0 else ''}{abs(n[0]) // 10 ** n[1]}.{abs(n[0]) % 10 ** n[1]:0{n[1]}d}"
    ),
    st.integers(-(10**20), 10**20).map(str),
    st.text('0123456789.-+eE"/:', max_size=LONGEST_NUMBER),
    st.sampled_from(["null", "true", "-null", "NaN", "Infinity", "-0", "0.0", "-0.0", "9007199254740993", "é1", "\0"]),
    st.tuples(
        st.sampled_from(["", "-", "0", "-0", "00", "1e", "."]), st.integers(0, 10**9), st.sampled_from(["", ".", ".5"])
    ).map(lambda parts: "".join(map(str, parts))),
).map(str.encode)


def decoded(token: bytes) -> float | None:
    """As msgspec reads it; NaN for null, None where it is no number."""
    try:
        number = msgspec.json.decode(token, type=float | None)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return math.nan if number is None else number


@given(st.lists(_tokens, min_size=1, max_size=40))
def test_numbers(tokens: list[bytes]) -> None:
    text, starts, lengths = laid_out(tokens)
    found, good = text.numbers(starts, lengths)
    for token, number, is_one in zip(tokens, found.tolist(), good.tolist(), strict=True):
        expected = decoded(token)
        assert is_one == (expected is not None), token
        if expected is not None:
            assert struct.pack("d", number) == struct.pack("d", expected), token


@given(st.lists(_tokens, min_size=1, max_size=40))
def test_whole_numbers(tokens: list[bytes]) -> None:
    text, starts, lengths = laid_out(tokens)
    found, good = text.whole_numbers(starts, lengths)
    for token, number, is_one in zip(tokens, found.tolist(), good.tolist(), strict=True):
        digits = token.removeprefix(b"-")
        plain = digits.isdigit() and (digits == b"0" or not digits.startswith(b"0")) and len(digits) <= 16
        assert is_one == (plain and token != b"-0"), token
        assert not is_one or number == int(token)


@given(st.lists(st.binary(max_size=100), min_size=1, max_size=20), st.binary(min_size=1, max_size=30))
def test_find_and_is_at(texts: list[bytes], wanted: bytes) -> None:
    texts += [wanted, wanted[:-1], wanted + b"x", b"abc" + wanted]
    text, starts, _ = laid_out(texts)
    for byte in {wanted[0], ord(","), 0, 255}:
        found = text.find(starts, byte, 72)
        for start, place in zip(starts.tolist(), found.tolist(), strict=True):
            real = text.buffer.find(bytes([byte]), start)
            assert (
                place == real - start
                if 0 <= real - start < 72
                else place >= 72 or start + place >= len(text.buffer) - 8
            )
    same = text.is_at(starts, wanted)
    assert same.tolist() == [text.buffer[start : start + len(wanted)] == wanted for start in starts.tolist()]


_names = st.text("abz09.:-_", min_size=1, max_size=9) | st.text("ab", min_size=1, max_size=70) | st.text(max_size=5)


@given(st.lists(st.lists(_names, min_size=1, max_size=30), min_size=1, max_size=4))
def test_names_in_a_buffer_have_the_numbers_of_the_dict(batches: list[list[str]]) -> None:
    names = Names()
    for number, batch in enumerate(batches):
        if number % 2:
            assert [names[name] for name in batch]
        text, starts, lengths = laid_out([name.encode() for name in batch], b'\0"')
        found = names.numbers(text, starts, lengths).tolist()
        for name, of_name in zip(batch, found, strict=True):
            if LEVEL.fullmatch(name):
                assert names.names[of_name] == name and names[name] == of_name
            else:
                assert of_name == -1
    assert len(names) == len(names.names) == len(set(names.names))


@pytest.mark.parametrize("long", [False, True])
def test_many_names(long: bool) -> None:
    """Through several growths of the table, and with many that share a slot."""
    batch = [f"{'sensor-of-hall.' * long}{n}" for n in range(20_000)]
    names = Names()
    text, starts, lengths = laid_out([name.encode() for name in batch])
    for part in (slice(0, 10), slice(5, 9_000), slice(None)):
        found = names.numbers(text, starts[part], lengths[part])
        assert found.tolist() == list(range(20_000))[part]
    assert names.names == batch
