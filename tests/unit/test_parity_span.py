"""Which span an audit of alerts takes where nobody, or half, says it."""

from datetime import UTC, datetime

import pytest

from etl.parity_books import span_of
from fleet.errors import ConfigurationError

NOW = datetime(2026, 11, 29, 2, 40, tzinfo=UTC)


@pytest.mark.parametrize(
    ("start", "to", "begins", "ends"),
    [
        (None, None, "2026-11-28T00:00", "2026-11-29T00:00"),
        ("-1h", None, "2026-11-29T01:40", "2026-11-29T02:38"),
        ("-1h", "now", "2026-11-29T01:40", "2026-11-29T02:38"),
        ("2026-11-20", "2026-11-21", "2026-11-20T00:00", "2026-11-21T00:00"),
    ],
    ids=["all of yesterday", "up to what is settled", "now is not settled", "as said"],
)
def test_spans(start: str | None, to: str | None, begins: str, ends: str) -> None:
    found = span_of(start, to, NOW)
    assert [f"{moment:%Y-%m-%dT%H:%M}" for moment in found if moment] == [begins, ends]


@pytest.mark.parametrize(("start", "to"), [(None, "now"), ("-1m", None), ("soon", None)])
def test_no_spans(start: str | None, to: str | None) -> None:
    with pytest.raises(ConfigurationError):
        span_of(start, to, NOW)
