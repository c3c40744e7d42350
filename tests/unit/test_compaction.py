"""Compaction on a real local store: whoever reads, whenever, in whatever order, has each row once."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import etl.compaction
import fleet.compaction
from connections.compactions import Compactions
from connections.lake import Lake, arrow_schema
from etl.backtest import Past, backtest
from etl.compaction import Waiting, compact, summed, waiting
from etl.kernel_task import TEXTS
from etl.lake_frames import arrow_tables, read_table, reject_batches
from etl.lake_index import LakeIndex, read_index
from etl.lake_tidy import Tidied, tidy
from etl.landed_files import Expired, LandedFiles
from etl.landed_log import LandedLog
from etl.window import Window, micros
from fleet.catalog import load_catalog
from fleet.compaction import GRACE, Compacted, Compaction, Covered, in_force, outlived, plan, replaced
from fleet.errors import DataError
from fleet.lake_layout import columns, compaction_path, manifest_path, partition_of, transitions_partition_of
from fleet.manifest import DataFile
from fleet.settings import CHECKOUT
from streaming.sweep import sweep
from tests.integration.small_lake import T0, SmallLake, still

SPEC = load_catalog(CHECKOUT / "fleet" / "types").type("weather_station")
KEY = "weather/weather_station/2026-11-22T03"
NOW = T0 + timedelta(days=2)


@pytest.fixture
def small(tmp_path: Path) -> SmallLake:
    return SmallLake(Lake(f"file://{tmp_path}/lake"))


def rows(start: float, number: int = 5, **more: Any) -> list[dict[str, Any]]:
    return [
        {"device_id": str(n % 3), "event_time": T0 + timedelta(seconds=start + n), "temperature": start + n / 7, **more}
        for n in range(number)
    ]


def land(small: SmallLake, files: int, start: float = 0) -> None:
    """Of two Kafka partitions, an hour and the beginning of the next one."""
    for n in range(files):
        small.land(SPEC, [*rows(start + n * 20), *rows(3600 + start + n, 1)], kafka_partition=n % 2, heartbeats=1)


def table_of(lake: Lake, index: LakeIndex) -> list[tuple[Any, ...]]:
    """All readings of an index, and of dead letters the reasons, in order of their place in Kafka's log."""
    found = []
    for files in index.partitions.values():
        if files.partition.type == "rejected":
            letters = [row for batch in reject_batches(lake, files) for row in batch.to_pylist()]
            found += [(r["kafka_topic"], r["kafka_partition"], r["kafka_offset"], r["reason"]) for r in letters]
            continue
        for table in arrow_tables(lake, SPEC, files, TEXTS):
            found += [
                (
                    r["kafka_topic"],
                    r["kafka_partition"],
                    r["kafka_offset"],
                    r["device_id"],
                    r["event_time"],
                    r["temperature"],
                )
                for r in table.to_pylist()
            ]
    return sorted(found, key=lambda r: r[:3])


def arrivals(lake: Lake) -> list[Any]:
    holes: list[Any] = []
    found = [
        (topic, number, list(LandedLog(lake, topic, number).arrivals(0, 10**6, holes)))
        for topic, number in lake.landed_partitions()
    ]
    assert {hole.detail.partition(" has ")[0] for hole in holes} <= {"no manifest"}  # beyond the end
    return found


def digests(lake: Lake) -> dict[str, tuple[str, int]]:
    return {key: (files.digest, files.rows) for key, files in read_index(lake).partitions.items()}


def everything(lake: Lake) -> tuple[Any, ...]:
    return table_of(lake, read_index(lake)), arrivals(lake), digests(lake)


@pytest.mark.parametrize(
    ("files", "hours", "says"),
    [(2, 20, Waiting(0)), (16, 20, Waiting(0, KEY, T0 + timedelta(days=1))), (2, 48, Waiting(2)),
     (16, 24.5, Waiting(1, "weather/weather_station/2026-11-22T04", T0 + timedelta(hours=25)))],
    ids=["too young and too few", "too young", "too few", "one is done"],
)  # fmt: skip
def test_why_there_is_nothing_to_do(small: SmallLake, files: int, hours: float, says: Waiting) -> None:
    land(small, files)
    now = T0 + timedelta(hours=hours)
    list(compact(small.lake, lambda: now))
    assert list(compact(small.lake, lambda: now)) == []
    found = waiting(small.lake, lambda: now)
    assert found == says
    assert ("the first will be" in str(found)) is (says.at is not None)


