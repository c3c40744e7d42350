"""What a report says in words: sentences made of figures, the gravest first. Where there is no data it says so."""

from collections.abc import Iterator, Sized
from datetime import timedelta
from itertools import islice

from fleet.duration import rounded_duration
from fleet.energy import IMPLAUSIBLE
from fleet.report import PAST, SILENT, Figures, Latency
from fleet.standing import rank

NAMED = 3
"""So many of a list are called by name."""
ENOUGH = 0.95
"""A type of whose readings a smaller share came is told."""


def findings(of: Figures) -> list[str]:
    """Of what was measured."""
    return [*_alerts(of), *_devices(of), *_safety(of), *_energy(of), *_odd(of), *_commands(of)]


def performance(of: Figures) -> list[str]:
    """Of Weir itself, at this system."""
    return [*_loss(of), *_latency(of), *_validation(of), *_parity(of)]


def headline(of: Figures) -> str:
    """One line of a system, for the page of all."""
    if not of.readings:
        return f"{of.system}: no readings are loaded of this span."
    grave = sum(kind.fired for kind in of.alerts if kind.severity == "critical")
    return (
        f"{of.system}: {many(of.readings, 'reading')} of {many(of.devices, 'device')}, {many(of.fired, 'alert')}"
        f" ({grave:,} critical); {_balance(of)}."
    )


def _alerts(of: Figures) -> Iterator[str]:
    if not of.alerts:
        yield "No alert fired."
        return
    grave = sorted(of.alerts, key=lambda kind: (-rank(kind.severity), -kind.fired, kind.type, kind.rule))
    named = ", ".join(f"{kind.fired:,} {words(kind.rule)} ({kind.severity})" for kind in grave[:NAMED])
    others = sum(kind.fired for kind in grave[NAMED:])
    yield f"{many(of.fired, 'alert')} fired: {named}{f', {others:,} of other kinds' if others else ''}."
    still = [kind for kind in grave if kind.open]
    if still:
        what = ", ".join(f"{kind.open:,} {words(kind.rule)}" for kind in still[:NAMED])
        yield f"{many(sum(kind.open for kind in still), 'alert')} had not resolved at the end: {what}."
    longest = max(
        (k for k in of.alerts if k.median_seconds is not None), key=lambda k: k.median_seconds or 0, default=None
    )
    if longest is not None and longest.median_seconds is not None:
        lasted = rounded_duration(timedelta(seconds=longest.median_seconds))
        yield f"Alerts of {words(longest.rule)} lasted longest, half of them more than {lasted}."
    if of.worst and of.worst[0].alerts > 1:
        some = "; ".join(
            f"{one.device.device_id} at {one.device.site} ({one.alerts:,}: {', '.join(map(words, one.rules))})"
            for one in of.worst[:NAMED]
        )
        yield f"Most alerts came from {some}."


def _devices(of: Figures) -> Iterator[str]:
    if not of.devices:
        yield "No device is registered."
        return
    if not of.readings:
        yield f"Nothing is loaded of {many(of.devices, 'device')}: no readings came, or the batch job did not run."
        return
    came = {one.type: one.heard / one.expected for one in of.coverage if one.expected}
    few = sorted((share, name) for name, share in came.items() if share < ENOUGH)
    if few:
        named = ", ".join(f"{words(name)} {percent(share, 1)}" for share, name in few[:NAMED])
        yield f"Of the readings that devices send by their cadence fewer came: {named}{and_more(few)}."
    if of.silent:
        last = [(one, f"last at {at:%d %b %H:%M}" if at else "not at all") for one, at in of.silent[:NAMED]]
        named = ", ".join(f"{device.device_id} at {device.site} ({when})" for device, when in last)
        yield f"{many(len(of.silent), 'device')} said nothing at the end: {named}{and_more(of.silent)}."
    else:
        who = f"All {many(of.devices, 'device')}" if of.devices > 1 else "Its device"
        yield f"{who} reported within the last {rounded_duration(SILENT)}."


