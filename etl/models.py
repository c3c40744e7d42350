"""The tables models and predictions: what was trained, which one is the champion, what it estimated."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
from sqlalchemy import Connection, text

from connections.warehouse import Warehouse, copy_rows
from etl.features import Array, Minutes
from fleet.errors import ConfigurationError, Unavailable
from fleet.model import MODELS, Model
from fleet.nearest import nearest

Row = Mapping[str, Any]
Spans = Sequence[tuple[datetime, datetime]]
"""[start, end) each."""
ID_LENGTH = 12
"""Characters of the artefact's sha256."""
NAMED = 10
"""In an error about an id that there is not."""


def model_of(name: str) -> Model:
    """Raises ConfigurationError with the nearest name."""
    if name not in MODELS:
        raise ConfigurationError(f"no model is called {name!r}{nearest(name, MODELS)} (fleet/model.py has them)")
    return MODELS[name]


def rows(warehouse: Warehouse, name: str | None = None) -> list[dict[str, Any]]:
    """Champions first, then the newest."""
    return warehouse.rows(
        "SELECT * FROM models WHERE name = coalesce(CAST(:name AS text), name)"
        " ORDER BY name, champion DESC, trained_at DESC",
        name=name,
    )


def find(warehouse: Warehouse, model_id: str, name: str | None = None) -> dict[str, Any]:
    """By the beginning of its id. Raises ConfigurationError with the nearest that there is."""
    known = rows(warehouse, name)
    found = [row for row in known if model_id and row["sha256"].startswith(model_id.lower())]
    if not found:
        ids = [row["model_id"] for row in known[:NAMED]]
        raise ConfigurationError(f"no model {model_id!r}{nearest(model_id, ids)} (`weir models list` shows them)")
    if len(found) > 1:
        raise ConfigurationError(f"more than one model begins with {model_id!r}; give more of its id")
    return found[0]


def champion(warehouse: Warehouse, name: str) -> dict[str, Any] | None:
    found = warehouse.rows("SELECT * FROM models WHERE name = :name AND champion", name=name)
    return found[0] if found else None


def only_retrain(c: Connection, name: str) -> None:
    """Until the transaction ends. Raises Unavailable where another one trains this model."""
    free = c.execute(text("SELECT pg_try_advisory_xact_lock(hashtextextended(:key, 0))"), {"key": f"retrain/{name}"})
    if not free.scalar():
        raise Unavailable(f"{name} is being trained by somebody else; try again when that is done")


def add(c: Connection, row: Mapping[str, Any]) -> None:
    """What is there by the same id is the same model, and stays as it is."""
    names = list(row)
    values = ", ".join(f"CAST(:{n} AS jsonb)" if isinstance(row[n], dict) else f":{n}" for n in names)
    given = {n: json.dumps(v) if isinstance(v, dict) else v for n, v in row.items()}
    statement = f"INSERT INTO models ({', '.join(names)}) VALUES ({values}) ON CONFLICT (model_id) DO NOTHING"  # noqa: S608
    c.execute(text(statement), given)


def promote(c: Connection, row: Row) -> str | None:
    """Makes it the champion. The id of the one that it replaces; its own where it is the champion already."""
    before = _take_turns(c, row["name"])
    if before != row["model_id"]:
        _set_champion(c, row["name"], row["model_id"])
        c.execute(
            text("UPDATE models SET replaced = :before WHERE model_id = :id"), {"before": before, "id": row["model_id"]}
        )
    return before


def roll_back(c: Connection, name: str) -> tuple[str, str]:
    """The champion before the present one is it again: (that one, the present one). Raises ConfigurationError where
    there is none."""
    present = _take_turns(c, name)
    if present is None:
        raise ConfigurationError(f"{name} has no champion; `weir models promote ID` makes one")
    before = c.execute(text("SELECT replaced FROM models WHERE model_id = :id"), {"id": present}).scalar()
    if before is None:
        raise ConfigurationError(
            f"{present} is the first champion of {name}: there is none to go back to;"
            " `weir models promote ID` takes another"
        )
    _set_champion(c, name, before)
    return before, present


def _take_turns(c: Connection, name: str) -> str | None:
    """The present champion's id; nobody else changes it until the transaction ends."""
    c.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:key, 0))"), {"key": f"champion/{name}"})
    found = c.execute(text("SELECT model_id FROM models WHERE name = :name AND champion"), {"name": name})
    return found.scalar()


def _set_champion(c: Connection, name: str, model_id: str) -> None:
    c.execute(text("UPDATE models SET champion = false WHERE name = :name AND champion"), {"name": name})
    done = text("UPDATE models SET champion = true, promoted_at = now() WHERE model_id = :id")
    c.execute(done, {"id": model_id})


def replace_predictions(c: Connection, row: Row, minutes: Minutes, value: Array, spans: Spans) -> None:
    """All that the model estimated within these spans is these minutes' values; what it did elsewhere stays."""
    key = {"id": row["model_id"], "starts": [s for s, _ in spans], "ends": [e for _, e in spans]}
    c.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:id, 0))"), key)
    c.execute(
        text(
            "DELETE FROM predictions p USING unnest(CAST(:starts AS timestamptz[]), CAST(:ends AS timestamptz[]))"
            " AS span (start, stop) WHERE p.model_id = :id AND p.at >= span.start AND p.at < span.stop"
        ),
        key,
    )
    names = ("at", "model_id", "name", "system", "type", "site", "device_id", "value", "truth")
    fixed = (row["model_id"], row["name"], row["system"], row["type"])
    found = zip(minutes.at, minutes.site, value, minutes.truth, strict=True)
    lines = ((f"{at}Z", *fixed, site, "", said, None if np.isnan(true) else true) for at, site, said, true in found)
    copy_rows(c, "predictions", names, lines)
