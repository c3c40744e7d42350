"""Why a rule says what it says: a table with every kind of rule, and the parts of its conditions."""

import json
from typing import Any

import pytest

from connections.partition_log import Log
from fleet.explanation import Explanation, explain
from fleet.witness import Subject, Witness
from tests.oracle import subject
from weir._explain import Found
from weir._explanation import as_lines, as_object

METRICS = {"x": {"unit": "count"}, "y": {"unit": "count"}}


def explained(rule: dict[str, Any], lines: list[dict[str, Any]], at_seconds: float) -> Explanation:
    """Of device d1, after these lines of a rule test."""
    spec = {
        "type": "pump", "version": 1, "system": "plant", "cadence": "10s", "lateness": "0s", "metrics": METRICS,
        "alerts": [{"id": "r", **rule}],
    }  # fmt: skip
    partition = subject.Subject({"specs": [spec]})
    engine = partition.engine
    witness = engine.evaluator = Witness(engine.journal, Subject("pump", "d1", "r"))
    for place, line in enumerate(lines):
        partition.take(line, place)
    device = engine.known.device("pump", "d1")
    assert device is not None
    before = engine.snapshot()
    at_us = round(at_seconds * 1e6)
    found = explain(device, device.type.rules.rules[0], at_us, witness.events, witness.evaluated_us)
    assert engine.snapshot() == before, "it changed something"
    return found


def x(seconds: float, value: float | None, device: str = "d1", **more: Any) -> dict[str, Any]:
    return {"at": f"{seconds:g}s", "device": device, "x": value, **more}


BAND = {"when": "x > 5", "clear": "x < 3"}
LEVELS = {"levels": {"warning": {"when": "x > 5", "for": "10s"}, "critical": {"when": "x > 9"}}}
T = "1970-01-01 00:00:"
SINCE = f"in breach since {T}00.000"
UNTIL = "stays until a reading by which when is false"
UNTIL_CLEAR = "stays until a reading by which when is not true and clear is"
HOLDS = f"{SINCE}; when is true: {UNTIL}"
WITHIN = {"when": "x > 5", "for": "20s", "max_gap": "10s"}

