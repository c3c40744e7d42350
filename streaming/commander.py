"""Commands of people and of rules to devices, each followed until it is obeyed, refused or expired.

What is asked for, and how it stands, is in the table `commands`; the commands of rules come there from
`alerts.transitions` in one transaction with the position. So a restart goes on from the tables: what the broker may not
have is sent again, with its id; what was sent is looked for in the readings since.
"""

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from math import ceil
from typing import Any

import msgspec
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from connections.mqtt_commands import CommandLink, Message
from connections.warehouse import Warehouse
from fleet.action_decision import capped, orders_of
from fleet.catalog import load_catalog
from fleet.channels import Address, command_topic, parse_answer_topic, topics_of_obeying
from fleet.command import wanted_values
from fleet.command_state import (
    SENT,
    UNDER_WAY,
    Command,
    Move,
    answered,
    decode_answer,
    encode_command,
    overdue,
    seen,
    target_site,
    unsent,
)
from fleet.errors import WeirError
from fleet.settings import Settings
from streaming import command_table
from streaming.backoff import Backoff
from streaming.reading_watch import ReadingWatch
from streaming.reporter import Figures, Reporter
from streaming.service import Health
from streaming.transitions import Ends, TransitionLog
from streaming.watched_catalog import WatchedCatalog

POLL_MS = 100
WATCH_MS = 20
"""For readings, while a command is under way."""
AT_ONCE = 200
"""Messages that the broker has to confirm before the next."""
LOOK_SECONDS = 2.0
STUCK_SECONDS = 60.0

log = logging.getLogger("weir.commander")


