"""Files of readings that people drop: each is taken once, its rows as if devices had sent them.

A row goes through the contract and the registry's check, and onto Kafka as the bridge would have written it; landing,
live, the batch and the books take it from there. One that is no reading is a dead letter, with its file and line. Rows
that are older than their type's `files.alerts_within` carry RETURNED, and rules pass over them.

A content is taken once: its sum is in `inbox_files` before the first row is sent. Who is killed leaves the file
claimed, and the next who looks goes over it again from its beginning: no row is lost, and copies are duplicates by the
batch's rule.
"""

import hashlib
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, BinaryIO

from kafka.errors import KafkaError
from sqlalchemy import text

from connections import kafka
from connections.kafka import MAX_RECORD_BYTES
from etl.inbox_folder import REFUSED, TAKEN, Dropped, Folder, is_settled, opened, plain, state
from etl.inbox_rows import Row, rows
from etl.replay import requalifier
from etl.run import Job
from fleet.channels import MARK_HEADER, OWN_TYPE, REJECTED, RETURNED, readings_topics
from fleet.contract import Reject
from fleet.dead_letter import dead_letter_of_row, encode_dead_letter
from fleet.errors import Unavailable
from fleet.file_row import Refusal, source_of
from fleet.nearest import nearest
from fleet.reading import encode_reading, to_epoch_us
from fleet.requalify import Requalifier

MAX_UNCONFIRMED = 10_000
CONFIRM_SECONDS = 60
READ_BYTES = 1024 * 1024
TAKING, TAKEN_ONCE, ALREADY_TAKEN, WRITTEN_TO = "taking", "taken", "already_taken", "written_to"


@dataclass(frozen=True)
class Outcome:
    """What became of one file. `taken` and `already_taken` are good; `written_to` is looked at again later."""

    type: str
    name: str
    outcome: str
    detail: str = ""
    rows: int = 0
    readings: int = 0
    old: int = 0
    rejected: int = 0
    is_new: bool = True
    """False: it lies where it was, and this was said before."""

    @property
    def is_refused(self) -> bool:
        return self.outcome not in (TAKEN_ONCE, ALREADY_TAKEN, WRITTEN_TO)


def take(job: Job, run_id: str) -> Iterator[Outcome]:
    """All that lies there and is whole, what was broken off first. Raises Unavailable, Refused, ConfigurationError;
    what was under way then is gone over by the next."""
    folder = Folder(job.settings.inbox_folder)
    with folder.alone():
        taker = Taker(job, run_id, folder)
        try:
            folder.make(taker.types)
            for claimed in folder.left_behind():
                yield taker.take(claimed)
            for dropped in folder.dropped():
                if is_settled(dropped.path):
                    yield from taker.claim(dropped)
            for loose in folder.loose():
                yield taker.pass_over(loose)
        except KafkaError as error:
            raise kafka.unavailable(job.settings, error) from error
        except OSError as error:
            raise Unavailable(f"the inbox {folder.path}: {error}") from error
        finally:
            taker.close()


