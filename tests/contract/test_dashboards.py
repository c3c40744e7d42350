"""What Grafana gets holds together: every panel, variable and annotation of every generated dashboard."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import combinations
from typing import Any

import pytest
import yaml

from fleet.annotation import annotation_of
from fleet.area_section import environment
from fleet.catalog import System, load_catalog
from fleet.dashboard import HOME_DASHBOARD, dashboards
from fleet.panel import ALERTMANAGER, COLUMNS, GRAFANA, TAG, WAREHOUSE
from fleet.settings import CHECKOUT
from fleet.spec import DeviceType
from fleet.units import UNITS
from stack.render import rendered
from tests.alerts_told import alert
from tests.grafana import Query, Range, expanded, queries

CATALOG = load_catalog(CHECKOUT / "fleet" / "types")
DASHBOARDS = dashboards(CATALOG)
every_dashboard = pytest.mark.parametrize(("name", "dashboard"), DASHBOARDS.items(), ids=list(DASHBOARDS))
QUERIES = [query for name, dashboard in DASHBOARDS.items() for query in queries(name, dashboard)]
every_query = pytest.mark.parametrize("query", QUERIES, ids=lambda q: q.where)

BUILT_IN = {"row", "timeseries", "stat", "table", "barchart"}
"""Panels that come with Grafana 9.4 and with those of today."""
UNITS_OF_GRAFANA = {
    "none", "short", "percent", "percentunit", "bool", "celsius", "ppm", "lux", "volt", "watt", "watth", "kwatth",
    "lengthmm", "velocityms", "forceN", "pressurehpa", "s", "cps",
}  # fmt: skip
"""Of its list of units (value formats), those that we may use."""
COLOURS = {"green", "red", "orange", "blue", "yellow", "purple", "text", "transparent"}
BOUND = re.compile(
    r"\$__time(Filter|From)\(|BETWEEN \$__timeTo\(\)::timestamptz - INTERVAL '\d+ \w+' AND \$__timeTo\(\)"
)
"""Where time begins. That it is before the end of the range bounds nothing."""
STATES = {
    "Alerts now": "an alert is active until it resolves, however long ago it began; a partial index has those alone",
    "Active alerts, by severity": "as above",
    "Kafka and the lake": "a row for each partition of Kafka, written anew by each reconciliation",
    "$site": "sites are chosen from the registry, which has a row for each device, however long it is known",
    "$device": "as above",
}
"""Queries of what is so, not of what happened: title → why their rows do not grow with time."""
A_DAY = Range(datetime(2026, 11, 28, tzinfo=UTC), datetime(2026, 11, 29, tzinfo=UTC))


def values_of(node: Any, key: str) -> Iterator[Any]:
    """Of every `key` anywhere below."""
    if isinstance(node, dict):
        if key in node:
            yield node[key]
        for child in node.values():
            yield from values_of(child, key)
    elif isinstance(node, list):
        for child in node:
            yield from values_of(child, key)


def panels(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def test_every_system_has_one_and_the_first_page_has_them_all() -> None:
    areas = {f"{spec.system}-{spec.area}" for spec in CATALOG if spec.area}
    assert set(DASHBOARDS) == {HOME_DASHBOARD, *CATALOG.systems, *areas}
    (systems,) = (p for p in panels(DASHBOARDS[HOME_DASHBOARD]) if p["title"] == "Systems")
    for system in CATALOG.systems:
        assert f"('{system}')" in systems["targets"][0]["rawSql"]
        assert DASHBOARDS[system]["uid"] == f"{TAG}-{system}"
    assert len({d["uid"] for d in DASHBOARDS.values()}) == len(DASHBOARDS)


@pytest.mark.parametrize("system", CATALOG.systems.values(), ids=lambda s: s.name)
def test_pages_of_a_system_link_to_each_other(system: System) -> None:
    """And none but they have the tag that these links look for."""
    areas = {spec.area for spec in system.types if spec.area}
    tag = f"{TAG}-{system.name}"
    pages = {name for name, dashboard in DASHBOARDS.items() if tag in dashboard["tags"]}
    assert pages == ({system.name, *(f"{system.name}-{area}" for area in areas)} if areas else set())
    for page in pages:
        assert [TAG, tag] == [tag for link in DASHBOARDS[page]["links"] for tag in link["tags"]]
        assert (TAG in DASHBOARDS[page]["tags"]) == (page == system.name)


@pytest.mark.parametrize("area", [page for page in DASHBOARDS if "-" in page])
def test_an_area_shows_and_asks_for_its_types_alone(area: str) -> None:
    system, _, name = area.partition("-")
    types = {spec.type: spec.area for spec in CATALOG.system(system).types}
    asked = " ".join(panel["targets"][0]["rawSql"] for panel in panels(DASHBOARDS[area]))
    for type_name, of in types.items():
        assert (f"type = '{type_name}' AND metric" in asked) == (of == name)


def test_hours_that_nobody_measured_are_not_drawn_as_0() -> None:
    drawn = [query for query in QUERIES if query.kind == "timeseries" and "FROM energy_hours" in query.sql]
    assert drawn
    assert [query.where for query in drawn if "$__timeGroupAlias(hour, $__interval, NULL)" not in query.sql] == []


LIMITS = {"coldest": 15.5, "warmest": 28.0, "driest": 20.0, "dampest": 75.0}
COMFORT = [("of its rule", LIMITS, "15.5, 28, 20, 75"), ("of the standard", {}, "20, 26, 25, 60")]


@pytest.mark.parametrize(("params", "limits"), [case[1:] for case in COMFORT], ids=[case[0] for case in COMFORT])
def test_a_room_is_comfortable_within_the_limits(params: dict[str, float], limits: str) -> None:
    spec = CATALOG.type("room_climate")
    rules = [rule.model_copy(update={"params": params}) for rule in spec.alerts if rule.id == "uncomfortable"]
    (section,) = environment((spec.model_copy(update={"alerts": rules}),))
    assert f"('room_climate', false, {limits})" in section.panels[0].sql


@pytest.mark.parametrize("spec", list(CATALOG), ids=lambda s: s.type)
def test_every_metric_has_a_panel(spec: DeviceType) -> None:
    page = f"{spec.system}-{spec.area}" if spec.area else spec.system
    asked = " ".join(panel["targets"][0]["rawSql"] for panel in panels(DASHBOARDS[page]))
    for metric in spec.metrics:
        assert f"type = '{spec.type}' AND metric = '{metric}'" in asked


@every_dashboard
def test_data_sources_are_those_that_are_provisioned(name: str, dashboard: dict[str, Any]) -> None:
    values = {
        "warehouse": WAREHOUSE,
        "alertmanager": ALERTMANAGER,
        "alertmanager_host": "h",
        "alertmanager_port": 7000,
        "database": {"host": "h", "port": 1, "name": "n", "user": "u", "sslmode": "disable"},
        "warehouse_password": "$A",
        "alertmanager_password": "$B",
    }
    text = rendered("grafana/provisioning/datasources/weir.yaml.j2", values)
    provisioned = {(source["type"], source["uid"]) for source in yaml.safe_load(text)["datasources"]}
    assert provisioned == {(s["type"], s["uid"]) for s in (WAREHOUSE, ALERTMANAGER)}
    named = {(source["type"], source["uid"]) for source in values_of(dashboard, "datasource")}
    assert named - {(GRAFANA["type"], GRAFANA["uid"])} <= provisioned


@pytest.mark.parametrize("system", CATALOG.systems)
def test_annotations_of_the_receiver_are_on_the_dashboard_of_their_system(system: str) -> None:
    """In the form that Grafana 9.4 writes, and what reads it today takes."""
    (asked,) = (one for one in DASHBOARDS[system]["annotations"]["list"] if one["datasource"] == GRAFANA)
    assert asked["datasource"] == {"type": "grafana", "uid": "-- Grafana --"}
    target = asked["target"]
    assert (asked["enable"], target["type"], target["matchAny"], target["limit"]) == (True, "tags", False, 100)
    written = {name: set(annotation_of(alert(system=name), "").tags) for name in CATALOG.systems}
    assert [name for name, tags in written.items() if tags >= set(target["tags"])] == [system]


@every_dashboard
def test_panels_come_with_grafana_and_say_what_they_show(name: str, dashboard: dict[str, Any]) -> None:
    assert dashboard["description"]
    for panel in dashboard["panels"]:
        assert panel["type"] in BUILT_IN
        assert panel["title"]
    for panel in panels(dashboard):
        assert len(panel["description"]) > 20, panel["title"]
        assert len({p["title"] for p in panels(dashboard)}) == len(panels(dashboard))


@every_dashboard
def test_ids_are_unique_and_no_panel_lies_on_another(name: str, dashboard: dict[str, Any]) -> None:
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
    places = [panel["gridPos"] for panel in dashboard["panels"]]
    for place in places:
        assert place["x"] + place["w"] <= COLUMNS
    for one, other in combinations(places, 2):
        apart = (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        )
        assert apart, (one, other)
    side_by_side = [sum(p["y"] == place["y"] for p in places) for place in places]
    assert max(side_by_side) <= 4


@every_dashboard
def test_units_and_colours_are_grafanas(name: str, dashboard: dict[str, Any]) -> None:
    assert {unit.grafana for unit in UNITS.values()} <= UNITS_OF_GRAFANA
    overridden = {p["value"] for ps in values_of(dashboard, "properties") for p in ps if p["id"] == "unit"}
    assert {*values_of(dashboard, "unit"), *overridden} <= UNITS_OF_GRAFANA
    assert {
        c for c in (*values_of(dashboard, "fixedColor"), *values_of(dashboard, "color")) if isinstance(c, str)
    } <= COLOURS


@every_dashboard
def test_thresholds_begin_anywhere_and_rise(name: str, dashboard: dict[str, Any]) -> None:
    for steps in values_of(dashboard, "steps"):
        assert steps[0]["value"] is None
        rising = [step["value"] for step in steps[1:]]
        assert rising == sorted(set(rising))


@every_query
def test_every_query_has_a_bound_in_time(query: Query) -> None:
    """Or is of a state, and has the end of the range at least; who is bounded is in no list of exemptions."""
    is_state = query.where.partition(": ")[2] in STATES
    assert is_state != bool(BOUND.search(query.sql))
    assert not is_state or "<= $__timeTo()" in query.sql


def test_every_state_is_asked_for() -> None:
    assert {query.where.partition(": ")[2] for query in QUERIES} >= STATES.keys()


@every_query
@pytest.mark.parametrize("days", [1 / 24, 1, 30, 365], ids=["hour", "day", "month", "year"])
def test_nothing_of_grafana_is_left_in_a_query(query: Query, days: float) -> None:
    shown = Range(A_DAY.end - timedelta(days=days), A_DAY.end)
    assert "$" not in expanded(query, shown, {"site": ["roof", "yard"], "device": "it's"})


@pytest.mark.parametrize(
    ("hours", "points", "shortest", "sql"),
    [(1, 200, "2s", "20000 < 60000"), (2, 200, "30s", "30000 < 60000"), (3, 200, "2s", "60000 < 60000"),
     (24, 200, "2s", "300000 < 3600000"), (24 * 7, 200, "2s", "3600000 < 3600000")],
    ids=["hour", "two hours", "three hours", "day", "week"],
)  # fmt: skip
def test_the_range_says_which_table_answers(hours: float, points: int, shortest: str, sql: str) -> None:
    """As fleet.metric_sql says: readings, rollups of a minute, of an hour."""
    query = Query("", "timeseries", "$__interval_ms < 60000 $__interval_ms < 3600000", points, shortest)
    assert sql in expanded(query, Range(A_DAY.end - timedelta(hours=hours), A_DAY.end), {})
