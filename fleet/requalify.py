"""What today's specs and registry make of what was once refused: a dead letter that is a reading now, a value that is
in range now.

Pure. A dead letter is judged as of when it came: that its time has come since makes no reading of one from the future.
"""

from collections import Counter
from collections.abc import Mapping
from functools import cache
from math import inf
from typing import NamedTuple

from fleet.catalog import Catalog
from fleet.channels import Address, parts_of, routes
from fleet.contract import Intake, Reject
from fleet.control import key_of
from fleet.file_row import FileForm
from fleet.reading import Reading
from fleet.senml import messages_of
from fleet.spec import Adapter, DeviceType

InService = Mapping[tuple[str, str], bool]
"""(type, device) → whether it is in service, of all that are in the registry."""


class Requalified(NamedTuple):
    """A reading, and what the bridge would have written it to, by which key."""

    reading: Reading
    topics: tuple[str, ...]
    key: bytes


class Requalifier:
    def __init__(self, catalog: Catalog, in_service: InService, sites: Mapping[tuple[str, str], str]):
        """`sites`: where devices stand by the registry; rows of files need not say."""
        self.catalog = catalog
        self._sites = sites
        self._newcomers: set[tuple[str, str]] = set()
        self.form_of = cache(lambda type_name: FileForm(catalog.type(type_name)))
        self._in_service = in_service
        self._intake = Intake(catalog)
        self._canonical = Intake(catalog, Adapter())
        self._routes = routes(catalog)
        self._serving = Counter(type_name for (type_name, _), serves in in_service.items() if serves)

    def message(self, mqtt_topic: str, payload: bytes, received_us: int) -> Requalified | Reject:
        """Of what came by MQTT."""
        try:
            found = self._intake.read_message(mqtt_topic, payload, received_us)
        except Exception as error:  # a defect of ours must not stop the letters behind this one
            return Reject("contract_error", f"{type(error).__name__}: {error}"[:500])
        if isinstance(found, Reject):
            return found
        route = next((route for route in self._routes if route.takes(mqtt_topic)), None)
        if route is None:
            return Reject("bad_topic", f"no route takes {mqtt_topic[:200]!r}")
        topics = (route.readings_topic, route.copy_topic) if route.copy_topic else (route.readings_topic,)
        return self._admitted(found) or self._keyed(found, topics)

    def record(self, kafka_topic: str, value: bytes, append_ms: int) -> Requalified | Reject:
        """Of a record of a readings topic that could not be read."""
        found = self._intake.read_record(kafka_topic, value, append_ms)
        return found if isinstance(found, Reject) else self._keyed(found, (kafka_topic,))

    def row(self, type_name: str, row: Mapping[str, object], now_us: int) -> list[Requalified] | Reject:
        """Of a row of a file: one reading, or one for each metric where the type's messages carry one each."""
        spec = self.catalog.type(type_name)
        try:
            found = self.form_of(type_name).read(row, now_us, self._sites)
        except Exception as error:  # as above
            return Reject("contract_error", f"{type(error).__name__}: {error}"[:500], spec.system, spec.type)
        if isinstance(found, Reject):
            return found
        return self._admitted(found) or [self._keyed(*part) for part in parts_of(spec, found)]

    def request(self, address: Address, payload: bytes, is_senml: bool, received_us: int) -> list[Requalified] | Reject:
        """Of what came to the gateway: one reading or several."""
        if (spec := self.catalog.types.get(address.type)) is None:
            return Reject("unknown_type", f"no device type {address.type!r}", address.system)
        try:
            messages = messages_of(payload, spec, address.device_id, received_us) if is_senml else [payload]
            if isinstance(messages, Reject):
                return messages
            read = [self._canonical.read_payload(address, message, received_us) for message in messages]
        except Exception as error:  # as above
            return Reject("contract_error", f"{type(error).__name__}: {error}"[:500], address.system, address.type)
        parts: list[Requalified] = []
        for found in read:
            if isinstance(found, Reject):
                return found
            if (refused := self._admitted(found)) is not None:
                return refused
            parts += [self._keyed(*part) for part in parts_of(spec, found)]
        return parts

    def _keyed(self, reading: Reading, topics: tuple[str, ...]) -> Requalified:
        key = key_of(self.catalog.type(reading.device_type), reading.device_id, reading.site)
        return Requalified(reading, topics, key.encode())

    def _admitted(self, reading: Reading) -> Reject | None:
        """None: let it in. One that nobody knows registers itself with what it says next, not with this."""
        spec = self.catalog.type(reading.device_type)
        key = spec.type, reading.device_id
        in_service = self._in_service.get(key)
        if in_service or key in self._newcomers:
            return None
        if in_service is None and spec.self_registration and self._serving[spec.type] < spec.max_devices:
            self._newcomers.add(key)
            self._serving[spec.type] += 1
            return None
        reason, why = ("retired_device", "is retired") if in_service is False else ("unknown_device", "is not")
        return Reject(reason, f"{spec.type} {reading.device_id} {why} in the registry", spec.system, spec.type)


def accepted(spec: DeviceType) -> dict[str, tuple[float, float]]:
    """Metric → the lowest and highest value that is not quarantined."""
    return {
        name: (-inf, inf) if m.range is None or m.outside == "warn" else (m.range.low, m.range.high)
        for name, m in spec.metrics.items()
    }
