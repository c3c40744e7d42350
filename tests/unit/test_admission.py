"""Who is let in: by what the registry says, by what the type allows, and while nobody can be asked."""

import threading
from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec.structs import replace

from connections.mqtt_frames import Delivery
from fleet.catalog import Catalog, build_catalog, load_catalog
from fleet.channels import REJECTED, routes
from fleet.contract import Intake
from fleet.dead_letter import decode_dead_letter
from fleet.errors import Unavailable
from fleet.reading import Reading, decode_reading
from fleet.registry import Entry, new_entry
from fleet.settings import CHECKOUT
from streaming.admission import Admission
from streaming.bridge import Passage, Worker
from streaming.rejections import Rejections
from tests.unit.test_bridge import GOOD, SETTINGS, Producer, Subscriber

AT = datetime(2026, 11, 22, tzinfo=UTC)
OPEN = load_catalog(CHECKOUT / "fleet" / "types")
CLOSED = build_catalog(t.model_copy(update={"self_registration": False}) for t in OPEN)


def reading(device_id: str = "7", site: str = "field") -> Reading:
    return Reading(device_id, "weather_station", site, 0, {"temperature": 1.0})


def entry(device_id: str = "7", retired: bool = False) -> Entry:
    made = new_entry(OPEN.type("weather_station"), device_id, "roof", AT)
    return replace(made, retired_at=AT) if retired else made


@pytest.mark.parametrize(
    ("catalog", "entries", "reason", "newcomer"),
    [
        (OPEN, [entry()], None, False),
        (OPEN, [], None, True),
        (OPEN, [entry(retired=True)], "retired_device", False),
        (OPEN, [entry(retired=True), entry()], None, False),
        (CLOSED, [entry()], None, False),
        (CLOSED, [], "unknown_device", False),
        (CLOSED, [entry("8")], "unknown_device", False),
        (CLOSED, [entry(retired=True)], "retired_device", False),
        (CLOSED, [entry(), entry(retired=True)], "retired_device", False),
    ],
    ids=[
        "open: known", "open: unknown", "open: retired", "open: retired and back", "closed: known",
        "closed: unknown", "closed: another is known", "closed: retired", "closed: retired since",
    ],
)  # fmt: skip
def test_who_is_let_in(catalog: Catalog, entries: list[Entry], reason: str | None, newcomer: bool) -> None:
    admission = Admission(catalog)
    for n, one in enumerate(entries, 1):
        admission.learn([one], n)
    for _ in range(2):  # the second reading fares as the first
        reject = admission.check(reading())
        assert (reject.reason if reject else None) == reason
    assert admission.newcomers() == ({("weather_station", "7"): "field"} if newcomer else {})
    if reject:
        assert (reject.system, reject.device_type, reject.version) == ("weather", "weather_station", 1)
        assert "weather_station 7" in reject.detail


def test_a_newcomer_is_one_until_it_is_registered() -> None:
    admission = Admission(OPEN)
    admission.check(reading("a", "first"))
    admission.check(reading("a", "second"))
    admission.learn([], 5)  # read meanwhile, without it
    assert admission.newcomers() == {("weather_station", "a"): "first"}
    admission.registered(admission.newcomers())
    admission.check(reading("a"))
    assert admission.newcomers() == {}
    assert admission.learn([entry("a", retired=True), entry("b", retired=True)], 6) == [("weather_station", "a")]
    assert admission.learn([entry("a", retired=True)], 7) == [], "it is retired once more, and that is all"
    admission.check(reading("a", "third"))
    assert admission.newcomers() == {}


def test_ids_that_somebody_invents_come_to_an_end() -> None:
    admission = Admission(build_catalog(t.model_copy(update={"max_devices": 3}) for t in OPEN))
    admission.learn([entry("a"), entry("gone", retired=True)], 1)

    def refused(*names: str) -> list[str]:
        return [name for name in names if admission.check(reading(name))]

    assert refused("a", "b", "c", "d", "e", "a", "c", "d") == ["d", "e", "d"]
    assert set(admission.newcomers()) == {("weather_station", "b"), ("weather_station", "c")}
    reject = admission.check(reading("d"))
    assert reject is not None
    assert (reject.reason, reject.detail) == (
        "unknown_device", "weather_station d registers itself no more: there are max_devices (3)"
    )  # fmt: skip
    admission.learn([entry("f"), entry("gone")], 2)
    assert refused("f", "gone", "d") == ["d"], "an operator may add more"
    admission.learn([entry(name, retired=True) for name in ("b", "c", "f")], 3)
    assert refused("d", "e") == ["e"], "of those in service"


def test_entries_of_types_that_are_gone_are_passed_over() -> None:
    admission = Admission(CLOSED)
    admission.learn([replace(entry(), type="gone")], 1)
    assert admission.revision == 1


def worker(catalog: Catalog, admission: Admission, name: str = "weather_station") -> Worker:
    (route,) = (route for route in routes(catalog) if route.name == name)
    return Worker(SETTINGS, catalog, Intake(catalog), admission, Rejections(SETTINGS), route)


def test_a_device_that_is_not_let_in_is_a_dead_letter_with_its_bytes() -> None:
    admission = Admission(CLOSED)
    admission.learn([entry("8")], 1)
    it = Passage(worker(CLOSED, admission), Subscriber(), Producer())  # type: ignore[arg-type]
    topic = "dt/weather/field/weather_station/"
    it.take([Delivery(topic + "7", GOOD, 1), Delivery(topic + "8", GOOD.replace(b": 7,", b": 8,"), 2)])
    producer: Any = it.producer
    (rejected, letter, _), (_, record, _) = producer.sent
    told = decode_dead_letter(letter)
    assert (rejected, told.reason, told.payload, told.device_type) == (
        REJECTED, "unknown_device", GOOD, "weather_station",
    )  # fmt: skip
    assert decode_reading(record).device_id == "8"
    assert it.worker.tallies.rejected == {("unknown_device", "weather_station"): 1}


def test_a_worker_waits_for_the_registry_where_it_cannot_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streaming.bridge.REGISTRY_SECONDS", 0.05)
    stop = threading.Event()
    assert worker(OPEN, Admission(OPEN))._may_begin(stop)
    closed = Admission(CLOSED)
    with pytest.raises(Unavailable, match="nothing of theirs is acknowledged before"):
        worker(CLOSED, closed).run(stop)
    closed.learn([], 1)
    assert worker(CLOSED, closed)._may_begin(stop)
    stop.set()
    assert not worker(CLOSED, Admission(CLOSED))._may_begin(stop)


def test_who_is_expected_is_registered_unless_an_operator_has_retired_it() -> None:
    admission = Admission(OPEN)
    admission.learn([entry("a"), entry("b", retired=True)], 5)
    for _ in range(2):
        admission.expect("weather_station", {"a": "here", "b": "here", "c": "here"})
        assert admission.newcomers() == {("weather_station", "c"): "here"}
    admission.registered(admission.newcomers())
    admission.expect("weather_station", {"c": "here"})
    assert admission.newcomers() == {}
