"""What the gateway's process knows of device types. What it serves: tests/integration/test_gateway.py."""

import shutil
from pathlib import Path

from fleet.settings import CHECKOUT, Settings
from streaming.gateway_service import Gateway


def test_commands_are_taken_by_the_specs_as_they_are_now(tmp_path: Path) -> None:
    types = tmp_path / "types"
    shutil.copytree(CHECKOUT / "fleet" / "types", types)
    gateway = Gateway(Settings(types_dir=types, credentials_key="key", db_url="postgresql+psycopg2://"))
    assert "dim" in gateway.types_now().types["lamp"].commands
    spec = (types / "lamp.yaml").read_text()
    (types / "lamp.yaml").write_text(spec.replace("  dim:", "  fade:"))
    assert "fade" in gateway.types_now().types["lamp"].commands
    (types / "lamp.yaml").write_text("type: lamp")
    assert "fade" in gateway.types_now().types["lamp"].commands
