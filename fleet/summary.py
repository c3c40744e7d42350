"""One line that says it all: for a subject, a chat, a phone's screen."""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime

from fleet.alert_labels import values_of
from fleet.notification import Kind, TellingAlert
from fleet.standing import Identity, identity_of, rank

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


def worst_first(alerts: Iterable[TellingAlert]) -> list[TellingAlert]:
    """Of long lists receivers show the beginning: what is active, then what is severe, then what is new stands there.
    Those of one rule and device stay in their order, of which to many receivers only the last counts."""
    together: dict[Identity, list[TellingAlert]] = {}
    for alert in alerts:
        together.setdefault(identity_of(alert), []).append(alert)
    worst = sorted(together.values(), key=lambda of_one: max(map(_urgency, of_one)), reverse=True)
    return [alert for of_one in worst for alert in of_one]


def _urgency(alert: TellingAlert) -> tuple[bool, int, datetime]:
    return alert.active, rank(alert.severity), alert.starts_at


def active_summary(alerts: Sequence[TellingAlert]) -> str:
    """`7 active, 1 critical, 6 warning: 4 silent at site a, 2 hot at site roof, 1 other`: of rules at sites those with
    most alerts come first."""
    counted = Counter(alert.severity for alert in alerts)
    severities = [f"{n if len(counted) > 1 else 'all'} {s}" for s, n in sorted(counted.items(), key=_severest)]
    counts = Counter((alert.rule, alert.site) for alert in alerts).most_common()
    named = [f"{n} {_rule_at(rule, site)}" for (rule, site), n in counts[:NAMED]]
    others = sum(n for _, n in counts[NAMED:])
    what = [*named, *([f"{others} other"] if others else [])]
    return f"{', '.join([f'{len(alerts)} active', *severities])}: {', '.join(what)}"


def _severest(counted: tuple[str, int]) -> int:
    return -rank(counted[0])


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
