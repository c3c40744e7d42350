"""What is true of a backtest's devices: written down, or what a simulator did to them."""

import json
from pathlib import Path
from typing import Any

import pytest

from etl.truths import read_truths
from fleet.errors import ConfigurationError
from fleet.spec import DeviceType

SPEC = DeviceType.model_validate(
    {
        "type": "probe", "version": 1, "system": "lab", "cadence": "10s",
        "examples": {"good": [{"payload": {}, "values": {}}], "bad": [{"payload": {}, "reason": "wrong_type"}]},
        "metrics": {"heat": {"unit": "degC"}, "light": {"unit": "lux"}},
        "alerts": [
            {"id": "hot", "when": "heat > 35"}, {"id": "odd", "when": "heat > 30 and light < 1"},
            {"id": "silent", "no_data": "1m"},
        ],
    }
)  # fmt: skip
S = 1_000_000
T0 = 1_795_316_400 * S  # 2026-11-22T03:00Z


def fault(
    second: int, kind: str = "spike", device: str = "7", metric: str | None = "heat", **more: Any
) -> dict[str, Any]:
    at = f"2026-11-22T03:{second // 60:02d}:{second % 60:02d}+00:00"
    said = {"fault": kind, "message": second, "type": "probe", "site": "roof", "device": device, "event_time": at,
            "metric": metric, "expected": "not sent" if kind == "dropout" else "valid"}  # fmt: skip
    return {key: value for key, value in (said | more).items() if value is not None}


def read(tmp_path: Path, lines: list[Any], *rules: str) -> list[tuple[str, float, float, list[str] | None]]:
    path = tmp_path / "truth.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    found = read_truths(path, SPEC, rules or ("hot", "odd", "silent"))
    return [
        (t.device, (t.begin_us - T0) / S, (t.end_us - T0) / S, None if t.rules is None else sorted(t.rules))
        for t in found
    ]


SUMMARY = {"summary": {"published": 10}}


@pytest.mark.parametrize(
    ("lines", "rules", "expected"),
    [
        ([fault(0)], (), [("7", 0, 10, ["hot", "odd"])]),
        ([fault(0), fault(10), fault(40)], ("hot",), [("7", 0, 50, ["hot"])]),
        ([fault(0), fault(31)], ("hot",), [("7", 0, 10, ["hot"]), ("7", 31, 41, ["hot"])]),
        ([fault(10), fault(0)], ("hot",), [("7", 0, 20, ["hot"])]),
        ([fault(0), fault(10, device="8")], ("hot",), [("7", 0, 10, ["hot"]), ("8", 10, 20, ["hot"])]),
        ([fault(0), fault(10, metric="light")], (), [("7", 0, 10, ["hot", "odd"]), ("7", 10, 20, ["odd"])]),
        ([fault(0, metric="light")], ("hot",), []),
        ([fault(0, "dropout", metric=None), fault(10, "dropout", metric=None)], (), [("7", 0, 20, ["silent"])]),
        ([fault(0, "dropout")], ("hot",), []),
        ([fault(0, "out_of_range", expected="value quarantined")], (), []),
        ([fault(0, "out_of_range", expected="value warned")], ("hot",), [("7", 0, 10, ["hot"])]),
        ([fault(0, "clock_skew", metric=None), fault(0, "duplicate"), fault(0, "truncated", metric=None)], (), []),
        ([fault(0, type="other")], (), []),
        ([], (), []),
    ],
    ids=[
        "one message", "one after the other", "too far apart", "in any order", "of two devices", "of two metrics",
        "of no metric of the rule", "silence", "silence is for no_data", "quarantined, so no rule sees it",
        "warned", "what leaves the values true", "another type", "no faults",
    ],
)  # fmt: skip
def test_faults_of_a_simulator_become_intervals(
    tmp_path: Path, lines: list[Any], rules: tuple[str, ...], expected: list[Any]
) -> None:
    assert read(tmp_path, [*lines, SUMMARY], *rules) == expected


def test_what_a_simulator_says_must_be_told(tmp_path: Path) -> None:
    span = {"site": "roof", "device": "1", "begin": "2026-11-22T03:00:00Z", "end": "2026-11-22T03:00:09Z"}
    lines = [span | {"incident": "fire"}, span | {"rule": "hot"}, span | {"rule": "another"}, fault(10), SUMMARY]
    assert read(tmp_path, lines, "hot") == [("1", 0, 9, ["hot"]), ("7", 10, 20, ["hot"])]


def test_intervals_as_people_write_them(tmp_path: Path) -> None:
    span = {"device": "1", "begin": "2026-11-22T03:00:00Z", "end": "2026-11-22T03:00:09Z"}
    assert read(tmp_path, [span, span | {"rule": "hot"}]) == [("1", 0, 9, None), ("1", 0, 9, ["hot"])]


@pytest.mark.parametrize(
    "line", ["{", "[]", '{"device": "1"}', '{"device": "1", "begin": "2026-11-22T04:00", "end": "2026-11-22T03:00"}']
)
def test_what_is_none(tmp_path: Path, line: str) -> None:
    path = tmp_path / "truth.jsonl"
    path.write_text(f"\n{line}\n")
    with pytest.raises(ConfigurationError, match=r"truth\.jsonl:2: expected such as .* or the truth of weir simulate"):
        read_truths(path, SPEC, ["hot"])
