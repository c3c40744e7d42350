"""Commands while the commander is killed, or the broker away: nothing is lost or doubled."""

import time
from contextlib import closing

import pytest

from connections.warehouse import Warehouse
from tests.integration.bulb import Bulb, Message, hold, obey
from tests.integration.commander_ground import Ground, states
from tests.integration.processes import wait_for
from tests.integration.registry_log import away

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]

KILLS = [
    ("before it is sent", "before", "connections.mqtt_commands:CommandLink.send", 1),
    ("sent, not written down", "after", "connections.mqtt_commands:CommandLink.send", 2),
    ("written down as sent", "after", "streaming.commander:Commander._send", 1),
    ("answered, not written down", "before", "streaming.commander:answered", 1),
    ("answered, not acknowledged", "before", "connections.mqtt:Subscriber.ack", 1),
    ("shown, not written down", "after", "fleet.command_state:is_obeyed", 1),
]


@pytest.mark.parametrize(("when", "function", "most"), [k[1:] for k in KILLS], ids=[k[0] for k in KILLS])
def test_kill_9_loses_no_command_and_doubles_none(yard: Ground, when: str, function: str, most: int) -> None:
    """`most`: so often may the broker give it to the device, which knows it by its id."""
    name = f"killed-{KILLS.index(next(k for k in KILLS if k[1:] == (when, function, most)))}"
    did: list[str] = []

    def count(bulb: Bulb, message: Message) -> None:
        did.append(message["id"])
        obey(bulb, message)

    with closing(yard.bulb(name, count)) as bulb:
        asked = yard.begin(name, "on")
        broken = yard.killed_at(when, function)
        wait_for(lambda: not broken.alive(), 30, lambda: f"it was not killed\n{yard.log()}")
        yard.process.start()
        try:
            found = yard.until(asked, "obeyed")
        finally:
            yard.process.kill()
        assert found["state"] == "obeyed"
        assert did == [asked]
        assert 1 <= len(bulb.got) <= most


def test_killed_after_sending_and_back_after_the_end(yard: Ground) -> None:
    """It cannot be sent again; that the device did nothing is seen by its readings all the same."""
    with closing(yard.bulb("too-late", hold)) as bulb:
        asked = yard.begin("too-late", "on")
        broken = yard.killed_at("after", "connections.mqtt_commands:CommandLink.send")
        wait_for(lambda: not broken.alive(), 30, lambda: f"it was not killed\n{yard.log()}")
        bulb.say()
        with closing(Warehouse.of(yard.settings_for("commander"))) as own, own.transaction() as connection:
            connection.exec_driver_sql("UPDATE commands SET expires_at = now() WHERE device_id = 'too-late'")
        yard.process.start()
        try:
            wait_for(lambda: yard.shown(asked)["state"] in ("obeyed", "expired"), 20, yard.log)
        finally:
            yard.process.kill()
        found = yard.shown(asked)
        assert states(found) == ["requested", "sent", "expired"]
        assert found["reason"] == "the device did not answer; by its readings on is 0, not 1"


def test_what_happens_while_no_commander_runs(ground: Ground) -> None:
    with closing(ground.bulb("meanwhile", hold)) as bulb:
        asked = ground.begin("meanwhile", "on")
        wait_for(lambda: bulb.got, 20, ground.log)
        ground.until(asked, "sent")
        ground.process.kill()
        obey(bulb, bulb.got[0])
        ground.process.start()
        assert states(ground.until(asked, "obeyed"))[:2] == ["requested", "sent"]
        assert bulb.ids() == [asked]


def test_the_broker_is_away(ground: Ground) -> None:
    bulb = ground.bulb("brokerless")
    bulb.leave()
    with away(ground.stack, "mosquitto"):
        asked = ground.begin("brokerless", "on")
        late = ground.begin("brokerless", "dim", "level=4")
        wait_for(lambda: "MQTT broker" in ground.process.readiness(), 20, ground.log)
        time.sleep(4)  # until what was asked for last has expired
    with closing(bulb.come()):
        ground.until(asked, "obeyed", 30)
        assert ground.until(late, "expired")["reason"] == "it was not sent in time"
        assert bulb.ids() == [asked]
