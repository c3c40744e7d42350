"""The rows of a file of CSV or JSON lines, one at a time, however large it is."""

import csv
import json
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

from fleet.contract import MAX_PAYLOAD_BYTES
from fleet.file_row import FileForm, Refusal

MAX_LINE_BYTES = MAX_PAYLOAD_BYTES
KEPT_BYTES = 1000
"""Of a line that is too long, in its dead letter."""
BOM = b"\xef\xbb\xbf"
DELIMITERS = (",", ";", "\t")
CSV, JSON_LINES = (".csv", ".tsv"), (".jsonl", ".ndjson")


class Row(NamedTuple):
    """`cells` by the file's names, or why the line is no row. `raw`: its bytes, cut where they are too many."""

    line: int
    raw: bytes
    cells: dict[str, Any] | None
    reason: str = ""
    detail: str = ""

    @property
    def payload(self) -> bytes:
        """What a dead letter keeps: of CSV with the names of its cells, so that it can be judged again by itself."""
        return self.raw if self.cells is None else json.dumps(self.cells).encode()


class _Line(NamedTuple):
    number: int
    raw: bytes
    is_too_long: bool


def rows(file: BinaryIO, name: str, form: FileForm) -> Iterator[Row] | Refusal:
    """From the file's beginning; blank lines are none. The header is looked at before the first row is asked for."""
    file.seek(0)
    suffix = "." + name.rpartition(".")[2].lower()
    if suffix not in (*CSV, *JSON_LINES):
        return Refusal("unknown_format", f"its name ends in none of {', '.join((*CSV, *JSON_LINES))}")
    lines = _lines(file)
    first = next(lines, None)
    if first is None:
        return Refusal("empty", "there is nothing in it")
    if suffix in JSON_LINES:
        return _json_rows(first, lines)
    if first.is_too_long:
        return Refusal("line_too_long", f"line {first.number}, the header, has over {MAX_LINE_BYTES:,} bytes")
    try:
        text = first.raw.decode()
    except UnicodeDecodeError as error:
        return Refusal("not_utf8", f"line {first.number}, the header, at byte {error.start}; save the file as UTF-8")
    delimiter = max(DELIMITERS, key=text.count)
    try:
        header = [cell.strip() for cell in _cells(text, delimiter)]
    except csv.Error as error:
        return Refusal("unknown_column", f"line {first.number}, the header: {error}")
    if (problem := form.problem(header)) is not None:
        return problem
    second = next(lines, None)
    if second is None:
        return Refusal("header_only", f"after the header, line {first.number}, there is nothing")
    return _csv_rows(header, delimiter, second, lines)


def _lines(file: BinaryIO) -> Iterator[_Line]:
    """Those that are not blank, without their ends."""
    number = 0
    while line := file.readline(MAX_LINE_BYTES + 2):
        number += 1
        if number == 1:
            line = line.removeprefix(BOM)
        body = line.rstrip(b"\r\n")
        if len(body) > MAX_LINE_BYTES:
            while not line.endswith(b"\n") and (line := file.readline(MAX_LINE_BYTES)):
                pass
            yield _Line(number, body[:KEPT_BYTES], True)
        elif body.strip():
            yield _Line(number, body, False)


def _cells(text: str, delimiter: str) -> list[str]:
    """A line is a row: a quote that is left open must not swallow the rest of the file. Raises csv.Error."""
    return next(csv.reader([text], delimiter=delimiter, strict=True))


def _csv_rows(header: list[str], delimiter: str, first: _Line, rest: Iterator[_Line]) -> Iterator[Row]:
    for line in _chained(first, rest):
        text = _text(line)
        if isinstance(text, Row):
            yield text
            continue
        try:
            cells = _cells(text, delimiter)
        except csv.Error as error:
            yield Row(line.number, line.raw, None, "malformed_row", str(error))
            continue
        if len(cells) != len(header):
            said = f"{len(cells)} fields, the header has {len(header)}"
            yield Row(line.number, line.raw, None, "malformed_row", said)
            continue
        yield Row(line.number, line.raw, {n: c.strip() for n, c in zip(header, cells, strict=True)})


def _json_rows(first: _Line, rest: Iterator[_Line]) -> Iterator[Row]:
    for line in _chained(first, rest):
        text = _text(line)
        if isinstance(text, Row):
            yield text
            continue
        try:
            cells = json.loads(text)
        except (ValueError, RecursionError) as error:
            yield Row(line.number, line.raw, None, "malformed_json", str(error)[:200])
            continue
        if isinstance(cells, dict):
            yield Row(line.number, line.raw, cells)
        else:
            said = f"expected an object, found {type(cells).__name__}"
            yield Row(line.number, line.raw, None, "malformed_json", said)


def _chained(first: _Line, rest: Iterator[_Line]) -> Iterator[_Line]:
    yield first
    yield from rest


def _text(line: _Line) -> str | Row:
    if line.is_too_long:
        said = f"the line has over {MAX_LINE_BYTES:,} bytes"
        return Row(line.number, line.raw, None, "oversized", said)
    try:
        return line.raw.decode()
    except UnicodeDecodeError as error:
        return Row(line.number, line.raw, None, "not_utf8", f"byte {error.start} of the line is not UTF-8")
