"""What a checkpoint of Structured Streaming says: whose it is, how far it came, and where in Kafka that was."""

import fcntl
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from fleet.errors import ConfigurationError


@dataclass(frozen=True)
class Checkpoint:
    """Of a query that reads one Kafka topic."""

    id: str
    """The query's, for as long as the folder is there."""
    begun: int = -1
    """The last batch whose end was decided; a killed one is done again up to that very end."""
    committed: int = -1
    offsets: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    """Topic → partition → the offset after the last that is in a committed batch."""


def read_checkpoint(folder: Path) -> Checkpoint | None:
    """None where there is none. Raises ConfigurationError for one that cannot be read."""
    try:
        if not (folder / "metadata").is_file():
            return None
        committed = _last(folder / "commits")
        return Checkpoint(
            json.loads((folder / "metadata").read_text(encoding="utf-8"))["id"],
            _last(folder / "offsets"),
            committed,
            _offsets(folder / "offsets" / str(committed)) if committed >= 0 else {},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigurationError(f"the checkpoint {folder} cannot be read: {error!r}") from error


def _last(folder: Path) -> int:
    return max((int(file.name) for file in folder.glob("*") if file.name.isdecimal()), default=-1)


def _offsets(file: Path) -> dict[str, dict[int, int]]:
    """The file's last line: the source's offsets, after a version and what the batch ran with."""
    said = json.loads(file.read_text(encoding="utf-8").strip().splitlines()[-1])
    return {topic: {int(place): int(offset) for place, offset in places.items()} for topic, places in said.items()}


def remove_checkpoint(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """One process at a time may use a checkpoint. Raises ConfigurationError where another one does."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError(f"another process uses the checkpoint {folder}; stop that one first") from None
        yield
