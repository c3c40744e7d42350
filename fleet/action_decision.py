"""From a transition of an alert to the commands of its rule's actions: which are sent, and why others are not."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from fleet.action import target_type
from fleet.catalog import Catalog
from fleet.command import command_of
from fleet.command_state import Move, rule_command_id
from fleet.duration import format_duration, rounded_duration
from fleet.errors import WeirError
from fleet.reading import to_datetime
from fleet.rule import Action
from fleet.spec import DeviceType
from fleet.transition import Transition

MOST = 10
"""Commands of one rule to one device within WITHIN. An alert that went beyond was not told to the device, and nor is
its end; the end of one that was told always is, or a lamp would stay on."""
WITHIN = timedelta(minutes=1)

DevicesAt = Callable[[str, str], Sequence[str]]
"""(type, site) → the ids of the devices there."""


class Order(NamedTuple):
    """A command of a rule. `held`: it is not to be sent, and why; the state is how it stands in the table."""

    command_id: str
    type: str
    device_id: str
    command: str
    args: Mapping[str, float]
    on: str
    expires_at: datetime
    held: Move | None = None


class Past(NamedTuple):
    """What a rule has sent a device. `recent`: commands within WITHIN; `began`: whether it was sent one by the same
    alert, None where the alert had none for it."""

    recent: int
    began: bool | None


def orders_of(t: Transition, catalog: Catalog, devices_at: DevicesAt, now: datetime) -> list[Order]:
    """The commands that a transition asks for, those that are not to be sent among them. Empty for a rule that is gone
    or has no actions for it. The cap is `capped`."""
    spec = catalog.types.get(t.type)
    rule = next((rule for rule in spec.alerts if rule.id == t.rule), None) if spec else None
    if spec is None or rule is None or t.to not in ("firing", "resolved"):
        return []
    orders = []
    for number, action in enumerate(rule.actions):
        if action.on != t.to:
            continue
        name = target_type(spec, action)
        for device in _devices(t, spec, action, devices_at):
            orders.append(_order(t, number, action, name, device, catalog, now))
    return orders


def _devices(t: Transition, spec: DeviceType, action: Action, devices_at: DevicesAt) -> Sequence[str]:
    if action.device is not None:
        return [action.device]
    if action.type is None:
        return [t.device]
    return devices_at(target_type(spec, action), t.site)


def _order(
    t: Transition, number: int, action: Action, type_name: str, device: str, catalog: Catalog, now: datetime
) -> Order:  # fmt: skip
    held = None
    expires = WITHIN
    try:
        expires = command_of(catalog.type(type_name), action.command).expires
    except WeirError as error:  # the spec was changed since, or the rule was written before
        held = Move("refused", str(error))
    age = now - to_datetime(t.event_time_us)
    if t.capped:
        held = Move("refused", "the alert is beyond its rule's cap (max_active_alerts)")
    elif age > expires:
        held = Move(
            "expired", f"stale: {rounded_duration(age)} old when it was heard of, {format_duration(expires)} at most"
        )
    return Order(
        rule_command_id(t.transition_id, number, type_name, device), type_name, device, action.command, action.args,
        action.on, now + expires, held,
    )  # fmt: skip


def capped(order: Order, past: Past) -> Order:
    """Held where the rule has sent the device too many; the end of what was sent is not."""
    if order.held is not None or (order.on == "resolved" and past.began):
        return order
    if order.on == "resolved" and past.began is False:
        return order._replace(held=Move("refused", "the device was not told of the alert's beginning"))
    if past.recent >= MOST:
        why = f"rate cap: the rule has sent the device {past.recent} commands within {format_duration(WITHIN)}"
        return order._replace(held=Move("refused", why))
    return order
