"""Which commands a transition asks for, and which of them are not sent."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fleet.action_decision import MOST, Order, Past, capped, orders_of
from fleet.catalog import load_catalog
from fleet.command_state import Move
from fleet.reading import to_epoch_us
from fleet.settings import CHECKOUT
from fleet.transition import Transition
from tests.unit.test_command_spec import LAMP, MOTION, catalog

NOW = datetime(2026, 11, 22, 10, 0, 0, 0, UTC)
CATALOG = catalog(LAMP, MOTION)
DEVICES = {("lamp", "home-1"): ["hall", "stairs"]}


def transition(to: str = "firing", age_seconds: float = 1, **changes: Any) -> Transition:
    at = to_epoch_us(NOW - timedelta(seconds=age_seconds))
    given: dict[str, Any] = {
        "transition_id": "a-1", "alert_id": "a", "rule": "someone", "device": "m1", "site": "home-1", "type": "motion",
        "system": "demo", "to": to, "severity": "warning", "reason": None, "values": {}, "spec_version": 1,
        "flapping": False, "title": "Someone", "annotations": {}, "labels": {}, "event_time_us": at,
        "detected_at_us": at, "since_us": at, "starts_at_us": at, "partition": 0, "offset": 1,
    }  # fmt: skip
    return Transition(**given | changes)


def orders(t: Transition) -> list[Order]:
    return orders_of(t, CATALOG, lambda type_name, site: DEVICES.get((type_name, site), []), NOW)


def test_a_named_device() -> None:
    (order,) = orders(transition())
    assert (order.type, order.device_id, order.command, order.args) == ("lamp", "hall", "dim", {"level": 40})
    assert order.expires_at == NOW + timedelta(seconds=30)
    assert order.held is None


def test_all_of_a_type_at_the_site() -> None:
    assert [(o.device_id, o.command) for o in orders(transition("resolved"))] == [("hall", "off"), ("stairs", "off")]
    assert orders(transition("resolved", site="home-9")) == []


def test_the_alerts_own_device() -> None:
    own = LAMP + "alerts: [{id: dark, when: brightness < 5, actions: [{on: firing, command: on}]}]\n"
    found = orders_of(transition(type="lamp", rule="dark", device="hall"), catalog(own), lambda *_: [], NOW)
    assert [(o.type, o.device_id, o.command) for o in found] == [("lamp", "hall", "on")]


def test_the_homes_stove_alone_is_switched_off_and_nothing_switches_it_on() -> None:
    own = load_catalog(CHECKOUT / "fleet" / "types")
    stove = {"system": "home", "type": "smart_plug", "rule": "stove_switched_off", "device": "stove"}
    plugs = lambda *_: ["stove", "fridge"]  # noqa: E731
    (order,) = orders_of(transition(**stove), own, plugs, NOW)
    assert (order.type, order.device_id, order.command, order.held) == ("smart_plug", "stove", "off", None)
    assert orders_of(transition("resolved", **stove), own, plugs, NOW) == []


@pytest.mark.parametrize(
    "changes",
    [{"rule": "gone"}, {"type": "gone"}, *({"to": to} for to in ("escalated", "deescalated", "flapping", "settled"))],
)
def test_nothing_is_asked_for(changes: dict[str, str]) -> None:
    assert orders(transition(**changes)) == []


@pytest.mark.parametrize(
    ("age_seconds", "changes", "state", "says"),
    [
        (29, {}, None, ""),
        (31, {}, "expired", "stale: 31s old when it was heard of, 30s at most"),
        (3 * 86_400, {}, "expired", "stale: 3d old"),
        (1, {"capped": True}, "refused", "max_active_alerts"),
    ],
    ids=["fresh", "stale", "a backfill", "beyond the rule's cap"],
)
def test_what_is_held(age_seconds: float, changes: dict[str, Any], state: str | None, says: str) -> None:
    (order,) = orders(transition(age_seconds=age_seconds, **changes))
    assert (order.held.state if order.held else None) == state
    assert says in (order.held.reason if order.held else "")


@pytest.mark.parametrize(
    ("on", "past", "says"),
    [
        ("firing", Past(0, None), ""),
        ("firing", Past(MOST - 1, None), ""),
        ("firing", Past(MOST, None), "rate cap: the rule has sent the device 10 commands within 1m"),
        ("resolved", Past(MOST, True), ""),
        ("resolved", Past(0, False), "was not told of the alert's beginning"),
        ("resolved", Past(MOST - 1, None), ""),
        ("resolved", Past(MOST, None), "rate cap"),
    ],
)
def test_the_rate_is_capped_and_what_was_begun_is_ended(on: str, past: Past, says: str) -> None:
    order = orders(transition())[0]._replace(on=on)
    held = capped(order, past).held
    assert says in held.reason if held else says == ""


def test_what_is_held_already_stays_so() -> None:
    order = orders(transition())[0]._replace(held=Move("expired", "stale"))
    assert capped(order, Past(MOST, None)) == order


def test_ids_come_from_the_transition_alone() -> None:
    assert [o.command_id for o in orders(transition())] == [o.command_id for o in orders(transition(age_seconds=99))]
    assert orders(transition())[0].command_id != orders(transition(transition_id="a-2"))[0].command_id
