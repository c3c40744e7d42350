"""Live rollups by Structured Streaming: whether table, checkpoint and topic belong together, and what a batch was."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from connections.spark_checkpoint import Checkpoint, held, read_checkpoint
from connections.spark_kafka import kafka_options
from etl.live_table import Progress
from etl.stream import Streams, counts_of, first_span, lost_offsets
from fleet.catalog import load_catalog
from fleet.errors import ConfigurationError
from fleet.settings import CHECKOUT, Settings
from stack.programs import everything

WEATHER = load_catalog(CHECKOUT / "fleet" / "types").system("weather")
AT = datetime(2026, 11, 22, 3, tzinfo=UTC)
REACH = {0: (100, 200), 1: (0, 50), 3: (0, 600_000)}


def checkpoint(id="c1", begun=7, committed=7, topic="sensor", **offsets):
    return Checkpoint(id, begun, committed, {topic: {0: 150, 1: 50} | {int(k[1:]): v for k, v in offsets.items()}})


GO_ON = {
    "the first start": (Progress(AT), None, 0),
    "killed before its first batch was written": (Progress(AT), Checkpoint("c1", 0, -1), 0),
    "after the last batch": (Progress(AT, "c1", 7), checkpoint(), 0),
    "killed between table and checkpoint": (Progress(AT, "c1", 7), checkpoint(begun=7, committed=6), 0),
    "killed before the table": (Progress(AT, "c1", 6), checkpoint(begun=7, committed=6), 0),
    "killed in the first batch": (Progress(AT, "c1", 0), Checkpoint("c1", 0, -1), 0),
    "Kafka's retention has passed it": (Progress(AT, "c1", 7), checkpoint(p0=60), 40),
    "the topic has new partitions": (Progress(AT, "c1", 7), Checkpoint("c1", 7, 7, {"sensor": {0: 150}}), 0),
}


@pytest.mark.parametrize("case", GO_ON)
def test_it_goes_on(case):
    progress, there, lost = GO_ON[case]
    assert lost_offsets(WEATHER, progress, there, REACH) == lost


REFUSED = {
    "lost": (Progress(AT, "c1", 7), None, "checkpoint c1, which is gone"),
    "another's": (Progress(AT, "c1", 7), checkpoint("c2"), "which is another's (c2)"),
    "of an emptied table": (Progress(AT), checkpoint(), "the table knows of no batch"),
    "older than the table": (Progress(AT, "c1", 9), checkpoint(), "the table has batch 9, its checkpoint 7 to 7"),
    "newer than the table": (Progress(AT, "c1", 3), checkpoint(), "restored without the other"),
    "of another topic": (Progress(AT, "c1", 7), checkpoint(topic="old"), "of topic 'old', the spec says 'sensor'"),
    "of a topic made anew": (
        Progress(AT, "c1", 7),
        checkpoint(p1=51),
        "sensor-1, which ends at 50: the topic was made",
    ),
    "too far behind": (Progress(AT, "c1", 7), checkpoint(p3=0), "600,050 records behind; at most 500,000"),
    "of more partitions": (Progress(AT, "c1", 7), checkpoint(p2=9), "sensor-2, which ends at 0"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_belong_together_is_named_with_what_to_do(case):
    progress, there, said = REFUSED[case]
    with pytest.raises(ConfigurationError) as refused:
        lost_offsets(WEATHER, progress, there, REACH)
    assert said in str(refused.value)
    assert "weir etl stream --system weather --reset" in str(refused.value)


def test_a_checkpoint_is_read(tmp_path):
    assert read_checkpoint(tmp_path) is None
    (tmp_path / "metadata").write_text(json.dumps({"id": "c1"}))
    for name in ("offsets", "commits"):
        (tmp_path / name).mkdir()
    assert read_checkpoint(tmp_path) == Checkpoint("c1")
    for batch in (9, 10, 11):
        text = "\n".join(["v1", "{}", json.dumps({"sensor": {"0": batch, "1": 5}})])
        (tmp_path / "offsets" / str(batch)).write_text(text)
    for name in ("9", "10", ".10.crc"):
        (tmp_path / "commits" / name).write_text('v1\n{"nextBatchWatermarkMs":0}')
    assert read_checkpoint(tmp_path) == Checkpoint("c1", 11, 10, {"sensor": {0: 10, 1: 5}})
    (tmp_path / "offsets" / "10").write_text("v1\n{}\n-")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_checkpoint(tmp_path)


def test_a_checkpoint_has_one_user(tmp_path):
    with held(tmp_path / "weather"):
        with pytest.raises(ConfigurationError, match="another process uses"), held(tmp_path / "weather"):
            pass
        with held(tmp_path / "home"):
            pass
    with held(tmp_path / "weather"):
        pass


def test_what_a_batch_was():
    observed = {"records": 9, "readings": 7, "unreadable": None}
    dedupe = {"numRowsDroppedByWatermark": 2, "customMetrics": {"numDroppedDuplicateRows": 3}}
    rollups = {"numRowsDroppedByWatermark": 0, "customMetrics": {}}
    told = {"records": 9, "readings": 7, "unreadable": 0, "duplicate": 3, "late": 2}
    assert counts_of(observed, [rollups, dedupe]) == told


def test_spark_reaches_kafka_as_the_role():
    settings = Settings.from_values(
        {"WEIR_KAFKA_USER": "stream", "WEIR_KAFKA_PASSWORD": 'a"b\\c', "WEIR_KAFKA_CA": "/ca"}
    )
    options = kafka_options(settings)
    assert options["kafka.sasl.jaas.config"].endswith(
        'ScramLoginModule required username="stream" password="a\\"b\\\\c";'
    )
    assert options["kafka.ssl.truststore.location"] == "/ca"
    assert "kafka.sasl.jaas.config" not in kafka_options(Settings(kafka_protocol="PLAINTEXT"))
    with pytest.raises(ConfigurationError, match="OAUTHBEARER"):
        kafka_options(Settings(kafka_mechanism="OAUTHBEARER"))


def test_it_is_started_where_it_is_asked_for():
    assert "stream" not in everything({})
    assert "stream" in everything({"WEIR_STREAM_SYSTEMS": "weather"})


@pytest.mark.parametrize(
    ("systems", "said"), [([], "WEIR_STREAM_SYSTEMS"), (["weathr"], "no system 'weathr'; did you mean 'weather'")]
)
def test_systems_that_are_not_there(systems, said):
    with pytest.raises(ConfigurationError) as refused:
        Streams(Settings(), systems)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("per_minute", "minutes"),
    [(100, 60), (8_000, 60), (10_000, 30), (100_000, 3.75), (10_000_000, 1.875)],
    ids=["calm", "just-fits", "half", "few", "as-little-as-it-can"],
)
def test_how_far_back_a_first_start_begins(per_minute, minutes):
    found = first_span(lambda span: int(per_minute * span / timedelta(minutes=1)))
    assert found == timedelta(minutes=minutes)
