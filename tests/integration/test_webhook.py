"""Webhooks against a real server that does all that servers do."""

import json
import socket
import time
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import SecretStr

from connections.webhook import Webhook
from fleet.errors import ConfigurationError
from fleet.notification import Delivered, Gone, Refused, Retry
from fleet.receivers import WebhookOptions
from fleet.webhook_body import verify
from tests.alerts_told import notification, resolved
from tests.integration.hostile_http import HostileServer, answer, drip, endless, hang, raw

OLD, NEW = "whsec_" + "b2xk" * 8, "whsec_" + "bmV3" * 8
NOW = datetime(2026, 5, 4, 12, 0, 30, tzinfo=UTC)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
ACTS = {
    "/ok": answer("200 OK"),
    "/accepted": answer("202 Accepted", body=b"queued"),
    "/empty": answer("204 No Content"),
    "/multiple": answer("300 Multiple Choices"),
    "/moved": answer("301 Moved Permanently", "Location: https://elsewhere.example/hook"),
    "/temporary": answer("307 Temporary Redirect", "Location: /ok"),
    "/bad": answer("400 Bad Request", body=b"no such\r\nfield"),
    "/unauthorised": answer("401 Unauthorized"),
    "/forbidden": answer("403 Forbidden"),
    "/timeout": answer("408 Request Timeout"),
    "/gone": answer("410 Gone"),
    "/too-large": answer("413 Content Too Large"),
    "/early": answer("425 Too Early"),
    "/wait": answer("429 Too Many Requests", "Retry-After: 120"),
    "/wait-until": answer("429 Too Many Requests", "Retry-After: Mon, 04 May 2026 12:02:30 GMT"),
    "/wait-past": answer("429 Too Many Requests", "Retry-After: Mon, 04 May 2026 11:00:00 GMT"),
    "/wait-ages": answer("503 Service Unavailable", "Retry-After: 99999999999999999999"),
    "/wait-what": answer("429 Too Many Requests", "Retry-After: soon"),
    "/error": answer("500 Internal Server Error", body=b"boom"),
    "/gateway": answer("502 Bad Gateway"),
    "/hang": hang,
    "/drip": drip(b"HTTP/1.1 200 OK\r\nX: y\r\n"),
    "/closes": raw(b""),
    "/closes-in-headers": raw(b"HTTP/1.1 200 OK\r\nContent-"),
    "/closes-in-body": raw(OK + b"half"),
    "/closes-in-error": raw(b"HTTP/1.1 500 Oops\r\nContent-Length: 1000\r\n\r\nhalf"),
    "/huge": endless(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n"),
    "/huge-headers": endless(b"HTTP/1.1 200 OK\r\nX: "),
    "/slow-body": lambda connection, server: (connection.sendall(OK), hang(connection, server))[0],
    "/no-http": raw(b"SSH-2.0-OpenSSH_9.2\r\n"),
}


@pytest.fixture(scope="module")
def server():
    with HostileServer(ACTS) as server:
        yield server


def options_of(url, seconds=10, **options):
    return WebhookOptions(kind="webhook", url=url, timeout=f"{seconds}s", **options)


def webhook(url, seconds=10, **options):
    return Webhook(options_of(url, seconds, **options), clock=lambda: NOW)


@pytest.mark.parametrize(
    ("path", "outcome", "says", "after"),
    [
        ("/ok", Delivered, "200", None),
        ("/accepted", Delivered, "202", None),
        ("/empty", Delivered, "204", None),
        ("/multiple", Refused, "redirects to nowhere", None),
        ("/moved", Refused, "redirects to https://elsewhere.example/hook", None),
        ("/temporary", Refused, "redirects to /ok", None),
        ("/bad", Refused, "400: no such field", None),
        ("/unauthorised", Refused, "401", None),
        ("/forbidden", Refused, "403", None),
        ("/nowhere", Refused, "404: no such path", None),
        ("/timeout", Retry, "408", None),
        ("/gone", Gone, "410", None),
        ("/too-large", Refused, "413", None),
        ("/early", Retry, "425", None),
        ("/wait", Retry, "429", 120),
        ("/wait-until", Retry, "429", 120),
        ("/wait-past", Retry, "429", 0),
        ("/wait-ages", Retry, "503", 86_400),
        ("/wait-what", Retry, "429", None),
        ("/error", Retry, "500: boom", None),
        ("/gateway", Retry, "502", None),
        ("/closes", Retry, "disconnected", None),
        ("/closes-in-headers", Retry, "disconnected", None),
        ("/closes-in-body", Delivered, "200", None),
        ("/closes-in-error", Retry, "500: half", None),
        ("/huge", Delivered, "200", None),
        ("/huge-headers", Retry, "", None),
        ("/no-http", Retry, "", None),
    ],
    ids=lambda value: value if isinstance(value, str) and value.startswith("/") else "",
)
def test_what_an_answer_means(server, path, outcome, says, after):
    hook = webhook(server.url(path))
    try:
        got = hook.send(notification())
    finally:
        hook.close()
    assert isinstance(got, outcome), got
    assert says in str(got)
    assert getattr(got, "after_seconds", None) == after


@pytest.mark.parametrize(
    ("path", "outcome"), [("/hang", Retry), ("/drip", Retry), ("/slow-body", Delivered)], ids=lambda v: str(v)[:6]
)
def test_one_deadline_for_all_of_it(server, path, outcome):
    hook = webhook(server.url(path), seconds=1)
    began = time.monotonic()
    got = hook.send(notification())
    assert time.monotonic() - began < 5
    assert isinstance(got, outcome), got
    assert outcome is Delivered or "within 1 s" in got.why


def test_an_answer_without_end_is_cut(server):
    before = server.sent
    assert isinstance(webhook(server.url("/huge")).send(notification()), Delivered)
    assert server.sent - before < 20_000_000


def test_nobody_listens():
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    got = webhook(f"http://127.0.0.1:{port}/").send(notification())
    assert isinstance(got, Retry)
    assert "refused" in got.why


def test_a_name_that_does_not_exist():
    assert isinstance(webhook("http://nowhere.invalid/").send(notification()), Retry)


def test_each_attempt_has_the_same_id_and_body_and_every_secrets_signature(server):
    hook = webhook(server.url("/error"), secrets=(SecretStr(OLD), SecretStr(NEW)))
    server.requests.clear()
    for _ in range(2):
        assert isinstance(hook.send(notification()), Retry)
    first, second = server.requests
    assert first.headers["webhook-id"] == second.headers["webhook-id"] == notification().notification_id
    assert first.body == second.body
    for secret, wrong in ((OLD, ""), (NEW, ""), ("whsec_" + "b3Ro" * 8, "no signature is by this secret")):
        assert verify(first.headers, first.body, secret, NOW) == wrong
    assert verify(first.headers, first.body + b" ", OLD, NOW) == "no signature is by this secret"
    assert "from now" in verify(first.headers, first.body, OLD, NOW + timedelta(minutes=6))


def test_a_connection_is_kept_and_its_end_does_no_harm(server):
    hook = webhook(server.url("/ok"))
    before = server.connections
    for _ in range(3):
        assert isinstance(hook.send(notification()), Delivered)
    assert server.connections - before == 1
    hook.close()
    assert isinstance(hook.send(resolved()), Delivered)
    assert json.loads(server.requests[-1].body)["status"] == "resolved"


def test_redirects_and_proxies_are_not_followed(server, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    server.requests.clear()
    assert isinstance(webhook(server.url("/temporary")).send(notification()), Refused)
    assert [request.line.split()[1] for request in server.requests] == ["/temporary"]


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254", "[fe80::1]", "[fd00:ec2::254]", "[::ffff:169.254.169.254]", "2852039166", "0xa9fea9fe",
        "[64:ff9b::a9fe:a9fe]", "[2002:a9fe:a9fe::1]", "100.100.100.200",
    ],
)  # fmt: skip
def test_where_nothing_is_sent(host):
    hook = webhook(f"http://{host}/latest/meta-data", seconds=1)
    for _ in range(2):
        got = hook.send(notification())
        assert isinstance(got, Refused), got
        assert "allow_link_local" in got.why


