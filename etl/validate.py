"""Which partitions of a batch may be loaded: files as promised, and the type's suite met where it matters."""

from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from connections.lake import Lake
from etl.curated import asked_columns, curated, is_about_values
from etl.great_expectations_site import Unmet, Validator, Verdict
from etl.kernel_task import TEXTS
from etl.lake_frames import arrow_tables
from etl.lake_index import PartitionFiles
from etl.suite import CRITICAL, suite
from fleet.errors import DataError
from fleet.spec import DeviceType

MAX_PIECE_ROWS = 2_000_000
"""Rows given to Great Expectations at once: about 1 s and 0.5 GB."""


@dataclass(frozen=True)
class Validation:
    """One run of the suite over a piece: small partitions together, or a part of a large one."""

    piece: str
    partitions: tuple[str, ...]
    verdict: Verdict


@dataclass
class Outcome:
    validations: list[Validation] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    """Key of a partition → why nothing of it may be loaded."""


@dataclass
class Piece:
    tables: list[pa.Table]
    partitions: list[str]

    @property
    def rows(self) -> int:
        return sum(t.num_rows for t in self.tables)


def validate(
    lake: Lake, spec: DeviceType, partitions: Iterable[PartitionFiles], run_id: str, home: Path
) -> Outcome:  # fmt: skip
    """Pieces of small partitions are validated together; if one fails, each of its partitions alone, and so from the
    beginning where an expectation written by hand is about a whole partition."""
    by_hand = curated(spec)
    wanted_of_type = suite(spec)
    wanted_of_type["expectations"] += by_hand
    by_hand_about = {column for one in by_hand for column in asked_columns(one["kwargs"])}
    validator, outcome = Validator(home), Outcome()
    wanted = list(partitions)
    by_key = {p.partition.key: p for p in wanted}

    def check(piece: Piece, name: str) -> Verdict:
        frame = _frame(piece.tables, by_hand_about)
        verdict = validator.validate(wanted_of_type, frame, f"{run_id}-{name}".replace(":", "").replace("/", "-"))
        outcome.validations.append(Validation(name, tuple(piece.partitions), verdict))
        return verdict

    for number, piece in enumerate(
        _pieces(lake, spec, wanted, outcome, joined=all(is_about_values(one) for one in by_hand))
    ):
        verdict = check(piece, _piece_name(piece, number))
        if verdict.success:
            continue
        if len(piece.partitions) == 1:
            outcome.failed[piece.partitions[0]] = _reason(verdict)
            continue
        for key in piece.partitions:
            alone = Piece(list(arrow_tables(lake, spec, by_key[key], TEXTS)), [key])
            verdict = check(alone, f"{_time_of(key)}-alone")
            if not verdict.success:
                outcome.failed[key] = _reason(verdict)
    return outcome


def _pieces(
    lake: Lake, spec: DeviceType, partitions: Iterable[PartitionFiles], outcome: Outcome, joined: bool
) -> Iterator[Piece]:
    """Partitions joined up to MAX_PIECE_ROWS, a larger one cut at its files; or each as it is. One whose files are
    broken is left out and noted in the outcome."""
    piece = Piece([], [])
    for partition in partitions:
        key = partition.partition.key
        if piece.tables and (not joined or piece.rows + partition.rows > MAX_PIECE_ROWS):
            yield piece
            piece = Piece([], [])
        before = Piece(list(piece.tables), list(piece.partitions))
        try:
            for table in arrow_tables(lake, spec, partition, TEXTS):
                if joined and piece.tables and piece.rows + table.num_rows > MAX_PIECE_ROWS:
                    yield piece
                    piece, before = Piece([], []), Piece([], [])
                piece.tables.append(table)
                piece.partitions = [*dict.fromkeys([*piece.partitions, key])]
        except DataError as error:
            outcome.failed[key] = str(error)
            broken = Unmet("readable file of the lake", "", CRITICAL, 0, str(error))
            outcome.validations.append(Validation(f"{_time_of(key)}-broken", (key,), Verdict(0, 1, (broken,), "")))
            piece = before
    if piece.tables:
        yield piece


def _piece_name(piece: Piece, number: int) -> str:
    first, last = _time_of(piece.partitions[0]), _time_of(piece.partitions[-1])
    times = first if len(piece.partitions) == 1 else f"{first}-to-{last}"
    return f"{times}-{number}" if number else times


def _time_of(key: str) -> str:
    return key.rpartition("/")[2]


def _frame(tables: Sequence[pa.Table], by_hand_about: Container[str]):  # type: ignore[no-untyped-def]
    """As pandas has it. Where no expectation was written by hand, which may be any, texts are categories, and lists are
    nothing: they cost more than all other columns together."""
    table = pa.concat_tables(tables).unify_dictionaries()
    for place, name in enumerate(table.column_names):
        column, asked = table[place], name in by_hand_about
        if pa.types.is_list(column.type):
            told = pc.binary_join(column.cast(pa.list_(pa.string())), ",") if asked else pa.nulls(len(column))
        elif pa.types.is_dictionary(column.type) and asked:
            told = column.cast(pa.string())
        else:
            continue
        table = table.set_column(place, name, told)
    return table.to_pandas()


def _reason(verdict: Verdict) -> str:
    return f"{'; '.join(map(str, verdict.critical))} (see {verdict.data_docs})"
