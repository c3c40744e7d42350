"""Who may speak: what the bridge remembers of the registry. One look-up a message, no I/O; see streaming.registrar.

Workers ask from their threads, the registrar changes it from its own: each step of either is one operation on a dict.
"""

import threading
from collections.abc import Iterable, Mapping

from fleet.catalog import Catalog
from fleet.contract import Reject
from fleet.reading import Reading
from fleet.registry import Entry

MAX_NEWCOMERS = 100_000
"""Devices that wait to be registered. Beyond it their readings go on, and the next of each asks again."""


class Admission:
    def __init__(self, catalog: Catalog):
        self._specs = catalog.types
        self._known: dict[str, dict[str, bool]] = {name: {} for name in catalog.types}
        """Type → device → whether it is in service; False: retired."""
        self._newcomers: dict[tuple[str, str], str] = {}
        self.revision = 0
        """Of the registry, as far as it is known here."""
        self.is_known = threading.Event()
        """Set once the registry has been read."""

    def check(self, reading: Reading) -> Reject | None:
        """None: let it in."""
        name, device_id = reading.device_type, reading.device_id
        known = self._known[name]
        in_service = known.get(device_id)
        if in_service:
            return None
        spec = self._specs[name]
        if not spec.self_registration:
            reason, said = ("unknown_device", "not in") if in_service is None else ("retired_device", "retired in")
            return Reject(reason, f"{name} {device_id} is {said} the registry", spec.system, name, spec.version)
        if len(self._newcomers) < MAX_NEWCOMERS:
            self._newcomers.setdefault((name, device_id), reading.site)
            known[device_id] = True
        return None

    def expect(self, type_name: str, devices: Mapping[str, str]) -> None:
        """Devices (id → site) that are to be in the registry, unless somebody has retired them there."""
        known = self._known[type_name]
        for device, site in devices.items():
            if device not in known:
                self._newcomers.setdefault((type_name, device), site)
                known[device] = True

    def may_judge(self, type_name: str) -> bool:
        """Whether readings of the type can be told apart: those of a type whose devices do not register themselves
        not before the registry has been read."""
        return self._specs[type_name].self_registration or self.is_known.is_set()

    def learn(self, entries: Iterable[Entry], revision: int) -> None:
        """What has changed in the registry up to a revision."""
        for entry in entries:
            if entry.type in self._known:
                self._known[entry.type][entry.device_id] = entry.retired_at is None
        self.revision = revision
        self.is_known.set()

    def newcomers(self) -> dict[tuple[str, str], str]:
        """(type, device) → site of the first reading, of those that are to be registered."""
        return dict(self._newcomers)

    def registered(self, keys: Iterable[tuple[str, str]]) -> None:
        for key in keys:
            self._newcomers.pop(key, None)
