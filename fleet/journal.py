"""The transitions that a record causes, as they are told."""

from collections import Counter
from typing import Any

from fleet.alert_state import LONG_AGO, Alert
from fleet.device_state import DeviceState
from fleet.evaluation import Value
from fleet.ruleset import SEVERITIES, CompiledRule
from fleet.template import render
from fleet.transition import Transition, alert_id

NOTHING: tuple[Transition, ...] = ()


class Journal:
    def __init__(self, partition: int):
        self.partition = partition
        self.offset = -1
        """Of the last record taken."""
        self.detected_at_us = 0
        self.errors: Counter[tuple[str, str]] = Counter()
        """(type, rule) → what raised inside it, and was taken as unknown."""
        self.told: list[Transition] = []

    def begin(self, offset: int, detected_at_us: int) -> None:
        """A new record: what is told from here on has it as its source."""
        self.offset = offset
        self.detected_at_us = detected_at_us
        if self.told:
            self.told = []

    def ask(self, device: DeviceState, rule: CompiledRule, function: Value, time_us: int) -> Any:
        """The value of a compiled expression; what raises is unknown, and counted."""
        try:
            return function(device.values, device.times, time_us - device.type.rules.stale_us, time_us, device)
        except Exception:
            self.errors[device.type.name, rule.id] += 1
            return None

    def open(
        self, device: DeviceState, rule: CompiledRule, alert: Alert, since_us: int, starts_at_us: int, now_us: int
    ) -> None:
        """An alert begins."""
        start, k, top = (device.marks or {}).get(rule.id, (LONG_AGO, -1, -1))
        # Only a device that was retired, and came back with its old readings, starts an alert before an earlier one.
        k = k + 1 if starts_at_us == start else 0 if starts_at_us > start else top + 1
        device.marks = {**(device.marks or {}), rule.id: (max(start, starts_at_us), k, max(top, k))}
        spec = device.type.rules.spec
        alert.alert_id = alert_id(spec.system, spec.type, rule.id, device.id, starts_at_us, k)
        alert.since, alert.starts_at, alert.number, alert.shown_rank = since_us, starts_at_us, 0, alert.rank
        alert.capped = device.type.active.get(rule.id, 0) >= spec.max_active_alerts
        device.type.count(rule, alert, 1)
        self.tell(device, rule, alert, "firing", starts_at_us, now_us)

    def tell(
        self,
        device: DeviceState,
        rule: CompiledRule,
        alert: Alert,
        to: str,
        event_us: int,
        now_us: int,
        reason: str | None = None,
        version: int | None = None,
    ) -> None:
        """`now_us`: when values are looked at; the event's time, but where a new spec has shortened a wait. `version`:
        of the spec, where that is not the one in force."""
        alert.number += 1
        if to == "resolved":
            device.type.count(rule, alert, -1)
        spec = device.type.rules.spec
        title, annotations, labels = self._texts(device, rule, now_us)
        self.told.append(
            Transition(
                transition_id=f"{alert.alert_id}-{alert.number}",
                alert_id=alert.alert_id,
                rule=rule.id,
                device=device.id,
                site=device.site.name,
                type=spec.type,
                system=spec.system,
                to=to,
                severity=rule.severity or SEVERITIES[alert.shown_rank],
                reason=reason,
                event_time_us=event_us,
                detected_at_us=self.detected_at_us,
                since_us=alert.since,
                starts_at_us=alert.starts_at,
                values={name: device.fresh(place, now_us) for name, place in rule.metrics},
                spec_version=version or spec.version,
                flapping=alert.flapping,
                capped=alert.capped,
                partition=self.partition,
                offset=self.offset,
                title=title,
                annotations=annotations,
                labels=labels,
            )
        )

    def _texts(
        self, device: DeviceState, rule: CompiledRule, now_us: int
    ) -> tuple[str, dict[str, str], dict[str, str]]:
        if not rule.has_templates:
            return rule.title, rule.spec.annotations, rule.spec.labels
        metrics = device.type.rules.places.metrics
        scope: dict[str, str | float | None] = {name: device.fresh(place, now_us) for name, place in metrics.items()}
        value = None if rule.value is None else self.ask(device, rule, rule.value, now_us)
        scope |= {"device": device.id, "site": device.site.name, "value": value}
        return (
            render(rule.title, scope),
            {key: render(text, scope) for key, text in rule.spec.annotations.items()},
            {key: render(text, scope) for key, text in rule.spec.labels.items()},
        )
