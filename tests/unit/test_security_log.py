"""Which span of security events is written, and what the query asks for. What it finds: tests/integration."""

from datetime import UTC, datetime, timedelta

import pytest

from etl.security_log import span
from etl.window import OPEN, Window
from fleet.area import WORDS, words_of
from fleet.catalog import load_catalog
from fleet.errors import ConfigurationError
from fleet.security_log import happened, log, types_of
from fleet.settings import CHECKOUT

CATALOG = load_catalog(CHECKOUT / "fleet" / "types")
HOME = CATALOG.system("home")
NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
OLDEST = NOW - timedelta(days=7) + HOUR
SETTLED = NOW - timedelta(minutes=1)

SPANS = [
    ("the first time all that readings hold", OPEN, None, OLDEST, SETTLED),
    ("six hours again", OPEN, NOW - HOUR, NOW - 7 * HOUR, SETTLED),
    ("no more than readings hold", OPEN, NOW - timedelta(days=30), OLDEST, SETTLED),
    ("as asked", Window(NOW - 30 * HOUR, NOW - 20 * HOUR), NOW - HOUR, NOW - 30 * HOUR, NOW - 20 * HOUR),
    ("the first run of a day all of it", OPEN, NOW - 13 * HOUR, OLDEST + 24 * HOUR, SETTLED),
    ("without a hole", Window(NOW - 2 * HOUR, None), NOW - 9 * HOUR, NOW - 9 * HOUR, SETTLED),
]


@pytest.mark.parametrize(("asked", "kept_to", "start", "end"), [case[1:] for case in SPANS], ids=[c[0] for c in SPANS])
def test_spans(asked: Window, kept_to: datetime | None, start: datetime, end: datetime) -> None:
    assert span(HOME, asked, kept_to, NOW) == Window(start, end)


LATE = [
    ("from a late alert on", NOW - 30 * HOUR, NOW - 30 * HOUR),
    ("not from one that is in it", NOW - 2 * HOUR, NOW - 7 * HOUR),
    ("not where what was before is gone", OLDEST + HOUR, OLDEST + 24 * HOUR),
]


@pytest.mark.parametrize(("late", "start"), [case[1:] for case in LATE], ids=[case[0] for case in LATE])
def test_an_alert_that_was_detected_late(late: datetime, start: datetime) -> None:
    assert span(HOME, OPEN, NOW - HOUR, NOW, late) == Window(start, SETTLED)


def test_what_readings_hold_no_more_is_left_as_it_is() -> None:
    with pytest.raises(ConfigurationError, match="readings go back to 2026-11-22T13:00, and"):
        span(HOME, Window(NOW - timedelta(days=20), NOW - timedelta(days=10)), NOW, NOW)


def test_every_state_of_the_area_is_asked_for_by_its_words() -> None:
    query = happened(HOME, "a", "b")
    assert len(types_of(HOME)) == 4
    for spec in types_of(HOME):
        for name, metric in spec.metrics.items():
            words = words_of(name, metric.title)
            row = f"('{spec.type}', '{name}', '{words.began}', '{words.ended}')"
            assert (row in query) == (metric.kind == "state")
    assert "saying_so('presence_tag', 'present', happened.site, happened.at, INTERVAL '300 seconds')" in query
    assert "'lamp'" not in query


def test_the_log_takes_each_moment_from_one_place() -> None:
    query = log(HOME, "a", "b")
    assert "at < least(b, coalesce((SELECT kept_to" in query
    assert "greatest(a, coalesce((SELECT kept_to" in query


def test_words_are_told_apart() -> None:
    assert words_of("leak", "Water on the floor").began == "water on the floor began"
    assert all(words.on != words.off and words.began != words.ended for words in WORDS.values())