class Commander:
    def __init__(self, settings: Settings):
        self.settings = settings
        self.warehouse = Warehouse.of(settings)
        self.specs = WatchedCatalog(settings.types_dir, load_catalog(settings.types_dir), log)
        self.transitions = TransitionLog(settings, self.warehouse, "command_offsets", log)
        self.moves: dict[str, int] = {}
        self.bad_answers = self.late_answers = 0
        self._under_way: dict[str, Command] = {}
        """Sent, and not ended."""
        self._expiring: set[str] = set()
        self._expiring_at: Ends = {}
        """Where the readings' log ended when those were first found overdue."""
        self._backoff = Backoff(log)
        self._turned_at = time.monotonic()
        self._look_at = 0.0

    def run(self, stop: threading.Event) -> None:
        consumer = self.transitions.open()
        health = Health(self.settings.commander_metrics_port, self.problem, self.settings.bind)
        health.registry.register(self)
        reporter = Reporter(self.settings, "commander", self.specs.catalog, self.figures)
        health.registry.register(reporter)
        reporter.start(stop)
        try:
            self.transitions.keep(lambda: self._follow(consumer, stop), self._backoff, stop)
            log.info("stopped %s", " ".join(f"{state}={count}" for state, count in self.moves.items()))
        finally:
            consumer.close(autocommit=False)
            self.warehouse.close()
            health.close()

    def problem(self) -> str:
        idle = time.monotonic() - self._turned_at
        return self._backoff.problem or (f"nothing done for {idle:.0f} s" if idle > STUCK_SECONDS else "")

    def _follow(self, consumer: Any, stop: threading.Event) -> None:
        """From where the tables end, until something fails, or readings of other topics show what is obeyed."""
        topics = topics_of_obeying(self.specs.catalog)
        with (
            closing(ReadingWatch(self.settings, topics)) as watch,
            closing(CommandLink(self.settings)) as link,
        ):
            self.transitions.follow(consumer)
            found = command_table.under_way(self.warehouse)
            self._under_way = {command.command_id: command for command in found if command.state in SENT}
            if self._under_way:
                watch.begin(min(command.sent_at for command in found if command.sent_at))
            log.info("commands under way: %d", len(self._under_way))
            while not stop.is_set() and sorted(topics) == sorted(topics_of_obeying(self.specs.catalog)):
                self._turned_at = time.monotonic()
                if self._turned_at >= self._look_at:
                    self._look_at = self._turned_at + LOOK_SECONDS
                    self.specs.look()
                transitions, ends = self.transitions.poll(POLL_MS)
                if ends:
                    self._take(transitions, ends)
                self._send(link, watch)
                self._hear(link)
                self._see(watch)
                self._expire(watch)
                self._backoff.well()

    def _take(self, transitions: list[Any], ends: Ends) -> None:
        """The commands of rules' actions, with the position in one transaction."""
        now = datetime.now(UTC)
        with self.warehouse.transaction() as connection:
            self.transitions.move(connection, ends)
            for t in transitions:
                devices_at = partial(command_table.devices_at, connection)
                for order in orders_of(t, self.specs.catalog, devices_at, now):
                    past = command_table.past_of(connection, t, order, now)
                    command_table.order(connection, t, [capped(order, past)], t.system, now)
        self.transitions.moved(ends)

    def _send(self, link: CommandLink, watch: ReadingWatch) -> None:
        waiting = command_table.under_way(self.warehouse, ["requested"])
        for begin in range(0, len(waiting), AT_ONCE):
            now = datetime.now(UTC)
            good, others = self._checked(waiting[begin : begin + AT_ONCE], now)
            with self.warehouse.transaction() as connection:
                for command in good:
                    command.sent_at = command_table.begun(connection, command, now)
            begun = [c.sent_at for c in (*good, *(c for c, move in others if move.state == "sent")) if c.sent_at]
            if begun and not self._under_way:
                watch.begin(min(begun))
            self._write(others, now)
            if good:
                heard = link.send([_message(command, now) for command in good])
                notes = ["" if listening else "nobody listens on the device's topic" for listening in heard]
                self._write([(c, Move("sent", note)) for c, note in zip(good, notes, strict=True)], now)

    def _checked(self, commands: list[Command], now: datetime) -> tuple[list[Command], list[tuple[Command, Move]]]:
        """(those that can be sent, now at their device's site; the others, and why)"""
        there = command_table.standing(self.warehouse, {(command.type, command.device_id) for command in commands})
        good, others = [], []
        for command in commands:
            if move := unsent(command, now):
                others.append((command, move))
                continue
            try:
                command.site = target_site(command, there.get((command.type, command.device_id)))
                command.sets = wanted_values(self.specs.catalog.type(command.type), command.command, command.args)
                good.append(command)
            except WeirError as error:
                others.append((command, Move("refused", str(error))))
        return good, others

    def _hear(self, link: CommandLink) -> None:
        """What devices say. It is acknowledged once it is written."""
        deliveries = link.poll(0)
        if not deliveries:
            return
        moves: list[tuple[Command, Move]] = []
        for delivery in deliveries:
            address, answer = parse_answer_topic(delivery.topic), decode_answer(delivery.payload)
            command = self._under_way.get(answer.id) if answer else None
            if address is None or answer is None:
                self.bad_answers += 1
                log.warning("%s: no answer: %r", delivery.topic, delivery.payload[:200])
            elif command is None or (command.type, command.device_id) != (address.type, address.device_id):
                self.late_answers += 1
                log.info(
                    "%s answers %s to %s, which it has not under way", delivery.topic, answer.state, answer.id[:80]
                )
            elif move := answered(command, answer):
                moves.append((command, move))
        self._write(moves, datetime.now(UTC))
        link.ack([delivery.mid for delivery in deliveries if delivery.mid])

    def _see(self, watch: ReadingWatch) -> None:
        if not self._under_way:
            return
        of: dict[tuple[str, str], list[Command]] = {}
        for command in self._under_way.values():
            of.setdefault((command.type, command.device_id), []).append(command)
        moves = {}
        for reading in watch.poll(WATCH_MS):
            for command in of.get((reading.device_type, reading.device_id), ()):
                if (move := seen(command, reading)) and command.command_id not in moves:
                    moves[command.command_id] = (command, move)
        self._write(list(moves.values()), datetime.now(UTC))

    def _expire(self, watch: ReadingWatch) -> None:
        """Once all was read that was in the log when they were overdue: what was read late was not done late. To the
        log's own end it may never come, while readings keep coming."""
        now = datetime.now(UTC)
        late = {
            command.command_id: (command, move)
            for command in self._under_way.values()
            if (move := overdue(command, now))
        }
        if not self._expiring & late.keys():
            self._expiring, self._expiring_at = set(late), watch.ends() if late else {}
        elif watch.has_read(self._expiring_at):
            self._write([late[name] for name in sorted(self._expiring & late.keys())], now)

    def _write(self, moves: Sequence[tuple[Command, Move]], now: datetime) -> None:
        """All of them or none. A command that another commander has moved is that one's."""
        if not moves:
            return
        latest: dict[str, tuple[Command, Move]] = {}
        with self.warehouse.transaction() as connection:
            for command, move in moves:
                before = latest.get(command.command_id)
                if before and before[1].state not in UNDER_WAY:
                    continue  # what has ended stays so, whatever else came with it
                stands = msgspec.structs.replace(command, state=before[1].state) if before else command
                if command_table.moved(connection, stands, move, now):
                    latest[command.command_id] = (command, move)
                else:
                    self._under_way.pop(command.command_id, None)
        for command, move in latest.values():
            command.state = move.state
            self.moves[move.state] = self.moves.get(move.state, 0) + 1
            if move.state in SENT:
                self._under_way[command.command_id] = command
            else:
                self._under_way.pop(command.command_id, None)
            log.info("%s %s: %s %s %s", command.type, command.device_id, command.command, *move)

    def figures(self) -> Figures:
        counts = {"rejects": self.transitions.unreadable + self.bad_answers, "restarts": self.transitions.failures}
        return Figures({}, counts, dict(self.transitions.positions))

    def collect(self) -> Iterator[Metric]:
        moves = CounterMetricFamily("weir_commander_moves", "Commands that came to a state", labels=["state"])
        for state, count in list(self.moves.items()):
            moves.add_metric([state], count)
        yield moves
        yield GaugeMetricFamily("weir_commander_under_way", "Commands sent, not ended", value=len(self._under_way))
        yield CounterMetricFamily("weir_commander_bad_answers", "Messages that are no answer", value=self.bad_answers)
        late = self.late_answers
        yield CounterMetricFamily("weir_commander_late_answers", "Answers to what is not under way", value=late)


def _message(command: Command, now: datetime) -> Message:
    topic = command_topic(Address(command.system, command.site, command.type, command.device_id))
    return Message(topic, encode_command(command), max(1, ceil((command.expires_at - now).total_seconds())))
