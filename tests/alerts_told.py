"""Notifications for tests of what sends them."""

from datetime import UTC, datetime, timedelta
from typing import Any

from fleet.notification import Kind, Notification, TellingAlert

START = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
ALERT_ID = "0123456789abcdef0123456789abcdef"


def alert(number: int = 1, **changes: Any) -> TellingAlert:
    given: dict[str, Any] = {
        "alert_id": ALERT_ID, "transition_id": f"{changes.get('alert_id', ALERT_ID)}-{number}", "system": "weather",
        "type": "weather_station", "rule": "high_temperature", "device": "s1", "site": "roof", "severity": "warning",
        "severities": ("warning",), "title": "High Temperature", "annotations": {"runbook": "open a window"},
        "labels": {"team": "facility"}, "values": {"temperature": 36.5}, "since": START, "starts_at": START,
        "event_time": START,
    }  # fmt: skip
    return TellingAlert(**given | changes)


def notification(kind: Kind = "firing", *alerts: TellingAlert, receiver: str = "r", **changes: Any) -> Notification:
    told = alerts or (alert(),)
    given: dict[str, Any] = {
        "notification_id": f"{told[0].transition_id}@{receiver}", "receiver": receiver, "kind": kind, "alerts": told,
        "summary": "warning High Temperature at roof: s1 36.5", "created_at": START,
    }  # fmt: skip
    return Notification(**given | changes)


def empty(kind: Kind = "heartbeat", receiver: str = "r") -> Notification:
    return Notification(
        notification_id=f"{kind}-1@{receiver}", receiver=receiver, kind=kind, alerts=(), summary="Weir lives",
        created_at=START,
    )  # fmt: skip


def resolved(number: int = 2, minutes: float = 5, **changes: Any) -> Notification:
    ended = START + timedelta(minutes=minutes)
    return notification("resolved", alert(number, resolved_at=ended, event_time=ended, reason="recovered", **changes))
