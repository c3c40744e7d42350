"""What the migration runner and the error table decide, without a server."""

import pytest

from connections.warehouse import _copy_text, _RowText, drift, error_of
from fleet.errors import DataError, Refused, Unavailable

A, B, C = "0001_a.sql", "0002_b.sql", "0003_c.sql"


@pytest.mark.parametrize(
    ("applied", "files", "problem"),
    [
        ({}, {A: "1", B: "2"}, ""),
        ({A: "1"}, {A: "1", B: "2"}, ""),
        ({A: "1", B: "2"}, {A: "1", B: "2"}, ""),
        ({A: "1"}, {A: "changed"}, "changed after it was applied"),
        ({A: "1", B: "2"}, {A: "1"}, "not in this checkout"),
        ({A: "1", C: "3"}, {A: "1", B: "2", C: "3"}, "comes before"),
    ],
    ids=["new", "one pending", "up to date", "edited", "database is newer", "out of order"],
)
def test_drift(applied: dict[str, str], files: dict[str, str], problem: str) -> None:
    found = drift(applied, files)
    assert problem in found if problem else found == ""


@pytest.mark.parametrize(
    ("code", "message", "disconnected", "expected"),
    [
        (None, "connection refused", False, Unavailable),
        (None, 'FATAL: password authentication failed for user "x"', False, Refused),
        (None, 'FATAL: database "x" does not exist', False, Refused),
        (None, "FATAL: the database system is starting up", False, Unavailable),
        (None, "server closed the connection", True, Unavailable),
        ("57P01", "terminating connection", True, Unavailable),
        ("53100", "disk full", False, Unavailable),
        ("40P01", "deadlock", False, Unavailable),
        ("42501", "permission denied", False, Refused),
        ("23505", "duplicate key", False, DataError),
        ("42601", "syntax error", False, None),
    ],
)
def test_errors_by_sqlstate(code: str | None, message: str, disconnected: bool, expected: type | None) -> None:
    assert error_of(code, message, disconnected) is expected


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "\\N"), (b"\xff\\", "\\\\xff5c"), ("a\tb\nc\\", "a\\tb\\nc\\\\"), (1.5, "1.5"), ("a\0b", "a\ufffdb")],
    ids=str,
)
def test_copy_text(value: object, text: str) -> None:
    assert _copy_text(value) == text


def test_rows_become_text_as_they_are_read() -> None:
    made = []

    def rows():  # type: ignore[no-untyped-def]
        for i in range(1000):
            made.append(i)
            yield (i, "x" * 96)

    stream = _RowText(rows())
    assert len(stream.read(100)) >= 100
    assert len(made) < 5
    rest = list(iter(lambda: stream.read(8192), ""))
    assert (stream.count, len(made)) == (1000, 1000)
    assert len(rest) > 10
