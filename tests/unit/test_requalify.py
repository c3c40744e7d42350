"""A dead letter or a bad value by today's specs and registry."""

import json
from typing import Any

import pytest

from fleet.catalog import Catalog, build_catalog, load_catalog
from fleet.channels import Address, parse_request_source, request_source
from fleet.contract import Contract, Reject
from fleet.requalify import Requalified, Requalifier, accepted
from fleet.settings import CHECKOUT

NOW_US = 1_764_000_000_000_000
TOPIC = "dt/weather/field/weather_station/7"


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return load_catalog(CHECKOUT / "fleet" / "types")


def said(**changes: Any) -> bytes:
    return json.dumps({"sensor_id": "7", "timestamp": NOW_US / 1e6, "temperature": 21.5, **changes}).encode()


def judged(catalog: Catalog, payload: bytes, topic: str = TOPIC, **in_service: bool) -> Requalified | Reject:
    known = {("weather_station", device): serves for device, serves in in_service.items()}
    return Requalifier(catalog, known, {}).message(topic, payload, NOW_US)


def test_a_reading_goes_where_the_bridge_would_have_written_it(catalog: Catalog) -> None:
    found = judged(catalog, said())
    assert isinstance(found, Requalified)
    assert (found.reading.device_id, found.reading.values["temperature"]) == ("7", 21.5)
    assert (found.topics, found.key) == ((catalog.type("weather_station").topic,), b"7")


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"{", "malformed_json"),
        (said(temperature="warm"), "wrong_type"),
        (said(sunshine=3), "unknown_metric"),
        (said(timestamp=NOW_US / 1e6 + 3600), "future_time"),
    ],
)
def test_what_is_still_none_stays(catalog: Catalog, payload: bytes, reason: str) -> None:
    """The one from the future too, whose time has come since: it is judged as of when it came."""
    found = judged(catalog, payload)
    assert isinstance(found, Reject)
    assert found.reason == reason


def test_a_retired_device_stays_out_until_it_serves_again(catalog: Catalog) -> None:
    found = judged(catalog, said(), **{"7": False})
    assert isinstance(found, Reject)
    assert found.reason == "retired_device"
    assert isinstance(judged(catalog, said(), **{"7": True}), Requalified)


def test_a_topic_that_no_route_takes(catalog: Catalog) -> None:
    found = judged(catalog, said(), TOPIC + "/temperature/x")
    assert isinstance(found, Reject)
    assert found.reason == "bad_topic"


REQUESTS = {
    "canonical": (False, {"device_id": "c1", "event_time": NOW_US // 1000, "values": {"humidity": 40}}, 1),
    "senml": (True, [{"n": "humidity", "u": "%RH", "v": 40}, {"n": "humidity", "t": -5, "v": 41}], 2),
}


@pytest.mark.parametrize(("is_senml", "body", "readings"), REQUESTS.values(), ids=REQUESTS)
def test_what_came_to_the_gateway(catalog: Catalog, is_senml: bool, body: object, readings: int) -> None:
    address = Address("home", "home-1", "room_climate", "c1")
    source = request_source("coap+senml" if is_senml else "http", address)
    assert parse_request_source(source) == (address, is_senml)
    registry = {("room_climate", "c1"): True}
    found = Requalifier(catalog, registry, {}).request(address, json.dumps(body).encode(), is_senml, NOW_US)
    assert isinstance(found, list)
    assert [(one.topics, one.key) for one in found] == [(("readings.home",), b"home-1")] * readings
    refused = Requalifier(catalog, {}, {}).request(address, json.dumps(body).encode(), is_senml, NOW_US)
    assert isinstance(refused, Reject)
    assert refused.reason == "unknown_device"


def test_what_came_to_the_gateway_and_is_still_none(catalog: Catalog) -> None:
    address = Address("home", "home-1", "room_climate", "c1")
    for is_senml in (True, False):
        assert isinstance(Requalifier(catalog, {}, {}).request(address, b"{", is_senml, NOW_US), Reject)
    gone = address._replace(type="gone")
    assert isinstance(Requalifier(catalog, {}, {}).request(gone, b"{}", False, NOW_US), Reject)
    assert parse_request_source("file/weather_station/a.csv:1") is None


def test_an_unreadable_record_that_today_can_be_read(catalog: Catalog) -> None:
    spec = catalog.type("weather_station")
    record = {
        "device_id": "7", "device_type": spec.type, "site": "field", "event_time": NOW_US // 1000,
        "values": {"temperature": 20.0}, "version": spec.version,
    }  # fmt: skip
    judge = Requalifier(catalog, {}, {})
    found = judge.record(spec.topic, json.dumps(record).encode(), NOW_US // 1000)
    assert isinstance(found, Requalified)
    assert found.topics == (spec.topic,)
    assert isinstance(judge.record(spec.topic, b"no JSON", NOW_US // 1000), Reject)


def test_values(catalog: Catalog) -> None:
    found = accepted(catalog.type("weather_station"))
    low, high = found["temperature"]
    assert low <= 20.0 <= high < 900.0
    assert "sunshine" not in found, "no metric of the type any more"


def test_a_defect_of_the_contract_stops_nothing(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Contract, "read", lambda *_: 1 / 0)
    found = judged(catalog, said())
    assert isinstance(found, Reject)
    assert found.reason == "contract_error"


def test_a_type_that_is_full_takes_no_unknown_device(catalog: Catalog) -> None:
    full = catalog.type("weather_station").model_copy(update={"max_devices": 1})
    judge = Requalifier(build_catalog([full]), {("weather_station", "8"): True}, {})
    found = judge.message(TOPIC, said(), NOW_US)
    assert isinstance(found, Reject)
    assert found.reason == "unknown_device"
