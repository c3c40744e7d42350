"""The books' equations: what balances says nothing, and each way of not balancing is named."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.ledger import (
    MetricBooks,
    PartitionBooks,
    Stored,
    partition_imbalances,
    stored_imbalances,
    topic_books,
    topic_imbalances,
)
from fleet.manifest import Manifest


def flush(first: int, last: int, *, heartbeats: int = 0, missing: int = 0) -> Manifest:
    rows = last - first + 1 - heartbeats - missing
    return Manifest("sensor", 0, first, last, rows, 0, heartbeats, 0, missing, 0, 0, [])


WHOLE = PartitionBooks(
    "weather/weather_station/2026-11-22T03",
    landed=10,
    valid=7,
    quarantined=1,
    duplicate=2,
    metrics=(MetricBooks("temperature", 8, {"1m": 6, "1h": 6}, 2),),
)
STORED = Stored({("temperature", "1m"): 6, ("temperature", "1h"): 6}, {"temperature": 2}, 1, 3)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=12), st.randoms())
def test_a_log_cut_into_flushes_balances_in_any_order(sizes: list[int], random) -> None:  # type: ignore[no-untyped-def]
    manifests, first = [], 0
    for size in sizes:
        manifests.append(flush(first, first + size - 1))
        first += size
    random.shuffle(manifests)
    books = topic_books("sensor", 0, manifests, end_offset=first + 5)
    assert topic_imbalances(books) == []
    assert (books.rows, books.landed_to, books.pending) == (first, first, 5)


@given(st.lists(st.integers(1, 50), min_size=3, max_size=12), st.data())
def test_a_flush_that_is_gone_is_a_gap_of_its_size(sizes: list[int], data: st.DataObject) -> None:
    manifests, first = [], 0
    for size in sizes:
        manifests.append(flush(first, first + size - 1))
        first += size
    gone = manifests.pop(data.draw(st.integers(0, len(sizes) - 2)))
    (imbalance,) = topic_imbalances(topic_books("sensor", 0, manifests, None))
    assert imbalance.found == gone.offsets
    assert str(gone.first_offset) in imbalance.what


def test_an_offset_in_two_manifests_is_an_overlap() -> None:
    books = topic_books("sensor", 0, [flush(0, 9), flush(9, 19)], None)
    assert [i.found for i in topic_imbalances(books)] == [1]


def test_a_log_shorter_than_what_landed_is_another_log() -> None:
    (imbalance,) = topic_imbalances(topic_books("sensor", 0, [flush(0, 9)], end_offset=3))
    assert "made anew" in imbalance.what


def test_lost_records_balance_and_are_told() -> None:
    books = topic_books("sensor", 0, [flush(0, 9, missing=4, heartbeats=2)], 10)
    assert topic_imbalances(books) == []
    assert (books.missing, books.rows, books.heartbeats, books.pending) == (4, 4, 2, 0)


def test_a_partition_that_balances() -> None:
    assert partition_imbalances(WHOLE) == []
    assert stored_imbalances(WHOLE, STORED, landed_in_manifests=10, anomalies=3) == []


@pytest.mark.parametrize(
    ("books", "what"),
    [
        (replace(WHOLE, landed=11), "rows landed"),
        (replace(WHOLE, duplicate=1), "rows landed"),
        (replace(WHOLE, metrics=(MetricBooks("temperature", 8, {"1m": 5, "1h": 6}, 2),)), "1m rollups"),
        (replace(WHOLE, metrics=(MetricBooks("temperature", 8, {"1m": 6}, 2),)), "1h rollups"),
        (replace(WHOLE, rejects={"bad_id": 9}), "Σ of reasons"),
    ],
    ids=["row lost", "row counted twice", "value lost at 1m", "no 1h rollups", "dead letter without a reason"],
)
def test_within_a_partition(books: PartitionBooks, what: str) -> None:
    (imbalance,) = partition_imbalances(books)
    assert what in imbalance.what


@pytest.mark.parametrize(
    ("stored", "manifests", "anomalies", "what"),
    [
        (STORED, 11, 3, "rows in manifests"),
        (STORED, 10, 2, "anomalies"),
        (replace(STORED, quarantined_rows=0), 10, 3, "quarantined rows"),
        (replace(STORED, rolled={**STORED.rolled, ("temperature", "1h"): 5}), 10, 3, "1h rollups table"),
        (replace(STORED, rolled={**STORED.rolled, ("ghost", "1h"): 1}), 10, 3, "1h rollups table"),
    ],
    ids=["file not read", "anomaly lost", "quarantine lost", "rollup lost", "rollup of nothing"],
)
def test_between_books_and_tables(stored: Stored, manifests: int, anomalies: int, what: str) -> None:
    found = stored_imbalances(WHOLE, stored, manifests, anomalies)
    assert [what in i.what for i in found] == [True]


def test_quarantined_values_must_be_in_the_table() -> None:
    found = stored_imbalances(WHOLE, replace(STORED, quarantined_values={}), 10, 3)
    assert any("quarantined values" in i.what for i in found)
