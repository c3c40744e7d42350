"""Every command of the README is one that works: those of `weir` are run on the stack, those of make exist."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fleet.settings import CHECKOUT, Settings
from simulators.household import registry_lines
from stack.stack import Stack
from tests.readme import by_program, commands
from tests.recordings import APPLIANCES, HOME, HOUSEHOLD, OCCUPANCY

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]
MAKE, WEIR = by_program("make"), by_program("weir")
OF_DEVICES = by_program("curl", ".venv/bin/aiocoap-client", about="/v1/readings")
"""Run by tests/integration/test_gateway.py."""
OF_PEOPLE = by_program("curl", about="/v1/commands")


def test_every_command_is_of_a_kind_that_is_tested() -> None:
    assert MAKE and WEIR and OF_DEVICES and OF_PEOPLE
    assert set(commands()) == {*MAKE, *WEIR, *OF_DEVICES, *OF_PEOPLE}


@pytest.mark.parametrize("command", MAKE)
def test_make_targets_exist(command: str) -> None:
    done = subprocess.run(["make", "-n", *shlex.split(command)[1:]], cwd=CHECKOUT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def own_types(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A copy of the specs: a command that writes one must not write into the checkout."""
    return str(shutil.copytree(CHECKOUT / "fleet" / "types", tmp_path_factory.mktemp("specs") / "types"))


@pytest.fixture
def readings_come_in(whole_stack: Stack) -> Iterator[None]:
    """Something for a subscriber to see."""
    command = [sys.executable, "-m", "weir.main", "simulate", "weather", "--devices", "5", "--duration", "120"]
    environ = {**os.environ, "WEIR_HOME": str(whole_stack.layout.home)}
    with subprocess.Popen(command, cwd=CHECKOUT, env=environ, stdout=subprocess.DEVNULL) as process:
        yield
        process.terminate()


RECORDINGS = {file.name: file for file in (OCCUPANCY, HOME / "OrdonezA_Sensors.txt", APPLIANCES)} | {
    "household_power.csv.gz": HOUSEHOLD
}
"""As the README calls them."""


def words_of(command: str, folder: Path) -> list[str]:
    """Its arguments, with the recordings where they are, and its own files in the folder."""
    arguments = shlex.split(command)[1:]
    for place, word in enumerate(arguments):
        if (recording := RECORDINGS.get(word)) is not None:
            if not recording.is_file():
                pytest.skip(f"the recording is not at {recording}")
            arguments[place] = str(recording)
        elif word.endswith((".csv", "truth.jsonl")):
            arguments[place] = str(folder / word)
    return arguments


@pytest.mark.parametrize("command", WEIR)
def test_weir_commands_run(
    command: str, weir: Callable[..., object], tmp_path: Path, own_types: str, request: pytest.FixtureRequest
) -> None:
    arguments = words_of(command, tmp_path)
    if arguments[:2] == ["devices", "import"]:
        name = Path(arguments[2]).name
        if name == "devices.csv":
            (table,) = re.findall(r"```csv\n(.*?)```", (CHECKOUT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
            (tmp_path / name).write_text(table, encoding="utf-8")
        else:
            (before,) = [other for other in WEIR if other.endswith(f"--registry {name}")]
            weir(*words_of(before, tmp_path))
    # The same, of less.
    if "--duration" in arguments:
        arguments[arguments.index("--duration") + 1] = "40s" if "--speed" in arguments else "5s"
    if "--days" in arguments:
        arguments[arguments.index("--days") + 1] = "0.1"
    if arguments[:2] == ["anomalies", "score"]:
        arguments += ["--readings", "10000"]
    if arguments[0] == "tail":
        request.getfixturevalue("readings_come_in")
    weir(*arguments, **({"WEIR_TYPES_DIR": own_types} if arguments[0] == "types" else {}))


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
@pytest.mark.parametrize("command", OF_PEOPLE)
def test_commands_by_http_are_kept(
    command: str, weir: Callable[..., subprocess.CompletedProcess[str]], whole_stack: Stack, operator: Settings,
    tmp_path: Path,
) -> None:  # fmt: skip
    (tmp_path / "homes.csv").write_text("\n".join(registry_lines(1)), encoding="utf-8")
    weir("devices", "import", str(tmp_path / "homes.csv"))
    environ = {**os.environ, "WEIR_OPERATOR_TOKEN": operator.operator_token.get_secret_value()}
    here = command.replace("28081", str(whole_stack.ports.gateway_http))
    done = subprocess.run(here, shell=True, env=environ, capture_output=True, text=True, timeout=120)
    assert '"command_id"' in done.stdout, (done.stdout, done.stderr)
    shown = json.loads(weir("commands", "show", json.loads(done.stdout)["command_id"], "--json").stdout)
    assert (shown["via"], shown["by"], shown["why"]) == ("http", "ann", "film night")
