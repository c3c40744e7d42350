"""The oracle on the hand-written cases, so that it is itself tested by something that is not an implementation."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from fleet.duration import parse_duration
from tests.oracle.conditions import micros
from tests.oracle.oracle import run

FOLDER = Path(__file__).parent.parent / "rules" / "settled"
FILES = sorted(FOLDER.glob("*.test.yaml"))
TIMES = ("since", "starts_at")


def cases() -> list[Any]:
    found = []
    for file in FILES:
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
        specs = document.get("specs") or [document["spec"]]
        name = file.name.removesuffix(".test.yaml")
        found += [pytest.param(specs, test, id=f"{name}: {test['name']}") for test in document["tests"]]
    return found


@pytest.mark.parametrize(("specs", "test"), cases())
def test_settled(specs: list[dict[str, Any]], test: dict[str, Any]) -> None:
    transitions = run(specs, test)
    expected = [
        {
            "event_time" if key == "at" else key: micros(parse_duration(value)) if key in ("at", *TIMES) else value
            for key, value in line.items()
        }
        for line in test["expect"]
    ]
    shown = [
        {key: found[key] for key in (wanted or found)}
        for found, wanted in zip(transitions, expected + [{}] * len(transitions), strict=False)
    ]
    assert shown == expected
