"""Grafana's dashboards: one for each system, and the first page with all of them side by side. All of it follows from
the specs; `make generate` writes the files."""

import json
from collections.abc import Iterable
from datetime import timedelta

from fleet import dashboard_section as section
from fleet import panel_sql as sql
from fleet.catalog import Catalog, System
from fleet.duration import format_duration
from fleet.metric_panel import metric_panel
from fleet.model import MODELS
from fleet.overview import side_by_side
from fleet.panel import SCHEMA_VERSION, SEVERITY_COLOURS, TAG, WAREHOUSE, Json, Section, placed, target
from fleet.spec import HOME_DASHBOARD

FOLDER = "docker/grafana/dashboards"
SHORTEST_RANGE = timedelta(hours=1)
READINGS_SHOWN = 240
"""So many readings of a device fill the first view, which ends now."""
LINK = {"title": "Open ${__value.text}", "url": f"/d/{TAG}-${{__value.text}}?${{__url_time_range}}"}
"""From a system's name in a table to its dashboard."""


def files(catalog: Catalog) -> dict[str, str]:
    """Path below the checkout → JSON. The same specs always give the same text."""
    return {
        f"{FOLDER}/{name}.json": json.dumps(made, indent=1, ensure_ascii=False) + "\n"
        for name, made in dashboards(catalog).items()
    }


def dashboards(catalog: Catalog) -> dict[str, Json]:
    """By the name of the system, and the first page as HOME_DASHBOARD."""
    home = document(
        HOME_DASHBOARD,
        "Fleet",
        "All systems side by side. The links above open the others; each row of the table opens its own.",
        side_by_side(catalog, LINK),
        since=2 * SHORTEST_RANGE,
    )
    return {HOME_DASHBOARD: home, **{name: of_system(system) for name, system in catalog.systems.items()}}


def of_system(system: System) -> Json:
    about = " ".join(f"{spec.title or spec.type}: {spec.description.strip()}" for spec in system.types)
    metrics = (
        Section(spec.title or spec.type, [metric_panel(spec, name) for name in spec.metrics]) for spec in system.types
    )
    cadences = [spec.cadence for spec in system.types if spec.cadence != "event"]
    return document(
        system.name,
        "Weir itself" if section.is_own(system) else system.name.replace("_", " ").capitalize(),
        about,
        [
            section.now(system),
            *metrics,
            *(section.model(model) for model in MODELS.values() if model.type in {spec.type for spec in system.types}),
            section.alerts(system),
            section.quality(system),
            section.books(system),
            section.device(system),
        ],
        since=max([SHORTEST_RANGE, *(cadence * READINGS_SHOWN for cadence in cadences)]),
        variables=[
            variable("site", "Site", sql.SITES.format(system=system.name), multi=True),
            variable("device", "Device", sql.DEVICE_IDS.format(system=system.name)),
        ],
        annotations=[annotation("Alerts of the device", sql.ANNOTATION.format(system=system.name))],
    )


def document(
    name: str,
    title: str,
    about: str,
    sections: Iterable[Section],
    since: timedelta,
    variables: Iterable[Json] = (),
    annotations: Iterable[Json] = (),
) -> Json:
    """A dashboard that at first shows the time `since` now."""
    to_all = {
        "type": "dashboards",
        "title": "",
        "tags": [TAG],
        "asDropdown": False,
        "keepTime": True,
        "includeVars": False,
        "targetBlank": False,
        "icon": "",
        "tooltip": "",
        "url": "",
    }
    return {
        "uid": f"{TAG}-{name}",
        "title": title,
        "description": about,
        "tags": [TAG],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "graphTooltip": 1,
        "refresh": "30s",
        "timezone": "browser",
        "time": {"from": f"now-{format_duration(since)}", "to": "now"},
        "links": [to_all],
        "templating": {"list": list(variables)},
        "annotations": {"list": list(annotations)},
        "panels": placed(sections),
    }


def variable(name: str, label: str, query: str, multi: bool = False) -> Json:
    """Asked again when the range changes (`refresh` 2): only then does Grafana give the query a range. One with several
    values begins with all of them."""
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": WAREHOUSE,
        "query": query,
        "definition": query,
        "refresh": 2,
        "multi": multi,
        "includeAll": multi,
        "options": [],
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]} if multi else {},
    }


def annotation(name: str, query: str) -> Json:
    """Up to 9.3 Grafana asked `rawQuery`; since, it is what `target` is made of."""
    return {
        "name": name,
        "datasource": WAREHOUSE,
        "enable": True,
        "iconColor": SEVERITY_COLOURS["critical"],
        "rawQuery": query,
        "target": target(query, of_series=False),
    }