TABLE: dict[str, tuple[dict[str, Any], list[Any], float, str, str, list[str]]] = {
    # rule, lines, at, state, why (of the last level), what happened before
    "threshold: false": ({"when": "x > 5"}, [x(0, 1)], 1, "inactive", "when is false", []),
    "threshold: true": ({"when": "x > 5"}, [x(0, 9)], 1, "firing", HOLDS, ["firing"]),
    "threshold: unknown as it was sent": (
        {"when": "x > 5"}, [x(0, None)], 1, "inactive", "when is unknown: neither breach nor clear", [],
    ),
    "threshold: unknown, so a firing one stays": (
        {"when": "x > 5"}, [x(0, 9), x(1, None)], 1, "firing", f"{SINCE}; when is unknown: {UNTIL}",
        ["firing"],
    ),
    "threshold: was true, and its value has gone stale": (
        {"when": "x > 5"}, [x(0, 9), {"watermark": "60s"}], 60, "firing",
        f"{SINCE}; when was true at the last evaluation, and is unknown by now: {UNTIL}", ["firing"],
    ),
    "hysteresis: in the band": (
        BAND, [x(0, 9), x(1, 4)], 1, "firing",
        f"{SINCE}; neither when nor clear: {UNTIL_CLEAR}", ["firing"],
    ),
    "hysteresis: below it": (BAND, [x(0, 9), x(1, 2)], 1, "inactive", "when is false", ["firing", "resolved"]),
    "hysteresis: clear is true too": (
        {"when": "x > 5", "clear": "y < 3"}, [x(0, 9, y=1)], 0, "firing",
        f"{SINCE}; when is true: {UNTIL_CLEAR}", ["firing"],
    ),
    "hysteresis: unknown": (
        BAND, [x(0, 9), x(1, None)], 1, "firing",
        f"{SINCE}; when is unknown, and clear is not true: {UNTIL_CLEAR}", ["firing"],
    ),
    "hysteresis: the count is met, and clear is true": (
        {**BAND, "count": "2 of 3"}, [x(0, 9), x(1, 9), x(2, 1)], 2, "firing",
        f"in breach since {T}01.000; count is still met: stays until a reading by which count is no longer met and"
        " clear is", ["firing"],
    ),
    "a window: false by now, and nothing was evaluated": (
        {"when": "count(x, 10s) >= 2"}, [x(0, 1), x(1, 1)], 15, "firing",
        f"in breach since {T}01.000; when was true at the last evaluation, and is false by now: {UNTIL}", ["firing"],
    ),
    "for: waits": (
        {"when": "x > 5", "for": "20s"}, [x(0, 9), x(5, 9)], 5, "pending",
        f"{SINCE}; for 20s ends {T}20.000; acts when the watermark is at {T}20.000", ["breach"],
    ),
    "for: a lagging device's timer waits for its lag": (
        {"when": "x > 5", "for": "20s"}, [x(30, 9, "d2"), x(25, 9)], 25, "pending",
        f"in breach since {T}25.000; for 20s ends {T}45.000; acts when the watermark is at {T}50.000, the device's lag"
        " of 5s included", ["breach"],
    ),
    "for: held": (
        {"when": "x > 5", "for": "20s"}, [x(0, 9), x(15, 9), {"watermark": "20s"}], 20, "firing",
        HOLDS, ["breach", "firing"],
    ),
    "for: over too soon": (
        {"when": "x > 5", "for": "20s"}, [x(0, 9), x(15, 1)], 20, "inactive", "when is false",
        ["breach", "breach over"],
    ),
    "keep_firing_for: waits": (
        {"when": "x > 5", "keep_firing_for": "20s"}, [x(0, 9), x(15, 1)], 15, "clearing",
        f"clear holds since {T}15.000; keep_firing_for 20s ends {T}35.000; acts when the watermark is at {T}35.000",
        ["firing", "clear holds"],
    ),
    "keep_firing_for: not long enough": (
        {"when": "x > 5", "keep_firing_for": "20s"}, [x(0, 9), x(15, 1), x(16, 9)], 16, "firing",
        f"{HOLDS}, and stays so for 20s", ["firing", "clear holds", "clear over"],
    ),
    "keep_firing_for: its timer lapsed": (
        {"when": "x > 5", "keep_firing_for": "40s"}, [x(0, 9), x(5, 1), {"watermark": "50s"}], 50, "clearing",
        f"clear holds since {T}05.000; keep_firing_for 40s; its timer lapsed: resolves at the first reading from"
        f" {T}45.000 on where clear holds", ["firing", "clear holds", "lapsed"],
    ),
    "max_gap: a timer that will come too late": (
        WITHIN, [x(0, 9)], 9, "pending",
        f"{SINCE}; for 20s ends {T}20.000, too late without another known outcome: the last was"
        f" {T}00.000, and holds for max_gap 10s", ["breach"],
    ),
    "max_gap: a hold that ended": (
        WITHIN, [x(0, 9), {"watermark": "30s"}], 30, "inactive",
        f"its hold ended {T}20.000: no known outcome for 20s, max_gap 10s; the next breach starts anew",
        ["breach", "lapsed"],
    ),
    "max_gap: broken, and begun anew": (
        WITHIN, [x(0, 9), x(15, 9)], 15, "pending",
        f"in breach since {T}15.000; for 20s ends {T}35.000, too late without another known outcome: the last was"
        f" {T}15.000, and holds for max_gap 10s", ["breach", "gap", "breach"],
    ),
    "max_gap: broken, and no breach": (
        WITHIN, [x(0, 9), x(15, 1)], 15, "inactive", "when is false",
        ["breach", "gap"],
    ),
    "count: not met": (
        {"when": "x > 5", "count": "2 of 3"}, [x(0, 9), x(1, 1)], 1, "inactive",
        "count: 1 of the last 3 known outcomes were true, 2 are needed", [],
    ),
    "count: met": (
        {"when": "x > 5", "count": "2 of 3"}, [x(0, 9), x(1, 9), x(2, 1)], 2, "firing",
        f"in breach since {T}01.000; count is still met: stays until a reading by which count is no longer met",
        ["firing"],
    ),
    "levels: the higher fires, the lower waits": (
        LEVELS, [x(0, 10)], 0, "firing", HOLDS,
        ["breach", "level fires", "firing"],
    ),
    "no_data: waits": (
        {"no_data": "20s"}, [x(5, 1)], 6, "inactive",
        f"last heard {T}05.000; due {T}25.000; acts when the watermark is at {T}25.000", [],
    ),
    "no_data: silent": (
        {"no_data": "20s"}, [x(5, 1), {"watermark": "30s"}], 30, "firing", f"silent since {T}05.000", ["firing"],
    ),
    "no_data: never heard": (
        {"no_data": "20s"}, [{"at": "3s", "register": {"device": "d1"}}], 5, "inactive",
        f"never heard, registered {T}03.000; due {T}23.000; acts when the watermark is at {T}23.000", [],
    ),
    "no_data: overdue since a new spec": (
        {"when": "x > 5"},
        [x(0, 1), x(30, 1, "d2"), {"at": "31s", "spec": {
            "type": "pump", "version": 2, "system": "plant", "cadence": "10s", "lateness": "0s", "metrics": METRICS,
            "alerts": [{"id": "r", "no_data": "20s"}]}}],
        31, "inactive",
        f"last heard {T}00.000; due {T}20.000, and is overdue: it acts with the next reading that is evaluated", [],
    ),
    "site: another device's value": (
        {"when": "site_max(pump.x) > 5"}, [x(0, 1), x(1, 9, "d2")], 1, "firing",
        f"in breach since {T}01.000; when is true: {UNTIL}", ["firing"],
    ),
    "manual: quiet": (
        {"when": "x > 5"}, [x(0, 9), {"at": "1s", "resolve": {"device": "d1", "rule": "r"}}, x(2, 9)], 2, "inactive",
        "resolved by hand: quiet until a known outcome finds no breach", ["firing", "resolved"],
    ),
    "never heard": ({"when": "x > 5"}, [{"at": "3s", "register": {"device": "d1"}}], 5, "inactive",
        "the device was never heard", []),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLE)
