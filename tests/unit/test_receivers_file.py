"""The file of receivers: what it may say, and that each mistake is named with its line, and never a secret."""

import re
from datetime import UTC, datetime, timedelta

import pytest

from fleet.errors import SpecError
from fleet.maintenance import Maintenance
from fleet.receivers import KINDS, AlertmanagerOptions, EmailOptions, ReceiversFile, WebhookOptions
from fleet.receivers_file import load_receivers
from fleet.settings import CHECKOUT
from streaming.senders import CLASSES

SECRET = "whsec_" + "QUJD" * 8
KNOWN = {"SECRET": SECRET, "SHORT": "whsec_QUJD", "HOST": "example.org", "PASSWORD": "hunter22"}
OPS = "receivers:\n  ops: {kind: webhook, url: 'http://ops'}\n"

WRONG = [
    ("no YAML", "receivers: [", "r.yaml:2: not YAML"),
    ("a list", "- ops", "r.yaml:1: expected `receivers:` and `routes:`, found list"),
    ("a key twice", OPS + "routes: []\nroutes: []", "r.yaml:4: key 'routes' stands here and on line 3"),
    ("an unknown part", OPS + "route: []", "r.yaml:3: route: unknown key; did you mean 'routes'?"),
    ("an unknown kind", "receivers:\n  ops: {kind: webhok, url: 'http://x'}",
     "r.yaml:2: receivers.ops: kind is one of"),
    ("no kind", "receivers:\n  ops: {url: 'http://x'}", "r.yaml:2: receivers.ops: kind is one of 'webhook', 'email'"),
    ("another kind's option", "receivers:\n  ops: {kind: email, host: h, to: a@b, sender: a@b, token: '${SECRET}'}",
     "r.yaml:2: receivers.ops.token: unknown key; allowed: timeout"),
    ("a misspelt option", "receivers:\n  ops:\n    kind: webhook\n    url: http://x\n    secret: ['${SECRET}']",
     "r.yaml:5: receivers.ops.secret: unknown key; did you mean 'secrets'?"),
    ("something missing", "receivers:\n  ops: {kind: webhook}", "r.yaml:2: receivers.ops.url: is required and missing"),
    ("a secret in the file", f"receivers:\n  ops: {{kind: webhook, url: 'http://x', secrets: [{SECRET}]}}",
     "r.yaml:2: receivers.ops.secrets: a secret does not stand in this file; write ${NAME} here and NAME=… into"
     " var/env/dispatcher.env"),
    ("a password in the file", "receivers:\n  ops: {kind: mqtt, password: hunter22}",
     "r.yaml:2: receivers.ops.password: a secret does not stand in this file"),
    ("a secret that is not set", "receivers:\n  ops:\n    kind: webhook\n    url: http://x\n    secrets: ['${OPS}']",
     "r.yaml:5: receivers.ops.secrets.0: ${OPS} is not set; write OPS=… into var/env/dispatcher.env"),
    ("a name that is none", "receivers:\n  ops: {kind: webhook, url: 'http://${a b}'}",
     "r.yaml:2: receivers.ops.url: ${a b} is no name"),
    ("a secret too short", "receivers:\n  ops: {kind: webhook, url: 'http://x', secrets: ['${SHORT}']}",
     "r.yaml:2: receivers.ops.secrets: a webhook's secret has 24 bytes or more, and this one 3; found"),
    ("no address", "receivers:\n  ops: {kind: webhook, url: 'ftp://${HOST}'}",
     "r.yaml:2: receivers.ops.url: must match ^https?://[^\\s/]+; found 'ftp://${HOST}'"),
    ("a receiver that is not there", OPS + "routes:\n  - {to: op}",
     "r.yaml:4: routes.0.to: no receiver 'op'; there are: ops"),
    ("escalation to nobody", OPS + "default:\n  to: ops\n  escalate: {after: 1m, to: boss}",
     "r.yaml:5: default.escalate: no receiver 'boss'; there are: ops"),
    ("a default that matches", OPS + "default: {to: ops, match: {site: roof}}",
     "r.yaml:3: default: takes all that no route"),
    ("an unknown matcher", OPS + "routes:\n  - match: {sites: roof}\n    to: ops",
     "r.yaml:4: routes.0.match.sites: unknown key; did you mean 'site'?"),
    ("an unknown severity", OPS + "routes:\n  - {match: {severity: high}, to: ops}",
     "r.yaml:4: routes.0.match.severity: allowed: 'info', 'warning' or 'critical'"),
    ("a route to nobody", OPS + "routes:\n  - {match: {site: roof}, to: []}", "r.yaml:4: routes.0.to: "),
    ("a number for a time", OPS + "routes:\n  - {to: ops, repeat: 4}",
     "r.yaml:4: routes.0.repeat: a duration is a number with a unit: 500ms, 30s, 5m, 2h or 1d; found 4"),
    ("too often", OPS + "routes:\n  - {to: ops, repeat: 10ms}", "r.yaml:4: routes.0: repeat is at least 1s"),
    ("a cron that is none", OPS + "maintenance:\n  - {cron: '0 2 * *', duration: 1h}",
     "r.yaml:4: maintenance.0.cron: five fields: minute, hour, day of month, month, day of week"),
    ("a day that never comes", OPS + "maintenance:\n  - {cron: '0 2 31 2 *', duration: 1h}",
     "r.yaml:4: maintenance.0.cron: not a time that comes"),
    ("no time zone", OPS + "maintenance:\n  - {cron: '0 2 * * *', duration: 1h, time_zone: Europe/Berln}",
     "r.yaml:4: maintenance.0.time_zone: no time zone 'Europe/Berln'"),
    ("a storm of none", OPS + "storm: {more_than: 0}", "r.yaml:3: storm.more_than: input should be greater than"),
    ("refreshed too seldom", "receivers:\n  am: {kind: alertmanager, url: 'http://x', refresh: 4m}",
     "r.yaml:2: receivers.am: expire must be at least twice refresh"),
    ("two ways into Grafana", "receivers:\n  g: {kind: grafana, url: 'http://x', token: '${SECRET}', user: weir}",
     "r.yaml:2: receivers.g: a Grafana receiver has either token, or user and password"),
    ("only with a name that is none", "receivers:\n  g: {kind: mqtt, only_with: 'a b'}",
     "r.yaml:2: receivers.g.only_with: must match"),
    ("a route to who is not always there", OPS + "  g: {kind: mqtt, only_with: PANEL}\nroutes:\n  - {to: g}",
     "r.yaml:5: routes.0.to: "),
]  # fmt: skip


