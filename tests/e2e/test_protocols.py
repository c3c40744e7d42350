"""A reading by each protocol, from the device's own token to its rollup row; the books balance over all of them."""

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from connections.warehouse import Warehouse
from fleet.settings import Settings
from stack.stack import Stack
from tests.integration.gateway_clients import coap, issued, logged_in, post
from tests.integration.processes import wait_for

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]
DEVICE = "traced-1"
TYPE = "room_climate"
SENT = {"http": 20.25, "http senml": 20.5, "coap": 20.75, "coap senml": 21.0, "mqtt": 21.25, "file": 21.5}
"""Protocol → the temperature that it sends, each in a minute of its own."""


def test_each_is_in_a_rollup_row(whole_stack: Stack, operator: Settings, weir: Callable[..., object]) -> None:
    credential = issued(weir, DEVICE, TYPE, "home-9")  # type: ignore[arg-type]
    http, udp, token = whole_stack.ports.gateway_http, whole_stack.ports.gateway_coap, credential["token"]
    begin = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(minutes=50)
    minutes = {name: begin + timedelta(minutes=place) for place, name in enumerate(SENT)}

    def message(name: str) -> dict[str, object]:
        moment = minutes[name].isoformat()
        return {"device_id": DEVICE, "event_time": moment, "values": {"temperature": SENT[name]}}

    def pack(name: str) -> list[dict[str, object]]:
        return [{"bn": f"{DEVICE}/", "bt": minutes[name].timestamp(), "n": "temperature", "u": "Cel", "v": SENT[name]}]

    wait_for(lambda: post(http, token, message("http"))[0] == 202, 20, "the gateway does not know the token")
    assert post(http, token, pack("http senml"), "application/senml+json")[0] == 202
    assert coap(udp, token, message("coap"))[0] == "2.04"
    assert coap(udp, token, pack("coap senml"), 110)[0] == "2.04"
    assert post(http, token, message("http") | {"values": {"smell": 1}})[0] == 422
    publisher = logged_in(operator, credential)
    publisher.publish(f"dt/home/home-9/{TYPE}/{DEVICE}", json.dumps(message("mqtt")).encode())
    publisher.flush()
    publisher.close(5)
    folder = operator.inbox_folder / TYPE
    folder.mkdir(parents=True, exist_ok=True)
    row = f"{DEVICE},{minutes['file'].isoformat()},{SENT['file']},home-9"
    dropped = folder / "traced.csv"
    dropped.write_text(f"device_id,event_time,temperature,site\n{row}\n")
    os.utime(dropped, (begin.timestamp(), begin.timestamp()))  # a file is taken once it was not written to for 10 s
    weir("inbox", "take")

    def rolled() -> dict[datetime, float]:
        warehouse = Warehouse.of(operator)
        rows = warehouse.rows(
            "SELECT bucket, mean FROM rollups WHERE type = :type AND device_id = :device AND grain = '1m'"
            " AND metric = 'temperature'",
            type=TYPE, device=DEVICE,
        )  # fmt: skip
        warehouse.close()
        return {row["bucket"]: row["mean"] for row in rows}

    def processed() -> bool:
        weir("etl", "run", "--system", "home")
        return len(rolled()) >= len(SENT)

    wait_for(processed, 60, lambda: str(rolled()), every=5)
    assert rolled() == {minutes[name]: value for name, value in SENT.items()}
    assert json.loads(weir("ledger", "--json").stdout)["imbalances"] == []  # type: ignore[attr-defined]
