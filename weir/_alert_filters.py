"""The filters of `weir alerts` and `weir alerts held`, and what to say of one that fits nothing that there is."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from connections.warehouse import Warehouse


def given(**filters: str | None) -> dict[str, str]:
    """Columns and their values. Raises ConfigurationError for a severity or a cause that there cannot be."""
    from fleet.catalog import nearest
    from fleet.errors import ConfigurationError
    from fleet.standing import CAUSES, SEVERITIES

    found = {name: value for name, value in filters.items() if value is not None}
    for name, among in (("severity", SEVERITIES), ("cause", CAUSES)):
        if name in found and found[name] not in among:
            raise ConfigurationError(f"no {name} {found[name]!r}{nearest(found[name], among)}")
    return found


def check(warehouse: "Warehouse", table: str, filters: Mapping[str, str]) -> None:
    """For when nothing was found. Raises ConfigurationError for a name that no spec, no registry and no row of the
    table has: it is mistyped rather than quiet."""
    from fleet.catalog import load_catalog, nearest
    from fleet.errors import ConfigurationError
    from fleet.settings import Settings

    catalog = load_catalog(Settings.load().types_dir)
    for name, value in filters.items():
        if warehouse.rows(f"SELECT FROM {table} WHERE {name} = :value LIMIT 1", value=value):
            continue
        if name == "system":
            catalog.system(value)
        elif name == "rule":
            rules = {rule.id for spec in catalog for rule in spec.alerts}
            if value not in rules:
                raise ConfigurationError(f"no rule {value!r}{nearest(value, rules)}")
        elif name == "device_id":
            if not warehouse.rows("SELECT FROM devices WHERE device_id = :value LIMIT 1", value=value):
                raise ConfigurationError(f"no device {value!r} is known; `weir devices list` shows those there are")
        elif name in ("site", "receiver"):
            source = "site FROM sites" if name == "site" else "name FROM dispatch_receivers"
            names = {one for row in warehouse.rows(f"SELECT {source}") for one in row.values()}
            if value not in names:
                raise ConfigurationError(f"no {name} {value!r}{nearest(value, names)}")
