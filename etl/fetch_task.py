"""What a Spark task does to have a file of an S3 lake: it asks for it at an address that is signed for an hour.

Runs inside Spark's Python workers, which need not have Weir, nor any keys.
"""

import time
from collections.abc import Iterable, Iterator
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.request import urlopen

import pyarrow as pa

FETCHED = "path string, content binary"
"""What `fetch` gives, as Spark's DDL."""
PATIENCE_SECONDS = 60.0
PAUSES_SECONDS = (1.0, 4.0)
"""Before it is asked again, where the store is busy or away."""


def fetch(files: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """`files` have path and address. Raises OSError where a file is not to be had."""
    for batch in files:
        for file in batch.to_pylist():
            content = pa.array([_content(file["path"], file["address"])], pa.binary())
            yield pa.RecordBatch.from_arrays([pa.array([file["path"]]), content], ["path", "content"])


def _content(path: str, address: str) -> bytes:
    for pause in (*PAUSES_SECONDS, None):
        try:
            with urlopen(address, timeout=PATIENCE_SECONDS) as answer:  # noqa: S310 - the driver has made it
                return bytes(answer.read())
        except (OSError, HTTPException) as error:
            answered_no = isinstance(error, HTTPError) and error.code < 500
            if pause is None or answered_no:
                # Not the address: it is as good as a key for an hour.
                raise OSError(f"{path}: {error}") from None
        time.sleep(pause)
    raise AssertionError
