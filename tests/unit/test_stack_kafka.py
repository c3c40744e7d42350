"""Kafka's storage is formatted once, by a version that can be told later."""

from pathlib import Path

import pytest

from fleet.errors import ConfigurationError
from stack import kafka
from stack.layout import Layout
from stack.ports import Ports
from stack.stack import Stack


@pytest.fixture
def formatted(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path / "weir")
    (layout.data / "kafka").mkdir(parents=True)
    (layout.data / "kafka" / "meta.properties").touch()
    return layout


@pytest.fixture(autouse=True)
def ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka, "version", lambda: "4.2.1")


@pytest.mark.parametrize("by", [None, "", "4.9.0", "5.0.0"])
def test_what_a_newer_kafka_made_is_refused_before_anything_is_done(formatted: Layout, by: str | None) -> None:
    if by is not None:
        (formatted.data / kafka.FORMATTED_BY).write_text(f"{by}\n")
    there = sorted(formatted.home.rglob("*"))
    said = f"was made by Kafka {by or kafka.UNSAID}, and Kafka 4.2.1 cannot read it"
    stack = Stack(formatted.home, Ports.free(), ("kafka",))
    for refused in (stack.up, lambda: stack.restart("kafka")):
        with pytest.raises(ConfigurationError, match=said):
            refused()
    assert sorted(formatted.home.rglob("*")) == there


@pytest.mark.parametrize("by", ["3.9.1", "4.2.0", "4.2.1"])
def test_what_this_one_or_an_older_one_made_is_used(formatted: Layout, by: str) -> None:
    (formatted.data / kafka.FORMATTED_BY).write_text(f"{by}\n")
    kafka.check_format(formatted)


def test_where_nothing_is_formatted_there_is_nothing_to_check(tmp_path: Path) -> None:
    kafka.check_format(Layout(tmp_path / "weir"))
