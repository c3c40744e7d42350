"""`weir alerts silence site=roof`: what a matcher may look like, and what it matches. `weir alerts maintenance`, and
what a check of the receivers' file says of words that fit nothing."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from fleet.errors import ConfigurationError
from weir._alert_silences import fitting_nothing, matcher_of, str_of
from weir.main import build

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
    ("sight!=roof", ""), ("sight=", ""), ("sight=roof", "no alert has a label 'sight'; did you mean 'site'?"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "said"), FITTING, ids=[f[0] for f in FITTING])
def test_what_fits_nothing_is_told(text: str, said: str) -> None:
    assert fitting_nothing([matcher_of(text)], KNOWN) == ([said] if said else [])


FILE = """
receivers: {ops: {kind: webhook, url: "http://ops"}}
routes: [{match: {rule: hgih_wind_speed}, to: ops}]
maintenance:
  - {name: always, cron: "* * * * *", duration: 2h}
  - {cron: "0 2 29 2 *", duration: 1m, match: {site: [roof, yard], labels: {team: blue}}}
"""


@pytest.fixture
def of_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    (tmp_path / "receivers.yaml").write_text(FILE)
    monkeypatch.setenv("WEIR_RECEIVERS_FILE", str(tmp_path / "receivers.yaml"))
    monkeypatch.setenv("WEIR_HOME", str(tmp_path))
    return CliRunner()


def test_maintenance_windows_are_shown(of_file: CliRunner) -> None:
    _head, always, rarely = of_file.invoke(build(), ["alerts", "maintenance"]).stdout.splitlines()
    assert always.startswith("always ") and " everything " in always and " open until " in always
    assert " site=roof,yard team=blue " in rarely and "-02-29 02:00:00 UTC" in rarely


def test_a_check_tells_what_fits_nothing(of_file: CliRunner) -> None:
    said = of_file.invoke(build(), ["alerts", "receivers", "--check"])
    assert said.exit_code == 0
    assert "routes.0.match.rule: none fits 'hgih_wind_speed'; did you mean 'high_wind_speed'?" in said.stderr
