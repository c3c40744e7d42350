"""Arrow tables as CSV for COPY, without a Python object a cell."""

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.csv as pa_csv

PIECE_ROWS = 20_000
"""About 3 MB of text, of which two pieces are there at a time."""


class _Csv:
    """A file to read once. While the server takes a piece of it, the next is written."""

    def __init__(self, table: pa.Table, ahead: ThreadPoolExecutor):
        self._table, self._ahead = table, ahead
        self._starts = iter(range(0, table.num_rows, PIECE_ROWS))
        self._coming = ahead.submit(self._piece)

    def read(self, size: int = -1) -> bytes:
        """The next piece, whatever its size; nothing at the end."""
        piece = self._coming.result()
        if piece:
            self._coming = self._ahead.submit(self._piece)
        return piece

    def _piece(self) -> bytes:
        start = next(self._starts, None)
        if start is None:
            return b""
        sink = io.BytesIO()
        pa_csv.write_csv(self._table.slice(start, PIECE_ROWS), sink, pa_csv.WriteOptions(include_header=False))
        return sink.getvalue()


@contextmanager
def csv_of(table: pa.Table) -> Iterator[_Csv]:
    """Without a header; null is an empty field without quotes, as `copy_csv` takes it."""
    with ThreadPoolExecutor(1) as ahead:
        yield _Csv(table, ahead)