@pytest.mark.parametrize(("text", "error"), [w[1:] for w in WRONG], ids=[w[0] for w in WRONG])
def test_mistakes_are_named(text: str, error: str) -> None:
    with pytest.raises(SpecError) as raised:
        load_receivers(text, "r.yaml", KNOWN)
    assert error in str(raised.value)
    assert not any(secret in str(raised.value) for secret in ("QUJDQUJD", "hunter22"))


def test_all_mistakes_at_once() -> None:
    with pytest.raises(SpecError) as raised:
        load_receivers(OPS + "route: 1\nstorm: {within: 3}\nmax_age: never\n", "r.yaml", KNOWN)
    assert [line.split(":")[1] for line in str(raised.value).splitlines()] == ["3", "4", "5"]


@pytest.mark.parametrize("text", ["", "# nobody yet\n", "\n\n"], ids=["empty", "comments", "blank"])
def test_an_empty_file_tells_nobody(text: str) -> None:
    assert load_receivers(text, "r.yaml", {}).receivers == {}


def test_a_small_file_for_small_needs() -> None:
    found = load_receivers(
        "receivers:\n"
        "  ops: {kind: webhook, url: 'https://${HOST}/hook', secrets: ['${SECRET}'], heartbeat: 1m}\n"
        "  mail: {kind: email, host: '${HOST}', sender: 'Weir <weir@x.org>', to: ann@x.org, password: '${PASSWORD}'}\n"
        "  am: {kind: alertmanager, url: 'http://am'}\n"
        "default: ops\n",
        "r.yaml", KNOWN,
    )  # fmt: skip
    ops, mail, am = found.receivers.values()
    assert isinstance(ops, WebhookOptions)
    assert isinstance(mail, EmailOptions)
    assert isinstance(am, AlertmanagerOptions)
    assert (ops.url, ops.secrets[0].get_secret_value(), ops.timeout_seconds) == ("https://example.org/hook", SECRET, 10)
    assert (mail.to, mail.password.get_secret_value(), mail.starttls) == (("ann@x.org",), "hunter22", "required")
    assert (am.expire_seconds, am.refresh) == (300, timedelta(minutes=1))
    assert found.default is not None
    assert found.default.to == ("ops",)
    assert SECRET not in repr(found)


def test_what_the_readme_shows_is_good() -> None:
    readme = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"```yaml\n(receivers:.*?)```", readme, re.DOTALL)
    assert len(load_receivers(text, "README.md", {"OPS_SECRET": SECRET, "MAIL": "x"}).routes) == 1


GRAFANA = """
receivers:
  ops: {kind: webhook, url: 'http://ops'}
  g: {kind: grafana, only_with: GRAFANA, url: '${GRAFANA}', user: admin, password: '${PASSWORD}'}
routes:
  - {match: {site: roof}, to: [g, ops], escalate: [{after: 1m, to: [g, ops]}]}
  - {to: ops, escalate: {after: 1m, to: [ops, g]}}
default: [g, ops]
"""


@pytest.mark.parametrize(
    ("grafana", "there"),
    [({"GRAFANA": "http://g"}, {"ops", "g"}), ({}, {"ops"}), ({"GRAFANA": ""}, {"ops"})],
    ids=["set", "not set", "empty"],
)
def test_who_is_there_only_with_a_name_that_is_set(grafana: dict[str, str], there: set[str]) -> None:
    file = load_receivers(GRAFANA, "r.yaml", {**KNOWN, **grafana})
    assert file.default is not None
    assert set(file.receivers) == set(file.default.to) == set(file.routes[0].to) == there
    assert [set(step.to) for route in file.routes for step in route.escalate] == [there, there]


