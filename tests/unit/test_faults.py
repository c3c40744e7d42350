"""Each fault does what its truth says and nothing else; the books expect what the contract then makes of it."""

from dataclasses import replace
from datetime import timedelta
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.catalog import load_catalog
from fleet.contract import Intake, Reject
from fleet.errors import ConfigurationError
from fleet.settings import CHECKOUT
from simulators.books import Books
from simulators.fault_plan import KINDS, MALFORMED, check_metrics, inject, parse_fault, parse_faults
from simulators.faults import Plan
from simulators.message import Message
from simulators.run import Wires
from simulators.simulation import plan_parts, simulated_readings, simulated_types

CATALOG = load_catalog(CHECKOUT / "fleet" / "types")
INTAKE, WIRES = Intake(CATALOG), Wires.of(CATALOG)
START = 1_732_985_789_000_000
NOW = START + 3_600_000_000
EVERY = {name: f"{name}=0.05" for name in KINDS} | {"stuck": "stuck=0.05,length=3"}
SYSTEMS = ["weather", "occupancy"]


@cache
def plain(name: str, seconds: int = 40, seed: int = 7) -> tuple[Message, ...]:
    parts = plan_parts(simulated_types(CATALOG, name))
    span = seconds if name == "weather" else seconds * 60
    readings = simulated_readings(parts, first_us=START, end_us=START + span * 1_000_000, seed=seed)
    return tuple(WIRES.messages(readings))


def spoilt(name: str, *faults: str, seed: int = 7) -> list[Message]:
    return list(inject(plain(name), [p for text in faults for p in parse_fault(text)], seed, CATALOG))


def payload(message: Message) -> bytes:
    wire = WIRES.by_type[message.reading.device_type]
    return message.raw if message.raw is not None else wire.payload(message.reading)


def read(message: Message):
    return INTAKE.read_message(WIRES.by_type[message.reading.device_type].topic(message.reading), payload(message), NOW)


def books_of(messages) -> Books:
    books = Books(CATALOG)
    for message in messages:
        if not message.dropped:
            books.add(read(message))
    return books


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("kind", KINDS)
class TestEveryFault:
    def test_a_seed_gives_the_same(self, system, kind):
        assert spoilt(system, EVERY[kind]) == spoilt(system, EVERY[kind])
        assert spoilt(system, EVERY[kind]) != spoilt(system, EVERY[kind], seed=8)

    def test_its_share(self, system, kind):
        touched = [m for m in spoilt(system, EVERY[kind]) if m.fault]
        # A stuck value that equals the true one is no fault, and light is 0 for hours; state metrics have no spikes.
        low = 0.1 if system == "occupancy" and kind in ("stuck", "spike") else 0.5
        assert low * 0.05 < len(touched) / len(plain(system)) < 0.1
        assert {m.fault.kind for m in touched} == {kind}

    def test_what_it_does_not_mark_is_untouched(self, system, kind):
        originals = {m.number: m for m in plain(system)}
        left = [m for m in spoilt(system, EVERY[kind]) if m.fault is None]
        assert all(originals[m.number] == m for m in left)
        assert [m.number for m in left] == sorted(m.number for m in left)

    def test_nothing_is_lost_or_made_up(self, system, kind):
        found = [m.number for m in spoilt(system, EVERY[kind]) if m.fault is None or kind != "duplicate"]
        assert sorted(found) == [m.number for m in plain(system)]

    def test_share_0_is_none_and_1_is_all(self, system, kind):
        assert spoilt(system, f"{kind}=0") == list(plain(system))
        touched = {m.number for m in spoilt(system, f"{kind}=1") if m.fault}
        assert len(touched) > 0.05 * len(plain(system))

    def test_only_the_device_that_is_named(self, system, kind):
        device = plain(system)[0].reading.device_id
        found = [m for m in spoilt(system, f"{kind}=1,device={device}") if m.fault]
        assert found and {m.reading.device_id for m in found} == {device}


@pytest.mark.parametrize("system", SYSTEMS)
@given(
    shares=st.dictionaries(st.sampled_from(list(KINDS)), st.floats(0, 0.5), max_size=len(KINDS)),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=25, deadline=None)
