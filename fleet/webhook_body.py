"""What a webhook receives: the body that Alertmanager sends to its webhooks, version 4, and its signature.

The signature is the Standard Webhooks' one: HMAC-SHA256 over `id.timestamp.body`, one for each secret that is in use,
so that a receiver may change its secret while both are signed with.
"""

import base64
import binascii
import hmac
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from hashlib import blake2b, sha256
from typing import Any

import msgspec

from fleet.alert_labels import annotations_of, labels_of
from fleet.notification import Notification, TellingAlert

MOST_ALERTS = 1000
"""In one body, about 1 MB; how many more there are it says by `truncatedAlerts`."""
NOT_ENDED = "0001-01-01T00:00:00Z"
GROUPED_BY = ("alertname", "system", "type", "site", "device")
SECRET_BEGINS = "whsec_"  # noqa: S105 (what every secret begins with is none)
TOLERANCE_SECONDS = 300
"""How old a signed message may be: one that was recorded cannot be played back later."""


def body_of(notification: Notification, external_url: str = "") -> bytes:
    """Beyond Alertmanager's own fields, `commonAnnotations` has `summary` and `kind`."""
    alerts = notification.alerts[:MOST_ALERTS]
    every = [labels_of(alert) for alert in alerts]
    texts = [annotations_of(alert) for alert in alerts]
    common = _shared(every)
    group = {name: common[name] for name in GROUPED_BY if name in common}
    active = any(alert.active for alert in alerts) or not alerts
    body = {
        "version": "4",
        "groupKey": _group_key(notification, group),
        "truncatedAlerts": len(notification.alerts) - len(alerts),
        "status": "firing" if active else "resolved",
        "receiver": notification.receiver,
        "groupLabels": group,
        "commonLabels": common,
        "commonAnnotations": _shared(texts) | {"summary": notification.summary, "kind": notification.kind},
        "externalURL": external_url,
        "alerts": [
            {
                "status": "firing" if alert.active else "resolved",
                "labels": labels,
                "annotations": annotations,
                "startsAt": rfc3339(alert.starts_at),
                "endsAt": rfc3339(alert.resolved_at) if alert.resolved_at else NOT_ENDED,
                "generatorURL": external_url,
                "fingerprint": fingerprint(alert),
            }
            for alert, labels, annotations in zip(alerts, every, texts, strict=True)
        ],
    }
    return msgspec.json.encode(body)


def fingerprint(alert: TellingAlert) -> str:
    """16 hexadecimal digits of what makes the alert that of a rule and a device: no severity, no value, no time."""
    identity = msgspec.msgpack.encode((alert.system, alert.type, alert.rule, alert.device))
    return blake2b(identity, digest_size=8).hexdigest()


def rfc3339(time: datetime) -> str:
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _group_key(notification: Notification, group: Mapping[str, str]) -> str:
    labels = ", ".join(f"{name}={msgspec.json.encode(value).decode()}" for name, value in group.items())
    return f"{{}}:{{{labels}}}" if notification.alerts else f"{{}}/{notification.kind}:{{}}"


def _shared(texts: list[dict[str, str]]) -> dict[str, str]:
    if not texts:
        return {}
    first, *others = texts
    return {name: text for name, text in first.items() if all(other.get(name) == text for other in others)}


def key_of(secret: str) -> bytes:
    """The bytes of `whsec_<base64>`. Raises ValueError for what is none."""
    if not secret.startswith(SECRET_BEGINS):
        raise ValueError(f"a webhook's secret begins with {SECRET_BEGINS}")
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_BEGINS), validate=True)
    except binascii.Error as error:
        raise ValueError(f"after {SECRET_BEGINS} a webhook's secret is base64: {error}") from None
    if len(key) < 24:
        raise ValueError(f"a webhook's secret has 24 bytes or more, and this one {len(key)}")
    return key


def signed(message_id: str, now: datetime, body: bytes, secrets: Iterable[str]) -> dict[str, str]:
    """The headers that sign a body; without a secret all but the signature."""
    timestamp = str(int(now.timestamp()))
    signatures = [_signature(message_id, timestamp, body, key_of(secret)) for secret in secrets]
    headers = {"webhook-id": message_id, "webhook-timestamp": timestamp}
    return headers | ({"webhook-signature": " ".join(signatures)} if signatures else {})


def _signature(message_id: str, timestamp: str, body: bytes, key: bytes) -> str:
    digest = hmac.digest(key, f"{message_id}.{timestamp}.".encode() + body, sha256)
    return f"v1,{base64.b64encode(digest).decode()}"


def verify(headers: Mapping[str, str], body: bytes, secret: str, now: datetime) -> str:
    """What is wrong with the signature, as a receiver checks it; empty when nothing is. `headers` in small letters."""
    message_id, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    given = headers.get("webhook-signature", "").split()
    if not (message_id and timestamp and given):
        return "webhook-id, webhook-timestamp and webhook-signature are wanted"
    if not timestamp.isascii() or not timestamp.isdigit():
        return "webhook-timestamp is no number of seconds"
    if abs(now.timestamp() - int(timestamp)) > TOLERANCE_SECONDS:
        return f"webhook-timestamp is more than {TOLERANCE_SECONDS} s from now"
    wanted = _signature(message_id, timestamp, body, key_of(secret))
    if not any(hmac.compare_digest(wanted.encode(), each.encode()) for each in given):
        return "no signature is by this secret"
    return ""


def excerpt(body: bytes, limit: int = 200) -> str:
    """The beginning of what a server said, on one line."""
    return " ".join(body[: limit * 4].decode("utf-8", "replace").split())[:limit]


def decoded(body: bytes) -> dict[str, Any]:
    """Raises msgspec.DecodeError (a ValueError) for what is no such body."""
    return msgspec.json.decode(body, type=dict[str, Any])
