"""The engine of `fleet`, fed with the oracle's documents. Its transitions come out in the oracle's words."""

from collections.abc import Iterable
from hashlib import blake2b
from typing import Any

import yaml

from fleet.control import Control, Device, Resolve, Retire, Site, Spec
from fleet.engine import Engine
from fleet.reading import Reading
from fleet.transition import Transition
from tests.oracle.oracle import EXAMPLES, NOT_METRICS, at_of, load, payload


def digest(line: dict[str, Any]) -> int:
    return int.from_bytes(blake2b(payload(line).encode(), digest_size=8).digest(), "big", signed=True)


def params_of(entry: dict[str, Any]) -> dict[str, float]:
    """As they come off the wire: numbers of a YAML case may be whole."""
    return {name: float(value) for name, value in entry.get("params", {}).items()}


class Subject:
    """One partition. Offsets are places in `input`."""

    def __init__(self, case: dict[str, Any]):
        specs = [load(spec) for spec in case["specs"]]
        self.first = specs[0].type
        self.payloads = case.get("payloads", False)
        self.engine = Engine(0, specs)
        self.zones: dict[str, str] = {}
        self.registered: dict[tuple[str, str], int] = {}
        self.transitions: list[Transition] = []
        for entry in case.get("registry", []):
            self.control(self.device(entry, 0), -1, None)

    def control(self, record: Control, offset: int, append: int | None) -> None:
        self.transitions += self.engine.control(record, offset=offset, append_us=append, detected_at_us=0)

    def device(self, entry: dict[str, Any], at: int) -> Device:
        name, site = entry.get("type", self.first), entry.get("site", "default")
        since = self.registered.setdefault((name, entry["device"]), at)
        return Device(
            revision=0, at=at, type=name, device=entry["device"], site=site, registered_at=since,
            time_zone=self.zones.get(site, "UTC"), params=params_of(entry),
        )  # fmt: skip

    def restart(self) -> None:
        self.engine = Engine.restore(self.engine.snapshot())

    def take(self, line: Any, offset: int) -> None:
        if line == "restart":
            self.restart()
            return
        append = at_of(line["append"]) if "append" in line else None
        at = at_of(line.get("at", "0s")) // 1000
        name = line.get("type", self.first)
        if "heartbeat" in line:
            append = at_of(line["heartbeat"])
            self.transitions += self.engine.heartbeat(offset=offset, append_us=append, detected_at_us=0)
        elif "watermark" in line:
            self.transitions += self.engine.advance(at_of(line["watermark"]), offset=offset, detected_at_us=0)
        elif "zone" in line:
            self.zones[line["zone"]["site"]] = line["zone"]["time_zone"]
            self.control(Site(revision=0, at=at, **line["zone"]), offset, append)
        elif "register" in line:
            self.control(self.device(line["register"], at), offset, append)
        elif "retire" in line:
            self.registered.pop((name, line["retire"]), None)
            self.control(Retire(revision=0, at=at, type=name, device=line["retire"]), offset, append)
        elif "resolve" in line:
            self.control(Resolve(revision=0, at=at, type=name, by="x", **line["resolve"]), offset, append)
        elif "spec" in line:
            text = yaml.safe_dump({"examples": EXAMPLES, **line["spec"]}, sort_keys=False)
            record = Spec(revision=0, at=at, type=line["spec"]["type"], version=line["spec"]["version"], text=text)
            self.control(record, offset, append)
        else:
            values = {k: None if v is None else float(v) for k, v in line.items() if k not in NOT_METRICS}
            site, stand_in = line.get("site", ""), digest(line) if self.payloads else None
            reading = Reading(line["device"], name, site, at_of(line["at"]), values, line.get("seq"))
            self.transitions += self.engine.reading(
                reading, offset=offset, append_us=append, detected_at_us=0, digest=stand_in
            )  # fmt: skip


def transitions_of(case: dict[str, Any], lines: Iterable[Any] | None = None) -> list[Transition]:
    subject = Subject(case)
    for place, line in enumerate(case["input"] if lines is None else lines):
        subject.take(line, place)
    assert not subject.engine.journal.errors, "an error was swallowed"
    return subject.transitions


def in_words(transitions: list[Transition]) -> list[dict[str, Any]]:
    """As the oracle says them. §5: alert_id and transition_id stand for (identity, starts_at, k) and the number within
    the alert: k and number are counted here, by the ids met so far."""
    said: list[dict[str, Any]] = []
    alerts: dict[str, tuple[Any, ...]] = {}
    numbers: dict[str, list[str]] = {}
    for t in transitions:
        if t.alert_id not in alerts:
            identity = (t.system, t.type, t.rule, t.device, t.starts_at_us)
            k = sum(other[:-1] == identity for other in alerts.values())
            alerts[t.alert_id] = (*identity, k)
        seen = numbers.setdefault(t.alert_id, [])
        assert t.transition_id not in {one for ids in numbers.values() for one in ids}, "a transition_id comes again"
        seen.append(t.transition_id)
        said.append(
            {
                "alert": alerts[t.alert_id], "number": len(seen) - 1, "rule": t.rule, "device": t.device,
                "site": t.site, "type": t.type, "system": t.system, "to": t.to, "severity": t.severity,
                "reason": t.reason, "event_time": t.event_time_us, "since": t.since_us, "starts_at": t.starts_at_us,
                "values": t.values, "spec_version": t.spec_version, "flapping": t.flapping, "source": t.offset,
            }
        )  # fmt: skip
    return said
