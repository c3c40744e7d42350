"""Kafka's storage is formatted once, by a version that can be told later."""

from pathlib import Path

import pytest

from fleet.errors import ConfigurationError
from stack import kafka
from stack.layout import Layout
from stack.prefix import Prefix

NOWHERE = Prefix(Path("/nowhere"), Path("/nowhere"))


@pytest.fixture
def formatted(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path / "weir")
    (layout.data / "kafka").mkdir(parents=True)
    (layout.data / "kafka" / "meta.properties").touch()
    return layout


@pytest.mark.parametrize("by", [None, "4.9.0", "5.0.0"])
def test_what_a_newer_kafka_made_is_said_and_left_as_it_is(formatted: Layout, by: str | None) -> None:
    if by:
        (formatted.data / kafka.FORMATTED_BY).write_text(f"{by}\n")
    with pytest.raises(ConfigurationError, match=f"was made by Kafka {by or '4.3.1'}, and Kafka {kafka.version()}"):
        kafka.initialise(formatted, NOWHERE, {})
    assert (formatted.data / "kafka" / "meta.properties").is_file()


@pytest.mark.parametrize("by", ["3.9.1", "4.2.0", kafka.version()])
def test_what_this_one_or_an_older_one_made_is_used(formatted: Layout, by: str) -> None:
    (formatted.data / kafka.FORMATTED_BY).write_text(f"{by}\n")
    kafka.initialise(formatted, NOWHERE, {})
