"""An Arrow table as COPY reads it, piece by piece."""

import csv
from io import StringIO

import pyarrow as pa
import pytest

from connections import arrow_csv
from connections.arrow_csv import csv_of


def read(table: pa.Table) -> str:
    found = []
    with csv_of(table) as file:
        while piece := file.read(8192):
            found.append(piece)
        assert file.read(8192) == b""
    return b"".join(found).decode()


@pytest.mark.parametrize("rows", [1, 6, 7, 8, 21])
def test_all_rows_in_order(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    monkeypatch.setattr(arrow_csv, "PIECE_ROWS", 7)
    found = read(pa.table({"n": range(rows), "of": ["a,\n\"b'"] * rows}))
    assert [*csv.reader(StringIO(found))] == [[str(n), "a,\n\"b'"] for n in range(rows)]


def test_null_has_no_quotes_and_nothing_has() -> None:
    assert read(pa.table({"text": ["", None], "n": [None, 2]})) == '"",\n,2\n'