def _safety(of: Figures) -> Iterator[str]:
    if of.events:
        most = sorted(of.events.items(), key=lambda item: (-item[1][0], item[0]))
        named = ", ".join(f"{event} {many(n, 'time')}" for event, (n, _) in most[: 2 * NAMED])
        others = sum(n for _, (n, _) in most[2 * NAMED :])
        yield f"Security: {named}{f', {others:,} of other kinds' if others else ''}."
        alone = {event: n for event, (_, n) in of.events.items() if n and event in ("opened", "motion began", "smoke")}
        if alone:
            yield (
                "While nobody was at home: "
                + ", ".join(f"{e} {many(n, 'time')}" for e, n in sorted(alone.items()))
                + "."
            )


def _energy(of: Figures) -> Iterator[str]:
    energy = of.energy
    if energy is None:
        return
    cost = ", ".join(f"{value:,.2f} {currency}" for currency, value in sorted(energy.costs.items()))
    yield f"{kilowatt_hours(energy.watt_hours)} were used{f', at {cost}' if cost else '; no tariff was valid'}."
    if energy.hogs and energy.watt_hours > 0:
        named = ", ".join(
            f"{hog.appliance.device} at {hog.appliance.site}"
            f" ({percent(hog.share or 0, 1)} of its home, {kilowatt_hours(hog.watt_hours)})"
            for hog in energy.hogs[:NAMED]
        )
        yield f"Most energy went into {named}."
    more = [hog for hog in energy.hogs if hog.is_unusual]
    if more:
        named = ", ".join(f"{hog.appliance.device} at {hog.appliance.site} ({hog.verdict})" for hog in more[:NAMED])
        yield f"Much more than in the weeks before was used by {named}{and_more(more)}."
    above = [hog for hog in energy.hogs if hog.is_above_peers and not hog.is_unusual]  # else it was said
    if above:
        named = ", ".join(f"{hog.appliance.device} at {hog.appliance.site} ({hog.verdict})" for hog in above[:NAMED])
        yield f"Far above others of their kind: {named}{and_more(above)}."
    idle = {hog.appliance: hog.standby_watts for hog in energy.hogs if hog.standby_watts and hog.standby_watts >= 0.1}
    if idle:
        most = sorted(idle.items(), key=lambda item: (-item[1], item[0]))
        named = ", ".join(f"{one.device} at {one.site} ({watts:,.1f} W)" for one, watts in most[:NAMED])
        yield f"Most power was drawn in standby by {named}{and_more(most)}."
    lost = {reason: found for reason, found in energy.unattributed.items() if reason != IMPLAUSIBLE}
    if lost:
        whole = sum(watt_hours for _, watt_hours in lost.values())
        reasons = ", ".join(f"{many(n, 'time')} {words(reason)}" for reason, (n, _) in sorted(lost.items()))
        yield f"{kilowatt_hours(whole)} belong to no hour, as counters rose unheard: {reasons}."
    if IMPLAUSIBLE in energy.unattributed:
        times = many(energy.unattributed[IMPLAUSIBLE][0], "time")
        yield f"Counters rose by more than can be {times}: what was used then is not known."


def _odd(of: Figures) -> Iterator[str]:
    if of.anomalies:
        kinds = sorted(of.anomalies.items(), key=lambda item: (-item[1], item[0]))
        told = ", ".join(f"{n:,} {kind}" for kind, n in kinds)
        yield f"{many(sum(of.anomalies.values()), 'value')} flagged as anomalies: {told}."
        most = ", ".join(f"{words(m)} of {d.device_id} at {d.site} ({n:,})" for d, m, n in islice(of.oddest, NAMED))
        yield f"The oddest: {most}." if most else ""
    elif of.readings:
        yield "No value was flagged as an anomaly."


def _commands(of: Figures) -> Iterator[str]:
    asked = sum(of.commands.values())
    if asked:
        others = ", ".join(f"{n:,} {state}" for state, n in sorted(of.commands.items()) if state != "obeyed")
        obeyed = of.commands.get("obeyed", 0)
        yield f"{obeyed:,} of {many(asked, 'command')} obeyed{f'; {others}' if others else ''}."


