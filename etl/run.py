"""A run of the batch job in four steps, each of which can be its own process: begin, validate, load, finish.

What a run saw of the lake and set out to do is in the table etl_runs, so steps pass each other a run id and a batch.
Airflow calls the same functions as `weir etl run`.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, text

from connections.lake import Lake
from connections.warehouse import Warehouse
from etl.discover import Batch, Found, Processed, changed, sort_out
from etl.energy import places
from etl.lake_index import LakeIndex, PartitionFiles, read_index
from etl.load import await_processing, load_readings, load_rejects, mark_failed
from etl.reconcile import (
    Report,
    kafka_end_offsets,
    known_losses,
    read_ledger,
    read_topics,
    reconcile,
    write_topics,
)
from etl.rejects import read_rejects
from etl.validate import Validation, validate
from etl.window import parse_window
from fleet.catalog import Catalog, load_catalog
from fleet.channels import REJECTED as REJECTED_TOPIC
from fleet.errors import DataError
from fleet.lake_layout import REJECTED
from fleet.settings import Settings


@dataclass(frozen=True)
class Request:
    """What to process: `system` None is all; `start` and `end` as etl.window reads them; `force` also the unchanged.
    Where `partitions` is given: these and no others, whether they have changed or not."""

    system: str | None = None
    start: str | None = None
    end: str | None = None
    force: bool = False
    partitions: tuple[str, ...] | None = None

    @property
    def takes_unchanged(self) -> bool:
        return self.force or self.partitions is not None


class Job:
    """The places a run works on, opened once per process."""

    def __init__(self, settings: Settings):
        self.settings = settings
        self.catalog: Catalog = load_catalog(settings.types_dir)
        self.lake = Lake.of(settings)
        self.warehouse = Warehouse.of(settings)
        self._seen: tuple[str, LakeIndex] | None = None

    # Steps

    def discover(self, request: Request, now: datetime) -> tuple[LakeIndex, Found]:
        """What a run would do. Raises ConfigurationError where the request makes no sense."""
        if request.system is not None:
            self.catalog.system(request.system)
        window = parse_window(request.start, request.end, now)
        index = read_index(self.lake)
        ledger = {
            row["partition"]: Processed(row["files_digest"], row["status"] == "failed")
            for row in self.warehouse.rows("SELECT partition, files_digest, status FROM ledger")
        }
        candidates = list(index.partitions.values())
        if request.partitions is not None:
            wanted = {*request.partitions}
            candidates = [files for files in candidates if files.partition.key in wanted]
        found = changed(candidates, ledger, window, request.system, request.takes_unchanged)
        return index, sort_out(found, self.catalog.types)

    def begin(self, run_id: str, request: Request, now: datetime | None = None) -> list[Batch]:
        """Finds what changed and writes down what this run will do. What did not change and is asked for all the same
        waits from then on: where this run dies, the next takes it."""
        index, found = self.discover(request, now or datetime.now(UTC))
        keys = [key for batch in found.batches for key in batch.partitions]
        with self.warehouse.transaction() as c:
            if request.takes_unchanged:
                await_processing(c, keys)
            for stranger in found.strangers:
                mark_failed(c, stranger.partition, _nobodys(stranger.partition.type, self.settings.types_dir), run_id)
            c.execute(
                text(
                    "INSERT INTO etl_runs (run_id, status, request, manifests, partitions)"
                    " VALUES (:run_id, 'running', CAST(:request AS jsonb), CAST(:marks AS jsonb), :partitions)"
                    " ON CONFLICT (run_id) DO UPDATE SET status = 'running', manifests = excluded.manifests,"
                    " partitions = excluded.partitions, started_at = now(), finished_at = NULL"
                ),
                {
                    "run_id": run_id,
                    "request": json.dumps(asdict(request)),
                    "marks": json.dumps(index.marks),
                    "partitions": [*keys, *(stranger.partition.key for stranger in found.strangers)],
                },
            )
        self._seen = run_id, index
        return found.batches

    def validate(self, run_id: str, batch: Batch) -> dict[str, Any]:
        """Great Expectations over a batch. Raises DataError, after writing it down, where a partition must not be
        loaded; the others can be."""
        if batch.type == REJECTED:
            return {"type": batch.type, "partitions": len(batch.partitions), "note": "dead letters have no suite"}
        spec = self.catalog.type(batch.type)
        outcome = validate(self.lake, spec, self._files(run_id, batch), run_id, self.settings.home)
        with self.warehouse.transaction() as c:
            c.execute(
                text("DELETE FROM validations WHERE run_id = :run_id AND type = :type AND partitions <@ :keys"),
                {"run_id": run_id, "type": spec.type, "keys": list(batch.partitions)},
            )
            for validation in outcome.validations:
                _write_validation(c, run_id, spec.system, spec.type, spec.version, validation)
            for key, reason in sorted(outcome.failed.items()):
                mark_failed(c, self._files(run_id, batch, key)[0].partition, reason, run_id)
        if outcome.failed:
            raise DataError("\n".join(f"{key} fails validation: {why}" for key, why in sorted(outcome.failed.items())))
        unmet = [f"{u} [{u.severity}]" for v in outcome.validations for u in v.verdict.unmet]
        return {
            "type": batch.type,
            "partitions": len(batch.partitions),
            "rows": sum(v.verdict.rows for v in outcome.validations),
            "unmet": unmet,
            "data_docs": [v.verdict.data_docs for v in outcome.validations],
        }

    def data_docs(self, run_id: str, batch: Batch) -> str:
        """The page on a batch's validation; of several, one that was not met. Empty where there is none."""
        found = self.warehouse.rows(
            "SELECT data_docs FROM validations WHERE run_id = :run_id AND type = :type AND partitions <@ :keys"
            " AND data_docs <> '' ORDER BY success, jsonb_array_length(unmet) DESC, piece LIMIT 1",
            run_id=run_id, type=batch.type, keys=list(batch.partitions),
        )  # fmt: skip
        return str(found[0]["data_docs"]) if found else ""

    def load(self, run_id: str, batch: Batch) -> dict[str, Any]:
        """Spark and the warehouse, for the partitions of the batch that this run has validated. Raises DataError,
        after the others are loaded, where the figures of one do not add up."""
        files = self._files(run_id, batch)
        ready = files if batch.type == REJECTED else self._validated(run_id, batch, files)
        errors: list[str] = []
        loaded: list[str] = []
        newer: list[str] = []
        for partition, store in self._derived(batch, ready, run_id):
            key = partition.partition.key
            try:
                (loaded if store() else newer).append(key)
            except DataError as error:
                errors.append(f"{key}: {error}")
                with self.warehouse.transaction() as c:
                    mark_failed(c, partition.partition, str(error), run_id)
        if errors:
            raise DataError("\n".join(errors))
        return {"type": batch.type, "loaded": len(loaded), "newer_there": newer, "held_back": len(files) - len(ready)}

    def finish(self, run_id: str) -> dict[str, Any]:
        """Reconciles, writes the run's figures and returns them. Raises DataError where a partition is not loaded,
        the books do not balance, or readings were lost that were not known to be."""
        run = self._run(run_id)
        index = read_index(self.lake, run["manifests"])
        ends = kafka_end_offsets(self.settings, self._topics()) if self.settings.kafka_user else {}
        topics = read_topics(index, ends)
        lost_before = known_losses(self.warehouse)
        with self.warehouse.snapshot() as seen:
            report = reconcile(seen, topics, read_ledger(seen, run["partitions"]), index.partitions)
        problems = _problems(run["partitions"], index.partitions, report, lost_before)
        figures = {**_figures(report), "problems": problems}
        # Together: a loss is known from the moment that a run has said so, and not before.
        with self.warehouse.transaction() as c:
            write_topics(c, topics)
            _write_end(c, run_id, figures)
        if problems:
            raise DataError(f"run {run_id} failed:\n" + "\n".join(problems))
        return figures

    def fail_if_open(self, run_id: str, why: str) -> None:
        """Ends a run that broke off, for callers that do not try again; one that has ended keeps its own words."""
        with self.warehouse.transaction() as c:
            running = text("SELECT 1 FROM etl_runs WHERE run_id = :run_id AND status = 'running' FOR UPDATE")
            if c.execute(running, {"run_id": run_id}).scalar():
                _write_end(c, run_id, {"problems": [why]})

    # What the steps share

    def _topics(self) -> list[str]:
        return [*(system.topic for system in self.catalog.systems.values()), REJECTED_TOPIC]

    def _run(self, run_id: str) -> dict[str, Any]:
        rows = self.warehouse.rows("SELECT * FROM etl_runs WHERE run_id = :run_id", run_id=run_id)
        if not rows:
            raise DataError(f"no run {run_id!r} was begun; `weir etl run` and the DAG's first task do that")
        return rows[0]

    def _files(self, run_id: str, batch: Batch, *keys: str) -> list[PartitionFiles]:
        """The batch's files as they were when the run began; manifests never change, and are read once."""
        if self._seen is None or self._seen[0] != run_id:
            self._seen = run_id, read_index(self.lake, self._run(run_id)["manifests"])
        partitions = self._seen[1].partitions
        missing = [key for key in batch.partitions if key not in partitions]
        if missing:
            raise DataError(
                f"the lake no longer has {missing[0]}, which run {run_id} was to process; where it expired meanwhile"
                " (retention.lake), the next run leaves it out"
            )
        return [partitions[key] for key in keys or batch.partitions]

    def _validated(self, run_id: str, batch: Batch, files: list[PartitionFiles]) -> list[PartitionFiles]:
        """Those that a validation of this run covers, and that it did not fail. By the run's own word: the ledger's may
        be another run's by now. Partitions that failed together were each asked alone."""
        validations = self.warehouse.rows(
            "SELECT partitions, success FROM validations WHERE run_id = :run_id AND type = :type",
            run_id=run_id,
            type=batch.type,
        )
        covered = {key for row in validations for key in row["partitions"]}
        failed = {row["partitions"][0] for row in validations if not row["success"] and len(row["partitions"]) == 1}
        return [f for f in files if f.partition.key in covered - failed]

    def _derived(self, batch: Batch, ready: list[PartitionFiles], run_id: str):  # type: ignore[no-untyped-def]
        """(files, what stores them) of each partition."""
        if batch.type == REJECTED:
            for files in ready:
                yield files, lambda files=files: load_rejects(self.warehouse, read_rejects(self.lake, files), run_id)
        elif ready:
            from connections.spark import session
            from etl.derive import derive
            from etl.history import past

            spec = self.catalog.type(batch.type)
            before, sites = past(self.warehouse, spec, ready), places(self.settings, self.warehouse, spec)
            with session(self.settings, f"weir-etl-{batch.type}") as spark:
                derived = derive(spark, self.lake, spec, ready, before, sites.phases(ready))
            for files in ready:
                yield files, lambda files=files: load_readings(self.warehouse, spec, derived(files), run_id, sites)


