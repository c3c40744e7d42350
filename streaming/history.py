"""alerts.transitions → the warehouse's tables of alerts, each transition once.

One transaction holds rows and positions, so the positions in `history_offsets` are the only ones that count.
"""

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from sqlalchemy import Connection, text

from connections.warehouse import Warehouse
from fleet.catalog import load_catalog
from fleet.errors import WeirError
from fleet.parity import parity
from fleet.settings import Settings
from fleet.transition import Transition, row_of
from streaming.backoff import Backoff
from streaming.reporter import Figures, Reporter
from streaming.service import Health
from streaming.transitions import TransitionLog

POLL_MS = 200
BOOKS_SECONDS = 60.0
"""Between two looks at the ledger: of 44,000 partitions (a year of five types) one takes 0.5 s on a busy machine."""
INSERTED = (
    "transition_id", "alert_id", "number", "system", "type", "rule", "device_id", "site", "to", "severity", "reason",
    "event_time", "detected_at", "since", "starts_at", "title", "annotations", "labels", "values", "spec_version",
    "flapping", "capped", "source_partition", "source_offset",
)  # fmt: skip

GAP = """
SELECT (SELECT count(*) FROM ledger_balance WHERE status = 'failed' OR rows_off_by <> 0 OR values_off_by <> 0)
     + (SELECT count(*) FROM (SELECT status FROM etl_runs WHERE status <> 'running' ORDER BY finished_at DESC LIMIT 1) r
         WHERE status = 'failed') AS gap
"""
"""Partitions whose books do not balance or that failed, and the last ETL run if it did."""

PARITY = """
SELECT sum(same)::bigint AS same, sum(explained)::bigint AS explained, sum(unexplained)::bigint AS unexplained
  FROM parity_standing WHERE ends_at > now() - INTERVAL '2 days'
"""
"""What the audits of two days found, each moment as the last one says: a good day does not hide a bad one."""

log = logging.getLogger("weir.history")


class History:
    def __init__(self, settings: Settings):
        self.settings = settings
        self.warehouse = Warehouse.of(settings)
        self._backoff = Backoff(log)
        self.transitions = TransitionLog(settings, self.warehouse, "history_offsets", log)
        self._books: dict[str, float | None] = {}
        self._books_due = 0.0
        self.written = 0

    def run(self, stop: threading.Event) -> None:
        consumer = self.transitions.open()
        health = Health(self.settings.history_metrics_port, lambda: self._backoff.problem, self.settings.bind)
        health.registry.register(self)
        reporter = Reporter(self.settings, "history", load_catalog(self.settings.types_dir), self.figures)
        health.registry.register(reporter)
        reporter.start(stop)
        try:
            self.transitions.keep(lambda: self._follow(consumer, stop), self._backoff, stop)
            log.info("stopped transitions=%d", self.written)
        finally:
            consumer.close(autocommit=False)
            self.warehouse.close()
            health.close()

    def _follow(self, consumer: Any, stop: threading.Event) -> None:
        """From where the tables end, until something fails. Raises Unavailable, KafkaError."""
        self.transitions.follow(consumer)
        while not stop.is_set():
            found, ends = self.transitions.poll(POLL_MS)
            if ends:
                with self.warehouse.transaction() as connection:
                    self.transitions.move(connection, ends)
                    write(connection, found)
                self.transitions.moved(ends)
                self.written += len(found)
            self._backoff.well()

    def figures(self) -> Figures:
        """Lag counts the markers of transactions too: of each partition, one at rest."""
        now = time.monotonic()
        if now >= self._books_due:
            self._books_due = now + BOOKS_SECONDS
            try:
                self._books = {"ledger_gap": self.warehouse.rows(GAP)[0]["gap"], **self._parity()}
            except WeirError as error:  # a database that is away is not known to have books that balance
                self._books = dict.fromkeys(self._books)
                log.warning("the ledger cannot be looked at: %s", error)
        counts = {"rejects": self.transitions.unreadable, "restarts": self.transitions.failures}
        return Figures(dict(self._books), counts, dict(self.transitions.positions))

    def _parity(self) -> dict[str, float | None]:
        """None before the first audit, and where none has been for long: the alert stays as it was."""
        (found,) = self.warehouse.rows(PARITY)
        if found["same"] is None:
            return {"parity": None, "parity_unexplained": None}
        percent = parity(found["same"], found["explained"] + found["unexplained"])
        return {"parity": percent, "parity_unexplained": found["unexplained"]}

    def collect(self) -> Iterator[Metric]:
        yield CounterMetricFamily("weir_history_transitions", "Transitions written", value=self.written)
        unreadable = self.transitions.unreadable
        yield CounterMetricFamily("weir_history_unreadable", "Records that are no transition", value=unreadable)
        at = GaugeMetricFamily("weir_history_position", "Next offset to be read", labels=["partition"])
        for place, offset in list(self.transitions.positions.items()):
            at.add_metric([str(place.partition)], offset)
        yield at


def write(connection: Connection, transitions: Sequence[Transition]) -> None:
    """Each once, whatever is there: rows of alert_transitions by their id, rows of alerts only forward."""
    if not transitions:
        return
    rows = [row_of(transition) for transition in transitions]
    names = ", ".join(f'"{name}"' for name in INSERTED)
    connection.execute(
        text(
            f"INSERT INTO alert_transitions ({names}) SELECT {names}"  # noqa: S608
            " FROM jsonb_populate_recordset(NULL::alert_transitions, CAST(:rows AS jsonb)) ON CONFLICT DO NOTHING"
        ),
        {"rows": msgspec.json.encode(rows).decode()},
    )
    connection.execute(UPSERT, {"ids": sorted({transition.alert_id for transition in transitions})})


_KEPT = (
    "system", "type", "rule", "device_id", "site", "title", "severity", "since", "starts_at", "flapping", "capped",
    "annotations", "labels", "values", "number", "event_time", "detected_at",
)  # fmt: skip
UPSERT = text(
    # An alert that was resolved stays so: it may go on to be `settled`, and a new one has another id.
    f"INSERT INTO alerts (alert_id, {', '.join(_KEPT)}, resolved_at, reason)"  # noqa: S608
    f" SELECT DISTINCT ON (t.alert_id) t.alert_id, {', '.join(f't.{name}' for name in _KEPT)}, r.event_time, r.reason"
    " FROM alert_transitions t LEFT JOIN alert_transitions r ON r.alert_id = t.alert_id AND r.\"to\" = 'resolved'"
    " WHERE t.alert_id = ANY(:ids) ORDER BY t.alert_id, t.number DESC"
    " ON CONFLICT (alert_id) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in (*_KEPT, "resolved_at", "reason"))
)
