"""Every type: what a simulated device sends is read back by the contract as what was meant."""

import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.catalog import build_catalog, load_catalog
from fleet.channels import routes_of
from fleet.contract import EARLIEST_US, REASONS, Intake, Reject
from fleet.dead_letter import dead_letter_of_message, decode_dead_letter, encode_dead_letter
from fleet.reading import Reading, decode_reading, encode_reading
from fleet.settings import CHECKOUT
from fleet.spec_file import load_spec
from simulators.wire import Wire
from tests.mangled import mangled
from weir.types import TEMPLATE

SHIPPED = list(load_catalog(CHECKOUT / "fleet" / "types"))
CANONICAL = load_spec(TEMPLATE.format(name="roof_sensor", system="demo", title="Roof sensor"), "roof_sensor.yaml")
TYPES = [*SHIPPED, CANONICAL]
INTAKE = Intake(build_catalog(TYPES))
NOW_US = EARLIEST_US + 60 * 365 * 86_400 * 1_000_000
VALUES = st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53).map(float)


@st.composite
def readings(draw, spec):
    simulation = spec.simulation
    prefix = simulation.device_prefix if simulation else "d"
    device = draw(st.integers(1, 10_000).map(lambda n: f"{prefix}{n}") | st.sampled_from(["007", "edge", "a.b:c-d_e"]))
    metrics = draw(st.lists(st.sampled_from(list(spec.metrics)), min_size=1, unique=True))
    values = {metric: draw(VALUES) for metric in metrics}
    # Microseconds, although devices here stamp whole milliseconds: the wire must not lose what it is given.
    time_us = draw(st.integers(EARLIEST_US, NOW_US))
    return Reading(device, spec.type, draw(st.sampled_from(["site-1", "Hall_2"])), time_us, values,
                   draw(st.none() | st.integers(0, 2**53)), spec.version)  # fmt: skip


@pytest.mark.parametrize("spec", TYPES, ids=lambda spec: spec.type)
@given(data=st.data())
def test_the_contract_reads_back_what_was_meant(spec, data):
    meant = data.draw(readings(spec))
    wire = Wire(spec)
    for part in wire.split(meant):
        assert INTAKE.read_message(wire.topic(part), wire.payload(part), NOW_US) == part


@pytest.mark.parametrize("spec", TYPES, ids=lambda spec: spec.type)
@given(data=st.data())
def test_parts_together_are_the_reading(spec, data):
    meant = data.draw(readings(spec))
    parts = list(Wire(spec).split(meant))
    together = {metric: value for part in parts for metric, value in part.values.items()}
    assert together == meant.values
    assert len(parts) == (len(meant.values) if spec.adapter.form == "feature" else 1)


@pytest.mark.parametrize("spec", SHIPPED, ids=lambda spec: spec.type)
def test_topics_have_a_route(spec):
    wire = Wire(spec)
    whole = Reading("1", spec.type, "site-1", NOW_US, dict.fromkeys(spec.metrics, 1.0))
    patterns = [route.subscription.split("/") for route in routes_of(spec)]
    for part in wire.split(whole):
        levels = wire.topic(part).split("/")
        matching = [
            p for p in patterns if len(p) == len(levels) and all(a in ("+", b) for a, b in zip(p, levels, strict=True))
        ]
        assert len(matching) == 1


def test_weather_has_the_fields_own_form():
    spec = next(s for s in SHIPPED if s.type == "weather_station")
    example = spec.examples.good[0].payload
    reading = Reading("79", spec.type, "field", 1_732_985_789_438_000, spec.examples.good[0].values)
    assert json.loads(Wire(spec).payload(reading)) == example
    assert Wire(spec).topic(reading) == "dt/weather/field/weather_station/79"


def test_room_messages_go_through_the_edge_node():
    spec = next(s for s in SHIPPED if s.type == "room_node")
    reading = Reading("s1", spec.type, "room-1", 1_513_939_781_000_000, {"temperature": 24.94})
    assert Wire(spec).topic(reading) == "dt/occupancy/room-1/room_node/edge/temperature"
    assert Wire(spec).payload(reading) == b'{"device_id":"s1","value":24.94,"event_time":1513939781000}'


def is_reading_or_reason(found):
    if isinstance(found, Reading):
        assert decode_reading(encode_reading(found)) == found
    else:
        assert found.reason in REASONS and found.reason not in ("contract_error", "unreadable"), found
        assert decode_dead_letter(encode_dead_letter(dead_letter_of_message(found, "dt/a", b"", NOW_US))).detail


@pytest.mark.parametrize("spec", TYPES, ids=lambda spec: spec.type)
@given(data=st.data())
def test_a_message_that_a_bad_line_has_changed_is_a_reading_or_has_a_reason(spec, data):
    wire = Wire(spec)
    part = next(iter(wire.split(data.draw(readings(spec)))))
    is_reading_or_reason(INTAKE.read_message(wire.topic(part), data.draw(mangled(wire.payload(part))), NOW_US))


@pytest.mark.parametrize("spec", TYPES, ids=lambda spec: spec.type)
@given(data=st.data())
def test_any_bytes_on_any_topic_are_a_reading_or_have_a_reason(spec, data):
    part = next(iter(Wire(spec).split(data.draw(readings(spec)))))
    own = Wire(spec).topic(part)
    topic = data.draw(st.just(own) | mangled(own.encode()).map(lambda made: made.decode(errors="replace")))
    is_reading_or_reason(INTAKE.read_message(topic, data.draw(st.binary(max_size=60)), NOW_US))


@pytest.mark.parametrize("spec", TYPES, ids=lambda spec: spec.type)
def test_however_deep_a_message_nests_it_has_a_reason(spec):
    wire = Wire(spec)
    part = next(iter(wire.split(Reading("1", spec.type, "site-1", NOW_US, dict.fromkeys(spec.metrics, 1.0)))))
    topic, whole = wire.topic(part), json.loads(wire.payload(part))
    for key in (*whole, "another"):
        for depth in range(sys.getrecursionlimit() - 200, sys.getrecursionlimit(), 3):
            deep = json.dumps({**whole, key: "deep"}).replace('"deep"', "[" * depth + "]" * depth)
            found = INTAKE.read_message(topic, deep.encode(), NOW_US)
            assert isinstance(found, Reject)
            is_reading_or_reason(found)
