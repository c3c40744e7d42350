"""Commands to real devices by real servers: obeyed, refused, late, away; asked for at a terminal or over HTTP."""

import json
import time
from collections.abc import Callable
from contextlib import closing

import httpx
import pytest

from tests.integration.bulb import Bulb, Message, apply, hold, obey, refuse
from tests.integration.commander_ground import Ground, states
from tests.integration.gateway_clients import Gateway, as_device, issued, logged_in
from tests.integration.processes import wait_for

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]


@pytest.mark.parametrize("does", [obey, apply], ids=["answers and obeys", "obeys without a word"])
def test_a_device_obeys(ground: Ground, does: Callable[[Bulb, Message], None]) -> None:
    with closing(ground.bulb(f"obeys-{does.__name__}", does)) as bulb:
        found = ground.ask(bulb.device_id, "on", "--why", "it is dark", "--wait", "30s")
        assert (found["state"], found["by"], found["why"], found["via"]) == ("obeyed", "ada", "it is dark", "cli")
        assert states(found) == ["requested", "sent", *(["delivered"] if does is obey else []), "obeyed"]
        assert found["sets"] == {"on": 1} and found["site"] == "hall"
        (message,) = bulb.got
        assert set(message) == {"id", "command", "args", "expires"}
        assert message["id"] == found["command_id"] and 0 < message["expires"] - time.time() < 61
        assert ground.ask(bulb.device_id, "dim", "level=40", "--wait", "30s")["state"] == "obeyed"
        listed = json.loads(ground.weir("commands", "list", "--device", bulb.device_id, "--json").stdout)
        assert [row["command"] for row in listed] == ["dim", "on"]


def test_a_device_obeys_by_its_own_login(ground: Ground) -> None:
    """Which lets it at its own topics alone."""
    settings = ground.settings_for("simulator")
    with Gateway(
        ground.settings_for("gateway"), ground.folder / "gateway.log", WEIR_TYPES_DIR=ground.types
    ) as gateway:  # fmt: skip
        gateway.start().ready()  # it tells the broker who may log in
        credential = issued(ground.weir, "own-login", "bulb")
        logged_in(settings, credential).close()
        with closing(Bulb(as_device(settings, credential), "own-login", obey).come()) as bulb:
            bulb.say()
            found = ground.ask(bulb.device_id, "on", "--wait", "30s")
            assert states(found) == ["requested", "sent", "delivered", "obeyed"]
            assert bulb.ids() == [found["command_id"]]


def test_a_device_refuses(ground: Ground) -> None:
    with closing(ground.bulb("refuses", refuse)) as bulb:
        found = ground.ask(bulb.device_id, "on", "--wait", "30s", code=1)
        assert (found["state"], found["reason"]) == ("refused", "the filament is broken")
        assert states(found) == ["requested", "sent", "refused"]


def test_a_device_that_answers_late(ground: Ground) -> None:
    with closing(ground.bulb("late", hold)) as bulb:
        found = ground.ask(bulb.device_id, "dim", "level=40", "--wait", "30s", code=1)
        assert found["state"] == "expired"
        assert found["reason"] == "the device did not answer; by its readings brightness was not told"
        before = ground.process.metric("weir_commander_late_answers_total")
        obey(bulb, bulb.got[0])
        wait_for(lambda: ground.process.metric("weir_commander_late_answers_total") > before, 20, ground.log)
        assert ground.shown(found["command_id"])["state"] == "expired"


def test_a_device_that_takes_it_and_does_something_else(ground: Ground) -> None:
    def half(bulb: Bulb, message: Message) -> None:
        bulb.answer(message, "delivered")
        bulb.values["brightness"] = 30
        bulb.say()

    with closing(ground.bulb("half", half)) as bulb:
        found = ground.ask(bulb.device_id, "dim", "level=40", "--wait", "30s", code=1)
        assert states(found) == ["requested", "sent", "delivered", "expired"]
        assert found["reason"] == "the device has it; by its readings brightness is 30, not 40"


def test_a_device_that_is_away(ground: Ground) -> None:
    """The broker gives it what has not expired, and no more."""
    bulb = ground.bulb("away")
    bulb.leave()
    first, second = ground.begin("away", "dim", "level=40"), ground.begin("away", "on")
    ground.until(first, "expired")
    with closing(bulb.come()):
        assert ground.until(second, "obeyed")["state"] == "obeyed"
        assert bulb.ids() == [second]


def test_a_device_that_never_listened(ground: Ground) -> None:
    with closing(ground.bulb("speaker")) as bulb:
        bulb.tell("bulb", "deaf", bulb.values)
        ground.until_registered("bulb", "deaf")
        sent = next(
            one for one in ground.until(ground.begin("deaf", "on"), "sent")["history"] if one["state"] == "sent"
        )
        assert sent["reason"] == "nobody listens on the device's topic"