# Decisions


def entry(*names: str, file: str | None = None) -> Compacted:
    covers = [Covered(name, 10) for name in names]
    return Compacted(covers, DataFile(file, KEY, 1, 10 * len(names), 99) if file else None)


def record(number: int, *entries: Compacted, at_ms: int = 0) -> Compaction:
    return Compaction(KEY, 1, number, at_ms, list(entries))


ONE, TWO = record(1, entry("a", "b", file="A")), record(2, entry("a", "b", file="A"), entry("c", "d", file="C"))
THREE = record(3, entry("a", "b", "c", "d"), entry("e", "f", file="E"))
FOUR = record(4, entry("a", "b", "c", "d", file="C"), entry("e", "f", "g", "h", file="E"))
"""Of two topics, say."""


@pytest.mark.parametrize(
    ("records", "seen", "files", "expired"),
    [
        ([], "ab", [], ""),
        ([ONE], "abx", ["A"], ""),
        ([ONE], "a", [], ""),
        ([TWO, ONE], "abcd", ["A", "C"], ""),
        ([TWO, ONE], "abc", ["A"], ""),
        ([TWO, ONE], "ac", [], ""),
        ([THREE, TWO, ONE], "abcdef", ["E"], "abcd"),
        ([THREE, TWO, ONE], "abcde", [], "abcd"),
        ([THREE, TWO, ONE], "abc", [], "abcd"),
        ([TWO], "cdx", ["C"], ""),
        ([TWO], "x", [], ""),
        ([FOUR, TWO, ONE], "abcdefgh", ["C", "E"], ""),
        ([FOUR, TWO, ONE], "efgh", ["E"], ""),
        ([FOUR, TWO, ONE], "abcdfgh", ["C"], ""),
        ([FOUR, TWO, ONE], "abfgh", ["A"], ""),
        ([THREE, TWO, ONE], "ef", ["E"], "abcd"),
    ],
    ids=["none", "one", "one that is too new", "two", "the second is too new", "both are too new", "expired and more",
         "expired, and more that is too new", "expired before the marks", "another topic is not seen", "none is seen",
         "all of two topics", "one of two topics", "one of two is too new", "both are too new, and one was before",
         "expired of a topic that is not seen"],
)  # fmt: skip
def test_what_holds_for_who_has_seen_so_much(
    records: list[Compaction], seen: str, files: list[str], expired: str
) -> None:
    held, gone = in_force(records, set(seen))
    assert [e.file.path for e in held if e.file] == files
    assert gone == set(expired)


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_no_file_is_read_twice_nor_one_that_was_not_seen(dice: st.DataObject) -> None:
    """Whatever a reader has seen, of records that follow each other: each joins some entries of the last and files."""
    names, records, entries = "abcdefghij", [], list[tuple[str, ...]]()
    for number in range(1, dice.draw(st.integers(1, 4)) + 1):
        parts = [*entries, *((n,) for n in names if not any(n in e for e in entries))]
        wheres = dice.draw(st.lists(st.integers(0, 4), min_size=len(parts), max_size=len(parts)))
        groups = {w: tuple(n for p, at in zip(parts, wheres, strict=True) if at == w for n in p) for w in range(1, 5)}
        left_alone = [p for p, at in zip(parts, wheres, strict=True) if at == 0 and p in entries]
        entries = [*(g for g in groups.values() if g), *left_alone]
        records.insert(0, record(number, *(entry(*e, file=f"{number}{e[0]}") for e in entries)))
    seen = set(dice.draw(st.sets(st.sampled_from(names))))
    held, _ = in_force(records, seen)
    covered = [path for e in held for path in e.paths]
    assert len(covered) == len(set(covered))
    assert set(covered) <= seen
    whole = [e for e in entries if set(e) <= seen]
    assert {e for one in whole for e in one} <= set(covered), "what is seen whole is read from the newest"


