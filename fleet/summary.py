"""One line that says it all: for a subject, a chat, a phone's screen."""

from collections import Counter
from collections.abc import Sequence

from fleet.alert_labels import values_of
from fleet.notification import Kind, TellingAlert

INTRODUCED = {
    "resolved": "resolved: ", "escalated": "now ", "deescalated": "now ", "flapping": "flapping: ",
    "settled": "settled: ", "reminder": "still ",
}  # fmt: skip

NAMED = 3
"""Rules at sites that a line names; of the others it says how many alerts they have."""


def summary_of(kind: Kind, alert: TellingAlert) -> str:
    """`critical High Temperature at roof: s1 temperature 36.5`."""
    if kind == "acknowledged":
        return f"acknowledged by {taken_on_by(alert)}: {_about(alert)}"
    severity = f"{alert.severity} " if alert.active else ""
    return f"{INTRODUCED.get(kind, '')}{severity}{_about(alert)}"


def taken_on_by(alert: TellingAlert) -> str:
    """`ann (on my way)`; empty where nobody has acknowledged it."""
    if not alert.acknowledged_by:
        return ""
    return alert.acknowledged_by + (f" ({alert.acknowledged_comment})" if alert.acknowledged_comment else "")


def _about(alert: TellingAlert) -> str:
    values = values_of(alert)
    return f"{alert.title} at {alert.site}: {alert.device}{' ' + values if values else ''}"


def active_summary(alerts: Sequence[TellingAlert]) -> str:
    """`7 active: 4 silent at site a, 2 hot at site roof, 1 other`: what there is most of comes first."""
    counts = Counter((alert.rule, alert.site) for alert in alerts).most_common()
    named = [f"{n} {_rule_at(rule, site)}" for (rule, site), n in counts[:NAMED]]
    others = sum(n for _, n in counts[NAMED:])
    return f"{len(alerts)} active: {', '.join([*named, *([f'{others} other'] if others else [])])}"


def _rule_at(rule: str, site: str) -> str:
    return f"{rule.replace('_', ' ')} at {site if site.startswith('site') else 'site ' + site}"


def digest_summary(kind: str, rule: str, site: str, listed: int, active: int, known: int | None) -> str:
    """`312 of 400 silent at site a`; of those that are over, `resolved: 12 silent at site a, 300 of 400 still`."""
    what = _rule_at(rule, site)
    of_all = f"{active} of {max(known, active)}" if known else str(active)
    if kind == "resolved":
        return f"resolved: {listed} {what}" + (f", {of_all} still" if active else "")
    prefix = {"reminder": "still ", "acknowledged": "acknowledged: "}.get(kind, "")
    return f"{prefix}{of_all} {what}"
