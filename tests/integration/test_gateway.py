"""The gateway on the real servers: a reading by each protocol, and all that a device can do wrong."""

import asyncio
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import aiocoap
import pytest

from fleet.settings import Settings
from stack.stack import Stack
from streaming.gateway import MAX_BODY_BYTES
from streaming.gateway_coap import MAX_OBSERVERS
from tests.command import Weir
from tests.integration.gateway_clients import (
    Gateway,
    coap,
    coap_datagram,
    issued,
    letters_of,
    logged_in,
    message,
    post,
    readings_of,
    seqs,
)
from tests.integration.processes import Process, wait_for
from tests.integration.registry_log import away
from tests.readme import by_program

pytestmark = pytest.mark.stack

SettingsFor = Callable[[str], Settings]


def all_known(weir: Weir, gateway: Gateway) -> None:
    gateway.knows(len(json.loads(weir("devices", "credentials", "list", "--all", "--json").stdout)))


def test_a_reading_by_each_protocol(
    weir: Weir, settings_for: SettingsFor, gateway: Gateway, own_bridge: Process
) -> None:
    operator, badge = settings_for("operator"), issued(weir, "all-1", site="porch")
    gateway.start().ready()
    own_bridge.start().ready()
    token = badge["token"]
    assert post(gateway.http, token, message("all-1", 1)) == (202, {"accepted": 1})
    assert post(gateway.http, token, [message("all-1", 2), message("all-1", 3)]) == (202, {"accepted": 2})
    pack = [{"bn": "all-1/", "n": "temperature", "u": "K", "v": 293.15, "t": -5}]
    assert post(gateway.http, token, pack, "application/senml+json") == (202, {"accepted": 1})
    assert coap(gateway.coap, token, message("all-1", 4)) == ("2.04", {"accepted": 1})
    assert coap(gateway.coap, token, pack, 110) == ("2.04", {"accepted": 1})
    publisher = logged_in(operator, badge)
    publisher.publish("dt/access/porch/badge/all-1", json.dumps(message("all-1", 5)).encode())
    publisher.flush()
    publisher.close(5)
    wait_for(lambda: seqs(operator, "all-1")[5], 20, own_bridge.log.read_text)
    found = readings_of(operator, "all-1")
    assert sorted(r.seq or 0 for r in found) == [0, 0, 1, 2, 3, 4, 5]
    assert {(r.site, r.values["temperature"]) for r in found if r.seq is None} == {("porch", 20.0)}
    assert {r.site for r in found} == {"porch"}
    assert gateway.metric('weir_gateway_accepted_total{protocol="http"}') == 4
    assert gateway.metric('weir_gateway_accepted_total{protocol="coap"}') == 2
    assert coap(gateway.coap, token, b"", method="GET")[1]["device_id"] == "all-1"
    assert gateway.stop() == 0


BAD = {
    "malformed": (b'{"device_id":', "application/json", 400, "malformed_json"),
    "no text": (b"\xff\xff", "application/json", 400, "not_utf8"),
    "another device": (message("bad-2", 1), "application/json", 403, "identity_mismatch"),
    "future": (message("bad-1", 1, event_time="2099-01-01T00:00:00Z"), "application/json", 422, "future_time"),
    "a metric that is none": (message("bad-1", 1, values={"smell": 1}), "application/json", 422, "unknown_metric"),
    "oversized": (message("bad-1", 1, padding="x" * 300_000), "application/json", 413, "oversized"),
    "wrong unit": ([{"n": "temperature", "u": "V", "v": 1}], "application/senml+json", 422, "wrong_unit"),
}
REFUSED = {
    "nobody's token": ("weir_nobody", message("bad-1", 1), "application/json", 401, "wrong_token"),
    "no token": ("", message("bad-1", 1), "application/json", 401, "no_token"),
    "a body too large": (None, b" " * (MAX_BODY_BYTES + 1), "application/json", 413, "body_too_large"),
    "another kind": (None, b"1;2", "text/csv", 415, "unsupported_media_type"),
}