def test_all_together_the_truth_is_what_the_books_expect(system, shares, seed):
    plans = [plan for kind, share in shares.items() for plan in parse_fault(f"{kind}={share}")]
    messages = list(inject(plain(system, 8), plans, seed, CATALOG))
    sent = [m for m in messages if not m.dropped]
    kinds = [m.fault.kind for m in messages if m.fault]
    books = books_of(messages)
    # Counted from the marks alone, without the contract:
    malformed = sum(kinds.count(kind) for kind in MALFORMED)
    ahead = sum(1 for m in messages if m.fault and m.fault.kind == "clock_skew" and m.fault.sent > m.fault.original)
    outside = [m for m in sent if m.fault and m.fault.kind == "out_of_range"]
    assert books.rejected.total() == malformed + ahead
    assert books.rejected["future_time"] == ahead
    assert books.rejected["oversized"] == kinds.count("oversized")
    assert books.rejected["malformed_json"] == kinds.count("truncated")
    assert books.rejected["not_utf8"] == kinds.count("not_utf8")
    assert books.rejected["wrong_type"] == kinds.count("wrong_type")
    assert books.rejected["unknown_metric"] == kinds.count("unknown_metric")
    (of,) = books.types.values()
    assert of.readings == len(sent) - malformed - ahead
    assert of.readings == of.valid + of.quarantined + of.duplicates
    assert of.quarantined_values.total() + of.warned_values.total() == len(outside)
    # A skewed clock may hit a moment that the device reported already, with an equal value: the same reading.
    assert 0 <= of.duplicates - kinds.count("duplicate") <= kinds.count("clock_skew") - ahead
    assert len(sent) + kinds.count("dropout") == len(plain(system, 8)) + kinds.count("duplicate")


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize(
    ("kind", "reason"),
    [("truncated", "malformed_json"), ("not_utf8", "not_utf8"), ("wrong_type", "wrong_type"),
     ("unknown_metric", "unknown_metric"), ("oversized", "oversized")],
)  # fmt: skip
def test_malformed_payloads_are_rejected_for_their_reason(system, kind, reason):
    touched = [m for m in spoilt(system, f"{kind}=0.3") if m.fault]
    results = [read(m) for m in touched]
    assert all(isinstance(r, Reject) for r in results)
    assert {r.reason for r in results} == {reason}


@pytest.mark.parametrize("system", SYSTEMS)
def test_spikes_are_possible_and_far_off(system):
    for m in (m for m in spoilt(system, "spike=0.3") if m.fault):
        metric = CATALOG.type(m.reading.device_type).metrics[m.fault.metric]
        assert metric.range.low <= m.fault.sent <= metric.range.high
        assert read(m).values[m.fault.metric] == m.fault.sent
        whole = metric.range.high - metric.range.low
        assert abs(m.fault.sent - m.fault.original) > 0.35 * whole


@pytest.mark.parametrize("system", SYSTEMS)
def test_values_out_of_range_are_outside_and_alone(system):
    originals = {m.number: m.reading for m in plain(system)}
    for m in (m for m in spoilt(system, "out_of_range=0.3") if m.fault):
        span = CATALOG.type(m.reading.device_type).metrics[m.fault.metric].range
        said = read(m).values
        assert said == {**originals[m.number].values, m.fault.metric: m.fault.sent}
        assert originals[m.number].values[m.fault.metric] == m.fault.original
        assert not span.low <= m.fault.sent <= span.high


def test_a_stuck_sensor_repeats_what_it_said():
    messages = spoilt("weather", "stuck=0.9,length=4,device=3,metric=humidity")
    said = [m.reading.values["humidity"] for m in messages if m.reading.device_id == "3"]
    meant = [m.reading.values["humidity"] for m in plain("weather") if m.reading.device_id == "3"]
    place = next(i for i in range(len(said)) if said[i] != meant[i])
    assert said[place - 1 : place + 4] == [meant[place - 1]] * 5


def test_dropout_is_a_run_of_silence():
    messages = spoilt("weather", "dropout=0.2,length=6,device=5")
    silent = [m.dropped for m in messages if m.reading.device_id == "5"]
    runs = "".join("x" if s else "." for s in silent).split(".")
    assert {len(r) % 6 for r in runs[:-1]} == {0} and any(runs)


@pytest.mark.parametrize(
    ("by", "reason"), [("-90s", None), ("4m", "future_time"), ("1h", "future_time"), ("-30d", None)]
)
def test_clocks_are_off_by_what_was_said(by, reason):
    at = plain("weather")[-1].due_us
    touched = [m for m in spoilt("weather", f"clock_skew=0.3,by={by}") if m.fault]
    seconds = {"-90s": -90, "4m": 240, "1h": 3600, "-30d": -30 * 86_400}[by]
    for m in touched:
        assert m.reading.event_time_us - m.due_us == seconds * 1_000_000
        assert m.fault.sent - m.fault.original == seconds * 1000
        result = WIRES.by_type["weather_station"]
        found = INTAKE.read_message(result.topic(m.reading), payload(m), at - (120_000_000 if reason else 0))
        assert (found.reason if isinstance(found, Reject) else None) == reason


def test_duplicates_follow_their_originals_and_are_the_same_bytes():
    messages = spoilt("weather", "duplicate=0.2,length=7")
    first = {}
    for place, m in enumerate(messages):
        if m.fault is None:
            first[m.number] = place
        else:
            original = messages[first[m.number]]
            assert payload(m) == payload(original)
            between = [o for o in messages[first[m.number] + 1 : place] if o.fault is None]
            assert len(between) <= 7


def test_overtaken_by_as_many_as_it_says():
    messages = spoilt("weather", "reordering=0.2,length=9")
    for place, m in enumerate(messages):
        if m.fault:
            overtaking = [o for o in messages[:place] if o.number > m.number and o.fault is None]
            assert m.fault.sent == len(overtaking) <= 9


