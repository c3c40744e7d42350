"""The user's own Grafana beside the stack: its configuration, its data sources, its program line."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import make_url

from fleet.dashboard import FOLDER
from fleet.errors import ConfigurationError
from fleet.panel import ALERTMANAGER, WAREHOUSE
from fleet.spec import HOME_DASHBOARD
from stack.cache import CHECKOUT
from stack.credentials import login_url
from stack.layout import Layout
from stack.ports import LOOPBACK, Ports
from stack.programs import OPTIONAL, Program
from stack.render import write as render

LOGIN = "weir_reader"
"""Of the warehouse: Grafana may read it."""


def program(layout: Layout, environ: Mapping[str, str], secrets: Mapping[str, str]) -> Program:
    """Raises ConfigurationError where GRAFANA_HOME names none."""
    home = Path(environ.get(OPTIONAL["grafana"]) or "-").absolute()
    server = home / "bin" / "grafana"
    if not os.access(server, os.X_OK):
        told = f"GRAFANA_HOME={environ.get('GRAFANA_HOME', '')}: there is no program bin/grafana"
        raise ConfigurationError(f"{told}; unpack Grafana, 9.4 or newer, and name its folder")
    command = (server, "server", "--homepath", home, "--config", _folder(layout) / "grafana.ini")
    # The provisioning names these, so that they stand in no file of Grafana's.
    passwords = {
        "WAREHOUSE_PASSWORD": secrets[f"DB_{LOGIN.upper()}"],
        "ALERTMANAGER_USER": "weir",
        "ALERTMANAGER_PASSWORD": secrets.get("ALERTMANAGER", ""),
    }
    return Program("grafana", command, layout.data, passwords)


def write(
    layout: Layout, ports: Ports, secrets: Mapping[str, str], values: Mapping[str, Any], has_alertmanager: bool
) -> None:
    """`values`: what all of the stack's templates get."""
    folder, data = _folder(layout), layout.data / "grafana"
    data.mkdir(exist_ok=True)
    warehouse = make_url(login_url(LOGIN, secrets, ports))
    own = {
        "grafana_data": data, "grafana_config": folder, "grafana_bind": LOOPBACK, "grafana_port": ports.grafana,
        "dashboards": CHECKOUT / FOLDER, "home_dashboard": HOME_DASHBOARD,
        "warehouse": WAREHOUSE, "alertmanager": ALERTMANAGER, "alertmanager_host": LOOPBACK,
        "alertmanager_port": getattr(ports, "alertmanager", None) if has_alertmanager else None,
        "database": {
            "host": warehouse.host, "port": warehouse.port or 5432, "name": warehouse.database,
            "user": warehouse.username, "sslmode": warehouse.query.get("sslmode", "disable"),
        },
    }  # fmt: skip
    render("grafana/grafana.ini.j2", folder / "grafana.ini", {**values, **own})
    for name in ("alerting", "plugins"):  # Grafana complains of folders that are not there
        (folder / "provisioning" / name).mkdir(parents=True, exist_ok=True)
    for name in ("datasources", "dashboards"):
        target = folder / "provisioning" / name / "weir.yaml"
        render(f"grafana/provisioning/{name}/weir.yaml.j2", target, {**values, **own})


def _folder(layout: Layout) -> Path:
    return layout.config / "grafana"
