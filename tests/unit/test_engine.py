"""The engine where rule tests cannot reach: append times and heartbeats, digests, zones, snapshots, what goes wrong."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.control import Control, Device, Resolve, Retire, Site, Spec
from fleet.device_state import TypeState
from fleet.engine import Engine
from fleet.errors import ConfigurationError, SpecError
from fleet.reading import Reading
from fleet.rule_test import inline_spec
from fleet.snapshot import SnapshotError
from fleet.transition import Transition, alert_id, decode_transition, encode_transition

S = 1_000_000


def spec(*alerts: dict[str, Any], **keys: Any) -> dict[str, Any]:
    metrics = {"a": {"unit": "count"}, "b": {"unit": "count"}, "n": {"unit": "count", "kind": "counter"}}
    whole = {"type": "t", "version": 1, "system": "demo", "cadence": "10s", "metrics": metrics}
    return {**whole, "alerts": list(alerts), **keys}


def engine_of(*alerts: dict[str, Any], **keys: Any) -> Engine:
    return Engine(3, [inline_spec(spec(*alerts, **keys))])


def reading(at: float, device: str = "d", seq: int | None = None, site: str = "", **values: Any) -> Reading:
    return Reading(device, "t", site, round(at * S), values, seq)


def told(transitions: Any) -> list[tuple[str, str, str, float]]:
    return [(t.device, t.rule, t.to, t.event_time_us / S) for t in transitions]


def registered(at: float, device: str = "d", site: str = "roof", type_: str = "t", **params: float) -> Device:
    ms = round(at * 1000)
    return Device(revision=0, at=ms, registered_at=ms, type=type_, device=device, site=site, params=params)


def retired(at: float, device: str = "d", type_: str = "t") -> Retire:
    return Retire(revision=0, at=round(at * 1000), type=type_, device=device)


def resolved(at: float, device: str = "d", rule: str = "high", type_: str = "t") -> Resolve:
    return Resolve(revision=0, at=round(at * 1000), type=type_, device=device, rule=rule, by="test")


def changed(at: float, *alerts: dict[str, Any], **keys: Any) -> Spec:
    return Spec(revision=0, at=round(at * 1000), type="t", version=1, text=json.dumps(spec(*alerts, **keys)))


def zone(site: str, time_zone: str) -> Site:
    return Site(revision=0, at=0, site=site, time_zone=time_zone)


HIGH = {"id": "high", "when": "a > 0"}
HELD = {"id": "held", "when": "a > 0", "for": "10s"}
SILENT = {"id": "silent", "no_data": "30s"}


# Watermark, append time, heartbeats


def test_a_device_clock_ahead_does_not_move_the_watermark_beyond_append_time() -> None:
    engine = engine_of(HELD)
    engine.reading(reading(100, a=1.0), offset=0, append_us=100 * S)
    engine.reading(reading(200, "ahead", a=0.0), offset=1, append_us=101 * S)
    assert engine.known.types["t"].watermark == 91 * S
    assert told(engine.reading(reading(105, "e", a=0.0), offset=2, append_us=120 * S)) == [("d", "held", "firing", 110)]


def test_heartbeats_move_the_watermark_by_append_time_and_show_silence() -> None:
    engine = engine_of(SILENT)
    engine.reading(reading(100, a=1.0), offset=0, append_us=103 * S)
    found = [told(engine.heartbeat(offset=n, append_us=(103 + 10 * n) * S)) for n in range(1, 6)]
    assert engine.known.types["t"].watermark == 140 * S  # 90 s and 5 × 10 s
    assert found == [[], [], [], [("d", "silent", "firing", 130)], []]


def test_without_heartbeats_nothing_moves_however_late_the_next_record_is() -> None:
    engine = engine_of(SILENT)
    engine.reading(reading(100, a=1.0), offset=0, append_us=100 * S)
    assert engine.reading(reading(101, "e", a=1.0), offset=1, append_us=9999 * S) == ()


def test_a_heartbeat_does_not_move_a_type_by_time_that_its_own_readings_took() -> None:
    engine = engine_of(SILENT)
    engine.reading(reading(100, a=1.0), offset=0, append_us=100 * S)
    engine.reading(reading(109, a=1.0), offset=1, append_us=109 * S)
    engine.heartbeat(offset=2, append_us=110 * S)
    assert engine.known.types["t"].watermark == 100 * S


def test_other_types_in_the_partition_do_not_hold_the_silence_of_one_back() -> None:
    engine = Engine(0, [inline_spec(spec(SILENT)), inline_spec(spec(type="busy"))])
    engine.reading(reading(100, a=1.0), offset=0, append_us=100 * S)
    found: list[Transition] = []
    for n in range(1, 51):
        busy = Reading("x", "busy", "", (100 + n) * S, {"a": 1.0})
        found += engine.reading(busy, offset=2 * n, append_us=(100 + n) * S)
        if n % 10 == 0:
            found += engine.heartbeat(offset=2 * n + 1, append_us=(100 + n) * S)
    assert told(found) == [("d", "silent", "firing", 130)]


def test_a_type_never_heard_of_but_registered_is_silent_by_heartbeats_alone() -> None:
    engine = engine_of(SILENT)
    assert engine.heartbeat(offset=0, append_us=90 * S) == ()
    engine.control(registered(100), offset=1)
    found = [told(engine.heartbeat(offset=n, append_us=(100 + 10 * n) * S)) for n in range(2, 7)]
    assert found == [[], [], [("d", "silent", "firing", 130)], [], []]


# Duplicates


def test_a_digest_stands_for_seq_and_is_never_taken_for_one() -> None:
    engine = engine_of({"id": "twice", "when": "a > 0", "count": 2})
    for offset, (seq, digest) in enumerate([(None, 7), (None, 7), (7, 9)]):
        out = engine.reading(reading(0, a=1.0, seq=seq), offset=offset, digest=digest)
    assert engine.counts.duplicates == 1
    assert told(out) == [("d", "twice", "firing", 0)]


# What a reading can hold

ODD: list[Any] = [float("nan"), float("inf"), -float("inf"), 10**400, "text", [1], {}, None, b"", 1e999]


@pytest.mark.parametrize("value", ODD, ids=[repr(v)[:12] for v in ODD])
def test_whatever_a_reading_holds_is_unknown_at_worst(value: Any) -> None:
    engine = engine_of(
        HIGH, {"id": "sum", "when": "sum(a, 1m) > 100"}, {"id": "total", "when": "today(n) > 5 and previous(a) > 0"}
    )
    assert told(engine.reading(reading(0, a=1, n=True), offset=0)) == [("d", "high", "firing", 0)]
    assert engine.reading(reading(10, a=value, n=value), offset=1) == ()
    assert engine.reading(reading(5, a=value, n=value), offset=2) == ()
    assert told(engine.reading(reading(20, a=0.0), offset=3)) == [("d", "high", "resolved", 20)]


def test_impossible_times_and_unknown_types_and_metrics_are_passed_over() -> None:
    engine = engine_of(HIGH)
    assert engine.reading(reading(1e20, a=1.0), offset=0) == ()
    assert engine.reading(Reading("d", "other", "", 0, {"a": 1.0}), offset=1) == ()
    assert engine.counts.unreadable == 2
    assert told(engine.reading(reading(0, a=1.0, nobody_knows=3.0), offset=2)) == [("d", "high", "firing", 0)]


def test_what_raises_inside_a_rule_is_unknown_and_counted_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_of(HIGH, {"id": "broken", "when": "a > 0"}, {"id": "low", "when": "a > 0"})

    def broken(*arguments: Any) -> bool:
        raise RuntimeError("a defect")

    for rule in engine.known.types["t"].rules.rules:
        if rule.id == "broken":
            rule.when = rule.levels[0].when = broken
    assert [t.rule for t in engine.reading(reading(0, a=1.0), offset=0)] == ["high", "low"]
    assert engine.journal.errors == {("t", "broken"): 1}


# Identity


def test_ids_say_the_alert_and_count_within_it() -> None:
    engine = engine_of(HIGH)
    out = [*engine.reading(reading(5, a=1.0), offset=0), *engine.reading(reading(5, a=0.0), offset=1)]
    out += [*engine.reading(reading(5, a=1.0), offset=2), *engine.reading(reading(6, a=0.0), offset=3)]
    first, second = (alert_id("demo", "t", "high", "d", 5 * S, k) for k in (0, 1))
    assert [(t.alert_id, t.transition_id) for t in out] == [
        (first, f"{first}-1"), (first, f"{first}-2"), (second, f"{second}-1"), (second, f"{second}-2"),
    ]  # fmt: skip


def test_a_device_that_comes_back_with_its_old_readings_gets_other_alert_ids() -> None:
    engine = engine_of(HIGH)
    ids = []
    for life in range(3):
        for offset, (at, a) in enumerate([(10, 1.0), (10, 0.0), (10, 1.0), (20, 0.0), (20, 1.0), (30, 0.0)]):
            ids += [t.transition_id for t in engine.reading(reading(at, a=a), offset=life * 10 + offset)]
        engine = Engine.restore(engine.snapshot())
        engine.control(retired(40), offset=life * 10 + 9)
    assert len(ids) == 18 == len(set(ids))


def test_the_same_log_gives_the_same_transitions_whenever_it_is_read() -> None:
    logs = []
    for detected in (1, 2):
        engine = engine_of(HIGH, HELD)
        logs.append([t for n in range(9) for t in engine.reading(
            reading(n * 7, a=float(n % 3)), offset=n, detected_at_us=detected)])  # fmt: skip
    assert [msgspec.structs.replace(t, detected_at_us=0) for t in logs[0]] == [
        msgspec.structs.replace(t, detected_at_us=0) for t in logs[1]
    ]
    assert {t.detected_at_us for t in logs[0]} == {1}


# Controls


def test_a_new_time_zone_moves_local_midnight() -> None:
    engine = engine_of({"id": "night", "when": "a > 0 and local_hour() < 6"})
    engine.control(zone("tokyo", "Asia/Tokyo"), offset=0)
    engine = Engine.restore(engine.snapshot())
    at = 18 * 3600  # 3 in the morning there
    assert told(engine.reading(reading(at, "here", a=1.0), offset=1)) == []
    assert told(engine.reading(reading(at, "there", site="tokyo", a=1.0), offset=2)) == [
        ("there", "night", "firing", at)
    ]
    with pytest.raises(ConfigurationError, match="Europe/Berlin"):
        engine.control(zone("moon", "Moon/Tycho"), offset=3)


def test_registry_changes_count_from_the_next_reading() -> None:
    engine = engine_of({"id": "high", "when": "a > limit", "params": {"limit": 5}})
    assert engine.reading(reading(0, a=3.0), offset=0) == ()
    assert engine.control(registered(1, limit=2.0), offset=1) == ()
    assert told(engine.reading(reading(10, a=3.0), offset=2)) == [("d", "high", "firing", 10)]
    engine.control(registered(11), offset=3)
    assert told(engine.reading(reading(20, a=3.0), offset=4)) == [("d", "high", "resolved", 20)]


def test_a_wrong_spec_changes_nothing() -> None:
    engine = engine_of(HIGH)
    engine.reading(reading(0, a=1.0), offset=0)
    with pytest.raises(SpecError, match="no_such"):
        engine.control(changed(1, {"id": "high", "when": "no_such > 1"}), offset=1)
    assert told(engine.reading(reading(10, a=0.0), offset=2)) == [("d", "high", "resolved", 10)]


def test_what_names_nobody_does_nothing() -> None:
    engine = engine_of(HIGH)
    engine.reading(reading(0, a=0.0), offset=0)
    for record in (
        retired(0, "x"), retired(0, type_="x"), resolved(0, rule="x"), resolved(0, "x"), resolved(0, type_="x"),
        resolved(0), registered(0, type_="x"),
    ):  # fmt: skip
        assert engine.control(record, offset=1) == ()


def test_a_record_that_comes_again_is_passed_over() -> None:
    engine = engine_of(HIGH)
    engine.reading(reading(0, a=1.0), offset=0)
    resolve = msgspec.structs.replace(resolved(1), revision=7)
    assert told(engine.control(resolve, offset=1)) == [("d", "high", "resolved", 1)]
    engine.reading(reading(10, a=0.0), offset=2)
    engine.reading(reading(20, a=1.0), offset=3)
    engine = Engine.restore(engine.snapshot())
    assert engine.control(resolve, offset=4) == ()
    assert engine.control(msgspec.structs.replace(retired(1), revision=6), offset=5) == ()
    assert engine.counts.repeated == 2
    assert told(engine.control(msgspec.structs.replace(retired(21), revision=8), offset=6)) == [
        ("d", "high", "resolved", 21)
    ]


def test_transitions_are_read_as_they_were_written() -> None:
    engine = engine_of(HIGH)
    (transition,) = engine.reading(reading(1.0015, a=1.0), offset=7, detected_at_us=1_234_567)
    data = msgspec.json.decode(encode_transition(transition))
    assert (data["event_time"], data["detected_at"], data["source"]) == (
        1001.5,
        1234.567,
        {"partition": 3, "offset": 7},
    )
    assert decode_transition(encode_transition(transition)) == transition


# Snapshots


@pytest.mark.parametrize("data", [b"", b"\xc1", msgspec.msgpack.encode([99, 0]), msgspec.msgpack.encode({"a": 1})])
def test_bytes_that_are_no_snapshot_are_refused(data: bytes) -> None:
    with pytest.raises(SnapshotError):
        Engine.restore(data)


def test_a_snapshot_with_a_spec_that_is_none_any_more_is_refused() -> None:
    data = engine_of(HIGH).snapshot()
    with pytest.raises(SnapshotError, match="none for this program"):
        Engine.restore(data.replace(b"a > 0", b"x > 0"))


EVERYTHING = [
    HIGH, HELD, SILENT,
    {"id": "band", "when": "a > 2", "clear": "a < 0", "for": "20s", "keep_firing_for": "15s", "max_gap": "25s"},
    {"id": "often", "when": "a > 0", "count": "3 of 5", "for": "5s"},
    {"id": "levels", "levels": {"info": {"when": "a > 0"}, "critical": {"when": "b > 1", "for": "10s"}}},
    {"id": "nervous", "when": "a > 1", "flap": {"high": 0.2, "low": 0.1}},
    {"id": "mean", "when": "avg(a, 40s) > 1 and count(b, 20s) > 0", "clear": "previous(a) < 1"},
    {"id": "used", "when": "today(n) > 20 or rate(n, 30s) > 1"},
    {"id": "site", "when": "site_avg(t.a) > limit", "for": "10s", "params": {"limit": 1}},
    {"id": "own_and_site", "when": "b >= 0 and site_last(t.a) > 1", "max_gap": "1m", "for": "30s"},
]  # fmt: skip
FEWER = [
    {"id": "levels", "levels": {"warning": {"when": "a > 1"}, "critical": {"when": "b > 1", "for": "5s"}}},
    {**SILENT, "no_data": "15s"}, {"id": "band", "when": "a > 2", "for": "5s"}, {"id": "high", "no_data": "20s"},
    {"id": "mean", "when": "avg(a, 20s) > 1"}, {"id": "site", "when": "site_max(t.a) > limit", "params": {"limit": 2}},
]  # fmt: skip

values = st.fixed_dictionaries(
    {}, optional={m: st.one_of(st.none(), st.integers(-1, 4).map(float)) for m in ("a", "b", "n")}
)
devices = st.sampled_from(["d1", "d2", "d3"])
sites = st.sampled_from(["", "x", "y"])
rules = st.sampled_from([str(rule["id"]) for rule in EVERYTHING])
steps = st.lists(
    st.one_of(
        st.tuples(st.just("reading"), devices, st.integers(-25, 30), values, sites, st.integers(0, 3)),
        st.tuples(st.just("heartbeat"), st.integers(0, 30)),
        st.tuples(st.just("advance"), st.integers(0, 60)),
        st.tuples(st.just("resolve"), devices, rules),
        st.tuples(st.just("retire"), devices),
        st.tuples(st.just("register"), devices, st.integers(0, 3)),
        st.tuples(st.just("spec"), st.booleans()),
    ),
    max_size=40,
)


def control_of(kind: str, rest: list[Any], at: float) -> Control:
    if kind == "resolve":
        return resolved(at, *rest)
    if kind == "retire":
        return retired(at, *rest)
    if kind == "register":
        return registered(at, rest[0], limit=float(rest[1]))
    return changed(at, *(FEWER if rest[0] else EVERYTHING), partition_by="site")


def play(log: list[Any], restart_each: bool) -> list[list[Transition]]:
    engine, now, out = engine_of(*EVERYTHING), 0, []
    since: dict[str, int] = {}
    for offset, (kind, *rest) in enumerate(log):
        if restart_each:
            engine = Engine.restore(engine.snapshot())
        if kind == "reading":
            device, ahead, carried, site, seq = rest
            now = max(now, now + ahead)
            at = reading(now if ahead >= 0 else max(0, now + ahead), device, seq, site, **carried)
            found = engine.reading(at, offset=offset, append_us=now * S)
        elif kind == "heartbeat":
            now += rest[0]
            found = engine.heartbeat(offset=offset, append_us=now * S)
        elif kind == "advance":
            found = engine.advance((now + rest[0] - 30) * S, offset=offset)
        else:
            record = control_of(kind, rest, now)
            if isinstance(record, Device):  # what the registry keeps while it knows the device
                record = msgspec.structs.replace(record, registered_at=since.setdefault(record.device, now * 1000))
            elif isinstance(record, Retire):
                since.pop(record.device, None)
            found = engine.control(record, offset=offset)
        out.append(list(found))
        assert_consistent(engine.known.types["t"])
    return out


def assert_consistent(type_: TypeState) -> None:
    """No timer is due before the time at which its device will be looked at, and that stands in the heap."""
    for device in type_.devices.values():
        dues = [due for due, _ in device.timers()]
        if dues:
            assert device.next_due <= min(dues)
            assert device.armed <= min(dues) + device.lag
            assert (device.armed, device.id) in type_.heap
        assert device.silences == sum(
            alert is not None and rule.no_data_us is not None
            for rule, alert in zip(type_.rules.rules, device.alerts, strict=True)
        )


@given(steps)
def test_a_restart_between_any_two_records_changes_nothing(log: list[Any]) -> None:
    plain = play(log, restart_each=False)
    assert play(log, restart_each=True) == plain
    ids = [t.transition_id for found in plain for t in found]
    assert len(ids) == len(set(ids))


@given(steps)
def test_each_alert_goes_from_firing_to_resolved(log: list[Any]) -> None:
    open_alerts: dict[tuple[str, str], str] = {}
    for found in play(log, restart_each=False):
        for t in found:
            key = t.device, t.rule
            if t.to == "firing":
                assert key not in open_alerts
                open_alerts[key] = t.alert_id
            elif t.to in ("escalated", "deescalated"):
                assert open_alerts[key] == t.alert_id
            elif t.to == "resolved":
                assert open_alerts.pop(key) == t.alert_id
            assert t.since_us <= t.starts_at_us
