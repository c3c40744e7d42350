"""A home: what is Weir's in it may go, and nothing else may."""

import pytest

from fleet.errors import ConfigurationError
from stack.layout import Layout
from weir.main import build


@pytest.fixture
def layout(tmp_path):
    return Layout(tmp_path / "home")


def test_a_home_goes_with_all_that_is_in_it(layout):
    layout.make()
    layout.make()
    (layout.data / "kafka").mkdir()
    (layout.home / "lake").mkdir()
    (layout.home / "demo.json").touch()
    assert layout.delete() == []
    assert not layout.home.exists()
    assert layout.delete() == []


def test_what_a_person_put_there_stays(layout, tmp_path):
    layout.make()
    (layout.home / "notes.txt").touch()
    (tmp_path / "precious").mkdir()
    (layout.home / "lake").symlink_to(tmp_path / "precious")
    assert layout.delete() == ["notes.txt"]
    assert [path.name for path in layout.home.iterdir()] == ["notes.txt"]
    assert (tmp_path / "precious").is_dir()


def test_a_folder_of_somebody_elses_is_neither_used_nor_deleted(layout):
    (layout.home / "data").mkdir(parents=True)
    (layout.home / "data" / "thesis.tex").touch()
    with pytest.raises(ConfigurationError, match="is not empty"):
        layout.make()
    with pytest.raises(ConfigurationError, match="no home of Weir's"):
        layout.delete()
    assert (layout.home / "data" / "thesis.tex").is_file()


def test_weir_clean_refuses_a_folder_of_somebody_elses(layout, monkeypatch):
    (layout.home / "data").mkdir(parents=True)
    monkeypatch.setenv("WEIR_HOME", str(layout.home))
    from typer.testing import CliRunner

    done = CliRunner().invoke(build(), ["clean", "--yes"])
    assert done.exit_code != 0
    assert (layout.home / "data").is_dir()


def test_the_native_parts_may_be_there_first(layout):
    (layout.home / "prefix").mkdir(parents=True)
    layout.make()
    assert layout.is_weirs()
