"""What the dispatcher knows of a rule by its spec alone."""

import shutil
from pathlib import Path

import pytest

from fleet.catalog import load_catalog
from fleet.settings import CHECKOUT, Settings
from streaming.flags import RuleFlags

TYPES = ("smoke_alarm", "room_climate", "outdoor_station")
"""With what a rule of `room_climate` looks at."""
FLAGS = [
    ("smoke_alarm", "smoke", (False, False)),
    ("smoke_alarm", "battery_low", (True, True)),
    ("room_climate", "uncomfortable", (False, True)),
    ("room_climate", "sensor_stuck", (True, True)),
    ("room_climate", "smoke", (False, True)),
    ("gone", "silent", (False, True)),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Specs as they come with Weir."""
    for name in TYPES:
        shutil.copy(CHECKOUT / "fleet" / "types" / f"{name}.yaml", tmp_path)
    return tmp_path


def flags_of(folder: Path) -> RuleFlags:
    return RuleFlags(Settings.load(environ={"WEIR_TYPES_DIR": str(folder)}), load_catalog(folder))


@pytest.mark.parametrize(("type_name", "rule", "flags"), FLAGS, ids=[f"{f[0]} {f[1]}" for f in FLAGS])
def test_quality_and_inhibitable(folder: Path, type_name: str, rule: str, flags: tuple[bool, bool]) -> None:
    assert flags_of(folder).of(type_name, rule) == flags


def test_a_changed_spec_counts_and_a_wrong_one_changes_nothing(folder: Path) -> None:
    flags, file = flags_of(folder), folder / "smoke_alarm.yaml"
    text = file.read_text()
    file.write_text(text.replace("inhibitable: false", "inhibitable: true").replace("quality: true", "quality: false"))
    assert flags.of("smoke_alarm", "smoke") == (False, False)
    flags.look()
    assert [flags.of("smoke_alarm", rule) for rule in ("smoke", "battery_low")] == [(False, True)] * 2
    file.write_text(text.replace("when:", "wenn:"))
    flags.look()
    assert [flags.of("smoke_alarm", rule) for rule in ("smoke", "battery_low")] == [(False, True)] * 2
    file.unlink()
    flags.look()
    assert flags.of("smoke_alarm", "battery_low") == (False, True)
    assert flags.of("room_climate", "sensor_stuck") == (True, True)
    file.write_text(text)
    flags.look()
    assert [flags.of("smoke_alarm", rule) for rule in ("smoke", "battery_low")] == [(False, False), (True, True)]