def test_the_same_id_again_is_the_same_command(ground: Ground) -> None:
    with closing(ground.bulb("again")) as bulb:
        found = [ground.ask("again", "on", "--id", "evening-1", "--wait", "30s") for _ in range(2)]
        assert found[0] == found[1]
        assert bulb.ids() == ["evening-1"]
        said = ground.weir("command", "again", "off", "--id", "evening-1", code=1).stderr
        assert "command 'evening-1' is another one already: on to bulb again" in said


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["wrongs", "onn"], "a bulb knows no command 'onn'; did you mean 'on'?"),
        (["wrongs", "dim"], "dim wants level=… (percent, 0 to 100)"),
        (["wrongs", "dim", "level=101"], "level is 0 to 100 in percent; found 101"),
        (["wrongs", "dim", "level=high"], "expected NAME=NUMBER"),
        (["wrong", "on"], "no device 'wrong'; did you mean 'wrongs'?"),
        (["wrongs", "on", "--type", "blub"], "no device type 'blub'; did you mean 'bulb'?"),
        (["wrongs", "on", "--type", "beam"], "no device 'wrongs'"),
        (["beam-wrong", "on"], "a beam obeys no commands"),
        (["gone", "on"], "bulb gone is retired since"),
        (["wrongs", "on", "--wait", "soon"], "--wait 'soon': a duration is"),
    ],
)
def test_what_no_device_can_take(yard: Ground, words: list[str], says: str) -> None:
    if not yard.warehouse.rows("SELECT FROM devices WHERE device_id = 'gone'"):
        bulb = yard.bulb("wrongs")
        for type_name, name in (("beam", "beam-wrong"), ("bulb", "gone")):
            bulb.tell(type_name, name, {"on": 0})
            yard.until_registered(type_name, name)
        yard.weir("devices", "retire", "bulb", "gone")
        bulb.leave()
    assert says in yard.weir("command", *words, code=1).stderr


def test_a_device_that_is_retired_before_it_is_told(ground: Ground) -> None:
    bulb = ground.bulb("retires")
    ground.process.kill()
    asked = ground.begin("retires", "on")
    ground.weir("devices", "retire", "bulb", "retires")
    ground.process.start()
    assert "is retired since" in ground.until(asked, "refused")["reason"]
    bulb.leave()
    assert bulb.got == []


def test_over_http(ground: Ground) -> None:
    """By the gateway that devices use; their tokens command nothing."""
    token = ground.settings_for("operator").operator_token.get_secret_value()
    head = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    own = Gateway(ground.settings_for("gateway"), ground.folder / "gateway.log", WEIR_TYPES_DIR=ground.types)
    with closing(ground.bulb("by-http")), own as gateway:
        (issued,) = json.loads(ground.weir("devices", "credentials", "issue", "bulb", "by-http", "--json").stdout)
        gateway.start().ready()
        client = httpx.Client(base_url=f"http://127.0.0.1:{gateway.http}", timeout=30)
        new = {"device": "by-http", "command": "on", "id": "http-1", "by": "ada", "why": "dark"}
        for bad, reason in (
            ({}, "no_token"),
            ({"Authorization": "Bearer x"}, "wrong_token"),
            ({"Authorization": head["Authorization"] + "x"}, "wrong_token"),
            ({"Authorization": f"Bearer {issued['token']}"}, "wrong_token"),
        ):
            refused = client.post("/v1/commands", json=new, headers=bad)
            assert (refused.status_code, refused.headers["WWW-Authenticate"]) == (401, "Bearer")
            assert refused.json()["reason"] == reason
        made = client.post("/v1/commands", json=new, headers=head)
        assert (made.status_code, made.headers["Location"]) == (202, "/v1/commands/http-1")
        ground.until("http-1", "obeyed")
        shown = client.get("/v1/commands/http-1", headers=head).json()
        assert (shown["state"], shown["via"], shown["by"]) == ("obeyed", "http", "ada")
        assert client.post("/v1/commands", json=new, headers=head).status_code == 200
        for body, code, says in (
            ({**new, "command": "off"}, 409, "another one already"),
            ({**new, "command": "of"}, 422, "did you mean 'off'"),
            ({**new, "device": "by-htp"}, 422, "did you mean 'by-http'"),
            ({**new, "why": "a\0"}, 422, "characters that can be printed"),
            ({**new, "device": "by-http\0"}, 422, "did you mean 'by-http'"),
            ({"device": "by-http"}, 422, "command: Field required"),
        ):
            wrong = client.post("/v1/commands", json=body, headers=head)
            assert (wrong.status_code, wrong.headers["Content-Type"]) == (code, "application/problem+json"), body
            assert says in wrong.json()["detail"]
        for none in ("none", "http", "%00", "http-1%00"):
            wrong = client.get(f"/v1/commands/{none}", headers=head)
            assert (wrong.status_code, wrong.json()["reason"]) == (404, "unknown_command")
        assert gateway.metric('weir_gateway_refused_total{protocol="http",reason="unknown_command"}') == 4
        client.close()
