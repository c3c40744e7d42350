"""Rows as lines, for people and for grep alike."""

from collections.abc import Iterator, Sequence
from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="JSON instead of a table.")]


def aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """A line for each row, whatever line breaks its texts have; columns below one another; nothing is cut."""
    rows = [[" ".join(cell.split()) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(map(str.ljust, row, widths)).rstrip()


def at_most(limit: int) -> str:
    return f"the latest {limit:,}; there may be more: --limit"
