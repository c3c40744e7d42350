"""alerts.transitions → people. This thread decides; what it decided is committed with its position in Kafka's log; a
courier a receiver sends.

All that is under way is in the warehouse, so that a restart, or another dispatcher, goes on from there.
"""

import logging
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from connections.warehouse import Warehouse
from fleet.board import Board
from fleet.catalog import load_catalog
from fleet.errors import WeirError
from fleet.hindrance import Circumstances
from fleet.receivers import Options, ReceiversFile
from fleet.settings import Settings
from streaming.alerts_watch import AlertsWatch
from streaming.backoff import Backoff
from streaming.courier import Courier
from streaming.flags import RuleFlags
from streaming.outbox import Outbox
from streaming.policy import PolicyFile
from streaming.reporter import Figures, Reporter
from streaming.requests import answered, receivers_of
from streaming.senders import sender_of
from streaming.service import Health, Supervised
from streaming.silences import SilenceWatch
from streaming.transitions import Ends, TransitionLog

POLL_MS = 100
TICK_SECONDS = 1.0
"""Between two looks at what time has changed: repeats, escalations, ends of silences, digests, requests, files."""
TICK_SHARE = 10
TICK_LONGEST_SECONDS = 10.0
"""What time has changed takes long with very many alerts; it is then looked at so many times its own length apart, and
at least so often."""
BACKLOG_SECONDS = 5.0
"""At the start all else waits for what is in the log already, so long at most: who is told what is active is not to
hear of alerts that have ended while no dispatcher ran."""

STUCK_SECONDS = 60.0
"""A decider that does nothing for so long is not well, and no heartbeat says that it is."""

log = logging.getLogger("weir.dispatcher")