def _nobodys(type_name: str, types_dir: Path) -> str:
    return (
        f"the lake has readings of {type_name}, and {types_dir} has no such type; put its file back, and they are"
        " processed by the next run"
    )


def _write_validation(
    c: Connection, run_id: str, system: str, type_name: str, version: int, validation: Validation
) -> None:  # fmt: skip
    verdict = validation.verdict
    c.execute(
        text(
            "INSERT INTO validations (run_id, type, piece, system, partitions, spec_version, success, rows, evaluated,"
            " unmet, data_docs) VALUES (:run_id, :type, :piece, :system, :partitions, :version, :success, :rows,"
            " :evaluated, CAST(:unmet AS jsonb), :data_docs)"
        ),
        {
            "run_id": run_id, "type": type_name, "piece": validation.piece, "system": system,
            "partitions": list(validation.partitions), "version": version, "success": verdict.success,
            "rows": verdict.rows, "evaluated": verdict.evaluated, "data_docs": verdict.data_docs,
            "unmet": json.dumps([asdict(u) for u in verdict.unmet]),
        },
    )  # fmt: skip


def _write_end(c: Connection, run_id: str, figures: Mapping[str, Any]) -> None:
    c.execute(
        text(
            "UPDATE etl_runs SET status = :status, figures = CAST(:figures AS jsonb), finished_at = now()"
            " WHERE run_id = :run_id"
        ),
        {
            "run_id": run_id,
            "status": "failed" if figures["problems"] else "succeeded",
            "figures": json.dumps(figures),
        },
    )


