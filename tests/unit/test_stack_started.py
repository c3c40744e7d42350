"""What a running stack takes over, and what it refuses."""

from dataclasses import replace

import pytest

from fleet.errors import ConfigurationError
from stack import started
from stack.layout import Layout
from stack.ports import Ports

PORTS = Ports.from_base(7000)


def test_the_fingerprint_is_of_names_and_contents(tmp_path):
    (tmp_path / "a.yaml").write_text("type: a\n")
    first = started.fingerprint(tmp_path)
    (tmp_path / "notes.txt").write_text("not a type")
    assert started.fingerprint(tmp_path) == first
    (tmp_path / "b.yaml").write_text("type: b\n")
    second = started.fingerprint(tmp_path)
    (tmp_path / "b.yaml").write_text("type: c\n")
    third = started.fingerprint(tmp_path)
    (tmp_path / "b.yaml").rename(tmp_path / "c.yaml")
    assert len({first, second, third, started.fingerprint(tmp_path)}) == 4


def test_the_fingerprint_is_remembered(tmp_path):
    layout = Layout(tmp_path)
    layout.make()
    assert started.remembered(layout) == ""
    started.remember(layout, "abc")
    assert started.remembered(layout) == "abc"


@pytest.mark.parametrize(
    ("ports", "kept", "words"),
    [
        (replace(PORTS, kafka=9), {}, "kafka port 7001, not 9: `make down` first"),
        (PORTS, {"WEIR_LAKE_URI": "s3://b"}, "WEIR_LAKE_URI='', not 's3://b'"),
        (PORTS, {"WEIR_SPARK_MASTER": "spark://a:7"}, "WEIR_SPARK_MASTER"),
    ],
)
def test_other_ports_or_places_are_refused(ports, kept, words):
    with pytest.raises(ConfigurationError, match=words):
        started.refuse_changes(PORTS, ports, {}, kept)


def test_the_same_and_other_types_are_not(tmp_path):
    started.refuse_changes(PORTS, PORTS, {}, {"WEIR_TYPES_DIR": str(tmp_path)})
