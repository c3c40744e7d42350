"""An alert's state as a retained MQTT message, for panels and automations."""

import re

import msgspec

from fleet.notification import TellingAlert
from fleet.webhook_body import rfc3339


def topic_of(prefix: str, alert: TellingAlert) -> str:
    """`alerts/<system>/<site>/<type>/<device>/<rule>`. What MQTT gives a meaning, or forbids, becomes `_`."""
    levels = (alert.system, alert.site, alert.type, alert.device, alert.rule)
    return "/".join([prefix, *(re.sub(r"[/+#\x00-\x1f\x7f]", "_", level) for level in levels)])


def state_of(alert: TellingAlert) -> bytes:
    """Compact JSON. A resolved alert's stays: who asks later learns that it is over and since when."""
    told = {
        "state": "firing" if alert.active else "resolved",
        "severity": alert.severity,
        "title": alert.title,
        "since": rfc3339(alert.since),
        "starts_at": rfc3339(alert.starts_at),
        "resolved_at": rfc3339(alert.resolved_at) if alert.resolved_at else None,
        "reason": alert.reason,
        "flapping": alert.flapping,
        "acknowledged_by": alert.acknowledged_by,
        "acknowledged_comment": alert.acknowledged_comment or None,
        "values": alert.values,
        "alert_id": alert.alert_id,
        "transition_id": alert.transition_id,
    }
    return msgspec.json.encode(told)
