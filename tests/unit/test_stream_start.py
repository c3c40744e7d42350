"""Live rollups: whether table, checkpoint and topic belong together, and how far back a first start begins."""

from datetime import UTC, datetime, timedelta

import pytest

from connections.spark_checkpoint import Checkpoint
from etl.live_table import Progress
from etl.stream_start import first_span, lost_offsets
from fleet.catalog import load_catalog
from fleet.errors import ConfigurationError
from fleet.settings import CHECKOUT

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


@pytest.mark.parametrize(
    ("per_minute", "minutes"),
    [(100, 60), (8_000, 60), (10_000, 30), (100_000, 3.75), (10_000_000, 1.875)],
    ids=["calm", "just-fits", "half", "few", "as-little-as-it-can"],
)
def test_how_far_back_a_first_start_begins(per_minute, minutes):
    found = first_span(lambda span: int(per_minute * span / timedelta(minutes=1)))
    assert found == timedelta(minutes=minutes)
