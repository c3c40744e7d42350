"""Local hour, weekday, day and month, across midnights and changes of the clock."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.errors import ConfigurationError
from fleet.local_time import LocalTime

ZONES = ["UTC", "Europe/Berlin", "America/St_Johns", "Asia/Kathmandu", "Pacific/Apia", "Australia/Lord_Howe"]
moments = st.datetimes(datetime(1990, 1, 1), datetime(2035, 1, 1), timezones=st.just(UTC))


@given(st.sampled_from(ZONES), st.lists(moments, min_size=1, max_size=20))
def test_agrees_with_zoneinfo_whatever_was_asked_before(zone: str, asked: list[datetime]) -> None:
    local = LocalTime(zone)
    for moment in asked:
        us = round(moment.timestamp() * 1e6)
        true = moment.astimezone(ZoneInfo(zone))
        assert (local.hour(us), local.weekday(us)) == (true.hour, true.weekday())
        assert local.day(us) == true.toordinal()
        assert local.month(us) == true.year * 12 + true.month


@pytest.mark.parametrize("time_us", [10**18, -(10**18)])
def test_beyond_all_dates_is_unknown(time_us: int) -> None:
    assert LocalTime("Europe/Berlin").hour(time_us) is None
    assert LocalTime("Europe/Berlin").day(time_us) is None


@pytest.mark.parametrize("name", ["Moon/Tycho", "", "../etc/passwd", "Europe"])
def test_a_zone_that_there_is_not(name: str) -> None:
    with pytest.raises(ConfigurationError, match="no time zone"):
        LocalTime(name)