def test_what_is_wrong_is_said_counted_and_disturbs_nothing_else(
    weir: Weir, settings_for: SettingsFor, gateway: Gateway
) -> None:
    operator, badge = settings_for("operator"), issued(weir, "bad-1")
    gateway.start().ready()
    token = badge["token"]
    for body, kind, status, reason in BAD.values():
        answer = post(gateway.http, token, body, kind)
        assert (answer[0], answer[1]["reason"]) == (status, reason)
        code, said = coap(gateway.coap, token, body, 110 if "senml" in kind else 50)
        assert (code, said["reason"]) == (f"4.{status % 100:02}", reason)
    for own, body, kind, status, reason in REFUSED.values():
        answer = post(gateway.http, token if own is None else own, body, kind)
        assert (answer[0], answer[1]["reason"]) == (status, reason)
        assert gateway.metric(f'weir_gateway_refused_total{{protocol="http",reason="{reason}"}}') == 1
    assert coap(gateway.coap, "weir_nobody", message("bad-1", 1))[0] == "4.01"
    assert coap(gateway.coap, token, b" " * (MAX_BODY_BYTES + 1))[0] == "4.13"
    mixed = [message("bad-1", 1), message("bad-1", 2, values={"smell": 1}), message("bad-1", 3)]
    status, said = post(gateway.http, token, mixed)
    assert (status, said["accepted"], said["errors"][0]["index"], said["errors"][0]["field"]) == (422, 2, 1, "smell")
    assert seqs(operator, "bad-1") == {1: 1, 3: 1}
    letters = letters_of(operator, "bad-1")
    reasons = [reason for *_, reason in BAD.values()]
    assert sorted(letter.reason for letter in letters) == sorted([*reasons, *reasons, "unknown_metric"])
    assert {letter.system for letter in letters} == {"access"}
    assert {(letter.mqtt_topic or "").partition("/")[0] for letter in letters} == {
        "http", "http+senml", "coap", "coap+senml",
    }  # fmt: skip


def test_who_is_slow_or_breaks_off_holds_up_nobody(weir: Weir, settings_for: SettingsFor, gateway: Gateway) -> None:
    operator, badge = settings_for("operator"), issued(weir, "slow-1")
    gateway.start().ready()
    head = (
        "POST /v1/readings HTTP/1.1\r\nHost: gateway\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {badge['token']}\r\nContent-Length: 1000\r\n\r\n"
    ).encode()
    slow = {"half a body": head + b'{"device_id"', "half a head": head[:60], "nothing": b""}
    waiting = {}
    for name, said in slow.items():
        waiting[name] = socket.create_connection(("127.0.0.1", gateway.http), timeout=60)
        waiting[name].sendall(said)
    with socket.create_connection(("127.0.0.1", gateway.http)) as gone:
        gone.sendall(head + b"{")
    begun = time.monotonic()
    assert post(gateway.http, badge["token"], message("slow-1", 1))[0] == 202
    assert time.monotonic() - begun < 1.5, "it waits for the others"
    answers = {name: _read_all(client) for name, client in waiting.items()}
    assert b" 408 " in answers["half a body"].splitlines()[0]
    assert b'"reason":"too_slow"' in answers["half a body"]
    assert (answers["half a head"], answers["nothing"]) == (b"", b"")
    with socket.create_connection(("127.0.0.1", gateway.http), timeout=60) as other:
        other.sendall(b"\x16\x03\x01\x02\x00\x01\x00")  # TLS
        assert b" 400 " in other.recv(1000)
    for reason, times in {"too_slow": 1, "broken_off": 1, "head_too_slow": 2, "not_http": 1}.items():
        assert gateway.metric(f'weir_gateway_refused_total{{protocol="http",reason="{reason}"}}') == times, reason
    assert seqs(operator, "slow-1") == {1: 1}
    assert letters_of(operator, "slow-1") == []


def test_without_kafka_nothing_is_acknowledged(
    weir: Weir, settings_for: SettingsFor, gateway: Gateway, stack: Stack
) -> None:
    operator, badge = settings_for("operator"), issued(weir, "away-1")
    gateway.start().ready()
    assert post(gateway.http, badge["token"], message("away-1", 1))[0] == 202
    with away(stack, "kafka"):
        for seq in (2, 3):
            status, said = post(gateway.http, badge["token"], message("away-1", seq))
            assert (status, said["reason"]) == (503, "kafka_unavailable")
        assert coap(gateway.coap, badge["token"], message("away-1", 4))[0] == "5.03"
        wait_for(lambda: "kafka" in gateway.readiness(), 20, gateway.readiness)
    wait_for(lambda: post(gateway.http, badge["token"], message("away-1", 5))[0] == 202, 60, gateway.log.read_text)
    assert coap(gateway.coap, badge["token"], message("away-1", 6)) == ("2.04", {"accepted": 1})
    found = seqs(operator, "away-1")
    assert (found[1], found[6]) == (1, 1)
    assert found[5] >= 1
    assert gateway.metric('weir_gateway_accepted_total{protocol="http"}') == 2


