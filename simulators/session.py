"""One run from the command line to its summary: opens where the messages go, stops on a signal, writes the truth."""

import logging
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from fleet.catalog import Catalog
from fleet.errors import ConfigurationError, WeirError
from fleet.reading import Reading
from fleet.settings import Settings
from simulators.fault_plan import check_metrics, inject, parse_fault, parse_faults
from simulators.faults import Plan
from simulators.message import Message
from simulators.obedience import Obedience, obeying
from simulators.outlet import TARGETS, open_outlet
from simulators.run import Run, Wires
from simulators.timeline import Timeline
from simulators.truth import Truth

LATE_SECONDS = 1.0
"""A run that was late by less is told of as one that kept its speed."""

log = logging.getLogger("weir.simulate")


@dataclass(frozen=True)
class Order:
    """What any run may be told. `speed` None: real time, but for a file, which is not waited for."""

    to: str = "mqtt"
    out: Path | None = None
    seed: int = 0
    speed: float | None = None
    until_us: int | None = None
    faults: tuple[str, ...] = ()
    faults_file: Path | None = None
    truth: Path | None = None
    gateway: str = ""
    """For http and coap: its address."""
    tokens: Path | None = None

    @property
    def pace(self) -> float:
        return self.speed if self.speed is not None else 0.0 if self.to == "file" else 1.0


class Source(NamedTuple):
    """`span_us` of event time, then possibly more; `readings` takes the first event time. `types` are those that may
    appear. `messages` is instead of `readings` where something is sent at another time than it says; `incidents` are
    lines of the truth about more than a message, each with `incident` or `rule`."""

    span_us: int
    types: tuple[str, ...]
    readings: Callable[[Timeline], Iterable[Reading]]
    messages: Callable[[Timeline], Iterable[Message]] | None = None
    incidents: Callable[[Timeline], Iterable[dict[str, Any]]] = lambda _: ()
    commands: str = ""
    """The MQTT subscription by which its devices hear commands."""


def conduct(
    settings: Settings, catalog: Catalog, order: Order, source: Source, about: dict[str, Any]
) -> dict[str, Any]:
    """Runs it and returns the summary. After SIGINT or SIGTERM it confirms what is under way and ends as usual.

    Raises WeirError where the other side fails; the truth then still has an honest summary, with the error.
    """
    if order.to not in TARGETS:
        raise ConfigurationError(f"--to {order.to}: it is one of {', '.join(TARGETS)}")
    plans = read_plans(order)
    check_metrics(plans, (metric for name in source.types for metric in catalog.type(name).metrics))
    truth = Truth(order.truth)
    outlet = open_outlet(order.to, order.out, settings, catalog, order.gateway, order.tokens)
    timeline = Timeline.ending(source.span_us, time.time_ns() // 1000, order.pace, order.until_us)
    meant = source.messages(timeline) if source.messages else Wires.of(catalog).messages(source.readings(timeline))
    messages = inject(meant, plans, order.seed, catalog)
    incidents = Counter[str]()
    for line in source.incidents(timeline):
        truth.note(line)
        incidents.update([line["incident"]] if "incident" in line else [])
    if incidents:
        about = about | {"incidents": dict(incidents)}
    with stop_on_signals() as stop, _obeying(settings, order, source) as obey:
        run = Run(catalog, outlet, timeline, truth.note, stopping=stop.is_set, wait=stop.wait)
        started = time.monotonic()
        try:
            run.go(obey(messages))
        except WeirError as error:
            summary = run.summary(about, time.monotonic() - started)
            truth.close(summary)
            raise type(error)(f"{error}\n{figures(summary)}") from error
        early = {"stopped_early": True} if stop.is_set() else {}
        summary = run.summary(about | early, time.monotonic() - started)
    truth.close(summary)
    return summary


@contextmanager
def _obeying(
    settings: Settings, order: Order, source: Source
) -> Iterator[Callable[[Iterable[Message]], Iterable[Message]]]:
    """Where messages go to MQTT and event time is at least as fast as the clock, devices hear commands meanwhile."""
    if not source.commands or order.to != "mqtt" or order.pace == 0:
        yield lambda messages: messages
        return
    from connections.mqtt_device_commands import DeviceLink

    link = DeviceLink(settings, source.commands)
    obedience = Obedience(order.seed)
    try:
        yield lambda messages: obeying(
            messages, obedience, link.heard, link.answer, lambda: time.time_ns() // 1000
        )  # fmt: skip
    finally:
        link.close()
        if link.refusal:
            log.warning("no command was heard: %s", link.refusal)


def read_plans(order: Order) -> list[Plan]:
    """Those of the command line and those of the file. Raises ConfigurationError."""
    plans = [plan for text in order.faults for plan in parse_fault(text)]
    if order.faults_file:
        try:
            data = yaml.safe_load(order.faults_file.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigurationError(f"--faults {order.faults_file}: {error.strerror}") from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"--faults {order.faults_file}: not YAML: {error}") from None
        plans += parse_faults(data, str(order.faults_file))
    return plans


@contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """Set by SIGINT or SIGTERM; a second one ends the process as usual."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def handle(number: int, frame: object) -> None:
        stop.set()
        signal.signal(number, before[signal.Signals(number)] or signal.SIG_DFL)

    for number in before:
        signal.signal(number, handle)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)


def figures(summary: dict[str, Any]) -> str:
    """The summary in a few lines for people."""
    books, times = summary["expected"], summary["event_time"]
    lines = [
        f"published {summary['published']:,} of {summary['sent']:,} sent, in {summary['wall_seconds']:.1f} s"
        f" ({summary['messages_per_second'] or 0:,.0f}/s), event times {times['first']} to {times['last']}"
    ]
    if summary["unconfirmed"]:
        lines.append(f"unconfirmed {summary['unconfirmed']:,}: they may or may not have arrived")
    if summary["late_seconds"] >= LATE_SECONDS:
        lines.append(
            f"up to {summary['late_seconds']:,.1f} s behind its speed: so many messages did not get through as fast;"
            " none was left out for it"
        )
    if summary.get("incidents"):
        lines.append("incidents " + ", ".join(f"{kind} {count:,}" for kind, count in summary["incidents"].items()))
    if summary["faults"]:
        lines.append("faults " + ", ".join(f"{kind} {count:,}" for kind, count in summary["faults"].items()))
    for name, of in books["types"].items():
        lines.append(
            f"expect {name}: {of['valid']:,} valid, {of['quarantined']:,} quarantined, {of['duplicates']:,} duplicate;"
            f" {sum(of['quarantined_values'].values()):,} values quarantined"
        )
    if books["rejected"]:
        lines.append("expect rejected: " + ", ".join(f"{k} {v:,}" for k, v in books["rejected"].items()))
    if summary.get("skipped"):
        lines.append("skipped rows: " + ", ".join(f"{k} {v:,}" for k, v in summary["skipped"].items()))
    return "\n".join(lines)
