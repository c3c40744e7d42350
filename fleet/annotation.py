"""An alert as an annotation in Grafana: a region from firing to resolved."""

from dataclasses import dataclass
from datetime import datetime
from html import escape

from fleet.alert_labels import values_of
from fleet.notification import TellingAlert
from fleet.summary import taken_on_by

OURS = "weir"
"""The tag of every annotation of an alert."""
TAGGED = ("system", "type", "rule", "severity", "device", "site")
LONGEST_TAG = 100
"""Characters that Grafana keeps of a tag."""


@dataclass(frozen=True)
class Annotation:
    """Times are epoch ms; `end_ms` is None while the alert is active: it is a line then, and a region afterwards."""

    begin_ms: int
    end_ms: int | None
    tags: tuple[str, ...]
    text: str


def annotation_of(alert: TellingAlert, summary: str) -> Annotation:
    """Grafana shows the text as HTML: what devices say in it is escaped."""
    begin, end = _ms(alert.starts_at), _ms(alert.resolved_at) if alert.resolved_at else None
    tags = [identity_tag(alert), OURS, *(tag(name, getattr(alert, name)) for name in TAGGED)]
    state = f"over ({alert.reason})" if end else "active"
    lines = [summary, f"{alert.title}: {state}, {values_of(alert)}"]
    taken_on = f"acknowledged by {taken_on_by(alert)}"
    if alert.acknowledged_by and taken_on not in summary:  # later texts replace the one that told it
        lines.append(taken_on)
    text = "<br>".join(escape(line) for line in lines)
    return Annotation(begin, end if end is None else max(begin, end), tuple(tags), text)


def tags_of_system(system: str) -> tuple[str, ...]:
    """Which an annotation has if, and only if, it is of one of its alerts."""
    return OURS, tag("system", system)


def tag(name: str, value: str) -> str:
    return f"{name}:{value}"[:LONGEST_TAG]


def identity_tag(alert: TellingAlert) -> str:
    """By which the annotation is found again, after a restart too."""
    return f"alert:{alert.alert_id}"


def _ms(time: datetime) -> int:
    return round(time.timestamp() * 1000)
