"""What the commands about alerts share: finding one by the beginning of its id, and how rows are shown."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from connections.warehouse import Warehouse

By = Annotated[str, typer.Option(help="Who says so.", envvar="USER")]
AlertId = Annotated[str, typer.Argument(help="The alert's id, or the beginning of it.")]


def found_alert(warehouse: "Warehouse", alert_id: str) -> dict[str, Any]:
    from fleet.errors import ConfigurationError

    found = warehouse.rows(
        "SELECT * FROM alerts WHERE left(alert_id, length(:id)) = :id ORDER BY starts_at DESC LIMIT 2", id=alert_id
    )
    if not found or not alert_id:
        raise ConfigurationError(f"no alert {alert_id!r}; `weir alerts --history` shows the ids there are")
    if len(found) > 1:
        raise ConfigurationError(f"more than one alert begins with {alert_id!r}; give more of its id")
    return found[0]


def moment_text(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def plain(value: Any) -> str:
    return value.astimezone(UTC).isoformat() if isinstance(value, datetime) else str(value)