class Taker:
    def __init__(self, job: Job, run_id: str, folder: Folder):
        self._job, self._run_id, self._folder = job, run_id, folder
        self.types = [name for name in job.catalog.types if name != OWN_TYPE]
        """Those that files may be of: Weir's services speak for themselves."""
        self._producer: Any = None
        self._judge: Requalifier | None = None

    def claim(self, dropped: Dropped) -> Iterator[Outcome]:
        try:
            claimed = self._folder.claim(dropped)
        except PermissionError:
            yield self._stays(dropped, Refusal("no_permission", "it may not be moved; its folder is not ours to write"))
            return
        except OSError as error:
            yield self._stays(dropped, Refusal("unreadable", f"it cannot be moved: {error.strerror}"))
            return
        if claimed is not None:
            yield self.take(claimed)

    def pass_over(self, loose: Dropped) -> Outcome:
        if loose.path.is_symlink():
            return self._stays(loose, Refusal("symlink", "a symbolic link is not followed; make a folder of its own"))
        said = f"nobody knows of what type it is; drop it in a folder called as that{nearest('', self.types)}"
        return self._stays(loose, Refusal("no_folder", said))

    def take(self, claimed: Dropped) -> Outcome:
        if claimed.type not in self.types:
            said = f"no device type {claimed.type!r} that files may be of{nearest(claimed.type, self.types)}"
            return self._refuse(claimed, Refusal("unknown_type", said))
        try:
            with opened(claimed.path) as file:
                if not isinstance(file, Refusal):
                    return self._take(claimed, file)
        except OSError as error:  # the next file may be well
            file = Refusal("unreadable", str(error.strerror))
        if file.outcome in ("no_permission", "unreadable"):
            self._folder.give_back(claimed)
            return self._stays(claimed, file)
        return self._refuse(claimed, file)

    def _take(self, claimed: Dropped, file: BinaryIO) -> Outcome:
        before = state(file)
        sha256 = _sum(file)
        if state(file) != before:
            return self._written_to(claimed)
        number = self._begin(claimed, before[0], sha256)
        if number is None:
            return self._copy(claimed, before[0], sha256)
        found = rows(file, claimed.name, self._judged_by().form_of(claimed.type))
        if isinstance(found, Refusal):
            return self._refuse(claimed, found, number)
        counts = self._send(claimed, found)
        if state(file) != before:
            self._end(number, WRITTEN_TO, "it was written to while it was taken", counts)
            return self._written_to(claimed)
        self._end(number, TAKEN_ONCE, "", counts)
        self._folder.put(claimed, TAKEN, number)
        how_many = counts["rows"], counts["readings"], counts["old"], counts["rejected"]
        return Outcome(claimed.type, claimed.name, TAKEN_ONCE, "", *how_many)

    def _send(self, claimed: Dropped, found: Iterator[Row]) -> dict[str, int]:
        """How many were what, once Kafka has confirmed all."""
        judge, producer = self._judged_by(), self._writes()
        now_us = to_epoch_us(datetime.now(UTC))
        within = self._job.catalog.type(claimed.type).files.alerts_within
        oldest_us = now_us - round(within.total_seconds() * 1_000_000)
        counts = Counter(rows=0, readings=0, old=0, rejected=0)
        unconfirmed: deque[Any] = deque()
        for row in found:
            counts["rows"] += 1
            good = _judged(judge, claimed.type, row, now_us)
            if isinstance(good, Reject):
                counts["rejected"] += 1
                letter = dead_letter_of_row(good, source_of(claimed.type, claimed.name, row.line), row.payload, now_us)
                unconfirmed.append(producer.send(REJECTED, encode_dead_letter(letter)))
            else:
                counts["readings"] += 1
                is_old = good[0].reading.event_time_us < oldest_us
                counts["old"] += is_old
                headers = [(MARK_HEADER, RETURNED)] if is_old else []
                for one in good:
                    value = encode_reading(one.reading)
                    unconfirmed += [producer.send(topic, value, one.key, headers) for topic in one.topics]
            while len(unconfirmed) > MAX_UNCONFIRMED:
                unconfirmed.popleft().get(CONFIRM_SECONDS)
        for confirmation in unconfirmed:
            confirmation.get(CONFIRM_SECONDS)
        return dict(counts)

    def _judged_by(self) -> Requalifier:
        if self._judge is None:
            self._judge = requalifier(self._job)
        return self._judge

    def _writes(self) -> Any:
        if self._producer is None:
            kafka.check_access(self._job.settings, kafka.WRITE, readings_topics(self._job.catalog))
            self._producer = kafka.producer(self._job.settings, "weir-inbox", max_request_size=MAX_RECORD_BYTES)
        return self._producer

    def close(self) -> None:
        if self._producer is not None:
            kafka.close(self._producer)

    # What inbox_files says

    def _begin(self, claimed: Dropped, size: int, sha256: str) -> int | None:
        """The row's number, of one that was broken off too; None: this content is taken."""
        with self._job.warehouse.transaction() as c:
            given = {"type": claimed.type, "sha256": sha256}
            there = c.execute(
                text(
                    "SELECT id, outcome, name FROM inbox_files WHERE type = :type AND sha256 = :sha256"
                    " AND outcome IN ('taking', 'taken') FOR UPDATE"
                ),
                given,
            ).first()
            if there is not None:
                return int(there.id) if there.outcome == TAKING else None
            return self._insert(c, claimed, TAKING, "", size, sha256)

    def _copy(self, claimed: Dropped, size: int, sha256: str) -> Outcome:
        (first,) = self._job.warehouse.rows(
            "SELECT name, ended_at FROM inbox_files WHERE type = :type AND sha256 = :sha256 AND outcome = 'taken'",
            type=claimed.type, sha256=sha256,
        )  # fmt: skip
        said = f"its content was taken as {first['name']} at {first['ended_at']:%Y-%m-%d %H:%M:%S} UTC"
        with self._job.warehouse.transaction() as c:
            number = self._insert(c, claimed, ALREADY_TAKEN, said, size, sha256)
        self._folder.put(claimed, TAKEN, number)
        return Outcome(claimed.type, claimed.name, ALREADY_TAKEN, said)

    def _refuse(self, claimed: Dropped, why: Refusal, number: int | None = None) -> Outcome:
        if number is None:
            with self._job.warehouse.transaction() as c:
                number = self._insert(c, claimed, *why)
        else:
            self._end(number, *why, {})
        self._folder.put(claimed, REFUSED, number)
        return Outcome(claimed.type, claimed.name, *why)

    def _stays(self, dropped: Dropped, why: Refusal) -> Outcome:
        """Where it lies; written down once."""
        with self._job.warehouse.transaction() as c:
            last = c.execute(
                text("SELECT outcome FROM inbox_files WHERE type = :type AND name = :name ORDER BY id DESC LIMIT 1"),
                {"type": dropped.type, "name": dropped.name},
            ).scalar()
            if last != why.outcome:
                self._insert(c, dropped, *why)
        return Outcome(dropped.type, dropped.name, *why, is_new=last != why.outcome)

    def _written_to(self, claimed: Dropped) -> Outcome:
        self._folder.give_back(claimed)
        return Outcome(claimed.type, claimed.name, WRITTEN_TO, "somebody is writing to it; it is looked at again later")

    def _insert(
        self, c: Any, file: Dropped, outcome: str, detail: str, size: int | None = None, sha256: str | None = None
    ) -> int:  # fmt: skip
        return int(
            c.execute(
                text(
                    "INSERT INTO inbox_files (type, name, bytes, sha256, outcome, detail, run_id, ended_at)"
                    " VALUES (:type, :name, :bytes, :sha256, :outcome, :detail, :run_id,"
                    " CASE WHEN :outcome <> 'taking' THEN now() END) RETURNING id"
                ),
                {
                    "type": file.type, "name": file.name, "bytes": size, "sha256": sha256, "outcome": outcome,
                    "detail": plain(detail), "run_id": self._run_id,
                },
            ).scalar_one()
        )  # fmt: skip

    def _end(self, number: int, outcome: str, detail: str, counts: dict[str, int]) -> None:
        with self._job.warehouse.transaction() as c:
            c.execute(
                text(
                    "UPDATE inbox_files SET outcome = :outcome, detail = :detail, rows = :rows, readings = :readings,"
                    " old = :old, rejected = :rejected, run_id = :run_id, ended_at = now() WHERE id = :number"
                ),
                {
                    **dict.fromkeys(("rows", "readings", "old", "rejected"), 0), **counts, "outcome": outcome,
                    "detail": plain(detail), "run_id": self._run_id, "number": number,
                },
            )  # fmt: skip


def _judged(judge: Requalifier, type_name: str, row: Row, now_us: int) -> Any:
    if row.cells is not None:
        return judge.row(type_name, row.cells, now_us)
    spec = judge.catalog.type(type_name)
    return Reject(row.reason, row.detail, spec.system, spec.type, spec.version)


def _sum(file: BinaryIO) -> str:
    found = hashlib.sha256()
    while piece := file.read(READ_BYTES):
        found.update(piece)
    return found.hexdigest()
