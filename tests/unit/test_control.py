"""Control records: their form, what a change tells the log, and into which partitions it goes."""

from datetime import UTC, datetime
from itertools import count
from typing import Any

import msgspec
import pytest
from kafka.partitioner.default import DefaultPartitioner

from connections.publication import partition_of_key, partitions_of, wave_of
from fleet.control import Control, Device, Resolve, Retire, Routed, Site, Spec, decode_control, encode_control
from fleet.registry import Entry, new_entry, routed_change
from fleet.spec_file import load_spec

AT = datetime(2026, 11, 22, 10, 0, 0, 250_000, UTC)
MS = 1_795_341_600_250
RECORDS: list[tuple[Control, str]] = [
    (
        Device(revision=7, at=MS, type="node", device="n1", site="roof", registered_at=MS, params={"limit": 35.5}),
        '{"kind":"device","type":"node","device":"n1","site":"roof","registered_at":1795341600250,'
        '"params":{"limit":35.5},"revision":7,"at":1795341600250}',
    ),
    (
        Site(revision=8, at=MS, site="roof", time_zone="Europe/Berlin"),
        '{"kind":"site","site":"roof","time_zone":"Europe/Berlin","revision":8,"at":1795341600250}',
    ),
    (
        Retire(revision=9, at=MS, type="node", device="n1"),
        '{"kind":"retire","type":"node","device":"n1","revision":9,"at":1795341600250}',
    ),
    (
        Resolve(revision=10, at=MS, type="node", device="n1", rule="hot", by="ada"),
        '{"kind":"resolve","type":"node","device":"n1","rule":"hot","by":"ada","revision":10,"at":1795341600250}',
    ),
    (
        Spec(revision=11, at=MS, type="node", version=2, text="type: node\n"),
        '{"kind":"spec","type":"node","version":2,"text":"type: node\\n","revision":11,"at":1795341600250}',
    ),
]


@pytest.mark.parametrize(("record", "wire"), RECORDS, ids=[type(r).__name__ for r, _ in RECORDS])
def test_the_form_on_the_wire(record: Control, wire: str) -> None:
    assert encode_control(record).decode() == wire
    assert decode_control(wire.encode()) == record


@pytest.mark.parametrize(
    "wire",
    [
        b"",
        b"{}",
        b'{"kind":"reset","revision":1,"at":1}',
        b'{"kind":"site","site":"roof","time_zone":"UTC","at":1}',
        b'{"kind":"site","site":"roof","time_zone":"UTC","at":1,"revision":100000000000000000000}',
        b'{"kind":"site","site":"roof","time_zone":"UTC","at":-1,"revision":1}',
    ],
    ids=["nothing", "no kind", "a kind of later", "no revision", "a number beyond 64 bits", "a time before 1970"],
)
def test_what_is_no_control_record_is_told(wire: bytes) -> None:
    with pytest.raises(msgspec.MsgspecError):
        decode_control(wire)


def test_one_device_is_one_subject_whatever_is_said_of_it() -> None:
    device, site, retire, resolve, spec = (record.subject for record, _ in RECORDS)
    assert device == retire == resolve
    assert len({device, site, spec}) == 3


SPEC = """\
type: node
version: 1
system: demo
cadence: 10s
partition_by: {by}
metrics:
  temperature: {{unit: degC}}
examples:
  good:
    - {{payload: {{device_id: d1, event_time: 1732985789000, values: {{temperature: 1}}}}, values: {{temperature: 1}}}}
  bad: [{{payload: 1, reason: malformed_json}}]
"""
BY = {by: load_spec(SPEC.format(by=by), "node.yaml") for by in ("device", "site")}


def at(site: str, retired: bool = False, **more: Any) -> Entry:
    entry = new_entry(BY["device"], "n1", site, AT, **more)
    return msgspec.structs.replace(entry, retired_at=AT) if retired else entry


@pytest.mark.parametrize(
    ("by", "before", "after", "told"),
    [
        ("device", None, at("a"), [("device", "n1", None)]),
        ("site", None, at("a"), [("device", "a", None)]),
        ("device", at("a"), at("a", params={"x": 1.0}), [("device", "n1", None)]),
        ("site", at("a"), at("a", params={"x": 1.0}), [("device", "a", None)]),
        ("device", at("a"), at("b"), [("device", "n1", None)]),
        ("site", at("a"), at("b"), [("device", "b", None), ("retire", "a", "b")]),
        ("site", at("a", retired=True), at("b"), [("device", "b", None)]),
        ("device", at("a"), at("a", retired=True), [("retire", "n1", None)]),
        ("site", at("a"), at("a", retired=True), [("retire", None, None)]),
    ],
    ids=[
        "new, by device", "new, by site", "changed, by device", "changed, by site", "moved, by device",
        "moved, by site: both hear", "new again elsewhere", "retired, by device", "retired, by site: all hear",
    ],
)  # fmt: skip
def test_what_the_log_hears_of_a_change(by: str, before: Entry | None, after: Entry, told: list[Any]) -> None:
    routed = routed_change(BY[by], before, after, "Europe/Berlin", count(41), AT)
    kinds = [(msgspec.to_builtins(r.record)["kind"], r.key, r.except_key) for r in routed]
    assert kinds == told
    assert [r.record.revision for r in routed] == list(range(41, 41 + len(told)))
    assert {(r.topic, r.record.at) for r in routed} == {("readings.demo", MS)}
    for r in routed:
        if isinstance(r.record, Device):
            assert (r.record.site, r.record.params, r.record.time_zone) == (after.site, after.params, "Europe/Berlin")
        if isinstance(r.record, Retire):
            assert r.record.moved_to == (after.site if after.retired_at is None else None)


@pytest.mark.parametrize("key", ["7", "room-1", "s-1", "a.b:c_d", "x" * 64])
@pytest.mark.parametrize("partitions", [1, 2, 4, 7])
def test_control_records_go_where_the_readings_go(key: str, partitions: int) -> None:
    class Cluster:
        def topics(self) -> set[str]:
            return {"sensor"}

        def partitions_for_topic(self, _: str) -> set[int]:
            return set(range(partitions))

        available_partitions_for_topic = partitions_for_topic

    theirs = DefaultPartitioner().partition("sensor", key, key.encode(), None, None, Cluster())
    assert partition_of_key(key, list(range(partitions))) == theirs


def test_partitions_of_a_record() -> None:
    retire = RECORDS[2][0]
    four = [0, 1, 2, 3]
    home = {site: partition_of_key(site, four) for site in ("room-1", "room-2", "room-3", "room-4", "room-5")}
    assert partitions_of(Routed("t", None, retire), four) == four
    assert partitions_of(Routed("t", "room-1", retire), four) == [home["room-1"]]
    for other in home:
        away = partitions_of(Routed("t", "room-1", retire, except_key=other), four)
        assert away == ([] if home[other] == home["room-1"] else [home["room-1"]]), other
    assert len(set(home.values())) > 1


def routed(*devices: str) -> list[Routed]:
    return [
        Routed("t", d, Retire(revision=revision, at=MS, type="node", device=d)) for revision, d in enumerate(devices, 1)
    ]


@pytest.mark.parametrize(
    ("waiting", "length"),
    [("", 0), ("a", 1), ("abc", 3), ("aba", 2), ("aab", 1)],
)
def test_a_wave_has_one_record_of_a_subject(waiting: str, length: int) -> None:
    every = routed(*waiting)
    assert wave_of(every) == every[:length]
