"""Each type's own examples do what they say."""

import pytest

from fleet.catalog import load_catalog
from fleet.examples import failures
from fleet.settings import CHECKOUT
from fleet.spec import DeviceType
from tests.command import command

CATALOG = load_catalog(CHECKOUT / "fleet" / "types")


@pytest.mark.parametrize("spec", list(CATALOG), ids=list(CATALOG.types))
def test_examples_behave_as_they_say(spec: DeviceType) -> None:
    assert failures(spec) == []


@pytest.mark.parametrize("spec", list(CATALOG), ids=list(CATALOG.types))
def test_an_example_that_is_wrong_is_told(spec: DeviceType) -> None:
    good, bad = spec.examples.good[0], spec.examples.bad[0]
    wrong = good.model_copy(update={"values": dict.fromkeys(good.values, -1.0)})
    other = bad.model_copy(update={"reason": "oversized"})
    examples = spec.examples.model_copy(update={"good": [wrong], "bad": [other]})
    assert len(failures(spec.model_copy(update={"examples": examples}))) == 2


@pytest.mark.parametrize("spec", list(CATALOG), ids=list(CATALOG.types))
def test_what_cannot_be_held_back_is_critical(spec: DeviceType) -> None:
    assert [rule.id for rule in spec.alerts if not rule.inhibitable and rule.severity != "critical"] == []


URGENT = [
    ("smoke_alarm", "smoke"),
    ("smoke_alarm", "tamper"),
    ("door_sensor", "door_opened_away"),
    ("door_sensor", "tamper"),
    ("motion_detector", "motion_while_away"),
    ("motion_detector", "tamper"),
]


@pytest.mark.parametrize(("type_name", "rule_id"), URGENT, ids=map("-".join, URGENT))
def test_smoke_tampering_and_intrusion_are_held_back_by_nothing(type_name: str, rule_id: str) -> None:
    (rule,) = (rule for rule in CATALOG.type(type_name).alerts if rule.id == rule_id)
    assert (rule.severity, rule.inhibitable) == ("critical", False)


def test_a_mistyped_type_is_told_with_the_nearest_one() -> None:
    assert "lampp.yaml; did you mean 'lamp'?" in command()("types", "check", "lampp", code=1).stderr
