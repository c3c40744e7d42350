"""What a report says of given figures, and that it says where there are none."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from fleet.consumption import Appliance, Hog
from fleet.findings import findings, headline, kilowatt_hours, percent, performance
from fleet.report import (
    AlertKind,
    Books,
    Coverage,
    Device,
    Energy,
    Figures,
    Latency,
    Parity,
    Validation,
    Worst,
    step_of,
)

START = datetime(2026, 11, 16, tzinfo=UTC)
NONE = Figures("home", START, START + timedelta(days=7), timedelta(hours=1))
DOOR, LAMP = Device("door_sensor", "door-1", "home-1"), Device("lamp", "lamp-2", "home-2")
SENT = replace(NONE, coverage=[Coverage("door_sensor", 2, 100, 100, 100)])
SMOKE = AlertKind("smoke_alarm", "smoke", "critical", 2, 0, 400.0)
HUMID = AlertKind("room_climate", "too_humid", "info", 120, 4, 7200.0)
COLD = AlertKind("room_climate", "cold", "warning", 1, 1, None)
SILENT = AlertKind("door_sensor", "silent", "warning", 3, 0, 30.0)
HOURS = tuple(n / 10 for n in range(101))


def energy(**of: object) -> Figures:
    common = {"watt_hours": 10_000.0, "costs": {}, "hogs": [], "unattributed": {}, "by_step": {}}
    return replace(SENT, energy=Energy(**{**common, **of}))  # type: ignore[arg-type]


def hog(number: int, watt_hours: float, share: float, usual: float | None = None, score: float | None = None,
        peers: float | None = None, peers_score: float | None = None, standby: float | None = None) -> Hog:  # fmt: skip
    appliance = Appliance(f"home-{number}", "smart_plug", f"plug-{number}")
    return Hog(appliance, watt_hours, share, usual, score, peers, peers_score, standby)


SAID = [
    ("no alert", SENT, "No alert fired."),
    ("the gravest first, whatever came more often", replace(SENT, alerts=[HUMID, SILENT, SMOKE, COLD]),
     "126 alerts fired: 2 smoke (critical), 3 silent (warning), 1 cold (warning), 120 of other kinds."),
    ("what is under way", replace(SENT, alerts=[HUMID, COLD]),
     "5 alerts had not resolved at the end: 1 cold, 4 too humid."),
    ("what lasts", replace(SENT, alerts=[HUMID, SMOKE, COLD]),
     "Alerts of too humid lasted longest, half of them more than 2h."),
    ("who has most", replace(SENT, alerts=[SILENT], worst=[Worst(DOOR, 3, ("silent", "low_battery"))]),
     "Most alerts came from door-1 at home-1 (3: silent, low battery)."),
    ("no devices", NONE, "No device is registered."),
    ("nothing loaded", replace(NONE, coverage=[Coverage("lamp", 3, 0, 0, 100)]),
     "Nothing is loaded of 3 devices: no readings came, or the batch job did not run."),
    ("too few readings",
     replace(NONE, coverage=[Coverage("lamp", 3, 60, 60, 100), Coverage("door_sensor", 1, 95, 95, 100)]),
     "Of the readings that devices send by their cadence fewer came: lamp 60.0 %."),
    ("all report", SENT, "All 2 devices reported within the last 2h."),
    ("the one reports", replace(NONE, coverage=[Coverage("lamp", 1, 9, 9, 9)]),
     "Its device reported within the last 2h."),
    ("some do not", replace(SENT, silent=[(DOOR, None), (LAMP, START + timedelta(days=3, hours=4))]),
     "2 devices said nothing at the end: door-1 at home-1 (not at all), lamp-2 at home-2 (last at 19 Nov 04:00)."),
    ("of many some are named", replace(SENT, silent=[(DOOR, None)] * 5),
     "5 devices said nothing at the end: door-1 at home-1 (not at all), door-1 at home-1 (not at all), door-1 at home-1"
     " (not at all) and 2 more."),
    ("what happened", replace(SENT, events={"closed": (7, 2), "opened": (8, 0)}),
     "Security: opened 8 times, closed 7 times."),
    ("of much that happened some is named", replace(SENT, events={f"event {n}": (9 - n, 0) for n in range(8)}),
     "Security: event 0 9 times, event 1 8 times, event 2 7 times, event 3 6 times, event 4 5 times, event 5 4 times, 5"
     " of other kinds."),
    ("what happened unseen", replace(SENT, events={"opened": (8, 1), "closed": (7, 2), "left": (1, 1)}),
     "While nobody was at home: opened 1 time."),
    ("no tariff", energy(), "10.0 kWh were used; no tariff was valid."),
    ("cost", energy(costs={"EUR": 4.2, "DKK": 1}), "10.0 kWh were used, at 1.00 DKK, 4.20 EUR."),
    ("hogs", energy(hogs=[hog(1, 6000, 0.6), hog(2, 4000, 0.9)]),
     "Most energy went into plug-1 at home-1 (60.0 % of its home, 6.0 kWh), plug-2 at home-2 (90.0 % of its home, 4.0"
     " kWh)."),
    ("more than usual", energy(hogs=[hog(1, 6000, 0.6, 5500, 9), hog(2, 4000, 0.9, 1000, 9), hog(3, 1, 0.1)]),
     "Much more than in the weeks before was used by plug-2 at home-2 (4.0 times its usual)."),
    ("more than peers", energy(hogs=[hog(1, 6000, 0.6, None, None, 5500, 9), hog(2, 4000, 0.9, None, None, 1000, 9)]),
     "Far above others of their kind: plug-2 at home-2 (4.0 times its peers)."),
    ("more than usual and than peers", energy(hogs=[hog(2, 4000, 0.9, 2000, 9, 1000, 9)]),
     "Much more than in the weeks before was used by plug-2 at home-2 (2.0 times its usual, 4.0 times its peers)."),
    ("standby", energy(hogs=[hog(1, 9, 1, standby=3.21), hog(2, 8, 1, standby=40), hog(3, 7, 1, standby=0)]),
     "Most power was drawn in standby by plug-2 at home-2 (40.0 W), plug-1 at home-1 (3.2 W)."),
    ("unattributed", energy(unattributed={"gap": (2, 4200.0), "crossing": (1, 50.0), "implausible": (1, 0.0)}),
     "4.2 kWh belong to no hour, as counters rose unheard: 1 time crossing, 2 times gap."),
    ("implausible", energy(unattributed={"implausible": (2, 0.0)}),
     "Counters rose by more than can be 2 times: what was used then is not known."),
    ("anomalies", replace(SENT, anomalies={"rate": 2, "zscore": 5}),
     "7 values flagged as anomalies: 5 zscore, 2 rate."),
    ("the oddest", replace(SENT, anomalies={"rate": 2}, oddest=[(DOOR, "battery", 2)]),
     "The oddest: battery of door-1 at home-1 (2)."),
    ("no anomalies", SENT, "No value was flagged as an anomaly."),
    ("commands", replace(SENT, commands={"obeyed": 3, "refused": 1}), "3 of 4 commands obeyed; 1 refused."),
]  # fmt: skip


@pytest.mark.parametrize(("of", "sentence"), [case[1:] for case in SAID], ids=[case[0] for case in SAID])
def test_findings(of: Figures, sentence: str) -> None:
    assert sentence in findings(of)


PERFORMED = [
    ("no books", NONE, "The ledger has no partition of this span: nothing can be said of loss."),
    ("books that balance", replace(NONE, books=Books(2, 0, 10, 7, 2, 1, 0)),
     "10 readings landed, of which 7 are valid, 2 quarantined and 1 duplicates; the books balance."),
    ("books that do not", replace(NONE, books=Books(2, 0, 10, 7, 2, 1, 3)),
     "10 readings landed, of which 7 are valid, 2 quarantined and 1 duplicates; THE BOOKS ARE OFF by 3."),
    ("what failed", replace(NONE, books=Books(2, 1)), "1 of 2 partitions failed, and kept what was loaded before."),
    ("why values", replace(NONE, books=Books(1), bad_values={"out_of_range": 4}),
     "4 values quarantined: 4 out of range."),
    ("why messages", replace(NONE, books=Books(1), rejected={"not_utf8": 1, "future_time": 2}),
     "3 messages rejected: 2 future time, 1 not utf8."),
    ("no latency", NONE, "No alert changed: there is no latency to measure."),
    ("latency", replace(NONE, detection=Latency(9, HOURS)),
     "From an event to the alert: half within 5s, 95 % within 9.5s, 99 % within 9.9s, the slowest 10s"
     " (9 transitions)."),
    ("no latency of what is past", replace(NONE, detection=Latency(9, HOURS, past=1)),
     "1 transition came more than 10m after the event, as in a backfill, a replay, a simulation faster than time or an"
     " outage: no latency is measured of them."),
    ("nobody told", replace(NONE, detection=Latency(9, HOURS)), "Nobody was told of these alerts."),
    ("told", replace(NONE, detection=Latency(9, HOURS), notification=Latency(1, HOURS)),
     "From an event to the message that somebody got: half within 5s, 95 % within 9.5s, 99 % within 9.9s, the"
     " slowest 10s (1 transition)."),
    ("not validated", NONE, "Nothing was validated."),
    ("validated", replace(NONE, validation=Validation(1000, 999, 5000, 8000)),
     "99.9 % of 1,000 validations passed, 8,000 checks of 5,000 rows."),
    ("not met", replace(NONE, validation=Validation(1, 1, 1, 1, {"lamp.on a": 1, "lamp.on b": 2})),
     "Not met: lamp.on b (2), lamp.on a (1)."),
    ("not audited", NONE, "Alerts were not audited in this span."),
    ("audited", replace(NONE, parity=Parity(7, 99_999, 1, 0)),
     "99,999 alert transitions are what the rules say of the landed log once more (parity 99.9 %); 1 difference"
     " explained, 0 not."),
]  # fmt: skip


@pytest.mark.parametrize(("of", "sentence"), [case[1:] for case in PERFORMED], ids=[case[0] for case in PERFORMED])
def test_performance(of: Figures, sentence: str) -> None:
    assert sentence in performance(of)


def test_a_headline_counts() -> None:
    of = replace(SENT, alerts=[SMOKE, HUMID], books=Books(1))
    assert headline(of) == "home: 100 readings of 2 devices, 122 alerts (2 critical); the books balance."
    assert headline(NONE) == "home: no readings are loaded of this span."


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [(1, 1, "100 %"), (99_999, 100_000, "99.9 %"), (1, 100_000, "under 0.1 %"), (0, 5, "0.0 %"), (1, 0, "0 %")],
)
def test_a_share_is_never_all_or_nothing_by_rounding(part: float, whole: float, text: str) -> None:
    assert percent(part, whole) == text


@pytest.mark.parametrize(("watt_hours", "text"), [(0, "0 Wh"), (99, "99 Wh"), (100, "0.1 kWh"), (1.5e6, "1,500.0 kWh")])
def test_energy_is_read_easily(watt_hours: float, text: str) -> None:
    assert kilowatt_hours(watt_hours) == text


@pytest.mark.parametrize(
    ("days", "hours"), [(1, 1), (8, 1), (9, 24), (70, 24), (71, 168)], ids=["day", "week", "more", "months", "quarter"]
)
def test_a_plot_has_some_dozens_of_steps(days: int, hours: int) -> None:
    assert step_of(timedelta(days=days)) == timedelta(hours=hours)
