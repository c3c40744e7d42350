"""The rows of a file of CSV or JSON lines, one at a time, however large it is."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain
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
        if self.cells is None:
            return self.raw
        try:
            return json.dumps(self.cells).encode()
        except RecursionError:  # of JSON alone, which is judged as it came; more can be read than written
            return self.raw


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
        return _rows(chain([first], lines), _of_json)
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
    return _rows(chain([second], lines), partial(_of_csv, header, delimiter))


def _lines(file: BinaryIO) -> Iterator[_Line]:
    """Those that are not blank, without their ends."""
    number = 0
    enough = len(BOM) + MAX_LINE_BYTES + len(b"\r\n")
    while line := file.readline(enough):
        number += 1
        is_cut = len(line) == enough and not line.endswith(b"\n")
        if number == 1:
            line = line.removeprefix(BOM)
        body = line.rstrip(b"\r\n")
        if is_cut or len(body) > MAX_LINE_BYTES:
            while not line.endswith(b"\n") and (line := file.readline(MAX_LINE_BYTES)):
                pass
            yield _Line(number, body[:KEPT_BYTES], True)
        elif body.strip():
            yield _Line(number, body, False)


def _cells(text: str, delimiter: str) -> list[str]:
    """A line is a row: a quote that is left open must not swallow the rest of the file. Raises csv.Error."""
    return next(csv.reader([text], delimiter=delimiter, strict=True))


class _NoRow(Exception):
    """Reason and detail."""


def _rows(lines: Iterable[_Line], read: Callable[[str], dict[str, Any]]) -> Iterator[Row]:
    """`read` makes cells of a line, or raises _NoRow."""
    for line in lines:
        try:
            yield Row(line.number, line.raw, read(_text(line)))
        except _NoRow as error:
            yield Row(line.number, line.raw, None, *error.args)


def _of_csv(header: list[str], delimiter: str, text: str) -> dict[str, Any]:
    try:
        cells = _cells(text, delimiter)
    except csv.Error as error:
        raise _NoRow("malformed_row", str(error)) from None
    if len(cells) != len(header):
        raise _NoRow("malformed_row", f"{len(cells)} fields, the header has {len(header)}")
    return {name: cell.strip() for name, cell in zip(header, cells, strict=True)}


def _of_json(text: str) -> dict[str, Any]:
    try:
        cells = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _NoRow("malformed_json", str(error)[:200]) from None
    if not isinstance(cells, dict):
        raise _NoRow("malformed_json", f"expected an object, found {type(cells).__name__}")
    return cells


def _text(line: _Line) -> str:
    if line.is_too_long:
        raise _NoRow("oversized", f"the line has over {MAX_LINE_BYTES:,} bytes")
    try:
        return line.raw.decode()
    except UnicodeDecodeError as error:
        raise _NoRow("not_utf8", f"byte {error.start} of the line is not UTF-8") from None