def test_what_nobody_reads_any_more() -> None:
    chain = [record(n, entry("a", *"bcd"[:n], file="F"), at_ms=n * 10) for n in (3, 2, 1)]
    assert [[r.number for r in outlived(chain, ms)] for ms in (19, 20, 29, 30)] == [[], [1], [1], [2, 1]]
    assert [sorted(replaced(chain, ms)) for ms in (9, 10, 29, 30)] == [
        [],
        ["a", "b"],
        ["a", "b", "c"],
        ["a", "b", "c", "d"],
    ]


BOTH = record(
    4,
    Compacted([Covered("sensor-0-900-901.parquet", 2)], DataFile("C", KEY, 1, 2, 9)),
    Compacted([Covered("sensor-0-902-903.parquet", 400_000)], DataFile("D", KEY, 1, 400_000, 9)),
)
"""Has a small file and a large one."""
AWAY = record(4, Compacted([Covered("sensor-0-800-801.parquet", 2)], DataFile("E", KEY, 1, 2, 9)))
"""Has a small one, whose landed file no manifest names any more."""


@pytest.mark.parametrize(
    ("small", "large", "last", "expected"),
    [
        (7, 3, None, None),
        (8, 3, None, (8, 0, 1)),
        (7, 0, BOTH, (8, 1, 5)),
        (6, 0, BOTH, None),
        (8, 0, record(4, entry("ab")), (8, 1, 5)),
        (8, 0, AWAY, (8, 1, 5)),
        (7, 0, AWAY, None),
    ],
    ids=[
        "too few",
        "enough",
        "with a small one of before",
        "too few with it",
        "after what has expired",
        "beside what was moved away",
        "too few beside it",
    ],
)
def test_what_is_compacted(
    small: int, large: int, last: Compaction | None, expected: tuple[int, int, int] | None
) -> None:
    landed = [DataFile("sensor-0-900-901.parquet", KEY, 1, 2, 9)] if last is BOTH else []
    landed += [DataFile(f"iot_stream-0-{n}-{n}.parquet", KEY, 1, 10, 99) for n in range(7)]  # too few
    landed += [DataFile(f"sensor-0-{n}-{n}.parquet", KEY, 1, 10, 99) for n in range(small)]
    landed += [DataFile(f"sensor-0-{n}-{n}.parquet", KEY, 1, 400_000, 99) for n in range(100, 100 + large)]
    found = plan(KEY, 1, landed, last)
    assert (found and (len(found.sources), len(found.kept), found.number)) == expected


@pytest.mark.parametrize(
    "wrong",
    [
        record(1, Compacted([Covered("a", 1)], DataFile("A", KEY, 1, 2, 9))),
        record(1, entry("a", file="A"), entry("a", file="B")),
    ],
    ids=["other rows", "covered twice"],
)
def test_a_record_that_does_not_add_up_is_refused(small: SmallLake, wrong: Compaction) -> None:
    with pytest.raises(DataError, match="off by"):
        Compactions(small.lake).commit(wrong)


# Readers


def test_each_row_is_read_once_before_during_and_after(small: SmallLake) -> None:
    land(small, 20)
    for n in range(10):
        small.land_rejects([{"reason": f"{n}"}])
    lake = small.lake
    whole, marks, early = everything(lake), read_index(lake).marks, read_index(lake)
    done = list(compact(lake, still(NOW)))
    assert [(o.partition, o.files_before, o.files_after) for o in done] == [
        ("rejected/rejected/2026-11-22T03", 10, 1), (KEY, 20, 1), (KEY.replace("T03", "T04"), 20, 1),
    ]  # fmt: skip
    assert summed(done)["bytes_after"] < summed(done)["bytes_before"] / 3
    assert everything(lake) == whole
    assert table_of(lake, early) == whole[0], "who looked before reads what was there"
    assert tidy(lake, NOW + GRACE - timedelta(seconds=1)) == Tidied()
    assert tidy(lake, NOW + GRACE) == Tidied(landed=50)
    assert everything(lake) == whole
    assert len(lake.files("raw")) == 2
    assert [*compact(lake, still(NOW + GRACE))] == []
    land(small, 3, start=500)
    assert table_of(lake, read_index(lake, marks)) == whole[0], "who has marks sees what was there then"
    assert len(read_index(lake).partitions[KEY].to_read) == 4
    assert sweep(lake, datetime.now(UTC) + timedelta(days=9)) == []


