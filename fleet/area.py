"""Areas: how a system with many types is divided into pages. A spec's `area` says which one a type belongs to."""

from typing import Literal, NamedTuple

Area = Literal["energy", "security", "environment", "automation"]


class Page(NamedTuple):
    title: str
    description: str


PAGES: dict[Area, Page] = {
    "energy": Page("Energy", "What is used now, what was used and what it cost, and by which appliance."),
    "security": Page("Security", "Doors, detectors and alarms as they are now, who is at home, and what happened."),
    "environment": Page("Environment", "Rooms as they are now: how comfortable, how near to mould."),
    "automation": Page("Automation", "What is switched or set, and what was asked of it."),
}
"""In the order of the links between them."""


class Words(NamedTuple):
    """How people call the values of a state, and its changes."""

    on: str
    off: str
    began: str
    ended: str


WORDS = {
    "open": Words("open", "closed", "opened", "closed"),
    "motion": Words("motion", "still", "motion began", "motion ended"),
    "smoke": Words("smoke", "no smoke", "smoke", "no smoke any more"),
    "tamper": Words("tampered with", "intact", "tampered with", "tampering ended"),
    "present": Words("at home", "away", "came home", "left"),
    "on": Words("on", "off", "switched on", "switched off"),
    "heating": Words("heating", "not heating", "heating began", "heating ended"),
}
"""By the metric's name; others are called by their title."""
PRESENCE = "present"
"""The metric that says whether somebody is at home."""


def words_of(metric: str, title: str) -> Words:
    name = (title or metric.replace("_", " ")).lower()
    return WORDS.get(metric, Words(name, f"not {name}", f"{name} began", f"{name} ended"))
