"""Whole runs into files: the truth and the books agree with what the file holds, read again by the contract."""

import gzip
import json
import time
from base64 import b64decode

import pytest

from fleet.catalog import load_catalog
from fleet.contract import Intake
from fleet.errors import ConfigurationError, DataError, Unavailable
from fleet.settings import CHECKOUT, Settings
from simulators.arguments import span_us, time_us
from simulators.books import Books
from simulators.fault_plan import KINDS
from simulators.outlet import FileOutlet
from simulators.run import Run
from simulators.session import Order, Source, conduct, figures
from simulators.simulation import plan_parts, simulated_readings, simulated_types
from simulators.timeline import Timeline
from simulators.truth import read_truth
from weir.simulate import KINDS as KINDS_IN_HELP

CATALOG = load_catalog(CHECKOUT / "fleet" / "types")
FAULTS = tuple(f"{kind}=0.01" for kind in KINDS)
START = 1_732_985_789_000_000


def source(name: str = "weather", seconds: int = 60) -> Source:
    parts = plan_parts(simulated_types(CATALOG, name))
    return Source(
        seconds * 1_000_000,
        tuple(part.spec.type for part in parts),
        lambda t: simulated_readings(parts, first_us=t.first_us, end_us=t.end_us, seed=7),
    )


def lines_of(path):
    data = path.read_bytes()
    for line in (gzip.decompress(data) if path.suffix == ".gz" else data).splitlines():
        said = json.loads(line)
        yield said["topic"], said["payload"].encode() if "payload" in said else b64decode(said["payload_base64"])


