"""From a reading to the message that its device would send: the contract's inverse, derived from the spec alone."""

from collections.abc import Iterator
from typing import Any

import msgspec

from fleet.channels import Address, data_topic
from fleet.reading import Reading
from fleet.spec import DeviceType

_encode = msgspec.json.Encoder().encode


class Wire:
    """One device type's own form of message."""

    def __init__(self, spec: DeviceType):
        self.spec = spec
        own_name = {metric: key for key, metric in spec.adapter.rename.items()}
        self._keys = {metric: own_name.get(metric, metric) for metric in spec.metrics}
        simulation = spec.simulation
        self._gateway = simulation.gateway if simulation else "edge"
        self._numbers = simulation is not None and simulation.device_prefix == ""
        self._microseconds = 1_000 if spec.adapter.event_time_unit == "ms" else 1_000_000

    def split(self, reading: Reading) -> Iterator[Reading]:
        """The readings that become one message each: one a metric in the form `feature`, else the reading itself."""
        if self.spec.adapter.form != "feature" or len(reading.values) == 1:
            yield reading
            return
        for metric, value in reading.values.items():
            yield msgspec.structs.replace(reading, values={metric: value})

    def topic(self, reading: Reading) -> str:
        """The MQTT topic of a reading that came from `split`."""
        if self.spec.adapter.form == "feature":
            (metric,) = reading.values
            return data_topic(Address(self.spec.system, reading.site, self.spec.type, self._gateway, metric))
        return data_topic(Address(self.spec.system, reading.site, self.spec.type, reading.device_id))

    def fields(self, reading: Reading) -> dict[str, Any]:
        """The message as a JSON object."""
        adapter = self.spec.adapter
        values = {self._keys[metric]: _plain(value) for metric, value in reading.values.items()}
        message: dict[str, Any] = {adapter.device_id: self._id(reading.device_id)}
        if adapter.form == "flat":
            message.update(values)
        elif adapter.form == "feature":
            (message[adapter.value],) = values.values()
        else:
            message["values"] = values
        whole, rest = divmod(reading.event_time_us, self._microseconds)
        message[adapter.event_time] = whole if rest == 0 else reading.event_time_us / self._microseconds
        if reading.seq is not None:
            message[adapter.seq] = reading.seq
        return message

    def payload(self, reading: Reading) -> bytes:
        return _encode(self.fields(reading))

    def _id(self, device_id: str) -> str | int:
        # "007" as a number would come back as another device.
        return int(device_id) if self._numbers and device_id.isdecimal() and device_id[0] != "0" else device_id


def _plain(value: float | None) -> float | int | None:
    """Whole numbers as devices write them: 390, not 390.0."""
    return int(value) if value is not None and value.is_integer() and abs(value) < 2**53 else value
