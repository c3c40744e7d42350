"""The columnar form of the engine against the scalar one: same transitions with all their keys, same order, same
counts, same state to the byte, for random specs, streams and batches.
"""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet import column_engine, device_table, window_table
from fleet.column_engine import Batch, take_columns
from fleet.columns import NO_SEQ, Columns
from fleet.control import Device, Resolve, Retire, Site, Spec
from fleet.engine import Engine
from fleet.names import Names
from fleet.reading import Reading
from fleet.rule_test import inline_spec
from fleet.transition import Transition
from tests.oracle.oracle import NOT_METRICS, at_of
from tests.oracle.streams import METRIC, METRICS, calls, cases, seconds, settle, terms
from tests.oracle.subject import params_of
from tests.oracle.test_differential import budget, told

FIRST = 1_000_000_000 * 1_000_000
"""All times are moved there: a canonical reading is younger than 2000."""


class Log:
    """A case's lines as the records of one partition; an offset is a place in it."""

    def __init__(self, case: dict[str, Any]):
        self.specs = [inline_spec(spec) for spec in case["specs"]]
        self.payloads = case.get("payloads", False)
        registry = [{"register": entry} for entry in case.get("registry", [])]
        self.records = [self.record(line) for line in [*registry, *case["input"]]]

    def at(self, text: str) -> int:
        return FIRST + at_of(text)

    def record(self, line: Any) -> tuple[str, Any, int | None]:
        """(kind, what it holds, append time)"""
        if line == "restart":
            return "restart", None, None
        append = self.at(line["append"]) if "append" in line else None
        at, name = self.at(line.get("at", "0s")), line.get("type", self.specs[0].type)
        if "heartbeat" in line:
            return "heartbeat", None, self.at(line["heartbeat"])
        if "watermark" in line:
            return "watermark", self.at(line["watermark"]), None
        said: Any
        if "zone" in line:
            said = Site(revision=0, at=at // 1000, **line["zone"])
        elif "register" in line:
            known = line["register"]
            said = Device(
                revision=0, at=at // 1000, type=known.get("type", name), device=known["device"],
                site=known.get("site", "default"), registered_at=at // 1000, params=params_of(known),
            )  # fmt: skip
        elif "retire" in line:
            said = Retire(revision=0, at=at // 1000, type=name, device=line["retire"])
        elif "resolve" in line:
            said = Resolve(revision=0, at=at // 1000, type=name, by="op", **line["resolve"])
        elif "spec" in line:
            version = line["spec"]["version"]
            said = Spec(
                revision=0, at=at // 1000, type=line["spec"]["type"], version=version, text=json.dumps(line["spec"])
            )
        else:
            values = {k: None if v is None or v != v else float(v) for k, v in line.items() if k not in NOT_METRICS}
            # A canonical reading carries something, and JSON has no infinity.
            values = {k: None if v in (float("inf"), -float("inf")) else v for k, v in values.items()} or {"x": None}
            site, seq = line.get("site", "default"), line.get("seq")
            return "reading", Reading(line["device"], name, site, at, values, seq), append
        return "control", said, append


Said = tuple[list[Transition], bytes, Any]


def digest(reading: Reading) -> int:
    return hash((reading.site, *reading.values.values()))


def scalar(log: Log) -> Said:
    engine = Engine(3, log.specs)
    said: list[Transition] = []
    for offset, record in enumerate(log.records):
        engine = take(engine, record, offset, log.payloads, said)
    return said, engine.snapshot(), engine.counts


def take(engine: Engine, record: Any, offset: int, payloads: bool, said: list[Transition]) -> Engine:
    kind, what, append = record
    if kind == "restart":
        return Engine.restore(engine.snapshot())
    if kind == "heartbeat":
        said += engine.heartbeat(offset=offset, append_us=append)
    elif kind == "watermark":
        said += engine.advance(what, offset=offset)
    elif kind == "control":
        said += engine.control(what, offset=offset, append_us=append)
    else:
        stand_in = digest(what) if payloads else None
        said += engine.reading(what, offset=offset, append_us=append, digest=stand_in)
    return engine


def columnar(log: Log, sizes: list[int]) -> Said:
    """`sizes`: how many records a batch has, one after the other, again and again."""
    engine = Engine(3, log.specs)
    said: list[Transition] = []
    devices: dict[str, Names] = {}
    sites, offset, turn = Names(), 0, 0
    while offset < len(log.records):
        if log.records[offset][0] != "reading":
            engine = take(engine, log.records[offset], offset, log.payloads, said)
            offset += 1
            continue
        end, last = offset, min(offset + sizes[turn % len(sizes)], len(log.records))
        while end < last and log.records[end][0] == "reading":
            end += 1
        readings = [what for _, what, _ in log.records[offset:end]]
        appends = [append for *_, append in log.records[offset:end]]
        batch = Batch(
            np.arange(offset, end),
            None if None in appends else np.array(appends, np.int64),
            np.array([digest(reading) for reading in readings], np.int64) if log.payloads else None,
            0,
        )
        said += take_columns(engine, list(columns_of(readings, devices, sites)), batch)
        offset, turn = end, turn + 1
    return said, engine.snapshot(), engine.counts


def columns_of(readings: list[Reading], devices: dict[str, Names], sites: Names) -> Iterator[Columns]:
    for name in sorted({reading.device_type for reading in readings}):
        names = devices.setdefault(name, Names())
        rows = [row for row, reading in enumerate(readings) if reading.device_type == name]
        some = [readings[row] for row in rows]
        metrics = sorted({metric for reading in some for metric in reading.values} | {"x"})

        def ints(values: list[int]) -> Any:
            return np.array(values, np.int64)

        yield Columns(
            name, ints(rows), ints([names[r.device_id] for r in some]), ints([sites[r.site] for r in some]),
            ints([r.event_time_us for r in some]), ints([NO_SEQ if r.seq is None else r.seq for r in some]),
            ints([1] * len(some)),
            {m: np.array([r.values.get(m) for r in some], np.float64) for m in metrics},
            {m: np.array([m in r.values for r in some]) for m in metrics},
            names, sites,
        )  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def small() -> Iterator[None]:
    """What is there for large batches and long windows happens in small ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(column_engine, "FEW", 1)
        for name, value in (("FIRST_LENGTH", 2), ("SHORT", 6), ("OUTLIER", 3), ("SETTLE", 5), ("GATHERED", 8)):
            patch.setattr(window_table, name, value)
        patch.setattr(device_table, "FIRST_CAPACITY", 2)
        yield


def compare(case: dict[str, Any], sizes: list[int]) -> None:
    with told({**case, "sizes": sizes}):
        log = Log(case)
        (ours, state, counts), (theirs, their_state, their_counts) = columnar(log, sizes), scalar(log)
        assert ours == theirs
        assert counts == their_counts
        assert state == their_state


SIZES = st.lists(st.integers(1, 12), min_size=1, max_size=4)


@budget()
@given(cases(), SIZES)
def test_columns_are_the_scalar_form(case: dict[str, Any], sizes: list[int]) -> None:
    compare(case, sizes)


SILENT = {"id": "silent", "no_data": "20s"}
PUMP = {"type": "pump", "version": 1, "system": "plant", "cadence": "100s", "lateness": "10s",
        "metrics": {"x": {"unit": "count"}}, "alerts": [{"id": "high", "when": "x > 5"}]}  # fmt: skip
AFTER_OVERDUE = {
    "a duplicate": {"at": "60s", "device": "d2", "seq": 1, "x": 0, "append": "61s"},
    "out of order, the watermark stays": {"at": "55s", "device": "d2", "x": 0, "append": "60s"},
    "out of order, the watermark moves": {"at": "55s", "device": "d2", "x": 0, "append": "70s"},
    "evaluated": {"at": "60s", "device": "d2", "seq": 2, "x": 0, "append": "60s"},
    "a new device": {"at": "5s", "device": "d3", "x": 0, "append": "60s"},
}


@pytest.mark.parametrize("last", AFTER_OVERDUE)
@pytest.mark.parametrize("sizes", [[1], [2], [9]], ids=str)
def test_a_timer_that_a_control_record_set_overdue(last: str, sizes: list[int]) -> None:
    begin = [{"at": "0s", "device": "d1", "seq": 1, "x": 0, "append": "0s"},
             {"at": "65s", "device": "d9", "seq": 1, "x": 0, "append": "60s"},
             {"at": "60s", "device": "d2", "seq": 1, "x": 0, "append": "60s"}]  # fmt: skip
    changed = {"at": "60s", "spec": {**PUMP, "version": 2, "alerts": [SILENT]}}
    end = {"at": "66s", "device": "d4", "x": 0, "append": "60s"}
    case = {"specs": [PUMP], "payloads": True, "input": [*begin, changed, AFTER_OVERDUE[last], end]}
    compare(case, sizes)
    said, *_ = columnar(Log(case), sizes)
    acts = last in ("evaluated", "a new device", "out of order, the watermark moves")
    assert [(t.device, t.rule, t.offset) for t in said] == [("d1", "silent", 4 if acts else 5)]


LIMIT = st.sampled_from(["> 3", "> 4", ">= p", "> 6", "< -4", "!= x and x > 3", "> 0 and y > 3"])
LOOK = st.one_of(
    METRIC, METRIC, calls(()), calls(()), calls(()), terms(()),
    st.builds("({} {} {})".format, calls(()), st.sampled_from("+-*/"), st.sampled_from(["x", "2", "avg(x, 4s)"])),
)  # fmt: skip
SELDOM = st.builds("{} {}".format, LOOK.filter(lambda text: "today" not in text and "this_month" not in text), LIMIT)
"""Conditions that calm readings do not meet."""


@st.composite
def calm_specs(draw: st.DrawFn) -> list[dict[str, Any]]:
    found = []
    for name in ("pump", "tank")[: draw(st.integers(1, 2))]:
        chosen = []
        for condition in draw(st.lists(SELDOM, min_size=1, max_size=4)):
            keys = {"for": seconds(least=0, most=6), "keep_firing_for": seconds(least=0, most=6),
                    "count": st.sampled_from([2, "2 of 3"]), "clear": SELDOM}  # fmt: skip
            chosen.append({"when": condition, **draw(st.fixed_dictionaries({}, optional=keys))})
        kept = draw(st.sampled_from([[], [], [{"no_data": "5s"}], [{"no_data": "30s"}, {"no_data": "9s"}]]))
        if draw(st.booleans()):
            kept = [*kept, {"levels": {"info": {"when": draw(SELDOM)}, "critical": {"when": "x > 6"}}}]
        alerts = [{"id": f"r{place}", "params": {"p": 3}, **rule} for place, rule in enumerate([*chosen, *kept])]
        spec = {"type": name, "version": 1, "system": "plant", "metrics": METRICS, "partition_by": "device"}
        spec |= {
            "cadence": draw(st.sampled_from(["2s", "event"])),
            "lateness": draw(st.sampled_from(["0s", "3s", "10s"])),
        }
        found.append(settle({**spec, "alerts": [rule if "no_data" not in rule else without(rule) for rule in alerts]}))
    return found


def without(rule: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in rule.items() if key != "params"}


CALM = [
    {"x": 0},
    {"x": 0, "y": 1, "n": 1},
    {"x": 1},
    {"x": 2, "y": 0},
    {"y": None, "x": 0.1},
    {"n": 2, "x": -0.7},
    {"x": 1e-9},
]
HOT = [{"x": 5}, {"x": 7, "y": 9}, {"x": -9}, {"n": 9}, {"x": 1e308}]
STEPS = st.tuples(
    st.integers(0, 7), st.sampled_from([0, 0.25, 1, 0.5, 0.125]),
    st.one_of(*[st.sampled_from(CALM)] * 30, st.sampled_from(HOT)), st.sampled_from([*[0] * 80, -3, -20]),
    st.sampled_from([*["reading"] * 120, "beat", "restart", "register", "move", "gap"]),
)  # fmt: skip


@st.composite
def fleets(draw: st.DrawFn) -> dict[str, Any]:
    """Devices that are mostly calm, in streams that are long for what is drawn: the same steps several times."""
    found = draw(calm_specs())
    steps = draw(st.lists(STEPS, min_size=10, max_size=60))
    beats, now = draw(st.booleans()), 0.0
    types = [spec["type"] for spec in found]
    lines: list[Any] = []
    for turn in range(draw(st.integers(3, 9))):
        for device, step, values, back, kind in steps:
            now += step if kind != "gap" else 12
            name = types[(device + turn) % len(types)]
            at, stamp = f"{max(0.0, now + back):g}s", {"append": f"{now + 1:g}s"} if beats else {}
            if kind == "restart":
                lines.append("restart")
            elif kind == "register":
                known = {"device": f"d{device}", "type": name, "site": "north", "params": {"p": device % 5}}
                lines.append({"at": at, "register": known, **stamp})
            elif kind == "beat":
                lines.append({"heartbeat": f"{now + 1:g}s"} if beats else {"watermark": at})
            else:
                site = {"site": "south"} if kind == "move" else {}
                lines.append({"at": at, "device": f"d{device}", "type": name, **site, **values, **stamp})
    return {"specs": found, "payloads": beats, "input": lines}


@budget(0.5)
@given(fleets(), st.lists(st.integers(1, 300), min_size=1, max_size=3))
def test_columns_of_many_devices(case: dict[str, Any], sizes: list[int]) -> None:
    compare(case, sizes)
