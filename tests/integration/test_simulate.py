"""Simulators, replay and tail against the real Mosquitto and Kafka: what is confirmed has arrived, as it was meant."""

import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter

import pytest

from connections import kafka, mqtt
from fleet.catalog import load_catalog
from fleet.channels import copy_topics, feature_topics
from fleet.contract import Intake
from fleet.errors import Refused, Unavailable
from fleet.reading import Reading
from fleet.settings import CHECKOUT
from simulators.books import Books
from simulators.fault_plan import KINDS
from simulators.recording import recording_of
from simulators.run import AHEAD_SECONDS
from simulators.session import Order, Source, conduct
from simulators.simulation import plan_parts, simulated_readings, simulated_types
from simulators.truth import read_truth
from tests.recordings import OCCUPANCY, needs_occupancy

pytestmark = pytest.mark.stack
CATALOG = load_catalog(CHECKOUT / "fleet" / "types")
FAULTS = tuple(f"{kind}=0.01" for kind in KINDS)
DEADLINE_SECONDS = 60


def simulation(name, seconds, site, **plan):
    parts = plan_parts(simulated_types(CATALOG, name), site=site, **plan)
    return Source(
        seconds * 1_000_000,
        tuple(part.spec.type for part in parts),
        lambda t: simulated_readings(parts, first_us=t.first_us, end_us=t.end_us, seed=7),
    )


class Listener:
    """A persistent session, so that nothing is missed while the broker or we are away."""

    def __init__(self, settings, client_id, topic):
        self.settings, self.client_id, self.topic = settings, client_id, topic
        self.heard = []
        self._connect().close()

    def _connect(self):
        return mqtt.Subscriber(self.settings, self.client_id, [self.topic], clean=False)

    def until(self, count):
        """All that came, at least `count` messages of it."""
        subscriber = self._connect()
        deadline = time.monotonic() + DEADLINE_SECONDS
        while len(self.heard) < count and time.monotonic() < deadline:
            found = subscriber.poll(0.2)
            subscriber.ack([d.mid for d in found])
            self.heard += [(d.topic, d.payload) for d in found]
        subscriber.close()
        return self.heard


