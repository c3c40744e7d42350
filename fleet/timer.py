"""When timers act: `for`, `keep_firing_for` and `no_data`, by the watermark of their type.

A type's heap holds devices, not timers: an entry says at which watermark a device is to be looked at, never later than
its first timer acts. Timers that move on with every reading (no_data) cost nothing until the watermark passes the time
they first had; entries that are no longer the device's earliest are passed over.
"""

from collections.abc import Iterable
from heapq import heapify, heappop, heappush

from fleet.alert_state import NEVER
from fleet.device_state import DeviceState, TypeState

Due = tuple[int, str, str, int]
"""Due time, device, type, place of the rule: the order in which timers act."""


def arm(device: DeviceState) -> None:
    """After a timer was set earlier, or the lag became less."""
    look_at = device.next_due + device.lag
    if look_at < device.armed and device.next_due != NEVER:
        device.armed = look_at
        heap, devices = device.type.heap, device.type.devices
        if len(heap) > 4 * len(devices) + 1000:  # a backlog lowers the lag, and so the entry, with each reading
            heap[:] = [(d.armed, d.id) for d in devices.values() if d.armed != NEVER]
            heapify(heap)
        heappush(heap, (look_at, device.id))


def rearm(device: DeviceState) -> None:
    """After its timers acted or were set anew."""
    device.next_due = min((due for due, _ in device.timers()), default=NEVER)
    arm(device)


def reached(types: Iterable[TypeState]) -> tuple[list[tuple[Due, DeviceState]], list[DeviceState]]:
    """Timers that their watermark has reached, in the order in which they act, and the devices to rearm after."""
    acting: dict[Due, DeviceState] = {}
    looked_at: list[DeviceState] = []
    for type_ in types:
        heap, watermark = type_.heap, type_.watermark
        while heap and heap[0][0] <= watermark:
            look_at, device_id = heappop(heap)
            device = type_.devices.get(device_id)
            if device is None or device.armed != look_at:
                continue
            device.armed = NEVER
            looked_at.append(device)
            for due, place in device.timers():
                if due + device.lag <= watermark:
                    acting[due, device_id, type_.name, place] = device
    return sorted(acting.items(), key=lambda item: item[0]), looked_at


def due_by(device: DeviceState, time_us: int) -> list[tuple[int, int]]:
    """A device's own timers due at or before a time, in order: due time, place of the rule."""
    return sorted({timer for timer in device.timers() if timer[0] <= time_us})
