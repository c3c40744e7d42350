"""Bytes from a device: each reason code has a row, and what is readable comes out right."""

import json

import pytest

from fleet.catalog import load_catalog
from fleet.channels import Address, data_topic
from fleet.contract import MAX_PAYLOAD_BYTES, REASONS, Intake, NotYetKnown, Reject
from fleet.dead_letter import dead_letter_of_message, decode_dead_letter, encode_dead_letter
from fleet.reading import Reading, decode_reading, encode_reading
from fleet.settings import CHECKOUT

NOW_US = 1_732_985_800_000_000
INTAKE = Intake(load_catalog(CHECKOUT / "fleet" / "types"))
WEATHER = Address("weather", "field", "weather_station", "79")
CO2 = Address("occupancy", "room-1", "room_node", "edge", "co2")
GOOD = {"sensor_id": 79, "temperature": 34.92, "UV_index": 4.69, "timestamp": 1732985789.438}


def weather(**changes: object) -> bytes:
    return json.dumps({k: v for k, v in {**GOOD, **changes}.items() if v != "drop"}).encode()


REJECTED = [
    ("oversized", WEATHER, b" " * (MAX_PAYLOAD_BYTES + 1)),
    ("not_utf8", WEATHER, b'{"sensor_id": "\xff"}'),
    ("malformed_json", WEATHER, b'{"sensor_id": 79,'),
    ("malformed_json", WEATHER, b""),
    ("malformed_json", WEATHER, b"[1, 2]"),
    ("malformed_json", WEATHER, b"[" * 100_000),
    ("malformed_json", WEATHER, b"9" * 10_000),
    ("wrong_type", WEATHER, weather(temperature="34.92")),
    ("wrong_type", WEATHER, weather(temperature=[1])),
    ("wrong_type", WEATHER, weather(temperature=True)),
    ("wrong_type", WEATHER, weather(temperature=True, humidity=float("nan"))),
    ("wrong_type", CO2, b'{"device_id": "s5", "event_time": 1732985789000, "value": false}'),
    ("wrong_type", WEATHER, weather(sensor_id=79.5)),
    ("wrong_type", WEATHER, weather(sensor_id=True)),
    ("wrong_type", WEATHER, weather(timestamp=None)),
    ("wrong_type", WEATHER, weather(seq="1")),
    ("wrong_type", WEATHER, weather(seq=2**63)),
    ("missing_field", WEATHER, weather(timestamp="drop")),
    ("missing_field", WEATHER, weather(sensor_id="drop")),
    ("missing_field", WEATHER, weather(temperature="drop", UV_index="drop")),
    ("unknown_metric", WEATHER, weather(pressure=1013)),
    ("unknown_metric", WEATHER, weather(uv_index=3)),
    ("unknown_metric", CO2._replace(metric="radon"), b'{"device_id": "s5", "event_time": 1732985789000, "value": 1}'),
    ("unknown_type", WEATHER._replace(type="rain_gauge"), weather()),
    ("unknown_type", WEATHER._replace(system="occupancy"), weather()),
    ("bad_topic", CO2._replace(metric=None), b'{"device_id": "s5", "event_time": 1732985789000, "value": 1}'),
    ("bad_topic", WEATHER._replace(metric="temperature"), weather()),
    ("bad_id", CO2, b'{"device_id": "s 5", "event_time": 1732985789000, "value": 1}'),
    ("bad_id", CO2, b'{"device_id": "", "event_time": 1732985789000, "value": 1}'),
    ("bad_time", WEATHER, weather(timestamp=1732985)),
    ("bad_time", WEATHER, weather(timestamp="yesterday")),
    ("bad_time", WEATHER, weather(timestamp="2024-11-30T16:56:29")),
    ("bad_time", CO2, b'{"device_id": "s5", "event_time": 1732985789, "value": 1}'),
    ("bad_time", WEATHER, b'{"sensor_id": 79, "temperature": 1, "timestamp": 1' + b"0" * 400 + b"}"),
    ("bad_time", CO2, b'{"device_id": "s5", "event_time": 1' + b"0" * 400 + b', "value": 1}'),
    ("bad_time", WEATHER, weather(timestamp=1e300)),
    ("bad_time", WEATHER, weather(timestamp=-1e300)),
    ("wrong_type", WEATHER, b'{"sensor_id": 79, "temperature": 1, "timestamp": 1, "seq": 1' + b"0" * 400 + b"}"),
    ("bad_id", WEATHER, b'{"sensor_id": 1' + b"0" * 400 + b', "temperature": 1, "timestamp": 1732985789}'),
    ("malformed_json", WEATHER, b'{"sensor_id": 79, "temperature": 1, "timestamp": 1' + b"0" * 9000 + b"}"),
    ("bad_time", WEATHER, b'{"sensor_id": 79, "temperature": 1, "timestamp": NaN}'),
    ("future_time", WEATHER, weather(timestamp=NOW_US / 1e6 + 301)),
    ("identity_mismatch", WEATHER, weather(sensor_id=80)),
]


