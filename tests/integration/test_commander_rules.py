"""Commands that rules give: once each, by the devices of their site, and no more than the cap."""

import time
from contextlib import closing

import pytest

from connections import kafka
from connections.warehouse import Warehouse
from fleet.channels import TRANSITIONS
from fleet.transition import Transition, encode_transition
from tests.integration.commander_ground import Ground
from tests.integration.processes import Process, wait_for

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]


def test_a_rule_switches_on_and_off(ground: Ground) -> None:
    """Bulbs at its site alone; each once, with the commander killed in between; what is old commands nothing."""
    log = ground.folder / "alerts.log"
    with (
        closing(ground.bulb("stairs-1", site="stairs")) as one,
        closing(ground.bulb("stairs-2", site="stairs")) as two,
        closing(ground.bulb("elsewhere")) as other,
        Process("alerts", ground.settings_for("alerts"), log, WEIR_TYPES_DIR=ground.types) as alerts,
    ):
        alerts.start().ready()
        one.tell("beam", "beam-1", {"on": 0}, time.time() - 600)
        one.tell("beam", "beam-1", {"on": 1}, time.time() - 590)
        wait_for(lambda: len(ground.of_rule(site="stairs")) == 2, 30, lambda: ground.log() + log.read_text()[-2000:])
        assert {row["state"] for row in ground.of_rule(site="stairs")} == {"expired"}
        assert all(row["reason"].startswith("stale: ") for row in ground.of_rule(site="stairs"))
        one.tell("beam", "beam-1", {"on": 0}, time.time() - 580)
        wait_for(lambda: len(ground.of_rule(site="stairs")) == 4, 30, ground.log)

        one.tell("beam", "beam-1", {"on": 1})
        wait_for(lambda: one.values["on"] and two.values["on"], 30, lambda: ground.log() + log.read_text()[-2000:])
        ground.process.kill()
        one.tell("beam", "beam-1", {"on": 0})
        ground.process.start()
        wait_for(lambda: not one.values["on"] and not two.values["on"], 30, ground.log)
        ends = lambda: [row["state"] for row in ground.of_rule(site="stairs")[4:]]  # noqa: E731
        wait_for(lambda: ends() == ["obeyed"] * 4, 30, lambda: f"{ends()}\n{ground.log()}")
        for bulb in (one, two):  # told again, by the same id, of what the kill kept from being noted as sent
            assert [command for _, command in dict.fromkeys((m["id"], m["command"]) for m in bulb.got)] == ["on", "off"]
        assert other.got == []
        row = ground.of_rule(site="stairs")[4]
        assert (row["by"], row["rule_type"], row["why"]) == ("broken", "beam", "broken: beam-1 firing")
        assert row["transition_id"].startswith(row["alert_id"])


def test_the_rate_is_capped_and_a_log_read_again_commands_nothing_anew(ground: Ground) -> None:
    bulb = ground.bulb("capped-1", site="capped")
    producer = kafka.producer(ground.settings_for("alerts"), "tests-commander", linger_ms=0)

    def say(number: int, to: str) -> None:
        now = time.time_ns() // 1000
        t = Transition(
            transition_id=f"cap{number}-{1 if to == 'firing' else 2}", alert_id=f"cap{number}", rule="broken",
            device=f"b{number}", site="capped", type="beam", system="obey", to=to, severity="warning", reason=None,
            values={}, spec_version=1, flapping=False, title="Broken", annotations={}, labels={}, event_time_us=now,
            detected_at_us=now, since_us=now, starts_at_us=now, partition=0, offset=number,
        )  # fmt: skip
        producer.send(TRANSITIONS, encode_transition(t), b"capped").get(timeout=60)

    with closing(bulb):
        for number in range(12):
            say(number, "firing")
        for number in (0, 11):
            say(number, "resolved")
        wait_for(lambda: len(ground.of_rule(site="capped")) == 14, 30, ground.log)
        wait_for(lambda: len(bulb.got) == 11, 30, ground.log)
        rows = {row["transition_id"]: row for row in ground.of_rule(site="capped")}
        held = {name: row["reason"] for name, row in rows.items() if row["state"] == "refused"}
        assert set(held) == {"cap10-1", "cap11-1", "cap11-2"}
        assert held["cap10-1"] == "rate cap: the rule has sent the device 10 commands within 1m"
        assert held["cap11-2"] == "the device was not told of the alert's beginning"
        assert rows["cap0-2"]["command"] == "off"

        ground.process.kill()
        with closing(Warehouse.of(ground.settings_for("commander"))) as own, own.transaction() as connection:
            connection.exec_driver_sql("UPDATE command_offsets SET next_offset = 0")
        ground.process.start().ready()
        wait_for(lambda: ground.process.metric('weir_component{metric="lag"}') == 0, 30, ground.log)
        assert len(ground.of_rule(site="capped")) == 14
        assert len({message["id"] for message in bulb.got}) == 11, "what was killed before it was noted is sent again"
    producer.close(5)
