"""The contract at ingest: bytes from a device → a Reading, or a Reject with a reason code.

Each device type's contract is compiled once into a msgspec decoder that takes the device's own form of message. What
it refuses is looked at again slowly, to say why; NaN and infinities, which are not JSON but which devices send, are
taken there as null.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from fleet.catalog import Catalog
from fleet.channels import LEVEL, Address, parse_data_topic
from fleet.reading import Reading, decode_reading, to_epoch_us
from fleet.spec import MAX_VERSION, Adapter, DeviceType

MAX_PAYLOAD_BYTES = 256 * 1024
MAX_FUTURE_US = 5 * 60 * 1_000_000
EARLIEST_US = 946_684_800 * 1_000_000
"""2000-01-01: an earlier time is a clock that was never set, or seconds taken for milliseconds."""
LATEST_US = 253_402_300_800 * 1_000_000
"""The year 10000, where datetime ends."""
TYPE_NAME = re.compile(r"[a-z][a-z0-9_]{0,47}")
UNKNOWN = "unknown"

REASONS = {
    "oversized": "longer than 256 KiB",
    "not_utf8": "not UTF-8 text",
    "malformed_json": "not JSON, or not a JSON object",
    "wrong_type": "a field has the wrong JSON type",
    "missing_field": "a required field is missing",
    "unknown_metric": "a field that is no metric of the device type",
    "wrong_unit": "a SenML unit from which the metric's cannot be computed",
    "unknown_type": "the topic names a device type that no spec defines",
    "bad_topic": "the MQTT topic is not dt/<system>/<site>/<type>/<device_id>[/<metric>]",
    "bad_id": "a device id or site has characters that no topic can have",
    "bad_time": "the event time cannot be read, or lies before 2000 or beyond 9999",
    "future_time": "the event time lies more than 5 minutes ahead",
    "identity_mismatch": "the message says it is from another device, type or site than it was sent as",
    "unknown_device": "the device is not in the registry, and does not register itself: its type says so, or is full",
    "retired_device": "the registry has the device as retired",
    "malformed_row": "a line of a file that is no row of it: another number of fields, or a quote that is left open",
    "contract_error": "the contract itself failed: a defect of Weir, not of the device",
    "unreadable": "a record on a readings topic that is no canonical reading",
}


@dataclass(frozen=True, slots=True)
class Reject:
    """Why a message is no reading. `reason` is a key of REASONS, `detail` is for people."""

    reason: str
    detail: str
    system: str = UNKNOWN
    device_type: str = UNKNOWN
    version: int = 0
    field: str = ""
    """The one that is to blame, as the message has it; empty: none is."""


class NotYetKnown(Reject):
    """A canonical record of a type, or of a version of it, that this catalog does not have: another process may be
    ahead of it. Who cannot wait for a newer catalog takes it for `unreadable`, which is its reason."""


class _Refused(Exception):
    def __init__(self, reason: str, detail: str, field: str = ""):
        self.reason, self.detail, self.field = reason, detail, field


Value = float | bool | None


class Contract:
    """One device type's contract, compiled. Not thread-safe to build, safe to use."""

    def __init__(self, spec: DeviceType):
        self.spec = spec
        adapter = spec.adapter
        own_name = {metric: key for key, metric in adapter.rename.items()}
        self._keys = {metric: own_name.get(metric, metric) for metric in spec.metrics}
        """Metric → its key in the message."""
        self._boolean = {m for m, metric in spec.metrics.items() if metric.kind == "state" or metric.unit == "bool"}
        """Metrics that may be true or false; of the others that is a mistake, such as a sensor read as a switch."""
        metric_fields: list[Any] = [
            (f"m{i}", self._value_type(metric) | msgspec.UnsetType, msgspec.UNSET)
            for i, metric in enumerate(self._keys)
        ]
        metric_names = {f"m{i}": key for i, key in enumerate(self._keys.values())}
        self._slots = [(f"m{i}", metric) for i, metric in enumerate(self._keys)]
        common: list[Any] = [("id", str | int), ("time", int | float | str), ("seq", int | None, None)]
        names = {"id": adapter.device_id, "time": adapter.event_time, "seq": adapter.seq}
        self._decoders: dict[str | None, Callable[[bytes], Any]] = {}
        """By metric where a message has one, else for None."""
        if adapter.form == "flat":
            self._decoders[None] = _decoder([*common, *metric_fields], {**names, **metric_names})
        elif adapter.form == "feature":
            names["value"] = adapter.value
            for metric in self._keys:
                self._decoders[metric] = _decoder([*common, ("value", self._value_type(metric))], names)
        else:
            values = msgspec.defstruct("Values", metric_fields, rename=metric_names, forbid_unknown_fields=True)
            fields = [*common, ("values", values), ("device_type", str | None, None), ("site", str | None, None)]
            self._decoders[None] = _decoder(fields, names)

    def _value_type(self, metric: str) -> Any:
        return float | bool | None if metric in self._boolean else float | None

    def read(self, payload: bytes, address: Address, now_us: int) -> Reading | Reject:
        """A device's message as a reading. `now_us` is the ingest's clock, for times that lie in the future."""
        try:
            if self.spec.adapter.form == "feature":
                self._metric(address)
            elif address.metric is not None:
                raise _Refused("bad_topic", f"{self.spec.type} sends all metrics in one message: no level after the id")
            if len(payload) > MAX_PAYLOAD_BYTES:
                raise _Refused("oversized", f"{len(payload):,} bytes; at most {MAX_PAYLOAD_BYTES:,}")
            try:
                message: Any = self._decoders[address.metric](payload)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                return self._read_slowly(payload, address, now_us)
            return self._reading(
                message.id, message.time, message.seq, self._values(message, address), address, now_us,
                getattr(message, "device_type", None), getattr(message, "site", None),
            )  # fmt: skip
        except _Refused as refused:
            spec = self.spec
            return Reject(refused.reason, refused.detail, spec.system, spec.type, spec.version, refused.field)

    def _values(self, message: Any, address: Address) -> dict[str, Value]:
        form = self.spec.adapter.form
        if form == "feature":
            return {self._metric(address): message.value}
        source = message if form == "flat" else message.values
        return {m: v for slot, m in self._slots if (v := getattr(source, slot)) is not msgspec.UNSET}

    def _metric(self, address: Address) -> str:
        metric = address.metric
        if metric is None:
            raise _Refused("bad_topic", "the topic must end with the metric, as in dt/…/<device_id>/<metric>")
        if metric not in self._keys:
            raise _Refused("unknown_metric", f"{metric!r} is no metric of {self.spec.type}")
        return metric

    def _reading(
        self,
        device_id: str | int,
        time: int | float | str,
        seq: int | None,
        values: dict[str, Value],
        address: Address,
        now_us: int,
        device_type: str | None,
        site: str | None,
    ) -> Reading:
        device = str(device_id)
        if not LEVEL.fullmatch(device):
            said = f"device id {device[:80]!r}; letters, digits and _ . : - , at most 64"
            raise _Refused("bad_id", said, self.spec.adapter.device_id)
        if self.spec.adapter.form != "feature" and device != address.device_id:
            said = f"says device {device!r}, sent as {address.device_id!r}"
            raise _Refused("identity_mismatch", said, self.spec.adapter.device_id)
        if device_type not in (None, address.type) or site not in (None, address.site):
            field = "site" if device_type in (None, address.type) else "device_type"
            said = f"says {device_type}/{site}, sent as {address.type}/{address.site}"
            raise _Refused("identity_mismatch", said, field)
        if not values:
            field = "values" if self.spec.adapter.form == "canonical" else ""
            raise _Refused("missing_field", f"carries no metric; {self.spec.type} has {', '.join(self._keys)}", field)
        if seq is not None and not -(2**63) <= seq < 2**63:
            raise _Refused("wrong_type", f"seq {seq} does not fit 64 bits", self.spec.adapter.seq)
        return Reading(
            device,
            self.spec.type,
            address.site,
            self._event_time_us(time, now_us),
            {m: None if v is None else float(v) for m, v in values.items()},
            seq,
            self.spec.version,
        )

    def _event_time_us(self, time: int | float | str, now_us: int) -> int:
        field = self.spec.adapter.event_time
        try:
            if isinstance(time, str):
                epoch_us = to_epoch_us(datetime.fromisoformat(time))
            else:
                epoch_us = round(time * (1000 if self.spec.adapter.event_time_unit == "ms" else 1_000_000))
        except (ValueError, OverflowError) as error:
            raise _Refused("bad_time", f"{time!r:.80}: {error}", field) from None
        if epoch_us < EARLIEST_US:
            unit = self.spec.adapter.event_time_unit
            raise _Refused("bad_time", f"{time!r:.80} lies before 2000; numbers are epoch {unit} for this type", field)
        if epoch_us >= LATEST_US:
            raise _Refused("bad_time", f"{str(time)[:80]} lies beyond the year 9999", field)
        if epoch_us > now_us + MAX_FUTURE_US:
            ahead = (epoch_us - now_us) / 1e6
            raise _Refused("future_time", f"{time!r:.80} lies {ahead:,.0f} s ahead; at most 300 s", field)
        return epoch_us

    def _read_slowly(self, payload: bytes, address: Address, now_us: int) -> Reading:
        """What the compiled decoder refused: the reason for it, or the reading where only NaN or infinity was wrong."""
        data = _parse_leniently(payload)
        adapter, form = self.spec.adapter, self.spec.adapter.form
        for key in (adapter.device_id, adapter.event_time):
            if key not in data:
                raise _Refused("missing_field", f"{key!r} is missing", key)
        device_id = _typed(data.pop(adapter.device_id), (str, int), adapter.device_id, "a string or whole number")
        time = _typed(data.pop(adapter.event_time), (str, int, float), adapter.event_time, "a number or RFC 3339 text")
        seq = data.pop(adapter.seq, None)
        if seq is not None:
            _typed(seq, (int,), adapter.seq, "a whole number")
        device_type = site = None
        if form == "feature":
            if adapter.value not in data:
                raise _Refused("missing_field", f"{adapter.value!r} is missing", adapter.value)
            sources = {self._metric(address): data.pop(adapter.value)}
        elif form == "flat":
            sources = {m: data.pop(key) for m, key in self._keys.items() if key in data}
        else:
            device_type, site = (_optional_text(data.pop(key, None), key) for key in ("device_type", "site"))
            if "values" not in data:
                raise _Refused("missing_field", "'values' is missing", "values")
            carried = _typed(data.pop("values"), (dict,), "values", "an object")
            sources = {m: carried.pop(key) for m, key in self._keys.items() if key in carried}
            data = {**data, **carried}
        if data:
            known = ", ".join(self._keys.values())
            field = next(iter(data))[:80]
            raise _Refused("unknown_metric", f"{field!r} is no field of {self.spec.type} ({known})", field)
        # Of form `feature`, the value's key is the adapter's, whatever the metric.
        keys = dict.fromkeys(sources, adapter.value) if form == "feature" else self._keys
        values = {metric: _number(value, keys[metric], metric in self._boolean) for metric, value in sources.items()}
        return self._reading(device_id, time, seq, values, address, now_us, device_type, site)