@pytest.mark.parametrize(
    ("reason", "address", "payload"), REJECTED, ids=[f"{i}-{r[0]}" for i, r in enumerate(REJECTED)]
)
def test_rejects_with_reason(reason: str, address: Address, payload: bytes) -> None:
    reject = INTAKE.read_message(data_topic(address), payload, NOW_US)
    assert isinstance(reject, Reject)
    assert reject.reason == reason
    assert reject.detail


def test_every_reason_has_a_row() -> None:
    # `unreadable` is of records, below; `contract_error` is of the bridge, for what the contract does not foresee; what
    # the registry has to say is in test_admission; `malformed_row` is of files, `wrong_unit` of SenML.
    others = {"unreadable", "contract_error", "unknown_device", "retired_device", "malformed_row", "wrong_unit"}
    assert {r[0] for r in REJECTED} | others == set(REASONS)


@pytest.mark.parametrize(
    "topic", ["", "dt", "dt/weather/field/weather_station", "dt/a/b/c/d/e/f", "xx/a/b/c/d", "dt/a/b/c/+", "dt/a//c/d"]
)
def test_foreign_topics_are_bad(topic: str) -> None:
    reject = INTAKE.read_message(topic, weather(), NOW_US)
    assert isinstance(reject, Reject)
    assert reject.reason == "bad_topic"


READ = [
    ("plain", weather(), {"temperature": 34.92, "uv_index": 4.69}),
    ("null", weather(temperature=None), {"temperature": None, "uv_index": 4.69}),
    ("whole number", weather(temperature=-3), {"temperature": -3.0, "uv_index": 4.69}),
    ("NaN is carried and unknown", weather(temperature=float("nan")), {"temperature": None, "uv_index": 4.69}),
    ("infinity", weather(temperature=float("-inf")), {"temperature": None, "uv_index": 4.69}),
    ("overflow", weather().replace(b"34.92", b"1e400"), {"temperature": None, "uv_index": 4.69}),
    ("huge whole number", weather().replace(b"34.92", b"1" + b"0" * 400), {"temperature": None, "uv_index": 4.69}),
    ("out of range is not the contract's business", weather(temperature=999), {"temperature": 999.0, "uv_index": 4.69}),
]  # fmt: skip


@pytest.mark.parametrize(("payload", "values"), [r[1:] for r in READ], ids=[r[0] for r in READ])
def test_reads(payload: bytes, values: dict[str, float | None]) -> None:
    reading = INTAKE.read_message(data_topic(WEATHER), payload, NOW_US)
    assert isinstance(reading, Reading)
    assert reading.values == values
    assert (reading.device_id, reading.site, reading.event_time_us) == ("79", "field", 1_732_985_789_438_000)


def test_an_edge_node_sends_for_others() -> None:
    reading = INTAKE.read_message(
        data_topic(CO2),
        b'{"device_id": "s5", "event_time": "2024-11-30T16:56:29.5+00:00", "value": 412, "seq": 3}',
        NOW_US,
    )
    assert reading == Reading("s5", "room_node", "room-1", 1_732_985_789_500_000, {"co2": 412.0}, 3, 1)