def _loss(of: Figures) -> Iterator[str]:
    books = of.books
    if not books.partitions:
        yield "The ledger has no partition of this span: nothing can be said of loss."
        return
    yield (
        f"{many(books.landed, 'reading')} landed, of which {books.valid:,} are valid, {books.quarantined:,} quarantined"
        f" and {books.duplicate:,} duplicates; {_balance(of)}."
    )
    if books.failed:
        yield f"{books.failed:,} of {many(books.partitions, 'partition')} failed, and kept what was loaded before."
    if of.bad_values:
        reasons = ", ".join(f"{n:,} {words(reason)}" for reason, n in sorted(of.bad_values.items()))
        yield f"{many(sum(of.bad_values.values()), 'value')} quarantined: {reasons}."
    if of.rejected:
        reasons = ", ".join(f"{n:,} {words(reason)}" for reason, n in sorted(of.rejected.items()))
        yield f"{many(sum(of.rejected.values()), 'message')} rejected: {reasons}."


def _balance(of: Figures) -> str:
    if not of.books.partitions:
        return "no books"
    return "the books balance" if not of.books.off_by else f"THE BOOKS ARE OFF by {of.books.off_by:,}"


def _latency(of: Figures) -> Iterator[str]:
    if not of.detection.count:
        yield _past(of.detection.past) if of.detection.past else "No alert changed: there is no latency to measure."
        return
    yield f"From an event to the alert: {quantiles(of.detection)}."
    if of.detection.past:
        yield _past(of.detection.past)
    if of.notification.count:
        yield f"From an event to the message that somebody got: {quantiles(of.notification)}."
    elif not of.notification.past:
        yield "Nobody was told of these alerts."


def _past(times: int) -> str:
    return (
        f"{many(times, 'transition')} came more than {rounded_duration(PAST)} after the event, as in a backfill, a"
        " replay, a simulation faster than time or an outage: no latency is measured of them."
    )


def _validation(of: Figures) -> Iterator[str]:
    done = of.validation
    if not done.pieces:
        yield "Nothing was validated."
        return
    yield (
        f"{percent(done.passed, done.pieces)} of {many(done.pieces, 'validation')} passed,"
        f" {many(done.expectations, 'check')} of {many(done.rows, 'row')}."
    )
    if done.unmet:
        most = sorted(done.unmet.items(), key=lambda item: (-item[1], item[0]))
        yield "Not met: " + ", ".join(f"{what} ({n:,})" for what, n in most[:NAMED]) + "."


def _parity(of: Figures) -> Iterator[str]:
    audit = of.parity
    if not audit.audits:
        yield "Alerts were not audited in this span."
        return
    yield (
        f"{audit.same:,} alert transitions are what the rules say of the landed log once more (parity"
        f" {rounded_down(audit.percent)}); {many(audit.explained, 'difference')} explained, {audit.unexplained:,} not."
    )


def quantiles(of: Latency) -> str:
    """`half within 0.4s, 95 % within 1.2s, 99 % within 2s, the slowest 3s (120 transitions)`."""
    half, most, nearly, slowest = (rounded_duration(_span(of.at(n))) for n in (50, 95, 99, 100))
    return (
        f"half within {half}, 95 % within {most}, 99 % within {nearly}, the slowest {slowest}"
        f" ({many(of.count, 'transition')})"
    )


def _span(seconds: float) -> timedelta:
    return timedelta(seconds=max(0.0, seconds))


def many(n: int, noun: str) -> str:
    """`1 alert`, `1,200 alerts`."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def and_more(of: Sized) -> str:
    """After the first NAMED of a list."""
    return f" and {len(of) - NAMED:,} more" if len(of) > NAMED else ""


def words(name: str) -> str:
    return name.replace("_", " ")


def percent(part: float, whole: float) -> str:
    """Never rounded up to 100, nor a little down to 0."""
    if not whole:
        return "0 %"
    share = 100 * part / whole
    if 0 < share < 0.1:
        return "under 0.1 %"
    return rounded_down(share) if share < 100 else f"{share:.0f} %"


def rounded_down(share: float) -> str:
    return "100 %" if share == 100 else f"{min(share, 99.9):.1f} %"


def kilowatt_hours(watt_hours: float) -> str:
    return f"{watt_hours / 1000:,.1f} kWh" if watt_hours >= 100 else f"{watt_hours:,.0f} Wh"
