"""The report: a PDF with a page of all systems and two of each, its key findings and how Weir performed, from the
warehouse alone. The same rows make the same file."""

import os
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from connections.warehouse import Warehouse
from etl.report_figures import figures_of, whole_hours
from etl.window import Window, parse_window
from fleet.catalog import System
from fleet.errors import ConfigurationError
from fleet.report import Figures
from fleet.settings import Settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def last_week(now: datetime) -> Window:
    """The last that is over, from Monday to Monday, UTC."""
    midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    end = midnight - timedelta(days=midnight.weekday())
    return Window(end - timedelta(days=7), end)


def span_of(start: str | None, to: str | None, now: datetime) -> Window:
    """Last week where neither is given. Raises ConfigurationError."""
    if start is None and to is None:
        return last_week(now)
    if start is None:
        raise ConfigurationError("to without from: a report is of a span")
    return parse_window(start, to or "now", now)


def file_of(settings: Settings, window: Window, systems: Sequence[str] = ()) -> Path:
    """Where a report goes that nobody names a file for. `systems`: empty for one of all."""
    ends = [f"{at:%Y-%m-%d}" if at.hour == 0 else f"{at:%Y-%m-%dT%H}" for at in whole_hours(window)]
    return settings.home / "reports" / f"{'-'.join(['report', *systems, *ends])}.pdf"


def figures(warehouse: Warehouse, systems: Sequence[System], window: Window) -> list[Figures]:
    with warehouse.snapshot() as seen:
        return [figures_of(seen, system, window) for system in systems]


def write(settings: Settings, of: Sequence[Figures], file: Path) -> int:
    """How many pages. The file is there whole, or as it was. Raises ConfigurationError where it cannot be written."""
    os.environ.setdefault("MPLCONFIGDIR", str(settings.home / "matplotlib"))  # its list of fonts: nowhere else
    from matplotlib import rc_context
    from matplotlib.backends.backend_pdf import PdfPages

    from etl.report_page import STYLE

    metadata = {"Title": "Weir: report", "Creator": "Weir", "Producer": None, "CreationDate": None}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=file.parent, suffix=".pdf", delete=False) as made:
            pass
        unfinished = Path(made.name)
        try:
            with rc_context(STYLE), PdfPages(unfinished, metadata=metadata) as pdf:
                drawn = pages(of)
                for page in drawn:
                    pdf.savefig(page)
            unfinished.chmod(0o644)
            unfinished.replace(file)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigurationError(f"{file}: cannot be written: {error.strerror or error}") from error
    return len(drawn)


def pages(of: Sequence[Figures]) -> "list[Figure]":
    from etl.report_page import of_findings, of_fleet, of_performance

    found = [of_fleet(of)]
    for one in of:
        found += [of_findings(one, len(found) + 1), of_performance(one, len(found) + 2)]
    return found
