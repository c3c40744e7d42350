"""SenML packs (RFC 8428, JSON) as canonical messages, one for each time in the pack. Pure.

A record's name is a metric, or `<device>/<metric>`, with whatever stands before the device in a URN
(`urn:dev:…:<device>/<metric>`). Its unit must be one from which the metric's can be computed; without one it is taken
to be the metric's own, as in our JSON.
"""

import json
from typing import Any

from fleet.contract import Reject, shown
from fleet.nearest import nearest
from fleet.spec import DeviceType

MEDIA_TYPE = "application/senml+json"
COAP_FORMAT = 110
MAX_RECORDS = 5_000
MAX_VERSION = 10
RELATIVE_BELOW = 2**28
"""Seconds: a smaller time is relative to now (RFC 8428, 4.5.3)."""

UNITS: dict[str, dict[str, tuple[float, float]]] = {
    "degC": {"Cel": (1, 0), "K": (1, -273.15)},
    "percent": {"%": (1, 0), "%RH": (1, 0), "%EL": (1, 0), "/": (100, 0)},
    "ppm": {"ppm": (1, 0), "/": (1e6, 0)},
    "ppm_per_sample": {},
    "lux": {"lx": (1, 0)},
    "volt": {"V": (1, 0), "mV": (1e-3, 0)},
    "watt": {"W": (1, 0), "kW": (1000, 0)},
    "watt_hour": {"Wh": (1, 0), "kWh": (1000, 0), "J": (1 / 3600, 0)},
    "kilowatt_hour": {"kWh": (1, 0), "Wh": (1e-3, 0), "J": (1 / 3.6e6, 0)},
    "millimetre": {"mm": (1, 0), "m": (1000, 0)},
    "metre_per_second": {"m/s": (1, 0), "km/h": (1 / 3.6, 0)},
    "newton": {"N": (1, 0)},
    "hectopascal": {"hPa": (1, 0), "Pa": (0.01, 0)},
    "second": {"s": (1, 0), "ms": (1e-3, 0), "min": (60, 0), "h": (3600, 0)},
    "uv_index": {},
    "per_second": {"1/s": (1, 0), "Hz": (1, 0), "1/min": (1 / 60, 0)},
    "count": {"count": (1, 0)},
    "bool": {"/": (1, 0)},
}
"""Unit of a metric (fleet.units) → SenML unit (the registry of RFC 8428, and the secondary units of RFC 8798) → factor
and offset to the metric's."""

_TEXT, _NUMBER = (str,), (int, float)
_FIELDS: dict[str, tuple[type, ...]] = {
    "bn": _TEXT, "bt": _NUMBER, "bu": _TEXT, "bv": _NUMBER, "bs": _NUMBER, "bver": (int,),
    "n": _TEXT, "u": _TEXT, "v": _NUMBER, "vs": _TEXT, "vb": (bool,), "vd": _TEXT, "s": _NUMBER, "t": _NUMBER,
    "ut": _NUMBER,
}  # fmt: skip


class _Refused(Exception):
    """Reason, detail and field."""


def messages_of(pack: bytes, spec: DeviceType, device_id: str, now_us: int) -> list[bytes] | Reject:
    """Canonical messages of the device, in order of their first record. What is wrong with one record is wrong with the
    pack: a base value in it may have been meant for those behind it."""
    try:
        return [json.dumps(message).encode() for message in _messages(_records(pack), spec, device_id, now_us)]
    except _Refused as refused:
        reason, detail, field = refused.args
        return Reject(reason, detail, spec.system, spec.type, spec.version, field)


