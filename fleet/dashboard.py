"""Grafana's dashboards: one for each system, one for each area of a system whose specs name areas, and the first page
with all systems side by side. All of it follows from the specs; `make generate` writes the files."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta

from fleet import area_section
from fleet import dashboard_section as section
from fleet import panel_sql as sql
from fleet.annotation import tags_of_system
from fleet.area import PAGES, Area
from fleet.catalog import Catalog, System
from fleet.duration import format_duration
from fleet.metric_panel import metric_panel
from fleet.model import MODELS
from fleet.overview import side_by_side
from fleet.panel import GRAFANA, SCHEMA_VERSION, SEVERITY_COLOURS, TAG, WAREHOUSE, Json, Section, placed, target
from fleet.spec import HOME_DASHBOARD, DeviceType

FOLDER = "docker/grafana/dashboards"
SHORTEST_RANGE = timedelta(hours=1)
READINGS_SHOWN = 240
"""So many readings of a device fill the first view, which ends now."""
FIRST_RANGES: dict[Area, timedelta] = {"energy": timedelta(days=1)}
"""Areas of which an hour says too little."""
MOST_TAGGED = 100
"""Annotations of a range that Grafana shows, the newest: what it takes where nothing is said."""
LINK = {"title": "Open ${__value.text}", "url": f"/d/{TAG}-${{__value.text}}?${{__url_time_range}}"}
"""From a system's name in a table to its dashboard."""


def files(catalog: Catalog) -> dict[str, str]:
    """Path below the checkout → JSON. The same specs always give the same text."""
    return {
        f"{FOLDER}/{name}.json": json.dumps(made, indent=1, ensure_ascii=False) + "\n"
        for name, made in dashboards(catalog).items()
    }


def dashboards(catalog: Catalog) -> dict[str, Json]:
    """By the name of the system, with an area's after a hyphen, and the first page as HOME_DASHBOARD."""
    home = document(
        HOME_DASHBOARD,
        "Fleet",
        "All systems side by side. The links above open the others; each row of the table opens its own.",
        side_by_side(catalog, LINK),
        since=2 * SHORTEST_RANGE,
    )
    found = {HOME_DASHBOARD: home}
    for name, system in catalog.systems.items():
        found[name] = of_system(system)
        found |= {f"{name}-{area}": of_area(system, area) for area in PAGES if types_of(system, area)}
    return found


def types_of(system: System, area: Area | None) -> tuple[DeviceType, ...]:
    return tuple(spec for spec in system.types if spec.area == area)


def title_of(system: System) -> str:
    return "Weir itself" if section.is_own(system) else system.name.replace("_", " ").capitalize()


def of_system(system: System) -> Json:
    types = types_of(system, None)
    about = " ".join(f"{spec.title or spec.type}: {spec.description.strip()}" for spec in types)
    has_areas = len(types) < len(system.types)
    return document(
        system.name,
        title_of(system),
        about or "All of it; the links above open the page of each area.",
        [
            section.now(system),
            *metrics(types),
            *(section.model(model) for model in MODELS.values() if model.type in {spec.type for spec in system.types}),
            section.alerts(system),
            section.quality(system),
            section.books(system),
            section.device(system),
        ],
        since=first_range(system.types),
        area_of=system.name if has_areas else None,
        variables=variables(system.name, ""),
        annotations=[
            annotation("Alerts of the device", sql.ANNOTATION.format(system=system.name)),
            tagged("Alerts told to Grafana", tags_of_system(system.name)),
        ],
    )


def of_area(system: System, area: Area) -> Json:
    types = types_of(system, area)
    part, only = System(system.name, types), sql.of_types(spec.type for spec in types)
    about = " ".join(f"{spec.title or spec.type}: {spec.description.strip()}" for spec in types)
    return document(
        f"{system.name}-{area}",
        f"{title_of(system)}: {PAGES[area].title.lower()}",
        f"{PAGES[area].description} {about}",
        [
            section.area_now(part, only),
            *area_section.of_area(area, part, types),
            section.alerts(part, only),
            *metrics(types),
            section.device(part),
        ],
        since=max(first_range(types), FIRST_RANGES.get(area, SHORTEST_RANGE)),
        area_of=system.name,
        tags=[],
        variables=variables(system.name, only),
        annotations=[annotation("Alerts of the device", sql.ANNOTATION.format(system=system.name))],
    )


def metrics(types: Sequence[DeviceType]) -> Iterator[Section]:
    """Where there are several types on a page, a panel's title names the type too."""
    for spec in types:
        panels = [metric_panel(spec, name) for name in spec.metrics]
        if len(types) > 1:
            panels = [replace(one, title=f"{spec.title or spec.type}: {one.title.lower()}") for one in panels]
        yield Section(spec.title or spec.type, panels)


def first_range(types: Sequence[DeviceType]) -> timedelta:
    cadences = [spec.cadence for spec in types if spec.cadence != "event"]
    return max([SHORTEST_RANGE, *(cadence * READINGS_SHOWN for cadence in cadences)])


def variables(system: str, only: str) -> list[Json]:
    return [
        variable("site", "Site", sql.SITES.format(system=system), multi=True),
        variable("device", "Device", sql.DEVICE_IDS.format(system=system, only=only)),
    ]


def document(
    name: str,
    title: str,
    about: str,
    sections: Iterable[Section],
    since: timedelta,
    area_of: str | None = None,
    tags: Sequence[str] = (TAG,),
    variables: Iterable[Json] = (),
    annotations: Iterable[Json] = (),
) -> Json:
    """A dashboard that at first shows the time `since` now. `area_of`: the system whose pages it links to."""
    of_areas = [f"{TAG}-{area_of}"] if area_of else []
    return {
        "uid": f"{TAG}-{name}",
        "title": title,
        "description": about,
        "tags": [*tags, *of_areas],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "graphTooltip": 1,
        "refresh": "30s",
        "timezone": "browser",
        "time": {"from": f"now-{format_duration(since)}", "to": "now"},
        "links": [links_to(TAG), *(links_to(tag, keep_choice=True) for tag in of_areas)],
        "templating": {"list": list(variables)},
        "annotations": {"list": list(annotations)},
        "panels": placed(sections),
    }


def links_to(tag: str, keep_choice: bool = False) -> Json:
    """To every dashboard that has the tag, in a line; with the time, and with the site and device that are chosen."""
    return {
        "type": "dashboards",
        "title": "",
        "tags": [tag],
        "asDropdown": False,
        "keepTime": True,
        "includeVars": keep_choice,
        "targetBlank": False,
        "icon": "",
        "tooltip": "",
        "url": "",
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


def tagged(name: str, tags: Iterable[str]) -> Json:
    """What is stored in Grafana itself and has all of the tags, of whatever dashboard or of none."""
    return {
        "name": name,
        "datasource": GRAFANA,
        "enable": True,
        "iconColor": SEVERITY_COLOURS["warning"],
        "target": {"type": "tags", "tags": list(tags), "matchAny": False, "limit": MOST_TAGGED},
    }