@pytest.mark.parametrize(("name", "suffix"), [("weather", ".jsonl"), ("occupancy", ".jsonl.gz")])
def test_the_books_are_those_of_the_file(tmp_path, name, suffix):
    out, truth = tmp_path / f"log{suffix}", tmp_path / "truth.jsonl"
    order = Order("file", out, seed=7, faults=FAULTS, truth=truth)
    summary = conduct(Settings(), CATALOG, order, source(name, 60 if name == "weather" else 7200), {"run": "test"})

    intake, books = Intake(CATALOG), Books(CATALOG)
    found = list(lines_of(out))
    for topic, payload in found:
        books.add(intake.read_message(topic, payload, time.time_ns() // 1000))
    assert summary["expected"] == books.as_dict()
    assert summary["published"] == summary["sent"] == len(found)
    assert summary["unconfirmed"] == 0

    faults, written = read_truth(truth)
    assert written == summary
    assert set(summary["faults"]) == set(KINDS)
    assert len(faults) == sum(summary["faults"].values())
    verdicts = [f["expected"] for f in faults]
    assert verdicts.count("not sent") == summary["withheld"] == summary["faults"]["dropout"]
    rejected = [v.removeprefix("rejected: ") for v in verdicts if v.startswith("rejected")]
    assert {r: rejected.count(r) for r in set(rejected)} == summary["expected"]["rejected"]
    of = next(iter(summary["expected"]["types"].values()))
    assert verdicts.count("duplicate") == of["duplicates"]
    assert verdicts.count("quarantined") == of["quarantined"]


def test_a_seed_gives_the_same_file(tmp_path):
    for path in (tmp_path / "1", tmp_path / "2"):
        conduct(Settings(), CATALOG, Order("file", path, 7, until_us=START, faults=FAULTS), source(), {})
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()
    conduct(Settings(), CATALOG, Order("file", tmp_path / "3", 8, until_us=START, faults=FAULTS), source(), {})
    assert (tmp_path / "1").read_bytes() != (tmp_path / "3").read_bytes()


def test_a_run_ends_now(tmp_path):
    """A minute in a tenth of a second, at its pace."""
    summary = conduct(Settings(), CATALOG, Order("file", tmp_path / "f", speed=600), source(), {})
    times = sorted(json.loads(p)["timestamp"] for _, p in lines_of(tmp_path / "f"))
    assert summary["published"] == 3000
    assert summary["wall_seconds"] >= 0.09
    assert times[-1] <= time.time() < times[-1] + 30
    assert times[-1] - times[0] == pytest.approx(59.98, abs=0.01)


class Clock:
    """Wall time that only waiting moves, so that a run's pace is seen without its taking any time."""

    def __init__(self):
        self.us = START

    def wait(self, seconds):
        self.us += round(seconds * 1e6)


def test_each_message_goes_when_it_is_due(tmp_path):
    clock, sent = Clock(), []
    parts = plan_parts(simulated_types(CATALOG, "weather"))
    timeline = Timeline.ending(60_000_000, START, 10)
    outlet = FileOutlet(tmp_path / "f", CATALOG)
    run = Run(CATALOG, outlet, timeline, lambda line: None, wait=clock.wait, now_us=lambda: clock.us)
    send = outlet.send
    outlet.send = lambda m, t, p: (sent.append((clock.us, m.reading.event_time_us)), send(m, t, p))
    # Twice the span: the first minute at ten times real time, the second as it happens.
    readings = simulated_readings(parts, first_us=timeline.first_us, end_us=timeline.end_us + 60_000_000, seed=1)
    run.go(run._wires.messages(readings))
    assert len(sent) == 6000
    assert all(-5_001 <= wall - timeline.wall_us(event) <= 1 for wall, event in sent)
    assert all(event <= wall + 5_001 for wall, event in sent)
    assert clock.us - START == pytest.approx(66_000_000, abs=50_000)


@pytest.mark.parametrize(
    ("speed", "each_seconds", "late", "says"),
    [(10, 0.005, 9.0, "up to 9.0 s behind its speed"), (10, 0.001, 0.0, ""), (0, 0.005, 0.0, "")],
    ids=["slower than asked", "fast enough", "no speed asked"],
)
def test_a_run_that_cannot_keep_its_speed_leaves_nothing_out_and_says_so(tmp_path, speed, each_seconds, late, says):
    """A minute of 3,000 messages, each of which takes its time to go out."""
    clock = Clock()
    parts = plan_parts(simulated_types(CATALOG, "weather"))
    timeline = Timeline.ending(60_000_000, START, speed)
    outlet = FileOutlet(tmp_path / "f", CATALOG)
    run = Run(CATALOG, outlet, timeline, lambda line: None, wait=clock.wait, now_us=lambda: clock.us)
    send = outlet.send
    outlet.send = lambda *message: (clock.wait(each_seconds), send(*message))
    run.go(run._wires.messages(simulated_readings(parts, first_us=timeline.first_us, end_us=timeline.end_us, seed=1)))
    summary = run.summary({}, 1.0)
    assert (summary["sent"], summary["published"], summary["unconfirmed"]) == (3000, 3000, 0)
    assert summary["late_seconds"] == pytest.approx(late, abs=0.1)
    assert ("behind its speed" in figures(summary)) == bool(says) and says in figures(summary)


def test_verdicts_that_hang_on_the_ingest_clock_are_counted(tmp_path):
    """Six minutes ahead is refused now, and let in by an ingest that reads it two minutes later."""
    ahead = Order("file", tmp_path / "f", faults=("clock_skew=1,by=6m",))
    books = conduct(Settings(), CATALOG, ahead, source(seconds=10), {})["expected"]
    assert books["rejected"] == {"future_time": books["clock_dependent"]}
    assert books["clock_dependent"] == 500
    days_ahead = Order("file", tmp_path / "f", faults=("clock_skew=1,by=30d",))
    assert "clock_dependent" not in conduct(Settings(), CATALOG, days_ahead, source(seconds=10), {})["expected"]


class BrokenFile(FileOutlet):
    """A disk that fills up."""

    def send(self, message, topic, payload):
        if message.number >= 100:
            raise Unavailable("no space left")
        super().send(message, topic, payload)


def test_a_failure_leaves_honest_figures(tmp_path, monkeypatch):
    monkeypatch.setattr("simulators.session.open_outlet", lambda *a: BrokenFile(tmp_path / "f", CATALOG))
    with pytest.raises(Unavailable, match=r"no space left\npublished 100 of 100 sent"):
        conduct(Settings(), CATALOG, Order("file", tmp_path / "f", truth=tmp_path / "t"), source(), {})
    _, summary = read_truth(tmp_path / "t")
    assert (summary["published"], summary["error"]) == (100, "no space left")
    assert len(list(lines_of(tmp_path / "f"))) == 100


def test_a_truth_without_an_end_is_named(tmp_path):
    (tmp_path / "t").write_text('{"fault": "spike"}\n')
    with pytest.raises(DataError, match="no summary"):
        read_truth(tmp_path / "t")


REFUSED = [
    (Order("file"), "--to file needs --out"),
    (Order("mqtt", out=CHECKOUT / "x"), "--out goes with"),
    (Order("amqp"), "--to amqp"),
    (Order("file", CHECKOUT / "no-such-folder" / "f"), "No such file"),
    (Order("file", CHECKOUT / "x", faults=("spike=0.1,metric=co2",)), "no metric 'co2'"),
    (Order("file", CHECKOUT / "x", faults_file=CHECKOUT / "none.yaml"), "none.yaml: No such file"),
]


@pytest.mark.parametrize(("order", "match"), REFUSED, ids=[r[1] for r in REFUSED])
def test_refused(order, match):
    with pytest.raises(ConfigurationError, match=match):
        conduct(Settings(), CATALOG, order, source(), {})
    assert not (CHECKOUT / "x").exists()


def test_figures_are_lines_for_people(tmp_path):
    summary = conduct(Settings(), CATALOG, Order("file", tmp_path / "f", faults=FAULTS), source(), {})
    text = figures(summary)
    assert f"published {summary['published']:,}" in text and "expect rejected" in text


@pytest.mark.parametrize(("text", "us"), [("60", 60e6), ("1.5", 1.5e6), ("90s", 90e6), ("2h", 7200e6)])
def test_spans(text, us):
    assert span_us(text, "--duration") == us


@pytest.mark.parametrize("text", ["", "0", "-5", "2 hours", "1e999"])
def test_no_spans(text):
    with pytest.raises(ConfigurationError, match="--duration"):
        span_us(text, "--duration")


def test_times():
    assert time_us("2024-11-30T16:56:29Z", "--until") == START
    assert time_us("", "--until") is None
    with pytest.raises(ConfigurationError, match="--until"):
        time_us("2024-11-30T16:56:29", "--until")


def test_the_help_names_every_fault():
    assert set(KINDS_IN_HELP.split(", ")) == set(KINDS)
