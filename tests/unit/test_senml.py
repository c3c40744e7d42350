"""SenML packs to canonical messages, and through the contract to readings."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.catalog import load_catalog
from fleet.channels import Address
from fleet.contract import REASONS, Intake, Reject
from fleet.reading import Reading, decode_reading, encode_reading
from fleet.senml import MAX_RECORDS, UNITS, messages_of
from fleet.settings import Settings
from fleet.spec import Adapter
from fleet.units import UNITS as METRIC_UNITS

CATALOG = load_catalog(Settings().types_dir)
CLIMATE, PLUG, LAMP = (CATALOG.type(name) for name in ("room_climate", "smart_plug", "lamp"))
INTAKE = Intake(CATALOG, Adapter())
NOW_US = 1_795_000_000_000_000
NOW = NOW_US / 1e6


def read(records, spec=CLIMATE, device="c1"):
    """(event time µs, values) of each reading, or the first Reject."""
    found = messages_of(json.dumps(records).encode(), spec, device, NOW_US)
    if isinstance(found, Reject):
        return found
    address = Address(spec.system, "home-1", spec.type, device)
    readings = [INTAKE.read_payload(address, message, NOW_US) for message in found]
    bad = [one for one in readings if isinstance(one, Reject)]
    return bad[0] if bad else [(one.event_time_us, one.values) for one in readings]


@pytest.mark.parametrize(
    ("records", "spec", "expected"),
    [
        ([{"n": "temperature", "u": "Cel", "v": 20.5}], CLIMATE, [(0, {"temperature": 20.5})]),
        ([{"n": "temperature", "u": "K", "v": 293.15}], CLIMATE, [(0, {"temperature": 20.0})]),
        ([{"n": "temperature", "v": 20.5}], CLIMATE, [(0, {"temperature": 20.5})]),
        (
            [{"bn": "c1/", "bu": "%RH", "n": "humidity", "v": 48}, {"n": "temperature", "u": "Cel", "v": 20}],
            CLIMATE,
            [(0, {"humidity": 48.0, "temperature": 20.0})],
        ),
        ([{"bn": "urn:dev:mac:0024befffe804ff1:c1/", "n": "humidity", "v": 4}], CLIMATE, [(0, {"humidity": 4.0})]),
        ([{"n": "humidity", "u": "/", "v": 0.5}], CLIMATE, [(0, {"humidity": 50.0})]),
        (
            [{"bn": "c1/", "bt": -10, "n": "humidity", "v": 1}, {"n": "humidity", "t": 5, "v": 2}],
            CLIMATE,
            [(-10, {"humidity": 1.0}), (-5, {"humidity": 2.0})],
        ),
        ([{"bt": NOW - 60, "n": "humidity", "v": 1, "t": 1}], CLIMATE, [(-59, {"humidity": 1.0})]),
        ([{"bv": 20, "n": "temperature", "v": 0.5}], CLIMATE, [(0, {"temperature": 20.5})]),
        ([{"bn": "c1/", "bver": 10}, {"n": "humidity", "v": 1}], CLIMATE, [(0, {"humidity": 1.0})]),
        ([{"n": "humidity", "v": 1, "colour": "red", "ut": 5}], CLIMATE, [(0, {"humidity": 1.0})]),
        ([{"n": "energy", "u": "kWh", "v": 1.5}], PLUG, [(0, {"energy": 1500.0})]),
        ([{"n": "energy", "u": "J", "v": 7200}], PLUG, [(0, {"energy": 2.0})]),
        ([{"n": "temperature", "u": "K", "v": 10**400}], CLIMATE, [(0, {"temperature": None})]),
        ([{"n": "on", "vb": True}, {"n": "brightness", "u": "%", "v": 7}], LAMP, [(0, {"on": 1.0, "brightness": 7.0})]),
    ],
    ids=[
        "own unit", "kelvin", "no unit", "base name and unit", "urn", "ratio", "relative times", "absolute time",
        "base value", "base record alone", "unknown labels", "kilowatt hours", "joules", "beyond a double",
        "boolean",
    ],
)  # fmt: skip
def test_what_is_read(records, spec, expected):
    found = read(records, spec)
    assert isinstance(found, list), found
    assert [((at - NOW_US) / 1e6, values) for at, values in found] == [(pytest.approx(at), v) for at, v in expected]


@pytest.mark.parametrize(
    ("records", "reason", "field"),
    [
        ([], "malformed_json", ""),
        ({"n": "humidity", "v": 1}, "malformed_json", ""),
        ([1], "malformed_json", ""),
        ([{"bn": "c1/"}], "missing_field", ""),
        ([{"n": "humidity", "u": "Cel", "v": 1}], "wrong_unit", "[0].u"),
        ([{"n": "humidity", "v": 1}, {"n": "temperature", "u": "Far", "v": 68}], "wrong_unit", "[1].u"),
        ([{"bu": "V", "n": "humidity", "v": 1}], "wrong_unit", "[0].u"),
        ([{"n": "pressure", "v": 1}], "unknown_metric", "[0].n"),
        ([{"v": 1}], "unknown_metric", "[0].n"),
        ([{"bn": "c2/", "n": "humidity", "v": 1}], "identity_mismatch", "[0].n"),
        ([{"bn": "urn:dev:mac:c1x/", "n": "humidity", "v": 1}], "identity_mismatch", "[0].n"),
        ([{"n": "humidity", "vs": "wet"}], "missing_field", "[0].v"),
        ([{"n": "humidity", "s": 1}], "missing_field", "[0].v"),
        ([{"n": "humidity", "v": "1"}], "wrong_type", "[0].v"),
        ([{"n": "humidity", "v": True}], "wrong_type", "[0].v"),
        ([{"n": "humidity", "vb": True}], "wrong_type", "humidity"),
        ([{"n": "humidity", "v": 1}, {"n": "humidity", "v": 2}], "wrong_type", "[1].n"),
        ([{"n": "humidity", "v": 1, "t": 400}], "future_time", "event_time"),
        ([{"n": "humidity", "v": 1, "t": 1e300}], "bad_time", "event_time"),
        ([{"n": "humidity", "v": 1, "t": 10**400}], "bad_time", "[0].t"),
        ([{"n": "humidity", "v": 1, "t": 3e8}], "bad_time", "event_time"),
        ([{"n": "humidity", "v": 1, "bver": 11}], "wrong_type", "[0].bver"),
        ([{"n": "humidity", "v": 1, "must_": 1}], "unknown_metric", "[0].must_"),
        ([{"n": "humidity", "v": 1}] * (MAX_RECORDS + 1), "oversized", ""),
    ],
)
def test_what_is_refused_and_why(records, reason, field):
    found = read(records)
    assert isinstance(found, Reject)
    assert (found.reason, found.field) == (reason, field), found.detail


@pytest.mark.parametrize(
    ("pack", "reason"),
    [(b"\xff", "not_utf8"), (b"[{", "malformed_json"), (b"[" * 100_000, "malformed_json"), (b"", "malformed_json")],
    ids=["bytes", "broken off", "deep", "nothing"],
)
def test_what_is_no_json(pack, reason):
    found = messages_of(pack, CLIMATE, "c1", NOW_US)
    assert isinstance(found, Reject)
    assert found.reason == reason


def test_every_unit_of_a_metric_has_its_senml_units():
    assert UNITS.keys() == METRIC_UNITS.keys()
    assert all(math.isfinite(f) and f > 0 and math.isfinite(o) for known in UNITS.values() for f, o in known.values())


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
names = st.sampled_from(["temperature", "humidity", "c1/temperature", "urn:dev:x:c1/humidity", "", "/", "c1/"])
numbers = st.integers() | st.floats() | st.sampled_from([0, -1, 2**28, NOW, 1e18, 10**400])
units = st.sampled_from(["Cel", "K", "%RH", "x"])
records = st.fixed_dictionaries(
    {},
    optional={
        "bn": names | json_values, "bt": numbers | json_values, "bu": units | json_values, "bv": numbers,
        "bver": st.integers(0, 12), "n": names | json_values, "u": units, "v": numbers | json_values,
        "vb": st.booleans() | json_values, "t": numbers, "x_": json_values, "x": json_values,
    },
)  # fmt: skip


@given(st.lists(records, max_size=4) | json_values)
def test_any_json_is_readings_or_a_reason(pack):
    address = Address("home", "home-1", "room_climate", "c1")
    found = messages_of(json.dumps(pack).encode(), CLIMATE, "c1", NOW_US)
    for one in [found] if isinstance(found, Reject) else found:
        read = one if isinstance(one, Reject) else INTAKE.read_payload(address, one, NOW_US)
        if isinstance(read, Reject):
            assert read.reason in REASONS
        else:
            assert isinstance(read, Reading)
            assert decode_reading(encode_reading(read)) == read


@given(st.binary(max_size=200))
def test_any_bytes_are_readings_or_a_reason(pack):
    found = messages_of(pack, CLIMATE, "c1", NOW_US)
    assert isinstance(found, list) or found.reason in REASONS
