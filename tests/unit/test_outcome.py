"""The demo's verdict: each way in which simulators and books can disagree is told."""

from dataclasses import replace

import pytest

from simulators.outcome import Observed, Outcome, differences

SUMMARY = {
    "expected": {
        "rejected": {"wrong_type": 2},
        "types": {"station": {"readings": 100, "duplicates": 3, "quarantined": 1, "valid": 96}},
    }
}
SEEN = Observed(bridged=100, landed=100, valid=96, quarantined=1, duplicate=3, loaded=96)
GOOD = Outcome({"station": SEEN}, {"wrong_type": 2}, {"wrong_type": 2})


def station(**changes: int) -> Outcome:
    return replace(GOOD, types={"station": replace(SEEN, **changes)})


def test_what_agrees() -> None:
    assert differences([SUMMARY], GOOD) == []


def test_a_redelivered_message_is_one_more_duplicate() -> None:
    assert differences([SUMMARY], station(bridged=102, landed=102, duplicate=5)) == []


WRONG = [
    ("lost before Kafka", station(bridged=99, landed=99, valid=95, loaded=95), "not on Kafka"),
    ("lost in landing", station(landed=99, valid=95, loaded=95), "landed and bridged"),
    ("counted nowhere", station(valid=95, loaded=95), "valid + quarantined"),
    ("not loaded", station(loaded=0), "loaded and valid"),
    ("redelivered and taken twice", station(bridged=102, landed=102, valid=98, loaded=98), "duplicate and expected"),
    ("not quarantined", station(valid=97, quarantined=0, loaded=97), "quarantined and expected"),
    ("a reject lost", replace(GOOD, rejected={"wrong_type": 1}, rejects_loaded={"wrong_type": 1}), "2 expected, 1"),
    ("a reject not loaded", replace(GOOD, rejects_loaded={}), "2 on Kafka, 0 loaded"),
    ("a reject nobody sent", replace(GOOD, rejected={"wrong_type": 2, "bad_id": 1}), "bad_id: 0 expected"),
    ("a type nobody sent", replace(GOOD, types={"station": SEEN, "other": Observed(1, 1, 1, 0, 0, 1)}), "other: valid"),
    ("a type not seen", replace(GOOD, types={}), "100 readings were confirmed"),
]


@pytest.mark.parametrize(("outcome", "text"), [w[1:] for w in WRONG], ids=[w[0] for w in WRONG])
def test_what_differs_is_told(outcome: Outcome, text: str) -> None:
    assert any(text in difference for difference in differences([SUMMARY], outcome))


def test_summaries_add_up() -> None:
    twice = Observed(*(2 * count for count in vars(SEEN).values()))
    outcome = Outcome({"station": twice}, {"wrong_type": 4}, {"wrong_type": 4})
    assert differences([SUMMARY, SUMMARY], outcome) == []
