"""Who may speak: what the bridge remembers of the registry. One look-up a message, no I/O; see streaming.registrar.

Workers ask from their threads, the registrar changes it from its own: each step of either is one operation on a dict.
"""

import threading
from collections.abc import Iterable, Mapping

from fleet.catalog import Catalog
from fleet.contract import Reject
from fleet.reading import Reading
from fleet.registry import Entry


class Admission:
    def __init__(self, catalog: Catalog):
        self._specs = catalog.types
        self._known: dict[str, dict[str, bool]] = {name: {} for name in catalog.types}
        """Type → device → whether it is in service; False: retired."""
        self._retired = dict.fromkeys(catalog.types, 0)
        """How many of those known are."""
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
        if in_service is not None:
            reason, why = "retired_device", "is retired in the registry"
        elif not spec.self_registration:
            reason, why = "unknown_device", "is not in the registry"
        elif len(known) - self._retired[name] >= spec.max_devices:
            reason, why = "unknown_device", f"registers itself no more: there are max_devices ({spec.max_devices:,})"
        else:
            self._newcomers.setdefault((name, device_id), reading.site)
            known[device_id] = True
            return None
        return Reject(reason, f"{name} {device_id} {why}", spec.system, name, spec.version)

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

    def learn(self, entries: Iterable[Entry], revision: int) -> list[tuple[str, str]]:
        """What has changed in the registry up to a revision. Returns the retired that were let in till now."""
        ended = []
        for entry in entries:
            if (known := self._known.get(entry.type)) is None:
                continue
            before, in_service = known.get(entry.device_id), entry.retired_at is None
            known[entry.device_id] = in_service
            self._retired[entry.type] += (not in_service) - (before is False)
            if before and not in_service:
                ended.append(entry.key)
        self.revision = revision
        self.is_known.set()
        return ended

    def newcomers(self) -> dict[tuple[str, str], str]:
        """(type, device) → site of the first reading, of those that are to be registered."""
        return dict(self._newcomers)

    def registered(self, keys: Iterable[tuple[str, str]]) -> None:
        for key in keys:
            self._newcomers.pop(key, None)