def _problems(
    planned: list[str], seen: Mapping[str, PartitionFiles], report: Report, lost_before: Mapping[str, int]
) -> list[str]:
    """Why the run failed, a line each; none when it did not. `seen` is the lake as the run saw it."""
    rows = {row.partition.key: row for row in report.partitions}
    problems = []
    for key in planned:
        row, files = rows.get(key), seen.get(key)
        if files is None:
            problems.append(f"{key}: the lake no longer has what this run saw of it")
        elif row is None:
            problems.append(f"{key}: not loaded; see the task that had it")
        elif row.status == "failed":
            problems.append(f"{key}: {row.failure}")
        elif row.digest != files.digest and (row.books is None or row.books.landed <= files.rows):
            # More rows than this run saw are a newer run's; any other difference is a load that did not happen.
            problems.append(
                f"{key}: only an older state of it is loaded (by {row.run_id}), without files that came since;"
                " see the task that had it"
            )
    problems += [str(imbalance) for imbalance in report.imbalances]
    for name, lost in sorted(report.lost.items()):
        new = lost - lost_before.get(name, 0)
        if new > 0:
            problems.append(f"{name}: {new:,} records were gone from Kafka before they landed (its retention ran out)")
    return problems


def _figures(report: Report) -> dict[str, Any]:
    """Of the partitions of the run, and of Kafka's partitions as a whole."""
    books = [row.books for row in report.partitions if row.books is not None]
    readings = [b for b in books if b.rejects is None]
    pending = [t.pending for t in report.topics if t.pending is not None]
    return {
        "partitions": len(report.partitions),
        "landed": sum(b.landed for b in readings),
        "valid": sum(b.valid for b in readings),
        "quarantined": sum(b.quarantined for b in readings),
        "duplicate": sum(b.duplicate for b in readings),
        "quarantined_values": sum(m.quarantined for b in readings for m in b.metrics),
        "dead_letters": sum(b.landed for b in books if b.rejects is not None),
        "rollup_rows": sum(row.rollups for row in report.partitions),
        "anomalies": sum(row.anomalies for row in report.partitions),
        "pending_in_kafka": sum(pending) if pending else None,
        "lost": sum(report.lost.values()),
    }
