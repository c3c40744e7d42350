"""A type's good and bad example payloads, run through its own contract."""

import json

from fleet.channels import Address
from fleet.contract import EARLIEST_US, REASONS, Contract, Reject
from fleet.spec import BadExample, DeviceType, GoodExample

NOW_US = EARLIEST_US + 40 * 365 * 86_400 * 1_000_000
"""Far enough ahead that no example's time lies in the future by accident."""
SITE = "site-1"


def failures(spec: DeviceType) -> list[str]:
    """What its examples say and its contract does not do; empty when they agree."""
    contract = Contract(spec)
    found = []
    for place, good in enumerate(spec.examples.good):
        result = _read(contract, good)
        where = f"{spec.type}: examples.good.{place}"
        if isinstance(result, Reject):
            found.append(f"{where}: rejected as {result.reason}: {result.detail}")
        elif result.values != good.values:
            found.append(f"{where}: read as {result.values}, expected {good.values}")
    for place, bad in enumerate(spec.examples.bad):
        result = _read(contract, bad)
        where = f"{spec.type}: examples.bad.{place}"
        if bad.reason not in REASONS:
            found.append(f"{where}: {bad.reason!r} is no reason code; they are {', '.join(REASONS)}")
        elif not isinstance(result, Reject):
            found.append(f"{where}: read as {result.values}, expected to be rejected as {bad.reason}")
        elif result.reason != bad.reason:
            found.append(f"{where}: rejected as {result.reason} ({result.detail}), expected {bad.reason}")
    return found


def _read(contract: Contract, example: GoodExample | BadExample):  # type: ignore[no-untyped-def]
    spec, payload = contract.spec, example.payload
    key = spec.adapter.device_id
    device = str(payload[key]) if isinstance(payload, dict) and key in payload else "device-1"
    text = payload if isinstance(payload, str) else json.dumps(payload)
    return contract.read(text.encode(), Address(spec.system, SITE, spec.type, device, example.metric), NOW_US)