@pytest.mark.parametrize(
    "grafana", [{}, {"WEIR_GRAFANA_URL": "http://g", "WEIR_GRAFANA_PASSWORD": "x"}], ids=["", "with Grafana"]
)
def test_the_file_that_comes_with_weir_tells_the_inbox(grafana: dict[str, str]) -> None:
    """And Grafana, where there is one."""
    names = ("INBOX_URL", "INBOX_SMTP_HOST", "INBOX_SMTP_PORT", "INBOX_SMTP_PASSWORD", "INBOX_CERTIFICATE",
             "ALERTMANAGER_URL", "ALERTMANAGER_USER", "ALERTMANAGER_PASSWORD")  # fmt: skip
    known = {f"WEIR_{name}": "http://x" if name.endswith("URL") else "25" for name in names}
    text = (CHECKOUT / "fleet" / "receivers.yaml").read_text()
    file = load_receivers(text, "receivers.yaml", {**known, **grafana, "WEIR_INBOX_WEBHOOK_SECRET": SECRET})
    assert file.default is not None
    there = {"webhook", "mail", "alertmanager", "mqtt"} | ({"grafana"} if grafana else set())
    assert set(file.default.to) == set(file.receivers) == there


NIGHTS = {"cron": "0 2 * * *", "duration": "2h"}
WINDOWS = [
    ("before", NIGHTS, "2026-03-02T01:59:59+00:00", None),
    ("the first moment", NIGHTS, "2026-03-02T02:00:00+00:00", "2026-03-02T04:00:00+00:00"),
    ("the last moment", NIGHTS, "2026-03-02T03:59:59+00:00", "2026-03-02T04:00:00+00:00"),
    ("after", NIGHTS, "2026-03-02T04:00:00+00:00", None),
    ("another zone", {**NIGHTS, "time_zone": "America/New_York"},
     "2026-03-02T07:30:00+00:00", "2026-03-02T09:00:00+00:00"),
    ("a weekday", {**NIGHTS, "cron": "0 2 * * sun"}, "2026-03-02T03:00:00+00:00", None),
    ("over midnight", {"cron": "0 22 * * fri", "duration": "2d"},
     "2026-03-08T12:00:00+00:00", "2026-03-08T22:00:00+00:00"),
    ("clocks go forward", {"cron": "0 1 * * *", "duration": "3h", "time_zone": "Europe/Berlin"},
     "2026-03-29T02:30:00+00:00", "2026-03-29T03:00:00+00:00"),
]  # fmt: skip


@pytest.mark.parametrize(("window", "now", "end"), [w[1:] for w in WINDOWS], ids=[w[0] for w in WINDOWS])
def test_maintenance_windows(window: dict[str, str], now: str, end: str | None) -> None:
    found = Maintenance.model_validate(window).ends(datetime.fromisoformat(now).astimezone(UTC))
    assert found == (datetime.fromisoformat(end) if end else None)


THERE = {"system": {"weather"}, "type": {"weather_station"}, "rule": {"high_wind", "silent"}}
MATCHES = [
    ("all there", {"system": "weather", "rule": ["high_*", "silent"]}, []),
    ("a site of any name", {"site": "roff"}, []),
    ("one of two", {"rule": ["high_wind", "high_wnd"]}, ["rule: none fits 'high_wnd'; did you mean 'high_wind'?"]),
    ("a pattern", {"type": "lamp*"}, ["type: none fits 'lamp*'"]),
]  # fmt: skip


@pytest.mark.parametrize(("match", "said"), [m[1:] for m in MATCHES], ids=[m[0] for m in MATCHES])
def test_what_fits_no_alert_is_told(match: dict[str, object], said: list[str]) -> None:
    window = Maintenance.model_validate({**NIGHTS, "match": match})
    file = ReceiversFile(maintenance=(window,))
    assert file.fitting_nothing(THERE) == [f"maintenance.0.match.{one}" for one in said]


BEGINS = [
    ("the next night", NIGHTS, "2026-03-02T02:30:00+00:00", "2026-03-03T02:00:00+00:00"),
    ("another zone", {**NIGHTS, "time_zone": "America/New_York"},
     "2026-03-02T06:30:00+00:00", "2026-03-02T07:00:00+00:00"),
]  # fmt: skip


@pytest.mark.parametrize(("window", "now", "begin"), [b[1:] for b in BEGINS], ids=[b[0] for b in BEGINS])
def test_when_maintenance_begins(window: dict[str, str], now: str, begin: str) -> None:
    found = Maintenance.model_validate(window).begins(datetime.fromisoformat(now).astimezone(UTC))
    assert found == datetime.fromisoformat(begin)


SHOWN = {"webhook": "messages", "email": "alerts", "grafana": "alerts", "alertmanager": "state", "mqtt": "state"}


def test_what_people_see_of_each_kind() -> None:
    assert {kind: options.shows for kind, options in KINDS.items()} == SHOWN
    assert set(KINDS) == set(CLASSES), "each kind has a sender"
