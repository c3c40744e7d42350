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
from stack.places import Places
from stack.ports import Ports
from stack.programs import OPTIONAL, Program
from stack.render import rendered

LOGIN = "weir_reader"
"""Of the warehouse: Grafana may read it."""


def program(layout: Layout, environ: Mapping[str, str], secrets: Mapping[str, str]) -> Program:
    """Raises ConfigurationError where GRAFANA_HOME names none."""
    home = Path(environ.get(OPTIONAL["grafana"]) or "-").absolute()
    server = home / "bin" / "grafana"
    if not os.access(server, os.X_OK):
        told = f"GRAFANA_HOME={environ.get('GRAFANA_HOME', '')}: there is no program bin/grafana"
        raise ConfigurationError(f"{told}; unpack Grafana, 9.4 or newer, and name its folder")
    command = (server, "server", "--homepath", home, "--config", folder(layout) / "grafana.ini")
    # The provisioning names these, so that they stand in no file of Grafana's.
    passwords = {
        "WAREHOUSE_PASSWORD": secrets[f"DB_{LOGIN.upper()}"],
        "ALERTMANAGER_PASSWORD": secrets.get("ALERTMANAGER", ""),
    }
    return Program("grafana", command, layout.data, passwords)


def values(layout: Layout, ports: Ports, secrets: Mapping[str, str], places: Places) -> dict[str, Any]:
    """What Grafana's templates are told beside what all are told."""
    warehouse = make_url(login_url(LOGIN, secrets, ports, places=places))
    return {
        "grafana_data": layout.data / "grafana", "grafana_config": folder(layout), "grafana_bind": places.bind,
        "grafana_port": ports.grafana, "dashboards": CHECKOUT / FOLDER, "home_dashboard": HOME_DASHBOARD,
        "warehouse": WAREHOUSE, "alertmanager": ALERTMANAGER, "alertmanager_host": places.alertmanager,
        "alertmanager_port": ports.alertmanager,
        "database": {
            "host": warehouse.host, "port": warehouse.port or 5432, "name": warehouse.database,
            "user": warehouse.username, "sslmode": warehouse.query.get("sslmode", "disable"),
        },
        "warehouse_password": "$WAREHOUSE_PASSWORD", "alertmanager_password": "$ALERTMANAGER_PASSWORD",
    }  # fmt: skip


def files(values: Mapping[str, Any]) -> dict[str, str]:
    """Grafana's configuration and provisioning: file name → text."""
    provisioning = {
        f"grafana/provisioning/{name}/weir.yaml": rendered(f"grafana/provisioning/{name}/weir.yaml.j2", values)
        for name in ("datasources", "dashboards")
    }
    return {"grafana/grafana.ini": rendered("grafana/grafana.ini.j2", values), **provisioning}


def make_folders(layout: Layout) -> None:
    (layout.data / "grafana").mkdir(exist_ok=True)
    for name in ("alerting", "plugins"):  # Grafana complains of folders that are not there
        (folder(layout) / "provisioning" / name).mkdir(parents=True, exist_ok=True)


def folder(layout: Layout) -> Path:
    return layout.config / "grafana"
