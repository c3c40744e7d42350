"""`weir alerts silence site=roof`: what a matcher may look like, and what it matches."""

import pytest

from fleet.errors import ConfigurationError
from weir._alert_silences import fitting_nothing, matcher_of, str_of

LABELS = {"alertname": "high_co2", "site": "roof", "device": "s12"}
GOOD = [
    ("site=roof", True), ("site=yard", False), ("site!=yard", True), ("device=~s[0-9]+", True), ("device=~s", False),
    ("device!~s.*", False), ("rule=high_co2", True), ("team=", True), ("site=a=b", False),
]  # fmt: skip


@pytest.mark.parametrize(("text", "matches"), GOOD, ids=[g[0] for g in GOOD])
def test_matchers(text: str, matches: bool) -> None:
    assert matcher_of(text).matches(LABELS) == matches
    assert matcher_of(str_of(matcher_of(text))) == matcher_of(text)


@pytest.mark.parametrize("text", ["roof", "=roof", "si te=roof", "site=~["])
def test_what_is_none(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"no matcher|no regular expression"):
        matcher_of(text)


KNOWN = {"site": {"roof", "yard"}, "device": {"s12"}, "alertname": {"high_co2"}, "team": set[str]()}
FITTING = [
    ("site=roof", ""), ("site=roff", "no site fits site=roff; did you mean 'roof'?"), ("site=~r.*", ""),
    ("device=~t.*", "no device fits device=~t.*"), ("device!=s13", ""), ("device!~s.*", ""),
    ("rule=high_co", "no rule fits alertname=high_co; did you mean 'high_co2'?"), ("team=blue", ""),
    ("sight=roof", "no alert has a label 'sight'; did you mean 'site'?"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "said"), FITTING, ids=[f[0] for f in FITTING])
def test_what_fits_nothing_is_told(text: str, said: str) -> None:
    assert fitting_nothing([matcher_of(text)], KNOWN) == ([said] if said else [])
