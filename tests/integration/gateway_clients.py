"""Devices that speak to the gateway: their tokens, and one small client for each protocol."""

import asyncio
import json
import time
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

import aiocoap
from pydantic import SecretStr

from connections.mqtt_publisher import BulkPublisher
from fleet.channels import REJECTED, mark_of
from fleet.dead_letter import DeadLetter, decode_dead_letter
from fleet.errors import Refused
from fleet.reading import Reading, decode_reading
from fleet.settings import Settings
from tests.command import Weir
from tests.integration.logs import records
from tests.integration.processes import Process, free_port, wait_for

URL = "http://127.0.0.1:{}/v1/readings"


class Gateway(Process):
    """`weir service gateway`, on ports of its own."""

    def __init__(self, settings: Settings, log: Path, **changes: object):
        self.http, self.coap = free_port(), free_port()
        ports = {"WEIR_GATEWAY_HTTP_PORT": self.http, "WEIR_GATEWAY_COAP_PORT": self.coap}
        super().__init__("gateway", settings, log, **ports, **changes)

    def knows(self, credentials: int) -> None:
        """Until it has so many; those of other tests of the session are among them."""
        wait_for(lambda: self.metric("weir_gateway_credentials") >= credentials, 15, self.log.read_text)


def message(device: str, seq: int, **changes: object) -> dict[str, Any]:
    """As of now, of a type of tests.integration.registry_log."""
    now = int(time.time() * 1000)
    return {"device_id": device, "event_time": now, "seq": seq, "values": {"temperature": 20.5}, **changes}


def issued(
    weir: Weir, device: str, type_name: str = "badge", site: str = "hall", register: bool = True
) -> dict[str, Any]:
    """A registered device's first credential, with its token."""
    if register:
        weir("devices", "add", type_name, device, "--site", site)
    given = [] if register else ["--site", site]
    (said,) = json.loads(weir("devices", "credentials", "issue", type_name, device, "--json", *given).stdout)
    return dict(said)


def as_device(settings: Settings, credential: dict[str, Any]) -> Settings:
    """With the device's own login at the MQTT broker."""
    password = SecretStr(credential["token"])
    return settings.model_copy(update={"mqtt_user": credential["mqtt_user"], "mqtt_password": password})


def logged_in(settings: Settings, credential: dict[str, Any]) -> BulkPublisher:
    """At the MQTT broker, which learns of a new credential within seconds."""
    own = as_device(settings, credential)
    found: list[BulkPublisher] = []

    def connects() -> bool:
        try:
            found.append(BulkPublisher(own))
        except Refused:
            return False
        return True

    wait_for(connects, 15, "the broker does not know it", every=0.3)
    return found[0]


def post(port: int, token: str, body: object, kind: str = "application/json") -> tuple[int, dict[str, Any]]:
    """Status and what is said. Body: bytes as they are, or what JSON is made of."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(URL.format(port), data, {"Content-Type": kind, "Authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def coap(port: int, token: str, body: object, kind: int = 50, method: str = "POST") -> tuple[str, dict[str, Any]]:
    """Code, as 2.04, and what is said."""

    async def ask() -> tuple[str, dict[str, Any]]:
        context = await aiocoap.Context.create_client_context(transports=["udp6"])
        try:
            payload = body if isinstance(body, bytes) else json.dumps(body).encode()
            uri = f"coap://127.0.0.1:{port}/v1/readings?token={token}"
            request = aiocoap.Message(code=aiocoap.Code[method], uri=uri)
            if method == "POST":
                request.payload, request.opt.content_format = payload, kind
            answer = await context.request(request).response
            return answer.code.dotted, json.loads(answer.payload or b"{}")
        finally:
            await context.shutdown()

    return asyncio.run(ask())


def coap_datagram(token: str, body: bytes, message_id: int) -> bytes:
    """A confirmable POST as it is on the wire: for what a client of the library does not do, such as to repeat one."""
    query = f"token={token}".encode()

    def option(delta: int, value: bytes) -> bytes:
        length = len(value)
        head = bytes([delta << 4 | length]) if length < 13 else bytes([delta << 4 | 13, length - 13])
        return head + value

    # Uri-Path (11) twice, Content-Format (12), Uri-Query (15).
    options = option(11, b"v1") + option(0, b"readings") + option(1, b"\x32") + option(3, query)
    return bytes([0x40, 0x02]) + message_id.to_bytes(2, "big") + options + b"\xff" + body


def readings_of(settings: Settings, device: str, topic: str = "readings.access") -> list[Reading]:
    found = [decode_reading(r.value) for r in records(settings, topic) if mark_of(r.headers) is None]
    return [reading for reading in found if reading.device_id == device]


def seqs(settings: Settings, device: str, topic: str = "readings.access") -> Counter[int | None]:
    return Counter(reading.seq for reading in readings_of(settings, device, topic))


def letters_of(settings: Settings, device: str) -> list[DeadLetter]:
    found = [decode_dead_letter(r.value) for r in records(settings, REJECTED) if mark_of(r.headers) is None]
    return [letter for letter in found if (letter.mqtt_topic or "").split("/")[-1] == device]
