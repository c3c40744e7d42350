"""The oracle on the hand-written rule tests, so that it is itself tested by something that is not an implementation."""

from pathlib import Path
from typing import Any

import pytest

from fleet.spec_file import parse_yaml
from tests.oracle.oracle import at_of, run

TESTS = Path(__file__).parent.parent
TYPES = TESTS.parent / "fleet" / "types"
TIMES = {"at", "since", "starts_at"}
NOT_OURS = {"title", "annotations", "labels", "source", "transition_id", "alert_id"}
"""Texts and ids are not the oracle's; a rule test's offsets leave out `restart`, the oracle's do not."""


def specs_of(document: dict[str, Any]) -> list[dict[str, Any]]:
    """A named type's, and those of its system, which rules of the site may look at."""
    if "type" in document:
        every = [parse_yaml(file.read_text(encoding="utf-8"), str(file))[0] for file in sorted(TYPES.glob("*.yaml"))]
        (named,) = [spec for spec in every if spec["type"] == document["type"]]
        return [named, *(spec for spec in every if spec["system"] == named["system"] and spec is not named)]
    return document.get("specs") or [document["spec"]]


def cases() -> list[Any]:
    found = []
    for file in sorted((TESTS / "rules").rglob("*.test.yaml")):
        document, _ = parse_yaml(file.read_text(encoding="utf-8"), str(file))
        name = f"{file.parent.name}/{file.name.removesuffix('.test.yaml')}"
        found += [pytest.param(specs_of(document), test, id=f"{name}: {test['name']}") for test in document["tests"]]
    return found


@pytest.mark.parametrize(("specs", "test"), cases())
def test_rule_test(specs: list[dict[str, Any]], test: dict[str, Any]) -> None:
    transitions = run(specs, test)
    expected = [
        {
            "event_time" if key == "at" else key: at_of(value) if key in TIMES else value
            for key, value in line.items()
            if key not in NOT_OURS
        }
        for line in test["expect"]
    ]
    shown = [
        {key: found[key] for key in (wanted or found)}
        for found, wanted in zip(transitions, expected + [{}] * len(transitions), strict=False)
    ]
    assert shown == expected