def _decoder(fields: list[Any], names: dict[str, str]) -> Callable[[bytes], Any]:
    fields = sorted(fields, key=len)  # fields without a default must stand first in a struct
    return msgspec.json.Decoder(msgspec.defstruct("Message", fields, rename=names, forbid_unknown_fields=True)).decode


def _parse_leniently(payload: bytes) -> dict[str, Any]:
    try:
        data = json.loads(payload.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise _Refused("not_utf8", f"byte {error.start} is not UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise _Refused("malformed_json", str(error)[:200]) from None
    if not isinstance(data, dict):
        raise _Refused("malformed_json", f"expected an object, found {type(data).__name__}")
    return data


def _typed(value: Any, types: tuple[type, ...], key: str, wanted: str) -> Any:
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        raise _Refused("wrong_type", f"{key!r} must be {wanted}, found {shown(value)}", key)
    return value


def shown(value: Any) -> str:
    """What was read as JSON, for people."""
    try:
        return json.dumps(value)[:80]
    except RecursionError:  # more can be read than written
        return "what nests too deep"


def _optional_text(value: Any, key: str) -> str | None:
    return None if value is None else str(_typed(value, (str,), key, "text"))


def _number(value: Any, key: str, boolean: bool) -> float | None:
    """NaN and infinities are carried, and unknown."""
    if value is None:
        return None
    if boolean:
        _typed(value, (int, float, bool), key, "a number, true, false or null")
    else:
        _typed(value, (int, float), key, "a number or null")
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if -float("inf") < number < float("inf") else None


class Intake:
    """Every contract of the catalog, behind one door."""

    def __init__(self, catalog: Catalog, adapter: Adapter | None = None):
        """`adapter`: in place of each type's own."""
        self.catalog = catalog
        own = {} if adapter is None else {"adapter": adapter}
        self._contracts = {(s.system, s.type): Contract(s.model_copy(update=own)) for s in catalog}

    def read_message(self, topic: str, payload: bytes, now_us: int) -> Reading | Reject:
        """An MQTT message as a reading."""
        address = parse_data_topic(topic)
        if address is None:
            return Reject("bad_topic", f"{topic[:200]!r} is not dt/<system>/<site>/<type>/<device_id>[/<metric>]")
        return self.read_payload(address, payload, now_us)

    def read_payload(self, address: Address, payload: bytes, now_us: int) -> Reading | Reject:
        """A message of a device at a known address, whatever it came by."""
        contract = self._contracts.get((address.system, address.type))
        if contract is None:
            system = address.system if address.system in self.catalog.systems else UNKNOWN
            return Reject("unknown_type", f"no device type {address.type!r} in system {address.system!r}", system)
        return contract.read(payload, address, now_us)

    def read_record(self, kafka_topic: str, value: bytes, append_ms: int | None = None) -> Reading | Reject:
        """A record of a readings topic: canonical, `unreadable`, or NotYetKnown. With its append time (epoch ms, the
        broker's clock) also `future_time`, which any writer of the topic can cause and any reader decides alike."""
        reading = read_canonical(value)
        if isinstance(reading, Reject):
            return reading
        spec = self.catalog.types.get(reading.device_type)
        if spec is None or spec.topic != kafka_topic:
            return self._of_no_type(reading, kafka_topic, spec is None)
        if reading.version > spec.version:
            said = f"{spec.type} version {reading.version} is not known here; the newest is {spec.version}"
            return NotYetKnown("unreadable", said, spec.system, spec.type, reading.version)
        for metric in reading.values:
            if metric not in spec.metrics:
                said = f"{metric[:80]!r} is no metric of {spec.type}"
                return Reject("unreadable", said, spec.system, spec.type, reading.version)
        if append_ms is not None and is_future(reading, append_ms):
            said = f"the event time lies {reading.event_time_us / 1e6 - append_ms / 1e3:,.0f} s after the append time"
            return Reject("future_time", said, spec.system, spec.type, reading.version)
        return reading

    def _of_no_type(self, reading: Reading, kafka_topic: str, unknown: bool) -> Reject:
        system = self._system_of(kafka_topic)
        if unknown and system:
            said = f"{reading.device_type} version {reading.version} is not known here"
            return NotYetKnown("unreadable", said, system, reading.device_type, reading.version)
        return Reject("unreadable", f"no device type {reading.device_type!r} on topic {kafka_topic}")

    def _system_of(self, kafka_topic: str) -> str:
        """Whose readings the topic has; empty: nobody's."""
        return next((s.name for s in self.catalog.systems.values() if s.topic == kafka_topic), "")


def read_canonical(value: bytes) -> Reading | Reject:
    """A record in canonical form, of whatever type; else `unreadable`. The same for every reader of a log."""
    try:
        reading = decode_reading(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError, OverflowError, RecursionError) as error:
        return Reject("unreadable", str(error)[:200])
    problem = _form_problem(reading)
    return Reject("unreadable", problem) if problem else reading


def is_future(reading: Reading, append_ms: int) -> bool:
    """Whether its event time lies too far after its append time (epoch ms) to be believed."""
    return reading.event_time_us > append_ms * 1000 + MAX_FUTURE_US


def _form_problem(reading: Reading) -> str:
    """What keeps a record from being a canonical reading of any type, whatever the catalog; empty: nothing does."""
    if not TYPE_NAME.fullmatch(reading.device_type):
        return f"{reading.device_type[:80]!r} cannot be the name of a device type"
    if not reading.values:
        return "carries no metric"
    if not (LEVEL.fullmatch(reading.device_id) and LEVEL.fullmatch(reading.site)):
        return "device id or site has characters that are not allowed"
    if not EARLIEST_US <= reading.event_time_us < LATEST_US:
        return "the event time is out of range"
    if reading.seq is not None and not -(2**63) <= reading.seq < 2**63:
        return "seq does not fit 64 bits"
    if not 1 <= reading.version <= MAX_VERSION:
        return f"the spec version is not between 1 and {MAX_VERSION:,}"
    return ""