def test_adding_a_fault_does_not_move_another():
    alone = {m.number for m in spoilt("weather", "spike=0.02") if m.fault}
    beside = [m for m in spoilt("weather", "spike=0.02", "stuck=0.05") if m.fault]
    spiked = {m.number for m in beside if m.fault.kind == "spike"}
    stuck = {m.number for m in beside if m.fault.kind == "stuck"}
    assert spiked == alone - stuck


WRITTEN = [
    ("spike=0.001", [Plan("spike", 0.001)]),
    ("stuck=1,length=30,device=7,metric=temperature", [Plan("stuck", 1, 30, None, "7", "temperature")]),
    ("stuck=0.5", [Plan("stuck", 0.5, 10)]),
    ("clock_skew=0.1,by=-90s", [Plan("clock_skew", 0.1, 1, timedelta(seconds=-90))]),
    ("malformed=0.5", [Plan(kind, 0.1) for kind in MALFORMED]),
]


@pytest.mark.parametrize(("text", "plans"), WRITTEN, ids=[w[0] for w in WRITTEN])
def test_written(text, plans):
    assert parse_fault(text) == plans


WRONG = [
    ("spike", "KIND=SHARE"),
    ("spik=0.1", "did you mean 'spike'"),
    ("spike=2", "from 0 to 1"),
    ("spike=nan", "from 0 to 1"),
    ("spike=often", "from 0 to 1"),
    ("spike=0.1,length=3", "no option 'length'"),
    ("stuck=0.1,length=0", "length is a whole number"),
    ("stuck=0.1,length", "OPTION=VALUE"),
    ("dropout=0.1,metric=co2", "whole messages"),
    ("clock_skew=0.1,by=90", "a duration is"),
    ("malformed=x", "from 0 to 1"),
]


@pytest.mark.parametrize(("text", "match"), WRONG, ids=[w[0] for w in WRONG])
def test_written_wrong(text, match):
    with pytest.raises(ConfigurationError, match=match):
        parse_fault(text)


def test_a_file_of_faults():
    data = {"spike": 0.001, "stuck": [{"share": 0.1, "length": 3}, {"share": 0.2, "device": 9}]}
    assert parse_faults(data, "f.yaml") == [
        Plan("spike", 0.001), Plan("stuck", 0.1, 3), Plan("stuck", 0.2, 10, None, "9")
    ]  # fmt: skip
    with pytest.raises(ConfigurationError, match=r"f\.yaml: expected"):
        parse_faults(["spike"], "f.yaml")
    with pytest.raises(ConfigurationError, match=r"f\.yaml: stuck: stuck has no option 'len'"):
        parse_faults({"stuck": {"share": 0.1, "len": 3}}, "f.yaml")


def test_a_metric_that_nobody_has():
    with pytest.raises(ConfigurationError, match="no metric 'humidty'"):
        check_metrics(parse_fault("spike=0.1,metric=humidty"), CATALOG.type("weather_station").metrics)


class TestBooks:
    def test_by_hand(self):
        temperature, other = plain("weather")[:2]
        reading = temperature.reading
        books = Books(CATALOG)
        hot = {**reading.values, "temperature": 61.0}
        silent = dict.fromkeys(reading.values)
        only = {"temperature": 99.0, "humidity": None}

        def said(**changes):
            return replace(temperature, reading=type(reading)(**{**as_dict(reading), **changes}))

        assert books.add(read(temperature)) == "valid"
        assert books.add(read(temperature)) == "duplicate"
        assert books.add(read(other)) == "valid"
        assert books.add(read(said(values=hot))) == "value quarantined"
        assert books.add(read(said(values=silent))) == "valid"
        assert books.add(read(said(values=only))) == "quarantined"
        assert books.add(read(replace(temperature, raw=b"{"))) == "rejected: malformed_json"
        of = books.as_dict()["types"]["weather_station"]
        assert (of["readings"], of["duplicates"], of["quarantined"], of["valid"]) == (6, 1, 1, 4)
        assert of["quarantined_values"] == {"temperature": 2}
        assert of["known_values"] == {"temperature": 4} | dict.fromkeys(
            ("humidity", "rainfall", "wind_speed", "uv_index"), 3
        )
        assert books.as_dict()["rejected"] == {"malformed_json": 1}

    def test_with_a_seq_values_do_not_matter(self):
        books = Books(CATALOG)
        reading = plain("weather")[0].reading
        for seq, value, verdict in [(1, 20.0, "valid"), (1, 21.0, "duplicate"), (2, 20.0, "valid")]:
            again = type(reading)(**{**as_dict(reading), "seq": seq, "values": {"temperature": value}})
            assert books.add(again) == verdict

    def test_warned(self):
        (truth,) = [m for m in plain("occupancy") if "occupancy" in m.reading.values][:1]
        crowd = type(truth.reading)(**{**as_dict(truth.reading), "values": {"occupancy": 51.0}})
        assert Books(CATALOG).add(crowd) == "value warned"


def as_dict(reading):
    return {name: getattr(reading, name) for name in reading.__struct_fields__}
