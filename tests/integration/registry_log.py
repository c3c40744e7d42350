"""What the tests of the registry share: device types of their own, and what stands in the log of them."""

import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from connections.mqtt_publisher import BulkPublisher
from connections.registry import Registry
from fleet.channels import CONTROL, REJECTED, mark_of
from fleet.control import Control, decode_control
from fleet.dead_letter import decode_dead_letter
from fleet.reading import Reading, decode_reading
from fleet.settings import Settings
from stack.stack import Stack
from tests.integration.logs import records
from tests.integration.processes import Process, wait_for

SPEC = """\
type: {type}
version: 1
system: {system}
cadence: 10s
partition_by: {by}
self_registration: {open}
metrics:
  temperature: {{unit: degC}}
examples:
  good:
    - {{payload: {{device_id: d1, event_time: 1732985789000, values: {{temperature: 1}}}}, values: {{temperature: 1}}}}
  bad: [{{payload: 1, reason: malformed_json}}]
alerts:
  - {{id: hot, when: temperature > limit, params: {{limit: 35}}}}
"""
TYPES = {
    name: SPEC.format(type=name, system=system, by=by, open=is_open)
    for name, system, by, is_open in (
        ("badge", "access", "device", "false"),
        ("beacon", "access", "device", "true"),
        ("rack", "racks", "site", "false"),
    )
}
"""A badge wants the registry and a beacon does not; racks go into partitions by site."""
TOPICS = ("readings.access", "readings.racks")
"""Of their own: consumers of other tests would wait at types that they do not know."""


def say(publisher: BulkPublisher, device: str, seq: int, type_name: str = "badge", site: str = "hall") -> None:
    system = "racks" if type_name == "rack" else "access"
    message = {"device_id": device, "event_time": int(time.time() * 1000), "seq": seq, "values": {"temperature": 20.5}}
    publisher.publish(f"dt/{system}/{site}/{type_name}/{device}", json.dumps(message).encode())
    publisher.flush()


@contextmanager
def away(stack: Stack, server: str) -> Iterator[None]:
    stack.supervisor.stop_program(server)
    try:
        yield
    finally:
        stack.restart(server)


def controls(settings: Settings, *topics: str) -> list[tuple[int, Control]]:
    """(partition, control record), as they stand in each partition."""
    return [
        (r.partition, decode_control(r.value))
        for r in records(settings, *(topics or TOPICS))
        if mark_of(r.headers) == CONTROL
    ]


def about(settings: Settings, *names: str) -> list[tuple[int, Control]]:
    """(partition, record), again where it was told again."""
    return [
        (partition, record)
        for partition, record in controls(settings)
        if {getattr(record, "device", None), getattr(record, "site", None)} & set(names)
    ]


def each_once(told: list[tuple[int, Control]]) -> list[tuple[int, Control]]:
    """What Kafka was slow to confirm is told again."""
    return list({(partition, record.revision): (partition, record) for partition, record in told}.values())


def heard(settings: Settings, device: str) -> list[tuple[int, Reading]]:
    """(partition, reading) of a device, in the log's order."""
    found = [(r.partition, decode_reading(r.value)) for r in records(settings, *TOPICS) if mark_of(r.headers) is None]
    return [(partition, reading) for partition, reading in found if reading.device_id == device]


def refused(settings: Settings, device: str) -> Counter[str]:
    letters = [decode_dead_letter(r.value) for r in records(settings, REJECTED) if mark_of(r.headers) is None]
    return Counter(x.reason for x in letters if (x.mqtt_topic or "").endswith(f"/{device}"))


def waiting(registry: Registry) -> list[int]:
    rows = registry.warehouse.rows("SELECT revision FROM control_records WHERE published_at IS NULL ORDER BY revision")
    return [row["revision"] for row in rows]


def until_known(bridge: Process, told: list[tuple[int, Control]]) -> None:
    """Until the bridge knows of these changes."""
    revision = max(record.revision for _, record in told)
    wait_for(lambda: bridge.metric("weir_bridge_registry_revision") >= revision, 20, bridge.log.read_text)
