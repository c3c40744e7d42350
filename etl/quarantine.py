"""The quarantine as people ask for it: rows by filter, counts by reason, one place whole."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from connections.warehouse import Warehouse
from etl.window import Window
from fleet.catalog import Catalog
from fleet.errors import ConfigurationError
from fleet.requalify import accepted

PLACE = "q.kafka_topic || '/' || q.kafka_partition || '/' || q.kafka_offset"
REPLAYED = " LEFT JOIN quarantine_replays r USING (kafka_topic, kafka_partition, kafka_offset)"
ACCEPTED = (
    " LEFT JOIN unnest(CAST(:types AS text[]), CAST(:metrics AS text[]), CAST(:lows AS float8[]),"
    " CAST(:highs AS float8[])) AS good(type, metric, low, high)"
    " ON good.type = q.type AND good.metric = q.metric AND q.value BETWEEN good.low AND good.high"
)
"""Joined to `quarantine q`: `good.type` is null where a value is still quarantined. Its parameters: `limits`."""
ALWAYS = Window(None, None)


@dataclass(frozen=True)
class Filter:
    """None is all. `window` is of event times, of dead letters of the times they were appended."""

    system: str | None = None
    type: str | None = None
    reason: str | None = None
    device: str | None = None
    metric: str | None = None
    window: Window = ALWAYS

    @property
    def columns(self) -> dict[str, str]:
        """Of the table, and the values that they are to have."""
        asked = {
            "system": self.system, "type": self.type, "reason": self.reason, "device_id": self.device,
            "metric": self.metric,
        }  # fmt: skip
        return {name: value for name, value in asked.items() if value is not None}

    def where(self) -> tuple[str, Mapping[str, object]]:
        """For a query over `quarantine q`, and its parameters."""
        parts = [f"q.{name} = :{name}" for name in self.columns]
        found: dict[str, object] = {**self.columns}
        for name, sign, moment in (("start", ">=", self.window.start), ("end", "<", self.window.end)):
            if moment is not None:
                parts.append(f"q.at {sign} :{name}")
                found[name] = moment
        return " AND ".join(parts) or "true", found


def limits(catalog: Catalog) -> dict[str, object]:
    """Of every metric that today's specs have."""
    found = [(spec.type, metric, *span) for spec in catalog for metric, span in accepted(spec).items()]
    return dict(zip(("types", "metrics", "lows", "highs"), map(list, zip(*found, strict=True)), strict=True))


def rows(warehouse: Warehouse, asked: Filter, limit: int) -> list[dict[str, Any]]:
    """The newest first. `place` is what `show` takes; `replayed_at` is when a reading was made of it."""
    where, given = asked.where()
    return warehouse.rows(
        f"SELECT q.at, q.what, q.reason, q.detail, q.system, q.type, q.site, q.device_id, q.metric, q.value,"  # noqa: S608
        f" {PLACE} AS place, r.at AS replayed_at FROM quarantine q{REPLAYED} WHERE {where}"
        " ORDER BY q.at DESC, q.kafka_topic, q.kafka_partition, q.kafka_offset DESC, q.metric LIMIT :limit",
        **given, limit=limit,
    )  # fmt: skip


def stats(warehouse: Warehouse, asked: Filter) -> list[dict[str, Any]]:
    """By what, reason, system, type and metric: how many, of how many devices, when first and last, how many of them
    have come back."""
    where, given = asked.where()
    return warehouse.rows(
        "SELECT q.what, q.reason, q.system, q.type, q.metric, count(*) AS rows,"  # noqa: S608
        " count(DISTINCT q.device_id) AS devices, min(q.at) AS first, max(q.at) AS last, count(r.at) AS replayed"
        f" FROM quarantine q{REPLAYED} WHERE {where} GROUP BY 1, 2, 3, 4, 5 ORDER BY count(*) DESC, 1, 2, 3, 4, 5",
        **given,
    )


def at_place(warehouse: Warehouse, place: str) -> list[dict[str, Any]]:
    """All rows of one record of Kafka's. Raises ConfigurationError where the text is no place, or nothing is there."""
    try:
        topic, partition, offset = place.rsplit("/", 2)
        given = {"topic": topic, "partition": int(partition), "offset": int(offset)}
    except ValueError:
        raise ConfigurationError(
            f"{place!r} is no place; `weir quarantine list` shows them, such as readings.rejected/0/17"
        ) from None
    found = warehouse.rows(
        "SELECT q.*, r.at AS replayed_at, r.replay_id, r.to_topic, r.to_partition, r.to_offset"  # noqa: S608
        f" FROM quarantine q{REPLAYED} WHERE q.kafka_topic = :topic AND q.kafka_partition = :partition"
        " AND q.kafka_offset = :offset ORDER BY q.what, q.metric",
        **given,
    )
    if not found:
        raise ConfigurationError(f"nothing is quarantined at {place}")
    return found
