"""Annotations, against a server that does as Grafana's documentation says. It has not met a real Grafana."""

import socket
import time

import pytest

from connections.grafana import Grafana
from fleet.errors import ConfigurationError
from fleet.notification import Delivered, Refused, Retry
from fleet.receivers import GrafanaOptions
from tests.alerts_told import ALERT_ID, START, alert, empty, notification, resolved
from tests.integration.annotations_api import AnnotationsApi
from tests.integration.hostile_http import HostileServer, answer, drip, hang, raw

BEGIN_MS = int(START.timestamp() * 1000)
FIND = f"/api/annotations?tags=alert%3A{ALERT_ID}&limit=10"


def grafana(url, **options):
    given = options or {"token": "token"}
    return Grafana(GrafanaOptions(kind="grafana", url=url, timeout="1s", **given))


@pytest.fixture
def api():
    with AnnotationsApi() as api:
        yield api


@pytest.mark.parametrize(
    "options", [{"token": "token"}, {"user": "admin", "password": "secret"}], ids=["token", "basic"]
)
@pytest.mark.parametrize("prefix", ["", "/grafana"])
def test_a_region_from_firing_to_resolved(options, prefix):
    with AnnotationsApi(prefix=prefix) as api:
        told = grafana(api.url, **options)
        assert told.send(notification()) == Delivered("")
        (one,) = api.annotations.values()
        assert (one["time"], one["timeEnd"], one["dashboardId"]) == (BEGIN_MS, BEGIN_MS, 0)
        assert told.send(notification("escalated", alert(2, severity="critical"))) == Delivered("")
        assert told.send(resolved(3, severity="critical")) == Delivered("")
    assert (one["time"], one["timeEnd"]) == (BEGIN_MS, BEGIN_MS + 300_000)
    assert one["tags"] == [
        f"alert:{ALERT_ID}", "weir", "system:weather", "type:weather_station", "rule:high_temperature",
        "severity:critical", "device:s1", "site:roof",
    ]  # fmt: skip
    assert "over (recovered)" in one["text"]


@pytest.mark.parametrize(
    "order", [[notification()] * 3, [resolved()] * 2, [notification(), resolved(), notification(), resolved()]],
    ids=["firing again", "resolved alone, again", "all again"],
)  # fmt: skip
def test_what_comes_again_makes_no_second_one(api, order):
    for told in order:
        assert grafana(api.url).send(told) == Delivered("")
    (one,) = api.annotations.values()
    assert one["timeEnd"] == (BEGIN_MS if order[-1].kind == "firing" else BEGIN_MS + 300_000)


def test_each_of_a_digest_and_of_several_alerts(api):
    many = [alert(device=f"d & {n}", alert_id=f"{n:032x}") for n in range(5)]
    told = grafana(api.url)
    assert told.send(notification("digest", *many)) == Delivered("")
    assert told.send(notification("firing", many[3])) == Delivered("")
    assert len(api.annotations) == 5


def test_a_digest_goes_on_where_it_failed(api, monkeypatch):
    create, asked = api.create, []

    def ill_once(body):
        asked.append(body["text"])
        return (503, {"message": "ill"}) if len(asked) == 3 else create(body)

    monkeypatch.setattr(api, "create", ill_once)
    told, many = grafana(api.url), [alert(device=f"d{n}", alert_id=f"{n:032x}") for n in range(5)]
    digest = notification("digest", *many)
    assert isinstance(told.send(digest), Retry)
    assert told.send(digest) == Delivered("")
    assert len(asked) == 6
    assert len(api.annotations) == 5


def test_on_one_dashboard(api):
    assert grafana(api.url, token="token", dashboard_uid="home").send(notification()) == Delivered("")
    assert api.annotations[1]["dashboardId"] == 7
    another = notification("firing", alert(alert_id="f" * 32))
    assert isinstance(grafana(api.url, token="token", dashboard_uid="gone").send(another), Refused)


def test_a_heartbeat_leaves_nothing(api):
    assert grafana(api.url).send(empty()) == Delivered("")
    assert api.annotations == {}


