"""A log replayed to a moment is the same wherever its batches are cut, and knows nothing of what came after."""

import json
from typing import Any

import pytest

from connections.record_batch import batch_of_records
from fleet.channels import CONTROL, HEARTBEAT
from fleet.columns import ColumnReader
from fleet.control import Resolve, Retire, Spec, encode_control
from fleet.explanation import Explanation, explain
from fleet.reading import Reading, encode_reading
from fleet.witness import Subject
from streaming import replay as module
from streaming.replay import Replay
from tests.unit.test_shard import CATALOG, FIRST_MS, record, value_of
from tests.unit.test_shard import SPEC as FLEET

TYPE, TOPIC = "weather_station", CATALOG.type("weather_station").topic
COUNT = 2500


def replayed(records: list[Any], at_ms: float, size: int, rule: str = "hot", device: str = "s7") -> Replay:
    replay = Replay(0, ColumnReader(CATALOG, TOPIC), Subject(TYPE, device, rule), int(at_ms * 1000))
    for begin in range(0, len(records), size):
        if not replay.take(batch_of_records(TOPIC, 0, records[begin : begin + size])):
            break
    return replay


def explained(replay: Replay) -> Explanation:
    device = replay.device
    assert device is not None
    rule = device.type.rules.rule(replay.subject.rule)
    assert rule is not None
    return explain(device, rule, replay.at_us, replay.witness.events, replay.witness.evaluated_us)


@pytest.fixture(scope="module")
def fleet() -> list[Any]:
    return [record(offset, *value_of(offset)) for offset in range(COUNT)]


@pytest.mark.parametrize("at", [4_075, 17_000, 10**7])
def test_batches_do_not_matter(fleet: list[Any], at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for rule in (rule["id"] for rule in FLEET["alerts"]):
        small = replayed(fleet, FIRST_MS + at, 100, rule)
        with monkeypatch.context() as patch:
            patch.setattr(module, "MAX_FUTURE_US", 0)  # what comes from the future in this log is refused
            for size in (1000, COUNT):
                other = replayed(fleet, FIRST_MS + at, size, rule)
                assert explained(other) == explained(small)
                assert other.position == small.position


ALERTS = [{"id": "hot", "when": "temperature > 35", "for": "10s", "max_gap": "1h"}, {"id": "silent", "no_data": "30s"}]
SMALL = {**FLEET, "lateness": "5s", "alerts": ALERTS}
SPEC = Spec(revision=1, at=FIRST_MS, type=TYPE, version=1, text=json.dumps(SMALL))


def say(seconds: float, temperature: float, device: str = "d1") -> bytes:
    return encode_reading(
        Reading(device, TYPE, "field", FIRST_MS * 1000 + round(seconds * 1e6), {"temperature": temperature})
    )


def log(*values: Any) -> list[Any]:
    """Appended a minute after one another; the first is the spec."""
    found = []
    for offset, value in enumerate([SPEC, *values]):
        control = not isinstance(value, bytes)
        mark = CONTROL if control else HEARTBEAT if value == b"beat" else None
        found.append(record(offset, encode_control(value) if control else value, mark))
        found[-1].timestamp = FIRST_MS + 60_000 * (offset + 1)
    return found


ABOUT: dict[str, Any] = {"revision": 2, "at": FIRST_MS + 50_000, "type": TYPE, "device": "d1"}
MOMENTS: dict[str, tuple[list[Any], float, str, str, int, list[str]]] = {
    # records, seconds, rule, state, offset of the first that was not taken, what happened before
    "a later reading is not known": (log(say(0, 20), say(5, 40)), 4, "hot", "inactive", 2, []),
    "one at the moment is": (log(say(0, 20), say(5, 40)), 5, "hot", "pending", 3, ["breach"]),
    "a timer due before, which a later reading lets act": (
        log(say(0, 40), say(20, 40)), 12, "hot", "firing", 2, ["breach", "firing"],
    ),
    "a timer due later has not acted": (log(say(0, 40), say(90, 40, "d2")), 9, "hot", "pending", 2, ["breach"]),
    "nor has one that nothing reached": (log(say(0, 40)), 500, "hot", "pending", 2, ["breach"]),
    "the watermark lets one act": (
        log(say(0, 40), say(18, 20, "d2"), say(90, 20, "d2")), 12, "hot", "firing", 3, ["breach", "firing"],
    ),
    "what comes late still counts": (
        log(say(0, 20), say(25, 20, "d2"), say(4, 40)), 5, "hot", "pending", 4, ["breach"],
    ),
    "silence": (log(say(0, 20), say(25, 20, "d2"), b"beat"), 40, "silent", "firing", 4, ["firing"]),
    "a person's word that came later": (
        log(say(0, 40), say(30, 20, "d2"), Resolve(**ABOUT, rule="hot", by="me")), 20, "hot", "firing", 3,
        ["breach", "firing"],
    ),
    "one that was in time": (
        log(say(0, 40), say(60, 20, "d2"), Resolve(**ABOUT, rule="hot", by="me")), 51, "hot", "inactive", 4,
        ["breach", "firing", "resolved"],
    ),
    "retired later": (log(say(0, 20), say(30, 20, "d2"), Retire(**ABOUT)), 20, "hot", "inactive", 3, []),
    "rules that came later": (
        log(say(0, 40), say(20, 20, "d2"), Spec(revision=2, at=ABOUT["at"], type=TYPE, version=2, text=SPEC.text)),
        14, "hot", "firing", 3, ["breach", "firing"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("size", [1, 100])
@pytest.mark.parametrize("name", MOMENTS)
def test_a_moment(name: str, size: int) -> None:
    records, seconds, rule, state, position, before = MOMENTS[name]
    replay = replayed(records, FIRST_MS + seconds * 1000, size, rule, "d1")
    found = explained(replay)
    assert (found.state, [event.what for event in found.events]) == (state, before)
    assert replay.position == position


def test_an_unknown_device_is_looked_for_to_the_end() -> None:
    new = Spec(revision=2, at=ABOUT["at"], type=TYPE, version=2, text=SPEC.text)
    replay = replayed(log(say(0, 20), say(20, 20), new), FIRST_MS + 10_000, 100, "hot", "d7")
    assert (replay.device, replay.first_later, replay.position) == (None, None, 4)


def test_before_the_first_reading_the_device_is_not_there() -> None:
    replay = replayed(log(say(10, 20)), FIRST_MS + 5_000, 100, "hot", "d1")
    assert replay.device is None
    assert replay.first_later == (FIRST_MS + 10_000) * 1000