@pytest.mark.parametrize(("said", "value"), [("true", 1.0), ("false", 0.0), ("1", 1.0), ("null", None)])
def test_a_switch_says_true_or_false(said: str, value: float | None) -> None:
    payload = f'{{"device_id": "s6", "event_time": 1732985789000, "value": {said}}}'.encode()
    reading = INTAKE.read_message(data_topic(CO2._replace(metric="pir")), payload, NOW_US)
    assert isinstance(reading, Reading)
    assert reading.values == {"pir": value}


@pytest.mark.parametrize("event_time_us", [1_732_985_789_438_000, 1_732_985_789_438_001, 1_732_985_789_438_999])
def test_canonical_form_keeps_microseconds(event_time_us: int) -> None:
    reading = Reading("79", "weather_station", "field", event_time_us, {"temperature": 34.92, "humidity": None}, 7, 1)
    assert decode_reading(encode_reading(reading)) == reading
    assert INTAKE.read_record("sensor", encode_reading(reading)) == reading


@pytest.mark.parametrize(
    "changes",
    [
        {"device_type": "Other"}, {"device_type": "room_node"}, {"values": {}}, {"values": {"x": 1.0}},
        {"version": 2**20}, {"version": 0}, {"event_time_us": 10**18},
        {"event_time_us": 5}, {"device_id": "a/b"}, {"site": ""}, {"seq": 2**63},
    ],
    ids=str,
)  # fmt: skip
def test_records_that_no_contract_can_read(changes: dict) -> None:
    fields = {
        "device_id": "79",
        "device_type": "weather_station",
        "site": "field",
        "event_time_us": NOW_US,
        "values": {"humidity": 1.0},
    }
    value = encode_reading(Reading(**{**fields, **changes}))
    reject = INTAKE.read_record("sensor", value)
    assert isinstance(reject, Reject) and not isinstance(reject, NotYetKnown)
    assert reject.reason == "unreadable"


@pytest.mark.parametrize(
    ("device_type", "version", "metric", "waits"),
    [
        ("weather_station", 2, "humidity", True), ("weather_station", 2, "pressure", True),
        ("rain_gauge", 1, "level", True), ("weather_station", 1, "pressure", False), ("room_node", 2, "co2", False),
    ],
)  # fmt: skip
def test_a_record_ahead_of_the_catalog_is_not_yet_known(
    device_type: str, version: int, metric: str, waits: bool
) -> None:
    value = encode_reading(Reading("79", device_type, "field", NOW_US, {metric: 1.0}, 1, version))
    result = INTAKE.read_record("sensor", value)
    assert isinstance(result, Reject)
    assert isinstance(result, NotYetKnown) == waits
    assert isinstance(INTAKE.read_record("nobodys.topic", value), Reject)
    assert not isinstance(INTAKE.read_record("nobodys.topic", value), NotYetKnown)


@pytest.mark.parametrize(("ahead_us", "reason"), [(300_000_000, None), (300_000_001, "future_time")])
def test_a_record_is_at_most_five_minutes_ahead_of_its_append_time(ahead_us: int, reason: str | None) -> None:
    value = encode_reading(Reading("79", "weather_station", "field", NOW_US + ahead_us, {"humidity": 1.0}))
    result = INTAKE.read_record("sensor", value, NOW_US // 1000)
    assert (result.reason if isinstance(result, Reject) else None) == reason
    assert isinstance(INTAKE.read_record("sensor", value), Reading)


@pytest.mark.parametrize("value", [b"", b"{}", b"\xff\xfe", b"[]", b'{"device_id": 1}', b"[" * 50_000])
def test_bytes_that_are_no_record(value: bytes) -> None:
    assert isinstance(INTAKE.read_record("sensor", value), Reject)


def test_a_reject_that_quotes_half_a_surrogate_can_be_written_down() -> None:
    reject = Reject("identity_mismatch", "says \ud800")
    letter = decode_dead_letter(encode_dead_letter(dead_letter_of_message(reject, "dt/x", b"\xff", NOW_US)))
    assert (letter.payload, letter.detail) == (b"\xff", "says \\ud800")