def test_what_devices_say_is_no_html(api):
    assert grafana(api.url).send(notification(summary="<img src=x onerror=alert(1)>")) == Delivered("")
    assert "<img" not in api.annotations[1]["text"]


def test_a_wrong_token(api):
    for options in ({"token": "wrong"}, {"user": "admin", "password": "wrong"}):
        got = grafana(api.url, **options).send(notification())
        assert isinstance(got, Refused)
        assert "Unauthorized" in got.why


@pytest.mark.parametrize(
    ("answer", "outcome", "says"),
    [
        ((400, {}, b'{"message": "bad tags"}'), Refused, "bad tags"),
        ((403, {}, b'{"message": "no right"}'), Refused, "no right"),
        ((404, {}, b"not found"), Refused, "not found"),
        ((412, {}, b'{"message": "changed by someone else"}'), Refused, "changed by someone else"),
        ((429, {}, b"[]"), Retry, ""),
        ((500, {}, b'{"message": "database is locked"}'), Retry, "database is locked"),
        ((502, {}, b"7"), Retry, ""),
        ((302, {"Location": "/login"}, b""), Refused, "redirects to /login"),
        ((200, {}, b"<html>log in</html>"), Retry, "is it Grafana"),
        ((200, {}, b'{"message": "what"}'), Retry, "is it Grafana"),
        ((200, {}, b"[{}]"), Retry, "is it Grafana"),
    ],
    ids=["400", "403", "404", "412", "429", "500", "502", "redirect", "login page", "other JSON", "no id"],
)
def test_what_an_answer_means(answer, outcome, says):
    with AnnotationsApi(answer=answer) as api:
        got = grafana(api.url).send(notification())
    assert isinstance(got, outcome), got
    assert says in got.why


@pytest.mark.parametrize(
    "act",
    [hang, raw(b""), raw(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n[")],
    ids=["hangs", "says nothing", "stops"],
)
def test_one_that_is_ill(act):
    with HostileServer({FIND: act}) as server:
        assert isinstance(grafana(server.url("/")).send(notification()), Retry)


@pytest.mark.parametrize(
    ("status", "headers", "seconds"),
    [
        (429, {"Retry-After": "120"}, 120),
        (503, {"Retry-After": "Mon, 04 May 2026 12:02:30 GMT"}, 150),
        (503, {"Retry-After": "soon"}, None),
        (500, {}, None),
    ],
    ids=["seconds", "a date", "neither", "nothing"],
)
def test_it_says_when_to_come_again(status, headers, seconds):
    with AnnotationsApi(answer=(status, headers, b"{}")) as api:
        told = Grafana(GrafanaOptions(kind="grafana", url=api.url, token="token"), clock=lambda: START)
        got = told.send(notification())
    assert isinstance(got, Retry)
    assert got.after_seconds == seconds


def late(act):
    """After most of the time that there is."""

    def waits(connection, server):
        if not server.stopped.wait(0.7):
            act(connection, server)

    return waits


IN_PIECES = {
    "a byte at a time": {FIND: drip(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n[")},
    "two answers, each within it": {
        FIND: late(answer("200 OK", body=b"[]")), "/api/annotations": late(answer("200 OK", body=b'{"id": 1}'))
    },
}  # fmt: skip


@pytest.mark.parametrize("acts", IN_PIECES.values(), ids=IN_PIECES)
def test_the_timeout_is_for_the_whole(acts):
    began = time.monotonic()
    with HostileServer(acts) as server:
        assert isinstance(grafana(server.url("/")).send(notification()), Retry)
        assert time.monotonic() - began < 5


def test_nobody_listens():
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert isinstance(grafana(f"http://127.0.0.1:{port}").send(notification()), Retry)


def test_no_proxy_and_no_netrc(api, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert grafana(api.url).send(notification()) == Delivered("")


def test_a_ca_file_that_is_not_there():
    with pytest.raises(ConfigurationError, match="ca_file /nowhere"):
        grafana("https://x/", token="t", ca_file="/nowhere")
