"""Rows for one statement: many small ones, and none too large."""

import pytest

from streaming.notifications import slices

SLICES = [
    ("nothing", [], []),
    ("one that is too large goes by itself", ["a", "x" * 20, "b"], ['["a"]', f'["{"x" * 20}"]', '["b"]']),
    ("as many as there is room for", ["aaa", "bbb", "ccc"], ['["aaa","bbb"]', '["ccc"]']),
    ("letters of several bytes", ["äö", "ü"], ['["äö","ü"]']),
]


@pytest.mark.parametrize(("rows", "expected"), [s[1:] for s in SLICES], ids=[s[0] for s in SLICES])
def test_slices(rows: list[str], expected: list[str]) -> None:
    assert list(slices(rows, 10)) == expected
