"""The texts of an alert: what a template may say, and that a wrong one shows its source."""

import pytest

from fleet.template import render

SCOPE = {"device": "s1", "site": "roof", "value": 36.25, "a": 3.0, "gone": None, "large": 1234567.0, "third": 1 / 3}
GOOD = [
    ("", ""), ("no fields", "no fields"), ("{device} at {site}", "s1 at roof"), ("{value}", "36.25"), ("{a}", "3"),
    ("{gone}", "unknown"), ("{large}", "1234567"), ("{third}", "0.3333333333"), ("{value:.1f}", "36.2"),
    ("{a:04.1f}", "03.0"), ("{{a}}", "{a}"), ("100 %", "100 %"), ("{large:,.0f}", "1,234,567"),
]  # fmt: skip
SOURCE = [
    "{nothing}", "{", "}", "{}", "{0}", "{a.real}", "{a[0]}", "{device.__class__}", "{a!r}", "{a:{value}}",
    "{gone:.1f}", "{a:999999999}", "{a:x}", "{device:.1f}", "{a:>10000}",
]  # fmt: skip


@pytest.mark.parametrize(("template", "text"), GOOD, ids=[g[0] for g in GOOD])
def test_renders(template: str, text: str) -> None:
    assert render(template, SCOPE) == text


@pytest.mark.parametrize("template", SOURCE)
def test_what_fails_shows_its_source(template: str) -> None:
    assert render(template, SCOPE) == template
