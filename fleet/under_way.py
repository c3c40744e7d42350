"""Alerts under way, by all that they are looked for by."""

from typing import Any

from fleet.notification import TellingAlert
from fleet.standing import AlertSoFar, Identity
from fleet.storm import GroupKey, awaited

RuleAtSite = tuple[str, str, str, str]


def _rule_of(about: TellingAlert | GroupKey) -> RuleAtSite:
    return (about.system, about.type, about.rule, about.site)


class UnderWay:
    def __init__(self) -> None:
        self.by_id: dict[str, AlertSoFar] = {}
        self.held: dict[str, None] = {}
        """Ids of those of which something is held back."""
        self._by_rule: dict[RuleAtSite, dict[str, None]] = {}
        self._waiting: dict[GroupKey, dict[str, None]] = {}
        """Those that are to be told in a digest, wherever their devices are by now."""
        self._by_identity: dict[Identity, str] = {}
        self._quality: dict[tuple[str, str], dict[str, str]] = {}

    def put(self, so_far: AlertSoFar) -> None:
        """One that is new, or how it stands by now."""
        alert, known = so_far.alert, self.by_id.get(so_far.alert.alert_id)
        if so_far.quality and alert.active:
            self._quality.setdefault((alert.type, alert.device), {})[alert.alert_id] = alert.rule
        elif not alert.active:
            self._forget_quality(alert)
        if any(standing.held for standing in so_far.standings.values()):
            self.held[alert.alert_id] = None
        else:
            self.held.pop(alert.alert_id, None)
        waits_for = awaited(so_far)
        for key in awaited(known) if known is not None else ():
            if key not in waits_for:
                _take_out(self._waiting, key, alert.alert_id)
        for key in waits_for:
            self._waiting.setdefault(key, {})[alert.alert_id] = None
        if known is None or known.alert.site != alert.site:
            if known is not None:
                _take_out(self._by_rule, _rule_of(known.alert), alert.alert_id)
            self._by_rule.setdefault(_rule_of(alert), {})[alert.alert_id] = None
        if known is None:
            self._by_identity[so_far.identity] = alert.alert_id
        self.by_id[alert.alert_id] = so_far

    def drop(self, so_far: AlertSoFar) -> None:
        alert = so_far.alert
        self._forget_quality(alert)
        del self.by_id[alert.alert_id]
        self.held.pop(alert.alert_id, None)
        _take_out(self._by_rule, _rule_of(alert), alert.alert_id)
        if self._by_identity.get(so_far.identity) == alert.alert_id:
            del self._by_identity[so_far.identity]

    def latest(self, identity: Identity) -> AlertSoFar | None:
        """Of a rule and device, unless that is gone."""
        return self.by_id.get(self._by_identity.get(identity, ""))

    def at_site(self, key: GroupKey) -> list[AlertSoFar]:
        """Of the digest's rule, at its site now."""
        return [self.by_id[alert_id] for alert_id in self._by_rule.get(_rule_of(key), ())]

    def waiting(self, key: GroupKey) -> list[AlertSoFar]:
        """To be told in that digest."""
        return [self.by_id[alert_id] for alert_id in self._waiting.get(key, ())]

    def inhibiting(self, type_name: str, device: str) -> str:
        """The rule of a firing quality alert of that device."""
        return next(iter(self._quality.get((type_name, device), {}).values()), "")

    def _forget_quality(self, alert: TellingAlert) -> None:
        if alert.alert_id in self._quality.get((alert.type, alert.device), {}):
            _take_out(self._quality, (alert.type, alert.device), alert.alert_id)


def _take_out(index: dict[Any, dict[str, Any]], key: object, alert_id: str) -> None:
    del index[key][alert_id]
    if not index[key]:
        del index[key]
