"""The demo's inbox, as the stack starts it, and our own senders that send to it."""

import json
import urllib.request

import pytest
from pydantic import SecretStr

from connections.email import Email
from connections.webhook import Webhook
from fleet.notification import Delivered, Refused, Retry
from fleet.receivers import EmailOptions, WebhookOptions
from fleet.settings import Settings
from stack.ports import Ports
from stack.stack import Stack
from stack.supervisor import marked
from tests.alerts_told import alert, notification, resolved

pytestmark = pytest.mark.stack


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """The dispatcher's, of a stack that is an inbox alone."""
    home = tmp_path_factory.mktemp("inbox")
    running = Stack(home, Ports.free(), ("inbox",), environ={})
    running.up()
    yield Settings.load({"WEIR_ENV_FILE": str(home / "env" / "dispatcher.env")})
    running.down()
    assert marked(home) == []


@pytest.fixture
def arrived(settings):
    def ask():
        with urllib.request.urlopen(settings.inbox_url.replace("/hook", "/"), timeout=5) as answer:
            return json.load(answer)

    return ask


def webhook(settings, secret):
    return Webhook(WebhookOptions(kind="webhook", url=settings.inbox_url, secrets=[secret]))


def mailer(settings, **changes):
    given = {"user": "weir", "password": settings.inbox_smtp_password, "ca_file": settings.inbox_certificate}
    return Email(
        EmailOptions(
            kind="email", host="127.0.0.1", port=settings.inbox_smtp_port, sender="weir@site.example",
            to=["ops@site.example"], **(given | changes),
        )
    )  # fmt: skip


def test_webhooks_are_counted_once_and_checked(settings, arrived):
    good = webhook(settings, settings.inbox_webhook_secret)
    for told in (notification(), notification(), resolved()):
        assert isinstance(good.send(told), Delivered)
    wrong = webhook(settings, SecretStr("whsec_" + "b2xk" * 8)).send(notification())
    assert wrong == Refused("401: no signature is by this secret")
    found = arrived()["webhook"]
    assert {key: found[key] for key in ("received", "different", "refused", "firing", "resolved")} == {
        "received": 3, "different": 2, "refused": 1, "firing": 1, "resolved": 1,
    }  # fmt: skip
    assert found["last"][-1]["body"]["alerts"][0]["labels"]["device"] == "s1"


def test_mails_come_in_threads(settings, arrived):
    mail = mailer(settings)
    escalated = notification("escalated", alert(2, severity="critical"))
    for told in (notification(), escalated, resolved(3), resolved(3)):
        assert mail.send(told) == Delivered("")
    assert isinstance(mailer(settings, password=SecretStr("wrong")).send(notification()), Retry)
    assert isinstance(mailer(settings, user="", password=SecretStr("")).send(notification()), Retry)
    found = arrived()["mail"]
    assert (found["received"], found["different"], found["in_a_thread"], found["alerts"]) == (4, 3, 2, 1)
    assert "wrong_thread" not in found
    assert found["last"][-1]["encrypted"]
    assert "recovered" in found["last"][-1]["text"]


@pytest.mark.parametrize(
    ("path", "data", "status"), [("/x", None, 404), ("/x", b"{}", 404), ("/hook", b"{}", 401), ("/ready", None, 200)]
)
def test_what_its_web_server_answers(settings, path, data, status):
    url = settings.inbox_url.replace("/hook", path)
    try:
        with urllib.request.urlopen(url, data, timeout=5) as answer:
            assert answer.status == status
    except urllib.error.HTTPError as error:
        assert error.code == status
