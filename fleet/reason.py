"""Why a rule's state is what it is, in a sentence: what holds, and what it waits for. Times are UTC."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from fleet.alert_state import CLEARING, FIRING, LONG_AGO, NEVER, PENDING, Alert, Machine
from fleet.device_state import DeviceState
from fleet.ruleset import UNLIMITED, CompiledLevel, CompiledRule
from fleet.witness import Event, span

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def of_level(
    device: DeviceState, rule: CompiledRule, level: CompiledLevel, machine: Machine, truths: Sequence[bool | None],
    by_now: bool | None, quiet: bool, last: Event | None,
) -> str:  # fmt: skip
    """`truths`: of `when`, and of `clear` where it has an expression, at the last evaluation. `by_now`: of `when`,
    which time may have changed. `last`: what happened to the level before."""
    when = truths[0]
    timer = _timer(device, machine, rule.max_gap_us)
    if machine.state == PENDING:
        return f"in breach since {clock(machine.since)}; for {span(level.for_us)} ends {timer}"
    if machine.state == CLEARING:
        keep = f"clear holds since {clock(machine.clear_since)}; keep_firing_for {span(level.keep_us)}"
        if machine.lapsed:
            ended = clock(machine.clear_since + level.keep_us)
            return f"{keep}; its timer lapsed: resolves at the first reading from {ended} on where clear holds"
        return f"{keep} ends {timer}"
    if machine.state == FIRING:
        return f"in breach since {clock(machine.since)}; {_why_not_clear(level, machine, truths, by_now)}"
    if when is None and device.heard == LONG_AGO:
        return "the device was never heard"
    if quiet:
        return "resolved by hand: quiet until a known outcome finds no breach"
    if level.needed and when is not None:
        of, met = level.mask.bit_length(), machine.outcomes.bit_count()
        return f"count: {met} of the last {of} known outcomes were true, {level.needed} are needed"
    if when is None:
        return "when is unknown: neither breach nor clear"
    if not when and by_now is False:
        return "when is false"
    if not when:
        return f"when was false at the last evaluation, and is {'unknown' if by_now is None else 'true'} by now"
    if last is not None and last.what == "lapsed":
        return f"its hold ended {clock(last.at_us)}: {last.detail}; the next breach starts anew"
    return "when is true by now, but no reading has had it evaluated since that changed"


def _why_not_clear(level: CompiledLevel, machine: Machine, truths: Sequence[bool | None], by_now: bool | None) -> str:
    when, has_clear = truths[0], len(truths) > 1
    if level.needed and machine.outcomes.bit_count() >= level.needed:
        holds = "count is still met"
    elif when and not by_now:
        holds = f"when was true at the last evaluation, and is {'unknown' if by_now is None else 'false'} by now"
    elif when:
        holds = "when is true"
    elif when is None:
        holds = "when is unknown, and clear is not true" if has_clear else "when is unknown"
    else:
        holds = "neither when nor clear"
    over = "count is no longer met" if level.needed else "when is not true" if has_clear else "when is false"
    keep = f", and stays so for {span(level.keep_us)}" if level.keep_us else ""
    return f"{holds}: stays until a reading by which {over}{' and clear is' if has_clear else ''}{keep}"


def _timer(device: DeviceState, machine: Machine, max_gap_us: int) -> str:
    """When it is due, and what becomes of it."""
    if machine.due == NEVER:
        return "with the next reading"
    if max_gap_us < UNLIMITED and machine.due - machine.known_at > max_gap_us:
        return (
            f"{clock(machine.due)}, too late without another known outcome: the last was {clock(machine.known_at)},"
            f" and holds for max_gap {span(max_gap_us)}"
        )
    return clock(machine.due) + _wait(device, machine.due)


def _wait(device: DeviceState, due_us: int) -> str:
    at_us = due_us + device.lag
    if device.type.watermark >= at_us:
        return ", and is overdue: it acts with the next reading that is evaluated"
    lag = f", the device's lag of {span(device.lag)} included" if device.lag else ""
    return f"; acts when the watermark is at {clock(at_us)}{lag}"


def of_silence(device: DeviceState, rule: CompiledRule, alert: Alert | None) -> str:
    since = device.silent_since()
    if alert is not None and alert.rank >= 0:
        return f"silent since {clock(alert.since)}"
    if alert is not None:
        return f"resolved by hand; {_heard(device, since)}: quiet until the next reading"
    if since == LONG_AGO:
        return "the device was never heard, and never registered"
    due = device.silence_due(rule)
    return f"{_heard(device, since)}; due {clock(due)}{_wait(device, due)}"


def _heard(device: DeviceState, since_us: int) -> str:
    return f"last heard {clock(since_us)}" if device.heard != LONG_AGO else f"never heard, registered {clock(since_us)}"


def clock(us: int) -> str:
    """`2026-11-28 10:00:00.000`, UTC."""
    return f"{EPOCH + timedelta(microseconds=us):%Y-%m-%d %H:%M:%S.%f}"[:-3]
