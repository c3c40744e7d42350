"""Live rollups by Structured Streaming: its checkpoint, what a batch was, and what it is started with."""

import json

import pytest

from connections.spark_checkpoint import Checkpoint, held, read_checkpoint
from connections.spark_kafka import kafka_options
from etl.stream import Streams, counts_of
from fleet.errors import ConfigurationError
from fleet.settings import Settings
from stack.programs import everything


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