def test_late_files_join_what_was_compacted(small: SmallLake) -> None:
    lake = small.lake
    land(small, 10)
    [*compact(lake, still(NOW))]
    marks, first = read_index(lake).marks, everything(lake)[0]
    land(small, 8, start=700)
    later = NOW + timedelta(days=1)
    whole = everything(lake)
    assert [o.files_after for o in compact(lake, still(later))] == [1, 1]
    for moment in (later, later + timedelta(hours=23), later + timedelta(hours=25)):
        assert everything(lake) == whole
        if moment < later + GRACE:
            assert table_of(lake, read_index(lake, marks)) == first
        tidy(lake, moment)
    assert len(lake.files("raw")) == len(lake.files("_compacted")) == 2


def test_a_landed_file_is_found_in_its_row_groups(small: SmallLake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(etl.compaction, "GROUP_ROWS", 7)
    lake = small.lake
    land(small, 20)
    files = [f for m in lake.manifests("sensor", 1) for f in m.files]
    before = {f.path: read_table(lake, f) for f in files}
    [*compact(lake, still(NOW))]
    tidy(lake, NOW + GRACE)
    landed = LandedFiles(lake)
    for file in files:
        assert landed.table(file).sort_by("kafka_offset").equals(before[file.path].sort_by("kafka_offset"))
    read = landed._group.cache_info()  # each group about once
    assert read.misses <= 2 * (50 // 7 + 2)
    (compacted,) = lake.files("raw/system=weather/type=weather_station/v=1/date=2026-11-22/hour=03")
    assert [landed.file_of("sensor", 1, offset) == compacted for offset in range(7)] == [True] * 5 + [False] * 2
    assert landed.file_of("sensor", 1, 6) == ""
    assert landed.file_of("sensor", 1, 10**6) is None


def test_a_backtest_says_the_same(small: SmallLake) -> None:
    for n in range(20):
        hot = 40.0 if n % 5 > 2 else 20.0
        said = [{"device_id": str(d), "event_time": T0 + timedelta(seconds=n * 60 + d), "seq": n, "temperature": hot}
                for d in range(9)]  # fmt: skip
        small.land(SPEC, said, kafka_partition=n % 2)
    past = Past(small.lake, (SPEC,), {})
    window = Window(T0, T0 + timedelta(hours=1))
    before = backtest(past, SPEC, window, timedelta(0))
    assert len(before.episodes) > 20
    [*compact(small.lake, still(NOW))]
    tidy(small.lake, NOW + GRACE)
    assert backtest(past, SPEC, window, timedelta(0)) == before


def test_transitions_are_compacted_too(small: SmallLake) -> None:
    from fleet.lake_layout import TRANSITION_COLUMNS

    partition = transitions_partition_of("weather", T0)
    for n in range(9):
        row = {"transition_id": str(n), "kafka_topic": "alerts.transitions", "kafka_partition": 0, "kafka_offset": n,
               "kafka_timestamp": T0}  # fmt: skip
        table = pa.Table.from_pylist([row], arrow_schema(TRANSITION_COLUMNS))
        small.commit("alerts.transitions", 0, {partition: table}, version=1)
    (done,) = compact(small.lake, still(NOW))
    assert (done.partition, done.files_after) == (partition.key, 1)
    tidy(small.lake, NOW + GRACE)
    landed = LandedFiles(small.lake)
    files = [f for m in small.lake.manifests("alerts.transitions", 0) for f in m.files]
    assert [landed.table(f)["transition_id"].to_pylist() for f in files] == [[str(n)] for n in range(9)]


def move(topic: str, manifests: str, to: str) -> None:
    """Its manifests, as landing asks for where a topic was made anew; or back."""
    for manifest in Path(manifests, topic).glob("*/*"):
        (folder := Path(to, topic, manifest.parent.name)).mkdir(parents=True, exist_ok=True)
        manifest.rename(folder / manifest.name)
    shutil.rmtree(Path(manifests, topic), ignore_errors=True)


@pytest.mark.parametrize("topic", ["sensor", "readings.rejected"])
def test_a_topic_is_moved_away_and_the_others_are_read(small: SmallLake, topic: str) -> None:
    lake, manifests, away = small.lake, small.lake.path("_landed"), small.lake.path("away")
    for n in range(10):
        small.land_rejects([{"reason": f"{n}"}])
        small.land_rejects([{"reason": f"unreadable {n}"}], topic="sensor")
    whole, marks = table_of(lake, read_index(lake)), read_index(lake).marks
    others = [row for row in whole if row[0] != topic]
    assert [(o.files_before, o.files_after) for o in compact(lake, still(NOW))] == [(20, 2)]
    assert tidy(lake, NOW + GRACE) == Tidied(landed=20)
    assert table_of(lake, read_index(lake, topics={others[0][0]})) == others
    move(topic, manifests, away)
    assert table_of(lake, read_index(lake)) == table_of(lake, read_index(lake, marks)) == others

    small.offsets[topic, 0] = 1000  # the new one's
    for n in range(10):
        small.land_rejects([{"reason": f"new {n}"}], topic=topic)
    later = table_of(lake, read_index(lake))
    assert len(later) == 20
    assert [(o.files_before, o.files_after) for o in compact(lake, still(NOW + GRACE))] == [(10, 1)]
    assert tidy(lake, NOW + 2 * GRACE) == Tidied(landed=10, records=1)
    assert table_of(lake, read_index(lake)) == later

    move(topic, away, manifests)
    assert [row for row in table_of(lake, read_index(lake)) if row[2] < 1000] == whole


def test_nothing_is_deleted_that_is_read_where_manifests_are_away_in_part(small: SmallLake) -> None:
    land(small, 20)
    lake = small.lake
    [*compact(lake, still(NOW))]
    folder = Path(lake.path("_landed/sensor/0"))
    folder.rename(lake.path("away"))
    left = everything(lake)
    assert len(left[0]) == 60
    assert tidy(lake, NOW + GRACE) == Tidied()
    assert everything(lake) == left
    Path(lake.path("away")).rename(folder)
    assert tidy(lake, NOW + GRACE) == Tidied(landed=40)


TOPICS = ("sensor", "readings.rejected")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("land"), st.integers(0, 1), st.integers(0, 4)),
        st.tuples(st.just("letters"), st.integers(0, 1), st.integers(0, 4)),
        st.tuples(st.just("night"), st.integers(1, 30)),
        st.tuples(st.just("tidy")),
        st.tuples(st.just("look")),
        st.tuples(st.just("away"), st.integers(0, 1)),
    ),
    min_size=4, max_size=12,
)  # fmt: skip