def _records(pack: bytes) -> list[dict[str, Any]]:
    try:
        records = json.loads(pack.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise _Refused("not_utf8", f"byte {error.start} is not UTF-8", "") from None
    except (ValueError, RecursionError) as error:
        raise _Refused("malformed_json", str(error)[:200], "") from None
    if not isinstance(records, list) or not records or not all(isinstance(one, dict) for one in records):
        raise _Refused("malformed_json", "a SenML pack is a list of one or more objects", "")
    if len(records) > MAX_RECORDS:
        raise _Refused("oversized", f"{len(records):,} records in a pack; at most {MAX_RECORDS:,}", "")
    return records


def _messages(records: list[dict[str, Any]], spec: DeviceType, device_id: str, now_us: int) -> list[dict[str, Any]]:
    found: dict[int, dict[str, Any]] = {}
    base: dict[str, Any] = {}
    for place, record in enumerate(records):
        _check_fields(place, record)
        base |= {key: value for key, value in record.items() if key in ("bn", "bt", "bu", "bv")}
        if not record.keys() & {"n", "v", "vs", "vb", "vd", "s", "bs"}:
            continue  # base values alone
        metric = _metric(place, str(base.get("bn", "")) + record.get("n", ""), spec, device_id)
        values = found.setdefault(_time_us(place, _sum(base, "bt", record, "t"), now_us), {})
        if metric in values:
            raise _Refused("wrong_type", f"record {place}: a second value of {metric!r} at one time", f"[{place}].n")
        values[metric] = _value(place, record, base, spec, metric)
    if not found:
        raise _Refused("missing_field", "the pack has base values alone", "")
    return [
        {"device_id": device_id, "event_time": epoch_us / 1000, "values": values} for epoch_us, values in found.items()
    ]


def _check_fields(place: int, record: dict[str, Any]) -> None:
    for key, value in record.items():
        wanted = _FIELDS.get(key)
        if wanted is None:
            if key.endswith("_"):  # "must be understood": RFC 8428, 4.4
                raise _Refused("unknown_metric", f"record {place}: {key[:80]!r} is not understood", f"[{place}].{key}")
            continue
        if not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted):
            said = f"record {place}: {key!r} must be {' or '.join(t.__name__ for t in wanted)}"
            raise _Refused("wrong_type", f"{said}, found {shown(value)}", f"[{place}].{key}")
    if record.get("bver", MAX_VERSION) > MAX_VERSION:
        raise _Refused("wrong_type", f"record {place}: bver above {MAX_VERSION} is not understood", f"[{place}].bver")


def _metric(place: int, name: str, spec: DeviceType, device_id: str) -> str:
    sender, slash, metric = name.rpartition("/")
    if slash and sender != device_id and not (sender.startswith("urn:") and sender.endswith(f":{device_id}")):
        said = f"record {place}: {name[:120]!r} is of {sender[:80]!r}, the token is of {device_id!r}"
        raise _Refused("identity_mismatch", said, f"[{place}].n")
    if metric not in spec.metrics:
        known = f"; it has {', '.join(spec.metrics)}"
        said = f"record {place}: {metric[:80]!r} is no metric of {spec.type}{nearest(metric, spec.metrics)}{known}"
        raise _Refused("unknown_metric", said, f"[{place}].n")
    return metric


def _time_us(place: int, seconds: float, now_us: int) -> int:
    try:
        return round(seconds * 1_000_000) + (now_us if seconds < RELATIVE_BELOW else 0)
    except (ValueError, OverflowError) as error:
        raise _Refused("bad_time", f"record {place}: {seconds!r}: {error}", f"[{place}].t") from None


def _value(place: int, record: dict[str, Any], base: dict[str, Any], spec: DeviceType, metric: str) -> Any:
    if "vb" in record:
        return record["vb"]
    if "v" not in record and "bv" not in base:
        said = f"record {place}: neither 'v' nor 'vb'; sums, texts and data are no values here"
        raise _Refused("missing_field", said, f"[{place}].v")
    value = _sum(base, "bv", record, "v")
    unit = record.get("u", base.get("bu"))
    if unit is None:
        return value
    of_metric = spec.metrics[metric].unit
    if unit not in UNITS[of_metric]:
        known = ", ".join(UNITS[of_metric]) or "none: leave 'u' out"
        said = (
            f"record {place}: {metric} is in {of_metric}, which cannot be computed from {unit[:40]!r}; known: {known}"
        )
        raise _Refused("wrong_unit", said, f"[{place}].u")
    factor, offset = UNITS[of_metric][unit]
    return value if (factor, offset) == (1, 0) else value * factor + offset


def _sum(base: dict[str, Any], base_key: str, record: dict[str, Any], key: str) -> float:
    """Infinite where a number is too large to be one, which the contract takes for unknown."""
    try:
        return float(base.get(base_key, 0)) + float(record.get(key, 0))
    except OverflowError:
        return float("inf")
