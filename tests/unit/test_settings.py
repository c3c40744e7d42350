"""Settings come from one file and the environment; a misspelt name is an error."""

from pathlib import Path

import pytest

from fleet.errors import ConfigurationError
from fleet.settings import Settings


def test_the_environment_overrides_the_file(tmp_path: Path) -> None:
    file = tmp_path / "bridge.env"
    file.write_text("# a comment\n\nWEIR_KAFKA_USER=bridge\nWEIR_MQTT_PORT=1\nWEIR_KAFKA_PASSWORD=a=b\n")
    settings = Settings.load({"WEIR_ENV_FILE": str(file), "WEIR_MQTT_PORT": "2", "PATH": "/bin"})
    assert (settings.kafka_user, settings.mqtt_port, settings.env_file) == ("bridge", 2, file)
    assert settings.kafka_password.get_secret_value() == "a=b"
    assert "a=b" not in repr(settings)


def test_without_a_file_there_are_defaults(tmp_path: Path) -> None:
    settings = Settings.load({"WEIR_HOME": str(tmp_path)})
    assert settings.env_file is None
    assert settings.lake == f"file://{tmp_path}/lake"


WRONG = [
    ({"WEIR_KAFKA_USR": "x"}, "did you mean 'WEIR_KAFKA_USER'"),
    ({"WEIR_MQTT_PORT": "many"}, "WEIR_MQTT_PORT='many'"),
    ({"WEIR_ENV_FILE": "/nowhere.env"}, "make setup"),
]


@pytest.mark.parametrize(("environ", "text"), WRONG, ids=[w[1] for w in WRONG])
def test_errors_name_the_variable(environ: dict[str, str], text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=text):
        Settings.load({"WEIR_HOME": str(tmp_path), **environ})


def test_a_line_that_is_no_setting(tmp_path: Path) -> None:
    file = tmp_path / "a.env"
    file.write_text("WEIR_KAFKA_USER=x\nnonsense\n")
    with pytest.raises(ConfigurationError, match=r"a\.env:2"):
        Settings.load({"WEIR_ENV_FILE": str(file)})


def test_the_recordings_folder_is_a_setting(tmp_path: Path) -> None:
    from weir.demo import RECORDING, find_recording

    settings = Settings.load({"WEIR_HOME": str(tmp_path), "WEIR_DATA_DIR": str(tmp_path)})
    assert find_recording(settings) is None
    (tmp_path / RECORDING).parent.mkdir()
    (tmp_path / RECORDING).touch()
    assert find_recording(settings) == tmp_path / RECORDING
