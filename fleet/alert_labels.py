"""An alert's labels, as every receiver, route and silence sees them."""

from fleet.notification import TellingAlert


def labels_of(alert: TellingAlert, severity: str = "") -> dict[str, str]:
    """The spec's own labels, and Weir's, which those may not override. `severity`: another one that the alert had."""
    return {
        **alert.labels,
        "alertname": alert.rule,
        "system": alert.system,
        "type": alert.type,
        "site": alert.site,
        "device": alert.device,
        "severity": severity or alert.severity,
    }


def annotations_of(alert: TellingAlert) -> dict[str, str]:
    """The spec's own annotations, and what Weir knows besides the labels, as text."""
    told = {
        **alert.annotations,
        "title": alert.title,
        "alert_id": alert.alert_id,
        "transition_id": alert.transition_id,
        "values": values_of(alert),
        "reason": alert.reason or "",
        "acknowledged_by": alert.acknowledged_by or "",
        "acknowledged_comment": alert.acknowledged_comment,
        "flapping": "true" if alert.flapping else "",
    }
    return {name: text for name, text in told.items() if text}


def values_of(alert: TellingAlert) -> str:
    """`temperature 36.5, humidity unknown`."""
    return ", ".join(f"{name} {'unknown' if v is None else f'{v:g}'}" for name, v in alert.values.items())