def test_coap_repeats_are_answered_and_not_taken_twice(weir: Weir, settings_for: SettingsFor, gateway: Gateway) -> None:
    operator, badge = settings_for("operator"), issued(weir, "repeated-1")
    gateway.start().ready()
    datagram = coap_datagram(badge["token"], json.dumps(message("repeated-1", 1)).encode(), 4711)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(60)
        answers = []
        for _ in range(3):
            client.sendto(datagram, ("127.0.0.1", gateway.coap))
            answers.append(client.recv(2000))
    assert len(set(answers)) == 1
    assert answers[0][1] == 0x44, "2.04"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(b"\xff" * 50, ("127.0.0.1", gateway.coap))  # no CoAP at all: it goes on
    assert coap(gateway.coap, badge["token"], b"", method="GET")[0] == "2.05"
    assert seqs(operator, "repeated-1") == {1: 1}


def test_what_coap_clients_ask_in_vain_leaves_no_trace(weir: Weir, settings_for: SettingsFor, gateway: Gateway) -> None:
    """A POST that would observe, a body with a gap, and more observers than are told."""
    operator, badge = settings_for("operator"), issued(weir, "vain-1")
    gateway.start().ready()
    uri = f"coap://127.0.0.1:{gateway.coap}/v1/readings?token={badge['token']}"

    async def scenario() -> tuple[list[str], list[bool]]:
        context = await aiocoap.Context.create_client_context(transports=["udp6"])
        codes = []
        try:
            for seq in (1, 2):
                body = json.dumps(message("vain-1", seq)).encode()
                post = aiocoap.Message(code=aiocoap.Code.POST, uri=uri, payload=body, content_format=50, observe=0)
                codes.append((await context.request(post).response).code.dotted)
            for number in (0, 2):
                part = aiocoap.Message(code=aiocoap.Code.POST, uri=uri, payload=b" " * 16, content_format=50)
                part.opt.block1 = (number, True, 0)
                codes.append((await context.request(part, handle_blockwise=False).response).code.dotted)
            get = [aiocoap.Message(code=aiocoap.Code.GET, uri=uri, observe=0) for _ in range(MAX_OBSERVERS + 1)]
            asked = [context.request(one) for one in get]
            return codes, [(await one.response).opt.observe is not None for one in asked]
        finally:
            await context.shutdown()

    codes, observed = asyncio.run(scenario())
    assert codes == ["2.04", "2.04", "2.31", "4.08"]
    assert sorted(observed) == [False] + [True] * MAX_OBSERVERS, "in whatever order they came"
    assert gateway.metric('weir_gateway_refused_total{protocol="coap",reason="broken_off"}') == 1
    assert seqs(operator, "vain-1") == {1: 1, 2: 1}
    assert "Traceback" not in gateway.log.read_text()


def test_coap_observers_hear_of_each_reading(weir: Weir, settings_for: SettingsFor, gateway: Gateway) -> None:
    badge = issued(weir, "seen-1")
    gateway.start().ready()

    async def scenario() -> list[int]:
        context = await aiocoap.Context.create_client_context(transports=["udp6"])
        uri = f"coap://127.0.0.1:{gateway.coap}/v1/readings?token={badge['token']}"
        heard = []
        try:
            request = context.request(aiocoap.Message(code=aiocoap.Code.GET, uri=uri, observe=0))
            assert (await request.response).payload == b""
            told = aiter(request.observation)
            for seq in (1, 2):
                answer = await asyncio.to_thread(post, gateway.http, badge["token"], message("seen-1", seq))
                assert answer[0] == 202
                heard.append(json.loads((await asyncio.wait_for(anext(told), 60)).payload)["seq"])
        finally:
            await context.shutdown()
        return heard

    assert asyncio.run(scenario()) == [1, 2]


