"""The demo's verdict: each way in which simulators and books can disagree is told."""

from dataclasses import replace

import pytest

from simulators.outcome import Observed, Outcome, differences

SUMMARY = {
    "expected": {
        "rejected": {"wrong_type": 2},
        "types": {
            "station": {
                "readings": 100,
                "duplicates": 3,
                "quarantined": 1,
                "valid": 96,
                "known_values": {"humidity": 97, "temperature": 95},
                "quarantined_values": {"temperature": 2},
            }
        },
    }
}
SEEN = Observed(
    bridged=100, landed=100, valid=96, quarantined=1, duplicate=3, quarantined_values=2, loaded=190, live=100
)
GOOD = Outcome({"station": SEEN}, {"wrong_type": 2}, {"wrong_type": 2})


def station(**changes: int) -> Outcome:
    return replace(GOOD, types={"station": replace(SEEN, **changes)})


def test_what_agrees() -> None:
    assert differences([SUMMARY], GOOD) == []


def test_a_redelivered_message_is_one_more_duplicate() -> None:
    assert differences([SUMMARY], station(bridged=102, landed=102, live=102, duplicate=5)) == []


WRONG = [
    ("lost before Kafka", station(bridged=99, landed=99, live=99, valid=95), "not on Kafka"),
    ("lost in landing", station(landed=99, valid=95), "landed and bridged"),
    ("lost in the live table", station(live=99), "live and bridged"),
    ("twice in the live table", station(live=101), "live and bridged"),
    ("counted nowhere", station(valid=95), "valid + quarantined"),
    ("not loaded", station(loaded=0), "values in rollups and expected differ: 0 and 190"),
    ("a value loaded twice", station(loaded=191), "values in rollups and expected differ: 191 and 190"),
    ("redelivered and taken twice", station(bridged=102, landed=102, live=102, valid=98), "duplicate and expected"),
    ("not quarantined", station(valid=97, quarantined=0), "quarantined and expected"),
    ("a bad value let through", station(quarantined_values=1, loaded=191), "quarantined values and expected"),
    ("a reject lost", replace(GOOD, rejected={"wrong_type": 1}, rejects_loaded={"wrong_type": 1}), "2 expected, 1"),
    ("a reject not loaded", replace(GOOD, rejects_loaded={}), "2 on Kafka, 0 loaded"),
    ("a reject nobody sent", replace(GOOD, rejected={"wrong_type": 2, "bad_id": 1}), "bad_id: 0 expected"),
    (
        "a type nobody sent",
        replace(GOOD, types={"station": SEEN, "other": Observed(1, 1, 1, 0, 0, 0, 1, 1)}),
        "other: valid",
    ),
    ("a type not seen", replace(GOOD, types={}), "100 readings were confirmed"),
]


@pytest.mark.parametrize(("outcome", "text"), [w[1:] for w in WRONG], ids=[w[0] for w in WRONG])
def test_what_differs_is_told(outcome: Outcome, text: str) -> None:
    assert any(text in difference for difference in differences([SUMMARY], outcome))


def test_summaries_add_up() -> None:
    twice = Observed(*(2 * count for count in vars(SEEN).values()))
    outcome = Outcome({"station": twice}, {"wrong_type": 4}, {"wrong_type": 4})
    assert differences([SUMMARY, SUMMARY], outcome) == []