class Dispatcher:
    def __init__(self, settings: Settings):
        self.settings = settings
        self.catalog = load_catalog(settings.types_dir)
        self.flags = RuleFlags(settings, self.catalog)
        self.warehouse = Warehouse.of(settings)
        self.outbox = Outbox(self.warehouse)
        self.transitions = TransitionLog(settings, self.warehouse, "dispatch_offsets", log)
        self.policy_file = PolicyFile(settings)
        self.policy: ReceiversFile | None = None
        self.silences = SilenceWatch(settings, self.outbox)
        self.alerts = AlertsWatch(settings, self.catalog)
        self.couriers: dict[str, Courier] = {}
        self._leaving: dict[str, Courier] = {}
        """Stopped, and maybe still sending."""
        self.decided = 0
        self.told: dict[str, int] = {}
        self.held: dict[str, int] = {}
        self._backoff = Backoff(log)
        self._began_at: datetime | None = None
        self._to_wake: set[str] = set()
        self._switched_off: frozenset[str] = frozenset()
        self._looked_at = time.monotonic()
        self._look_again = threading.Event()
        """A courier has switched its receiver off."""
        self._ended = dict.fromkeys(("sent", "dead", "failures"), 0)
        """Of couriers that are no more."""

    def run(self, stop: threading.Event) -> None:
        consumer = self.transitions.open()
        health = Health(self.settings.dispatcher_metrics_port, self.problem, self.settings.bind)
        health.registry.register(self)
        reporter = Reporter(self.settings, "dispatcher", self.catalog, self.figures)
        health.registry.register(reporter)
        reporter.start(stop)
        Supervised("silences", lambda: self.silences.run(stop), stop).thread.start()
        Supervised("alerts watch", lambda: self.alerts.run(stop), stop).thread.start()
        try:
            self.transitions.keep(lambda: self._follow(consumer, stop), self._backoff, stop)
            log.info("stopped transitions=%d", self.decided)
        finally:
            consumer.close(autocommit=False)
            couriers = [*self.couriers.values(), *self._leaving.values()]
            for courier in couriers:
                courier.stop()
            for courier in couriers:
                courier.thread.join(5)
            self.warehouse.close()
            health.close()

    def problem(self) -> str:
        if self.policy is None and self.policy_file.problems:
            return self.policy_file.problems[0]
        idle = time.monotonic() - self._looked_at
        stuck = f"no look at what is to be decided for {idle:.0f} s" if idle > STUCK_SECONDS else ""
        return self._backoff.problem or stuck

    def _follow(self, consumer: Any, stop: threading.Event) -> None:
        """From where the tables end, until something fails: then the board is made anew from the tables."""
        while self.policy is None:
            if (policy := self.policy_file.look()) is not None:
                self.policy = policy
            elif stop.wait(TICK_SECONDS):
                return
            self._looked_at = time.monotonic()
        board, self._began_at = self.outbox.take_over(datetime.now(UTC))
        self.silences.begin()
        self._take_policy(self.policy)
        self.transitions.follow(consumer)
        log.info("alerts under way: %d", len(board.alerts))
        look_at = tick_at = 0.0
        patient_until = time.monotonic() + BACKLOG_SECONDS
        while not stop.is_set():
            self._looked_at = time.monotonic()
            transitions, ends = self.transitions.poll(POLL_MS)
            if self._look_again.is_set():  # before what came meanwhile is decided for a receiver that wants no more
                self._tick(board, timed=False)
            if transitions or ends:
                self._decide(board, transitions, ends)
            if self._leaving:
                self._succeed(self.policy)
            began = time.monotonic()
            if began < patient_until and self.transitions.is_behind(consumer):
                continue
            if began >= look_at:
                timed = began >= tick_at
                self._tick(board, timed)
                look_at = began + TICK_SECONDS
                if timed:
                    took = time.monotonic() - began
                    tick_at = began + took + min(max(TICK_SECONDS, TICK_SHARE * took), TICK_LONGEST_SECONDS)
            self._backoff.well()

    def _given(self, board: Board) -> Circumstances:
        assert self.policy is not None
        return Circumstances(
            now=datetime.now(UTC), policy=self.policy, silences=self.silences.known, switched_off=self._switched_off,
            inhibiting=board.inhibiting, began_at=self._began_at,
        )  # fmt: skip

    def _decide(self, board: Board, transitions: list[Any], ends: Ends) -> None:
        given = self._given(board)
        with self.warehouse.transaction() as connection:
            self.outbox.hold(connection)
            self.transitions.move(connection, ends)
            for t in transitions:
                board.take(t, *self.flags.of(t.type, t.rule), given)
            self._write(connection, board, given)
        self.transitions.moved(ends)
        self.decided += len(transitions)
        self._wake()

    def _tick(self, board: Board, timed: bool) -> None:
        """`timed`: what time has changed too, not only what people have asked for."""
        self._look_again.clear()
        self.flags.look()
        if (policy := self.policy_file.look()) is not None:
            self.policy = policy
            self._take_policy(policy)
            timed = True  # what waits for who left it is dead by now: the board is to know, should that return soon
        with self.warehouse.transaction() as connection:
            self.outbox.hold(connection)
            self._switched_off = self.outbox.switched_off(connection)
            given = self._given(board)
            requests = self.outbox.requests(connection)
            for request in requests:
                answer = answered(request, board, given, self.outbox, connection)
                self.outbox.answer(connection, request.id, answer, given.now)
                self._switched_off = self.outbox.switched_off(connection)
            given = self._given(board)
            if timed:
                board.tick(given)
                for key in board.digests_due(given.now):
                    known = self.outbox.devices_at(connection, key.type, key.site)
                    board.send_digest(key, known, given)
            self._write(connection, board, given)
        if requests:
            self._to_wake = set(self.couriers)
        for name, courier in self.couriers.items():
            courier.gone = name in self._switched_off
            if any(name in receivers_of(request) for request in requests):
                courier.at_once()
        self._wake()

    def _write(self, connection: Any, board: Board, given: Circumstances) -> None:
        changes = board.taken_down()
        self.outbox.write(connection, board, changes, given.now)
        for message in changes.messages:
            self.told[message.kind] = self.told.get(message.kind, 0) + 1
        for held in changes.held:
            self.held[held.hold.cause] = self.held.get(held.hold.cause, 0) + 1
        self._to_wake = {message.receiver for message in changes.messages}

    def _wake(self) -> None:
        for name in self._to_wake:
            if (courier := self.couriers.get(name)) is not None:
                courier.wake()

    def _take_policy(self, policy: ReceiversFile) -> None:
        """A courier for each receiver of the file; one whose receiver has changed gives way to a new one."""
        now = datetime.now(UTC)
        with self.warehouse.transaction() as connection:
            self.outbox.hold(connection)
            kinds: dict[str, str] = {name: options.kind for name, options in policy.receivers.items()}
            self._switched_off = self.outbox.receivers(connection, kinds, now)
        for name, courier in list(self.couriers.items()):
            if policy.receivers.get(name) != courier.options:
                courier.stop()
                self._leaving[name] = self.couriers.pop(name)
        self._succeed(policy)

    def _succeed(self, policy: ReceiversFile) -> None:
        """Starts the couriers that are wanting. One may still be sending what its successor would send again, for as
        long as its receiver's timeout; nobody waits for it."""
        for name, courier in list(self._leaving.items()):
            if not courier.thread.is_alive():
                del self._leaving[name]
                for count in self._ended:
                    self._ended[count] += getattr(courier, count)
        for name, options in policy.receivers.items():
            if name not in self.couriers and name not in self._leaving:
                self.couriers[name] = courier = self._courier(name, options)
                courier.gone = name in self._switched_off
                courier.start()

    def _courier(self, name: str, options: Options) -> Courier:
        sender = sender_of(options, self.settings)
        return Courier(name, options, sender, self.outbox, self._is_well, self._look_again.set)

    def _is_well(self) -> bool:
        """Whether who hears no alert may take it that there is none."""
        return not (self.problem() or self.alerts.problem())

    def _count(self, name: str) -> int:
        couriers = [*self.couriers.values(), *self._leaving.values()]
        return self._ended[name] + sum(getattr(courier, name) for courier in couriers)

    def figures(self) -> Figures:
        states: dict[str, float | None] = {"spec_errors": float(len(self.policy_file.problems))}
        try:
            states |= {name: float(value) for name, value in self.outbox.figures().items()}
        except WeirError as error:
            states |= dict.fromkeys(("waiting", "dead_letters", "failing_receivers"))
            log.warning("the outbox cannot be looked at: %s", error)
        counts = {"rejects": self.transitions.unreadable, "restarts": self.transitions.failures}
        return Figures(states, counts, dict(self.transitions.positions))

    def collect(self) -> Iterator[Metric]:
        yield CounterMetricFamily("weir_dispatcher_transitions", "Transitions decided on", value=self.decided)
        yield CounterMetricFamily("weir_dispatcher_sent", "Messages sent", value=self._count("sent"))
        yield CounterMetricFamily("weir_dispatcher_dead", "Messages given up or refused", value=self._count("dead"))
        yield CounterMetricFamily("weir_dispatcher_failures", "Attempts that failed", value=self._count("failures"))
        told = CounterMetricFamily("weir_dispatcher_told", "Messages for the outbox", labels=["kind"])
        for kind, count in list(self.told.items()):
            told.add_metric([kind], count)
        yield told
        held = CounterMetricFamily("weir_dispatcher_held", "Not told", labels=["cause"])
        for cause, count in list(self.held.items()):
            held.add_metric([cause], count)
        yield held
        failing = GaugeMetricFamily("weir_dispatcher_receiver_failing", "1: it does", labels=["receiver"])
        for name, courier in list(self.couriers.items()):
            failing.add_metric([name], float(bool(courier.problem)))
        yield failing