def test_the_address_that_counts_is_the_one_connected_to(server, monkeypatch):
    """A name that is harmless when first asked for, and another address when asked for again, is asked for once."""
    answers = [["127.0.0.1"], ["169.254.169.254"], ["169.254.169.254", "127.0.0.1"]]

    def resolve(_host, port, *_args, **_more):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in answers.pop(0)]

    real = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *a, **k: (resolve if host == "rebinds.example" else real)(host, *a, **k)
    )
    url = server.url("/ok", "rebinds.example")
    outcomes = [type(webhook(url).send(notification())) for _ in range(3)]
    assert outcomes == [Delivered, Refused, Delivered]
    assert server.requests[-1].headers["host"] == f"rebinds.example:{server.port}"


def test_link_local_where_it_is_allowed():
    got = webhook("http://169.254.1.1:9/", seconds=1, allow_link_local=True).send(notification())
    assert "allow_link_local" not in str(got)  # it was tried; what answers there is the network's affair


@pytest.mark.parametrize(
    ("name", "trusted", "says"),
    [
        ("good", True, ""),
        ("good", False, "its certificate is not good: self-signed certificate"),
        ("other", True, "its certificate is not good: IP address mismatch"),
        ("over", True, "its certificate is not good: certificate has expired"),
    ],
)
def test_certificates(certificates, name, trusted, says):
    with HostileServer(ACTS, certificates[name]) as server:
        got = webhook(server.url("/ok"), ca_file=certificates[name][0] if trusted else None).send(notification())
        assert isinstance(got, Retry if says else Delivered), got
        assert says.replace("self-signed", "") in str(got).replace("self-signed", "").replace("self signed", "")
        assert bool(server.requests) is not bool(says)


def test_tls_to_a_server_without(server):
    assert isinstance(webhook(server.url("/ok").replace("http:", "https:")).send(notification()), Retry)


@pytest.mark.parametrize(
    ("url", "more", "says"),
    [
        ("https://x:99999/", {}, "no address"),
        ("https://me:pw@x/", {}, "has a user in it"),
        ("https://x/", {"ca_file": "/nowhere/ca.pem"}, "ca_file /nowhere/ca.pem"),
    ],
)
def test_options_that_are_none(url, more, says):
    with pytest.raises(ConfigurationError, match=says):
        webhook(url, **more)