def test_a_device_that_registers_itself(weir: Weir, settings_for: SettingsFor, gateway: Gateway) -> None:
    assert "`weir devices add` makes one" in weir("devices", "credentials", "issue", "badge", "new-1", code=1).stderr
    assert "--site" in weir("devices", "credentials", "issue", "beacon", "new-1", code=1).stderr
    beacon = issued(weir, "new-1", "beacon", "roof", register=False)
    gateway.start().ready()
    assert post(gateway.http, beacon["token"], message("new-1", 1)) == (202, {"accepted": 1})
    shown = ["devices", "list", "--type", "beacon", "--site", "roof", "--json"]
    wait_for(lambda: json.loads(weir(*shown).stdout), 20, gateway.log.read_text)
    weir("devices", "retire", "beacon", "new-1")
    wait_for(lambda: post(gateway.http, beacon["token"], message("new-1", 2))[0] == 403, 20, gateway.log.read_text)
    weir("devices", "credentials", "revoke", "beacon", "new-1")
    assert "is retired" in weir("devices", "credentials", "issue", "beacon", "new-1", code=1).stderr


def test_a_token_from_its_issue_to_its_end(weir: Weir, gateway: Gateway) -> None:
    gateway.start().ready()
    first = issued(weir, "token-1")
    all_known(weir, gateway)
    said = weir("devices", "credentials", "issue", "badge", "token-1", code=1).stderr
    assert "`weir devices credentials rotate` renews it" in said
    assert post(gateway.http, first["token"], message("token-1", 1))[0] == 202

    (second,) = json.loads(weir("devices", "credentials", "rotate", "badge", "token-1", "--json").stdout)
    all_known(weir, gateway)
    assert [post(gateway.http, one["token"], message("token-1", 2))[0] for one in (first, second)] == [202, 202]

    (third,) = json.loads(
        weir("devices", "credentials", "rotate", "badge", "token-1", "--overlap", "0s", "--json").stdout
    )
    ended = lambda one: post(gateway.http, one["token"], message("token-1", 3))[1].get("reason") == "token_ended"  # noqa: E731
    wait_for(lambda: ended(first) and ended(second), 15, gateway.log.read_text)
    assert post(gateway.http, third["token"], message("token-1", 4))[0] == 202

    listed = weir("devices", "credentials", "list", "--device", "token-1").stdout
    assert listed.splitlines()[1].split()[:3] == ["badge", "token-1", "3"]
    assert listed.endswith("1 credential; 2 ended: see --all\n")
    assert "weir_" not in weir("devices", "credentials", "list", "--all", "--json").stdout
    assert "revoked 1 credential" in weir("devices", "credentials", "revoke", "badge", "token-1").stdout
    wait_for(lambda: ended(third), 15, gateway.log.read_text)
    assert "no valid credential" in weir("devices", "credentials", "rotate", "badge", "token-1", code=1).stderr


def test_the_database_may_be_away(weir: Weir, gateway: Gateway, stack: Stack) -> None:
    badge = issued(weir, "known-1")
    gateway.start().ready()
    with away(stack, "postgres"):
        assert post(gateway.http, badge["token"], message("known-1", 1)) == (202, {"accepted": 1})
        assert gateway.readiness().strip() == "ready"
    assert post(gateway.http, badge["token"], message("known-1", 2)) == (202, {"accepted": 1})


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_the_examples_of_the_readme_are_taken(weir: Weir, settings_for: SettingsFor, gateway: Gateway) -> None:
    made = [shlex.split(command)[1:] for command in by_program("weir devices") if "kitchen-1" in command]
    *before, issue = made
    for command in before:
        weir(*command)
    (credential,) = json.loads(weir(*issue, "--json").stdout)
    gateway.start().ready()
    ports = {"28081": str(gateway.http), "25683": str(gateway.coap), ".venv/bin": str(Path(sys.executable).parent)}
    for command in by_program("curl", ".venv/bin/aiocoap-client", about="/v1/readings"):
        for shown, own in ports.items():
            command = command.replace(shown, own)
        environ = {**os.environ, "TOKEN": credential["token"]}
        done = subprocess.run(command, shell=True, env=environ, capture_output=True, text=True, timeout=120)
        assert '"accepted"' in done.stdout, (command, done.stdout, done.stderr)
    assert seqs(settings_for("operator"), "kitchen-1", "readings.home") == {1: 1, 2: 1, None: 1}


def test_a_taken_port_is_said(settings_for: SettingsFor, gateway: Gateway) -> None:
    with socket.create_server(("127.0.0.1", gateway.http)):
        gateway.start()
        wait_for(lambda: "in use" in gateway.readiness(), 30, gateway.readiness)
    gateway.ready()


def _read_all(client: socket.socket) -> bytes:
    """Until the other side ends it."""
    with client:
        parts = []
        try:
            while part := client.recv(65536):
                parts.append(part)
        except ConnectionResetError:
            pass
        return b"".join(parts)