@pytest.mark.parametrize(("name", "seconds"), [("weather", 60), ("occupancy", 3600)])
def test_mqtt_gets_what_the_truth_says(settings_for, tmp_path, name, seconds):
    site = f"mqtt-{name}"
    listener = Listener(settings_for("operator"), f"test-{site}", f"dt/{name}/{site}/#")
    order = Order("mqtt", seed=7, speed=0, faults=FAULTS, truth=tmp_path / "truth.jsonl")
    summary = conduct(settings_for("simulator"), CATALOG, order, simulation(name, seconds, site), {})
    assert summary["sent"] == summary["published"] > 2000
    assert summary["unconfirmed"] == 0

    heard = listener.until(summary["published"])
    assert len(heard) == summary["published"]
    intake, books = Intake(CATALOG), Books(CATALOG)
    for topic, payload in heard:
        books.add(intake.read_message(topic, payload, time.time_ns() // 1000))
    assert summary["expected"] == books.as_dict()
    assert read_truth(tmp_path / "truth.jsonl")[1] == summary


def test_the_broker_goes_away_in_the_middle(settings_for, stack):
    """Nothing that was confirmed is missing; what was not is sent again, by the devices' own connection."""
    listener = Listener(settings_for("operator"), "test-away", "dt/weather/away/#")
    restarted = threading.Event()

    def restart():
        stack.restart("mosquitto")
        restarted.set()

    away = threading.Timer(1.0, restart)
    away.start()
    source = simulation("weather", 40, "away", rate=1000)
    summary = conduct(settings_for("simulator"), CATALOG, Order("mqtt", speed=10), source, {})
    away.join()
    assert restarted.is_set()
    assert summary["sent"] == summary["published"] == 40_000
    heard = listener.until(40_000)
    assert len(set(heard)) == 40_000


def test_what_mqtt_refuses_is_an_error_and_not_published(settings_for, tmp_path):
    """The operator may read and not write."""
    order = Order("mqtt", speed=0, truth=tmp_path / "t")
    with pytest.raises(Refused, match="Not authorized"):
        conduct(settings_for("operator"), CATALOG, order, simulation("weather", 600, "refused"), {})
    _, summary = read_truth(tmp_path / "t")
    assert summary["published"] == 0
    assert "Not authorized" in summary["error"]


def test_nobody_there(settings_for):
    nobody = settings_for("simulator").model_copy(update={"mqtt_port": 1, "kafka_bootstrap": "127.0.0.1:1"})
    for target in ("mqtt", "kafka"):
        with pytest.raises(Unavailable, match="nothing answers"):
            conduct(nobody, CATALOG, Order(target), simulation("weather", 1, "nobody"), {})


@pytest.mark.parametrize(("name", "seconds"), [("weather", 60), ("occupancy", 3600)])
def test_kafka_gets_what_ingest_would_write(settings_for, name, seconds):
    site, topic = f"kafka-{name}", CATALOG.system(name).topic
    features = feature_topics(CATALOG.system(name))
    client = kafka.consumer(settings_for("operator"), "test")
    assigned = kafka.partitions(client, [topic, *features])
    client.assign(assigned)
    begin = kafka.end_offsets(client, [topic, *features])
    for partition in assigned:
        client.seek(partition, begin[partition])

    order = Order("kafka", seed=7, speed=0, faults=FAULTS)
    summary = conduct(settings_for("simulator"), CATALOG, order, simulation(name, seconds, site), {})
    assert summary["sent"] == summary["published"] > 2000
    end = kafka.end_offsets(client, [topic, *features])
    assert sum(end[p] - begin[p] for p in assigned if p.topic == topic) == summary["published"]

    intake, books = Intake(CATALOG), Books(CATALOG)
    copies, expected_copies = Counter(), Counter()
    partitions_of, deadline = {}, time.monotonic() + DEADLINE_SECONDS
    while any(client.position(p) < end[p] for p in assigned) and time.monotonic() < deadline:
        for partition, records in client.poll(timeout_ms=200).items():
            for record in records:
                if partition.topic != topic:
                    copies[partition.topic, record.key, record.value] += 1
                    continue
                partitions_of.setdefault(record.key, set()).add(partition.partition)
                result = intake.read_record(topic, record.value)
                books.add(result)
                if isinstance(result, Reading):
                    names = {copy_topics(CATALOG.type(result.device_type)).get(metric) for metric in result.values}
                    expected_copies.update((copy, record.key, record.value) for copy in names if copy)
    client.close()
    assert summary["expected"] == books.as_dict()
    assert copies == expected_copies
    assert bool(copies) == bool(features)
    assert set(summary["expected"]["rejected"]) == {"unreadable"}
    assert all(len(partitions) == 1 for partitions in partitions_of.values())
    by_site = CATALOG.system(name).types[0].partition_by == "site"
    assert set(partitions_of) == ({site.encode()} if by_site else {str(n).encode() for n in range(1, 101)})


@needs_occupancy
def test_the_recording_goes_to_its_topics_and_ends_now(settings_for):
    """Two hours of the real recording in a second."""
    listener = Listener(settings_for("operator"), "test-replay", "dt/occupancy/replayed/#")
    recording = recording_of(CATALOG, "occupancy", OCCUPANCY, site="replayed", duration_us=7200_000_000)
    survey = recording.survey()
    source = Source(survey.span_us, ("room_node",), lambda t: recording.readings(survey, t.first_us, loop=False))
    summary = conduct(settings_for("simulator"), CATALOG, Order("mqtt", speed=7200), source, {})
    now = time.time()
    heard = listener.until(summary["published"])
    assert len(heard) == summary["published"] == survey.rows * 17
    topics = Counter(topic.rpartition("/")[2] for topic, _ in heard)
    assert topics == {
        metric: survey.rows * n
        for metric, n in [("temperature", 4), ("light", 4), ("sound", 4), ("co2", 1), ("co2_slope", 1), ("pir", 2),
                          ("occupancy", 1)]
    }  # fmt: skip
    times = [json.loads(payload)["event_time"] / 1000 for _, payload in heard]
    assert now - summary["wall_seconds"] - 1 < max(times) <= now + AHEAD_SECONDS
    assert max(times) - min(times) == pytest.approx(survey.span_us / 1e6, abs=0.002)


def weir(home, *arguments, **options):
    environ = {k: v for k, v in os.environ.items() if not k.startswith("WEIR_")} | {"WEIR_HOME": str(home)}
    command = [sys.executable, "-m", "weir.main", *arguments]
    return subprocess.Popen(command, env=environ, cwd=CHECKOUT, text=True, stdout=subprocess.PIPE, **options)


def test_the_commands(stack, settings_for, tmp_path):
    """`weir tail` and `weir simulate` as people run them, each with its own role's credentials."""
    home = stack.layout.home
    simulate = ("simulate", "weather", "--site", "cli", "--duration", "20", "--speed", "0", "--seed", "7", "--json")
    # The listener may connect after a first run has gone by: run until it has heard what it waits for.
    tail = weir(home, "tail", "dt/weather/cli/#", "-n", "100", "--json")
    deadline = time.monotonic() + DEADLINE_SECONDS
    while tail.poll() is None and time.monotonic() < deadline:
        run = weir(home, *simulate)
        summary = json.loads(run.communicate(timeout=DEADLINE_SECONDS)[0])
        assert (run.returncode, summary["published"]) == (0, 1000)
    lines = [json.loads(line) for line in tail.communicate(timeout=10)[0].splitlines()]
    assert len(lines) == 100
    assert all(json.loads(line["payload"])["sensor_id"] in range(1, 101) for line in lines)

    run = weir(home, *simulate, "--to", "kafka")
    assert json.loads(run.communicate(timeout=DEADLINE_SECONDS)[0])["published"] == 1000
    tail = weir(home, "tail", "sensor", "--from-beginning", "-n", "1000", "--json")
    lines = [json.loads(line) for line in tail.communicate(timeout=DEADLINE_SECONDS)[0].splitlines()]
    assert len(lines) == 1000
    assert {line["topic"] for line in lines} == {"sensor"}
    tail = weir(home, "tail", "no.such.topic", stderr=subprocess.PIPE)
    _, said = tail.communicate(timeout=DEADLINE_SECONDS)
    assert tail.returncode == 1 and "no.such.topic" in said and "Traceback" not in said


def test_a_run_that_is_stopped_keeps_its_books(stack, tmp_path):
    run = weir(stack.layout.home, "simulate", "weather", "--site", "stopped", "--follow", "--duration", "1", "--truth",
               str(tmp_path / "t"), "--out", str(tmp_path / "log"), "--to", "file", "--speed", "1")  # fmt: skip
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not ((tmp_path / "log").exists() and (tmp_path / "log").stat().st_size) and time.monotonic() < deadline:
        threading.Event().wait(0.05)
    run.terminate()
    said = run.communicate(timeout=DEADLINE_SECONDS)[0]
    assert run.returncode == 0 and said.startswith("published ")
    _, summary = read_truth(tmp_path / "t")
    assert summary["stopped_early"] and summary["published"] == len((tmp_path / "log").read_text().splitlines())
