"""Recordings of real devices, and replays of them that end now.

What is particular to a file format is one reader in FORMATS; the rest is the same for all.
"""

import gzip
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import IO, cast

import msgspec

from fleet.catalog import Catalog
from fleet.channels import LEVEL
from fleet.errors import ConfigurationError, DataError
from fleet.reading import Reading
from simulators.energy_recordings import APPLIANCES_ENERGY, HOUSEHOLD_POWER
from simulators.home_recording import HOME
from simulators.independent import cadence_of
from simulators.occupancy_recording import OCCUPANCY
from simulators.recording_format import Dirty, Format, Row

FORMATS: dict[str, Format] = {
    "occupancy": OCCUPANCY,
    "home": HOME,
    "household-power": HOUSEHOLD_POWER,
    "appliances-energy": APPLIANCES_ENERGY,
}
"""By the recording's name; of a system that has one, the system's."""
MAX_DIRTY_SHOWN = 20


def format_of(name: str) -> Format:
    """Raises ConfigurationError for recordings that nothing reads."""
    if name not in FORMATS:
        raise ConfigurationError(f"no recordings of {name!r} can be read; there are: {', '.join(FORMATS)}")
    return FORMATS[name]


def recording_of(
    catalog: Catalog,
    name: str,
    path: Path,
    *,
    site: str | None = None,
    skip_us: int = 0,
    limit: int | None = None,
    duration_us: int | None = None,
    max_gap_us: int | None = None,
) -> "Recording":
    """Site and cadence are the spec's unless given. Raises ConfigurationError."""
    form = format_of(name)
    spec = catalog.type(form.types[0])
    place = site or (spec.simulation.site if spec.simulation else "site-1")
    if not LEVEL.fullmatch(place):
        raise ConfigurationError(f"--site {place!r}: letters, digits and _ . : - , at most 64")
    return Recording(
        path, form, place, cadence_of(spec) // timedelta(microseconds=1), skip_us, limit, duration_us, max_gap_us
    )  # fmt: skip


@contextmanager
def _open(path: Path) -> Iterator[IO[str]]:
    try:
        if path.suffix == ".gz":
            with gzip.open(path, "rt", encoding="utf-8", errors="replace", newline="") as text:
                yield cast(IO[str], text)
        else:
            with path.open(encoding="utf-8", errors="replace", newline="") as plain:
                yield plain
    except (OSError, EOFError) as error:  # a cut gzip is an EOFError
        raise DataError(f"{path}: {getattr(error, 'strerror', None) or error}") from None


@dataclass
class Survey:
    """A recording read through once: what a replay will send in one pass. `last_us` is before any shift, with gaps
    closed; `skipped` counts dirty rows by reason, and `dirty` shows the first of them."""

    rows: int = 0
    first_us: int = 0
    last_us: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    dirty: list[str] = field(default_factory=list)
    devices: set[tuple[str, str]] = field(default_factory=set)
    """Type and id of each that speaks."""

    @property
    def span_us(self) -> int:
        return self.last_us - self.first_us


@dataclass(frozen=True)
class Recording:
    """A file, and the part of it that is replayed: from `skip_us` after its first row on, up to `limit` rows, and up to
    `duration_us`. Pauses longer than `max_gap_us` are closed to that."""

    path: Path
    format: Format
    site: str
    cadence_us: int
    skip_us: int = 0
    limit: int | None = None
    duration_us: int | None = None
    max_gap_us: int | None = None

    def rows(self, survey: Survey | None = None) -> Iterator[Row]:
        """The rows in the file's order, with gaps closed. Dirty ones are skipped, and counted in the survey."""
        begin_us = first_us = newest_us = None
        closed_us = taken = 0
        with _open(self.path) as text:
            for item in self.format.read(text, self.site, str(self.path)):
                if isinstance(item, Dirty):
                    if survey:
                        survey.skipped[item.reason] += 1
                        if len(survey.dirty) < MAX_DIRTY_SHOWN:
                            survey.dirty.append(f"{self.path}:{item.line}: {item.reason}: {item.detail}")
                    continue
                if newest_us is not None and self.max_gap_us is not None:
                    closed_us += max(0, item.time_us - newest_us - self.max_gap_us)
                newest_us = item.time_us if newest_us is None else max(newest_us, item.time_us)
                row = item.shifted(-closed_us)
                begin_us = row.time_us if begin_us is None else begin_us
                if row.time_us - begin_us < self.skip_us:
                    continue
                first_us = row.time_us if first_us is None else first_us
                # The end belongs to the next pass: [first, first + duration).
                if self.duration_us is not None and row.time_us - first_us >= self.duration_us:
                    return
                yield row
                taken += 1
                if self.limit is not None and taken >= self.limit:
                    return

    def survey(self) -> Survey:
        """Raises DataError where the file has no usable row."""
        survey = Survey()
        for row in self.rows(survey):
            if survey.rows == 0:
                survey.first_us = survey.last_us = row.time_us
            survey.rows += 1
            survey.last_us = max(survey.last_us, row.time_us)
            survey.first_us = min(survey.first_us, row.time_us)
            survey.devices.update((reading.device_type, reading.device_id) for reading in row.readings)
        if survey.rows == 0:
            raise DataError("\n".join([f"{self.path}: no usable row", *survey.dirty[:5]]))
        return survey

    def registry_lines(self, survey: Survey) -> Iterator[str]:
        """A CSV file for `weir devices import`."""
        yield "type,device_id,site"
        for type_name, device_id in sorted(survey.devices):
            yield f"{type_name},{device_id},{self.site}"

    def readings(self, survey: Survey, first_us: int, loop: bool, with_seq: bool = False) -> Iterator[Reading]:
        """The readings, shifted so that the recording begins at `first_us`; in a loop, each pass lies the data's span
        and one cadence after the one before, so that no two passes share a moment."""
        sent: dict[str, int] = {}
        shift_us = first_us - survey.first_us
        while True:
            for row in self.rows():
                for reading in row.shifted(shift_us).readings:
                    if with_seq:
                        sent[reading.device_id] = sent.get(reading.device_id, 0) + 1
                        reading = msgspec.structs.replace(reading, seq=sent[reading.device_id])
                    yield reading
            if not loop:
                return
            shift_us += survey.span_us + self.cadence_us
