"""`make up` on a stack that runs: a device type that is new since its start is taken in, nothing else is disturbed."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from connections.alertmanager import Alertmanager
from fleet.channels import OWN_TYPE
from fleet.errors import ConfigurationError
from fleet.settings import CHECKOUT
from stack.ports import Ports
from stack.stack import Stack
from tests.conftest import own_home

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]
SERVICES = ("mosquitto", "kafka", "alertmanager", "bridge", "landing")


def weir(home: Path, *arguments: str, **settings: str) -> None:
    environ = {k: v for k, v in os.environ.items() if not k.startswith("WEIR_")} | settings
    subprocess.run(
        [sys.executable, "-m", "weir.main", *arguments],
        cwd=CHECKOUT, env={**environ, "WEIR_HOME": str(home)}, check=True, timeout=120,
    )  # fmt: skip


def pids(stack: Stack) -> dict[str, int]:
    return {name: info["pid"] for name, info in stack.supervisor.programs().items()}


def test_a_new_device_type_lands_after_a_second_up(tmp_path: Path) -> None:
    types = tmp_path / "types"
    shutil.copytree(CHECKOUT / "fleet" / "types", types)
    environ = {"WEIR_TYPES_DIR": str(types), "WEIR_LANDING_MAX_SECONDS": "1"}
    with own_home() as home:
        stack = Stack(home, Ports.free(), SERVICES, environ)
        stack.up()
        try:
            at_first = pids(stack)
            Stack(home, None, SERVICES, {}).up()
            assert pids(stack) == at_first

            weir(home, "types", "new", "roof_sensor", "--system", "roof", WEIR_TYPES_DIR=str(types))
            Stack(home, None, SERVICES, {}).up()
            now = pids(stack)
            assert {name for name in SERVICES if now[name] != at_first[name]} == {"bridge", "landing"}
            alertmanager = Alertmanager.of(stack.settings())
            (silence,) = alertmanager.silences()
            alertmanager.close()
            said = {"system": "weir", "type": OWN_TYPE, "alertname": "silent", "device": "bridge-1"}
            assert all(matcher.matches(said) for matcher in silence.matchers), "nobody is paged for the restart"

            weir(home, "simulate", "roof", "--devices", "2", "--duration", "60", "--speed", "0")
            deadline = time.monotonic() + 30
            while not list((home / "lake" / "raw" / "system=roof").rglob("*.parquet")):
                assert time.monotonic() < deadline, stack.log_tail("landing")
                time.sleep(0.2)

            env_file = stack.layout.env_file("operator").read_text()
            stack.setup()
            for ask in (Stack(home, Ports.free(), SERVICES, {}).setup, Stack(home, Ports.free(), SERVICES, {}).up):
                with pytest.raises(ConfigurationError, match="make down"):
                    ask()
            assert stack.layout.env_file("operator").read_text() == env_file
            assert pids(stack) == now
        finally:
            stack.down()
