"""The filters of `weir alerts`, `weir alerts held`, `weir energy` and `weir quarantine`, and what to say of one that
fits nothing that there is."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from connections.warehouse import Warehouse

KNOWN = {
    "device_id": ("device", "devices WHERE device_id", "weir devices list"),
    "site": ("site", "sites WHERE site", "weir sites list"),
    "receiver": ("receiver", "dispatch_receivers WHERE name", "weir alerts receivers"),
}
"""By column: what it is, where all that there are stand, and what shows them."""


def given(**filters: str | None) -> dict[str, str]:
    """Columns and their values. Raises ConfigurationError for a severity or a cause that there cannot be."""
    from fleet.errors import ConfigurationError
    from fleet.nearest import nearest
    from fleet.standing import CAUSES, SEVERITIES

    found = {name: value for name, value in filters.items() if value is not None}
    for name, among in (("severity", SEVERITIES), ("cause", CAUSES)):
        if name in found and found[name] not in among:
            raise ConfigurationError(f"no {name} {found[name]!r}{nearest(found[name], among)}")
    return found


def check(warehouse: "Warehouse", table: str, filters: Mapping[str, str]) -> None:
    """For when nothing was found, or before it is looked for. Raises ConfigurationError for a name that no spec, no
    registry and no row of the table has: it is mistyped rather than quiet."""
    from fleet.errors import ConfigurationError

    for name, value in filters.items():
        problem = _problem(warehouse, name, value)
        if problem and not warehouse.rows(f"SELECT FROM {table} WHERE {name} = :value LIMIT 1", value=value):
            raise ConfigurationError(problem)


def _problem(warehouse: "Warehouse", name: str, value: str) -> str:
    from etl.load import ALL_VALUES_BAD, OUT_OF_RANGE
    from fleet.catalog import load_catalog
    from fleet.contract import REASONS
    from fleet.errors import SpecError
    from fleet.nearest import nearest
    from fleet.settings import Settings

    if name in KNOWN:
        what, where, shown_by = KNOWN[name]
        if warehouse.rows(f"SELECT FROM {where} = :value LIMIT 1", value=value):
            return ""
        return f"no {what} {value!r} is known; `{shown_by}` shows those there are"
    if name == "reason":
        among = {*REASONS, ALL_VALUES_BAD, OUT_OF_RANGE}
    elif name in ("system", "type", "rule", "metric"):
        try:
            catalog = load_catalog(Settings.load().types_dir)
        except SpecError:  # what is wrong there is not what was asked, and an alert tells of it
            return ""
        among = {
            "system": {*catalog.systems}, "type": {*catalog.types},
            "rule": {rule.id for spec in catalog for rule in spec.alerts},
            "metric": {metric for spec in catalog for metric in spec.metrics},
        }[name]  # fmt: skip
    else:
        return ""
    return "" if value in among else f"no {name} {value!r}{nearest(value, among)}"
