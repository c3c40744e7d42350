"""The truth of a run, as JSON lines: one for each message that a fault touched, and the summary as the last."""

import json
from pathlib import Path
from typing import Any

import msgspec

from fleet.errors import ConfigurationError, DataError

_encode = msgspec.json.Encoder().encode


class Truth:
    """Writes to the file, or nowhere where there is none."""

    def __init__(self, path: Path | None):
        self._path = path
        try:
            self._file = path.open("wb") if path else None
        except OSError as error:
            raise ConfigurationError(f"--truth {path}: {error.strerror}") from None

    def note(self, line: dict[str, Any]) -> None:
        if self._file:
            self._file.write(_encode(line) + b"\n")

    def close(self, summary: dict[str, Any]) -> None:
        self.note({"summary": summary})
        if self._file:
            self._file.close()


def read_truth(path: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """(fault lines, summary). Raises DataError where the run has not ended yet, or was killed."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    if not lines or "summary" not in lines[-1]:
        raise DataError(f"{path} has no summary as its last line: the run was killed, or is still going on")
    return lines[:-1], lines[-1]["summary"]