def test_why(name: str) -> None:
    rule, lines, at, state, why, before = TABLE[name]
    found = explained(rule, lines, at)
    assert found.state == state
    assert (found.why or found.levels[-1].why) == why
    assert [event.what for event in found.events] == before


def test_each_level_says_its_own() -> None:
    found = explained(LEVELS, [x(0, 10)], 0)
    assert [(level.severity, level.state) for level in found.levels] == [("warning", "pending"), ("critical", "firing")]
    assert found.severity == "critical"
    assert [(event.level, event.what) for event in found.events] == [
        ("warning", "breach"), ("critical", "level fires"), ("", "firing"),
    ]  # fmt: skip


def test_parts_values_and_what_the_last_evaluation_found() -> None:
    rule = {"when": "x > limit and avg(x, 1m) / y > 0", "clear": "x < 0", "params": {"limit": 5}}
    found = explained(rule, [{"at": "0s", "device": "d1", "x": 6, "y": 0}, {"at": "1s", "device": "d1", "y": 2}], 31)
    when, clear = found.levels[0].sides
    assert [(part.text, part.value) for part in when.parts] == [
        ("x > limit and avg(x, 1m) / y > 0", None), ("x > limit", None), ("x", None), ("limit", 5.0),
        ("avg(x, 1m) / y > 0", True), ("avg(x, 1m) / y", 3.0), ("avg(x, 1m)", 6.0), ("y", 2.0),
    ]  # fmt: skip
    assert (when.at_evaluation, clear.at_evaluation) == (True, False)
    assert [(v.metric, v.value, v.is_stale, v.age and v.age.seconds) for v in found.values] == [
        ("x", None, True, 31), ("y", 2.0, False, 30),
    ]  # fmt: skip


@pytest.mark.parametrize("limit", [0, 5], ids=["and found a breach", "and found none"])
def test_another_device_evaluated_it_last(limit: int) -> None:
    """One that finds no breach, where nothing is remembered, the engine passes over."""
    found = explained({"when": f"site_max(pump.x) > {limit}"}, [x(0, 1), x(7, 1, "d2"), x(9, 1, "d3")], 10)
    assert found.evaluated is not None and found.evaluated.second == 9
    assert found.levels[0].sides[0].at_evaluation is (limit == 0)


def test_marks() -> None:
    lines = [x(0, 9), {"at": "1s", "resolve": {"device": "d1", "rule": "r"}}]
    assert explained({"when": "x > 5"}, lines, 1).marks == ("quiet",)


TEXT = """\
r: d1 at default, rule r of pump version 1
at        1970-01-01 00:00:30.000 UTC
state     inactive
why       its hold ended 1970-01-01 00:00:20.000: no known outcome for 20s,
          max_gap 10s; the next breach starts anew
when      true: x > 5
            9: x
value     x 9, 30s old
before    1970-01-01 00:00:00.000  breach
before    1970-01-01 00:00:20.000  lapsed (no known outcome for 20s, max_gap
          10s)
watermark 1970-01-01 00:00:30.000
log       readings.plant-3, offsets 0 to 1
"""
LONG = {"when": "x > 9 and (avg(x, 30s) > 3 or max_over(x, 10s) > 7) and not y > 12345678 and site_max(pump.x) > 1e300"}


def test_text() -> None:
    rule, lines, at, *_ = TABLE["max_gap: a hold that ended"]
    log = Log("readings.plant", 3, 0, 2)
    assert "\n".join([*as_lines(Found(explained(rule, lines, at), log, 2)), ""]) == TEXT
    shown = [as_lines(Found(explained(*case[:3]), log, 2)) for case in [*TABLE.values(), (LONG, [x(0, 10)], 0)]]
    assert all(len(line) <= 80 for lines in shown for line in lines)


@pytest.mark.parametrize(("at", "points"), [(20, False), (100, True)], ids=["fresh", "stale"])
def test_a_moment_after_the_end_points_at_the_last_reading(at: float, points: bool) -> None:
    """As after a simulation that has ended."""
    lines = as_lines(Found(explained({"when": "x > 5"}, [x(0, 1), x(4.5, 1)], at), Log("readings.plant", 3, 0, 2), 2))
    assert ("earlier   of when it last spoke: --at 1970-01-01T00:00:04.500" in lines) is points


def test_json_says_times_and_spans() -> None:
    rule, lines, at, *_ = TABLE["for: held"]
    said = json.loads(json.dumps(as_object(Found(explained(rule, lines, at), Log("readings.plant", 3, 1, 2), 2))))
    assert (said["at"], said["stale_after"]) == ("1970-01-01T00:00:20+00:00", 30.0)
    assert [(e["at"], e["what"], e["offset"]) for e in said["events"]] == [
        ("1970-01-01T00:00:00+00:00", "breach", 0), ("1970-01-01T00:00:20+00:00", "firing", 2),
    ]  # fmt: skip
    assert said["log"] == {
        "topic": "readings.plant",
        "partition": 3,
        "begin": 1,
        "end": 2,
        "read_to": 2,
        "is_whole": False,
    }
