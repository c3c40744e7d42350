"""Snapshots survive being cut up, compaction, and damage to the newest of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.snapshot_chunks import CHUNK_BYTES, Snapshot, assemble, chunks

BIG = bytes(range(256)) * (CHUNK_BYTES // 100)  # 2.56 chunks


@given(st.lists(st.binary(max_size=2_000), min_size=1, max_size=5), st.integers(0, 2**62))
def test_the_newest_two_are_there_newest_first(states: list[bytes], offset: int) -> None:
    written = [Snapshot(offset + n, n, state) for n, state in enumerate(states)]
    found, problems = assemble(record for snapshot in written for record in chunks(snapshot))
    assert found == written[::-1][:2]
    assert problems == []


def test_a_shorter_snapshot_leaves_nothing_of_the_longer_one_before_it_in_the_slot() -> None:
    written = [Snapshot(1, 0, BIG), Snapshot(2, 1, BIG), Snapshot(3, 2, b"short")]
    found, problems = assemble(record for snapshot in written for record in chunks(snapshot))
    assert found == [written[2], written[1]]
    assert problems == []


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        pytest.param(lambda r: r[:-1], "2 of 3 parts are there", id="a part is missing"),
        pytest.param(lambda r: [*r[:-1], (r[-1][0], r[-1][1][:-1] + b"x")], "SHA-256", id="a byte is another"),
        pytest.param(lambda r: [*r[:-1], (r[-1][0], b"rubbish")], "no part of a snapshot", id="a part is rubbish"),
        pytest.param(
            lambda r: [*r[:-1], list(chunks(Snapshot(9, 2, BIG)))[-1]], "different snapshots", id="parts of two writers"
        ),
    ],
)
def test_a_damaged_newest_falls_back_to_the_one_before_and_says_so(damage, told) -> None:  # type: ignore[no-untyped-def]
    before, newest = Snapshot(4, 1, b"before"), Snapshot(7, 2, BIG)
    found, problems = assemble([*chunks(before), *damage(list(chunks(newest)))])
    assert found == [before]
    assert told in " ".join(problems)


def test_nothing_is_no_snapshot() -> None:
    assert assemble([]) == ([], [])
