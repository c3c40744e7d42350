"""Who was told of the demo's alerts: counted in the warehouse, and where they arrived, which must say the same."""

import json
import time
import urllib.request
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from connections.warehouse import Warehouse
from fleet.errors import Unavailable
from fleet.settings import Settings
from weir._demo_books import Offsets

POLL_SECONDS = 1.0
CHECKED = {"webhook": "webhook", "mail": "email"}
"""Of the inbox's page, the part → the kind of receiver that it checks."""
NO_COUNTS = ("last", "single")
WRONG = ("refused", "wrong_thread")


def inbox(settings: Settings) -> dict[str, Any]:
    """What arrived so far. Raises Unavailable."""
    url = f"http://127.0.0.1:{settings.port_inbox}/"
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            found: dict[str, Any] = json.load(answer)
    except OSError as error:
        raise Unavailable(f"the demo's inbox at {url} does not answer: {error}; see `make logs S=inbox`") from None
    return found


def wait_until_told(settings: Settings, after: Offsets, seconds: float) -> None:
    """Until the dispatcher's positions are there, and neither a message nor a digest waits to be sent."""
    deadline = time.monotonic() + seconds
    warehouse = Warehouse.of(settings)
    try:
        while True:
            rows = warehouse.rows("SELECT kafka_topic, kafka_partition, next_offset FROM dispatch_offsets")
            at = {(row["kafka_topic"], row["kafka_partition"]): row["next_offset"] for row in rows}
            behind = sum(max(0, offset - at.get(place, 0)) for place, offset in after.items())
            (left,) = warehouse.rows(
                "SELECT (SELECT count(*) FROM outbox WHERE dead_at IS NULL) AS messages,"
                " (SELECT count(*) FROM dispatch_groups WHERE so_far ? 'due_at') AS digests"
            )
            if behind == left["messages"] == left["digests"] == 0:
                return
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"the dispatcher is {behind} transitions behind, {left['digests']} digests are to come and"
                    f" {left['messages']} messages wait; see `weir alerts receivers`"
                )
            time.sleep(POLL_SECONDS)
    finally:
        warehouse.close()


def told(settings: Settings, since: datetime, before: Mapping[str, Any]) -> dict[str, Any]:
    """By receiver what was sent, held back and dead since then; by cause what was held back; what the inbox got.
    `different` says where that is not what was sent."""
    warehouse = Warehouse.of(settings)
    try:
        rows = warehouse.rows(
            "SELECT receiver, outcome, cause, count(*) AS n, count(DISTINCT notification_id) AS ids FROM notifications"
            " WHERE at >= :since GROUP BY receiver, outcome, cause",
            since=since,
        )
        kinds = {row["kind"]: row["name"] for row in warehouse.rows("SELECT name, kind FROM dispatch_receivers")}
    finally:
        warehouse.close()
    receivers: dict[str, dict[str, int]] = {name: {"sent": 0, "held": 0, "dead": 0} for name in kinds.values()}
    causes: dict[str, int] = {}
    for row in rows:
        of = receivers.setdefault(row["receiver"], {"sent": 0, "held": 0, "dead": 0})
        of[row["outcome"]] += row["ids"] if row["outcome"] == "sent" else row["n"]
        if row["outcome"] == "held":
            causes[row["cause"]] = causes.get(row["cause"], 0) + row["n"]
    after = inbox(settings)
    arrived = {part: _new(after[part], before[part]) for part in CHECKED}
    different = [
        f"{part}: {receivers[kinds[kind]]['sent']} sent, {arrived[part]['different']} arrived"
        for part, kind in CHECKED.items()
        if kind in kinds and receivers[kinds[kind]]["sent"] != arrived[part]["different"]
    ]
    different += [f"{part}: {of[name]} {name}" for part, of in arrived.items() for name in WRONG if of.get(name)]
    different += [f"{name}: {of['dead']} dead letters" for name, of in receivers.items() if of["dead"]]
    return {
        "receivers": receivers, "held": causes, "arrived": arrived, "different": different, "samples": samples(after),
    }  # fmt: skip


def samples(arrived: Mapping[str, Any]) -> dict[str, Any]:
    """Of each part of the inbox a message that is about one alert; where there was none, the last."""
    found = {part: arrived[part]["single"] or next(reversed(arrived[part]["last"]), None) for part in CHECKED}
    return {part: sample for part, sample in found.items() if sample}


def _new(after: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, int]:
    return {name: n - before.get(name, 0) for name, n in after.items() if name not in NO_COUNTS}