@given(STEPS)
@settings(max_examples=20, deadline=None)
def test_any_reader_at_any_time(steps: list[tuple[Any, ...]]) -> None:
    """Of files so small that a partition has several large ones; two topics have files in one partition, and each may
    be made anew. Who looked less than a GRACE ago reads on, but for what was moved away."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        for name, value in (("LEAST_FILES", 3), ("MAX_ROWS", 12)):
            patch.setattr(fleet.compaction, name, value)
        patch.setattr(etl.compaction, "MAX_ROWS", 12)
        patch.setattr(etl.compaction, "GROUP_ROWS", 5)
        patch.setattr(os, "fsync", lambda _: None)  # most of the time, and nobody pulls the plug
        small = SmallLake(Lake(f"file://{folder}/lake"))
        lake, now, landed = small.lake, NOW, 0
        manifests, made = lake.path("_landed"), dict.fromkeys(TOPICS, 0)
        looked: list[tuple[datetime, LakeIndex, list[Any], dict[str, int]]] = []
        end = [("land", 0, 3), *[("letters", n % 2, n) for n in range(6)]]
        for kind, *how in [*steps, *end, ("night", 1), ("look",), ("tidy",), ("night", 25)]:
            if kind == "land":
                small.land(SPEC, rows(landed * 7, how[1] + 1), kafka_partition=how[0], heartbeats=1)
                landed += 1
            elif kind == "letters":
                small.land_rejects([{"reason": f"{n}"} for n in range(how[1] + 1)], topic=TOPICS[how[0]])
            elif kind == "away":
                topic = TOPICS[how[0]]
                others = [row for row in table_of(lake, read_index(lake)) if row[0] != topic]
                made[topic] += 1
                move(topic, manifests, f"{folder}/away")
                small.offsets |= {(topic, n): 1000 * made[topic] for n in (0, 1)}
                assert table_of(lake, read_index(lake)) == others
            elif kind == "night":
                now += timedelta(hours=how[0])
                before = everything(lake)
                assert not [o for o in compact(lake, still(now)) if o.damaged]
                assert everything(lake) == before
            elif kind == "tidy":
                before = everything(lake)
                tidy(lake, now)
                assert everything(lake) == before
            else:
                looked.append((now, index := read_index(lake), table_of(lake, index), {**made}))
            for moment, index, found, then in looked:
                if now < moment + GRACE:
                    assert table_of(lake, index) == found
                    there = [row for row in found if made[row[0]] == then[row[0]]]
                    assert table_of(lake, read_index(lake, index.marks)) == there
                    for topic in TOPICS:
                        some = read_index(lake, index.marks, topics={topic})
                        assert table_of(lake, some) == [row for row in there if row[0] == topic]
        for topic in TOPICS:
            move(topic, f"{folder}/away", manifests)
        count = sum(m.rows for place in lake.landed_partitions() for m in lake.manifests(*place))
        assert len(everything(lake)[0]) == len({row[:3] for row in everything(lake)[0]}) == count
        tidy(lake, now + GRACE)
        tidy(lake, now + 2 * GRACE)
        named = {f.path for p in read_index(lake).partitions.values() for f in p.to_read}
        assert {*lake.files("raw"), *lake.files("rejected")} == named, "nothing is left over"
        assert len(everything(lake)[0]) == count


# What goes wrong


def flip(data: bytes) -> bytes:
    place = len(data) // 4
    return data[:place] + bytes([data[place] ^ 16]) + data[place + 1 :]


def one_row_less(data: bytes) -> bytes:
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(pq.read_table(pa.BufferReader(data)).slice(1), sink)
    return sink.getvalue().to_pybytes()


def another_place(data: bytes) -> bytes:
    import pyarrow.parquet as pq

    table = pq.read_table(pa.BufferReader(data))
    place, sink = table.schema.get_field_index("kafka_partition"), pa.BufferOutputStream()
    table = table.set_column(place, "kafka_partition", pa.array([7] * table.num_rows, pa.int32()))
    pq.write_table(table, sink)
    return sink.getvalue().to_pybytes()


def without_offsets(data: bytes) -> bytes:
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(pq.read_table(pa.BufferReader(data)).drop_columns("kafka_offset"), sink)
    return sink.getvalue().to_pybytes()


def other_offsets(kind: pa.DataType, value: Any) -> Callable[[bytes], bytes]:
    def changed(data: bytes) -> bytes:
        import pyarrow.parquet as pq

        table = pq.read_table(pa.BufferReader(data))
        place, sink = table.schema.get_field_index("kafka_offset"), pa.BufferOutputStream()
        pq.write_table(table.set_column(place, "kafka_offset", pa.array([value] * table.num_rows, kind)), sink)
        return sink.getvalue().to_pybytes()

    return changed


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (flip, "no Parquet file that can be read"),
        (one_row_less, "its manifest says"),
        (another_place, "other places in Kafka's log"),
        (without_offsets, "column 'kafka_offset' is missing, expected int64"),
        (other_offsets(pa.int64(), None), "has rows without a kafka_offset"),
        (other_offsets(pa.string(), "5"), "column 'kafka_offset' is string, expected int64"),
        (None, "is in a manifest and not in the lake"),
    ],
    ids=["one bit", "one row", "other places", "no offsets", "null offsets", "offsets as text", "gone"],
)
def test_a_damaged_file_is_not_laundered(
    small: SmallLake, damage: Callable[[bytes], bytes] | None, told: str
) -> None:  # fmt: skip
    land(small, 10)
    lake = small.lake
    victim = read_index(lake).partitions[KEY].files[4].path
    path = Path(lake.path(victim))
    path.write_bytes(damage(path.read_bytes())) if damage else path.unlink()
    bad, good = compact(lake, still(NOW))
    assert bad.damaged and told in bad.left and victim in bad.left
    assert (good.left, good.files_after) == ("", 1)
    assert len(read_index(lake).partitions[KEY].to_read) == 10
    assert not [p for p in lake.files("raw") if "hour=03/compacted" in p]


def test_originals_stay_where_the_compacted_file_went_bad(small: SmallLake) -> None:
    land(small, 10)
    lake = small.lake
    [*compact(lake, still(NOW))]
    (path,) = [p for p in lake.files("raw") if "hour=03/compacted" in p]
    whole = Path(lake.path(path)).read_bytes()
    Path(lake.path(path)).write_bytes(flip(whole))
    found = tidy(lake, NOW + GRACE)
    assert found.landed == 10
    assert path in found.problems[0]
    assert f"delete {lake.url(compaction_path(KEY, 1, 1))}" in found.problems[0]
    Path(lake.path(path)).write_bytes(whole)
    assert tidy(lake, NOW + GRACE) == Tidied(landed=10)


def test_the_way_back_from_a_bad_file_is_told_while_there_is_one(small: SmallLake) -> None:
    land(small, 10)
    lake = small.lake
    whole = table_of(lake, read_index(lake))
    [*compact(lake, still(NOW))]
    (bad,) = [Path(lake.path(p)) for p in lake.files("raw") if "hour=03/compacted" in p]
    bad.write_bytes(flip(bad.read_bytes()))
    original = Path(lake.path(read_index(lake).partitions[KEY].files[0].path))
    kept = original.read_bytes()
    original.unlink()
    assert "delete" not in tidy(lake, NOW + GRACE).problems[0]
    original.write_bytes(kept)
    assert "and they are read again" in tidy(lake, NOW + GRACE).problems[0]
    Path(lake.path(compaction_path(KEY, 1, 1))).unlink()
    assert table_of(lake, read_index(lake)) == whole
    later = NOW + 2 * GRACE
    assert [o.left for o in compact(lake, still(later))] == [""]
    assert tidy(lake, later + GRACE) == Tidied(landed=10, compacted=1)
    assert table_of(lake, read_index(lake)) == whole


def test_a_compaction_of_days_keeps_what_it_has_just_written(small: SmallLake, monkeypatch: pytest.MonkeyPatch) -> None:
    land(small, 10)
    lake, moments, commit = small.lake, [NOW], Compactions.commit
    whole = everything(lake)

    def tidied(records: Compactions, wanted: Compaction) -> bool:
        assert tidy(lake, moments[-1]).compacted == 0
        return commit(records, wanted)

    monkeypatch.setattr(Compactions, "commit", tidied)
    for one in compact(lake, lambda: moments[-1]):
        assert one.left == ""
        moments.append(moments[-1] + GRACE + timedelta(hours=6))
    made = [Compactions(lake).last(key, 1) for key in (KEY, KEY.replace("T03", "T04"))]
    assert [record and record.at_ms for record in made] == [micros(moment) // 1000 for moment in moments[:2]]
    assert everything(lake) == whole


def test_files_of_unlike_columns_stay_apart(small: SmallLake) -> None:
    lake, partition = small.lake, partition_of(SPEC, T0)
    land(small, 8)
    fewer = pa.schema([f for f in arrow_schema(columns(SPEC)) if f.name != "humidity"])
    for n in range(8):
        first = small.offsets["sensor", 0]
        row = {**rows(900 + n, 1)[0], "site": "roof", "carried": ["temperature"], "kafka_topic": "sensor",
               "kafka_partition": 0, "kafka_offset": first, "kafka_timestamp": T0}  # fmt: skip
        small.commit("sensor", 0, {partition: pa.Table.from_pylist([row], fewer)}, version=1)
    whole = everything(lake)
    done = [o for o in compact(lake, still(NOW)) if o.partition == KEY]
    assert [(o.files_before, o.files_after) for o in done] == [(16, 3)], (
        "Kafka's first partition, the second, the first"
    )
    assert everything(lake) == whole


def test_files_that_cannot_be_fewer_stay(small: SmallLake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(etl.compaction, "MAX_HELD_BYTES", 1)
    land(small, 10)
    before = small.lake.files("")
    assert all("would be 10" in o.left and not o.damaged for o in compact(small.lake, still(NOW)))
    assert small.lake.files("") == before


def test_of_two_at_once_one_wins(small: SmallLake, monkeypatch: pytest.MonkeyPatch) -> None:
    land(small, 10)
    lake = small.lake
    whole, commit = everything(lake), Compactions.commit
    other: list[Iterator[Any]] = [compact(lake, still(NOW))]

    def late(records: Compactions, wanted: Compaction) -> bool:
        if other:
            assert next(other.pop()).left == ""
        return commit(records, wanted)

    monkeypatch.setattr(Compactions, "commit", late)
    assert [o.left for o in compact(lake, still(NOW))] == ["another was faster", ""]
    assert everything(lake) == whole
    assert tidy(lake, NOW + GRACE) == Tidied(landed=20, compacted=1)
    assert everything(lake) == whole


def test_a_record_that_is_none_is_told(small: SmallLake) -> None:
    land(small, 1)
    small.lake.write(compaction_path(KEY, 1, 1), b"{}")
    with pytest.raises(DataError, match="is no compaction record"):
        read_index(small.lake)


# Expiry


def test_what_has_expired_is_told_by_name(small: SmallLake) -> None:
    land(small, 4)
    lake = small.lake
    files = read_index(lake).partitions[KEY].files
    gone = Compaction(KEY, 1, 1, micros(NOW) // 1000, [Compacted([Covered(f.path, f.rows) for f in files])])
    assert Compactions(lake).commit(gone)
    index = read_index(lake)
    assert KEY not in index.partitions
    assert index.expired == {KEY: 20}
    assert index.marks == {"sensor/0": 14, "sensor/1": 14}
    holes: list[Any] = []
    left = list(LandedLog(lake, "sensor", 0).arrivals(0, 14, holes))
    assert (len(left), [(h.first, h.last, h.cause) for h in holes]) == (2, [(0, 6, "expired"), (7, 13, "expired")])
    with pytest.raises(Expired, match=r"have expired \(retention.lake\)"):
        LandedFiles(lake).file_of("sensor", 0, 1)
    assert "hour=04" in (LandedFiles(lake).file_of("sensor", 0, 5) or "")
    with pytest.raises(DataError, match="have expired"):
        backtest(Past(lake, (SPEC,), {}), SPEC, Window(T0, T0 + timedelta(hours=2)), timedelta(0))
    assert tidy(lake, NOW + GRACE) == Tidied(landed=4)
    land(small, 9, start=900)
    late = read_index(lake)
    assert (late.partitions[KEY].rows, late.expired[KEY]) == (45, 20)
    whole = table_of(lake, late)
    assert [o.left for o in compact(lake, still(NOW + GRACE))] == ["", ""]
    assert table_of(lake, read_index(lake)) == whole


def test_manifests_never_change(small: SmallLake) -> None:
    land(small, 10)
    before = small.lake.read(manifest_path("sensor", 0, 0))
    [*compact(small.lake, still(NOW))]
    tidy(small.lake, NOW + GRACE)
    assert small.lake.read(manifest_path("sensor", 0, 0)) == before
