"""Mail to a real SMTP server that takes it, and one that does all else that such servers do."""

import socket
import time

import msgspec
import pytest

from connections.email import Email
from fleet.errors import ConfigurationError
from fleet.notification import Delivered, Partly, Refused, Retry
from fleet.receivers import EmailOptions
from tests.alerts_told import alert, notification, resolved
from tests.integration.hostile_smtp import Behaviour, RawServer, SmtpServer


def mailer(port, **options):
    given = {"timeout": "5s", "starttls": "never", "sender": "Weir <weir@site.example>", "to": ["a@x.example"]}
    return Email(EmailOptions(kind="email", host="127.0.0.1", port=port, **(given | options)))


def test_starttls_authentication_and_the_thread(certificates):
    with SmtpServer(certificates["good"], password="secret") as server:
        mail = mailer(
            server.port, starttls="required", ca_file=certificates["good"][0], user="weir", password="secret",
            to=["a@x.example", "B <b@x.example>"],
        )  # fmt: skip
        escalated = notification("escalated", alert(2, severity="critical"))
        for told in (notification(), escalated, resolved(3), notification()):
            assert mail.send(told) == Delivered("")
    assert all(to == ["a@x.example", "b@x.example"] and encrypted for to, _, encrypted in server.mails)
    first, second, last, again = (message for _, message, _ in server.mails)
    assert first["References"] is None
    assert second["References"] == second["In-Reply-To"] == last["References"] == first["Message-ID"]
    assert len({first["Message-ID"], second["Message-ID"], last["Message-ID"]}) == 3
    assert again["Message-ID"] == first["Message-ID"]
    assert first["Message-ID"].endswith("@site.example>")
    assert {m["Subject"].removeprefix("Re: ") for m in (first, second, last)} == {"High Temperature: s1 at roof"}
    assert "temperature 36.5" in first.get_body(("plain",)).get_content()
    assert "temperature 36.5" in first.get_body(("html",)).get_content()


def test_tls_from_the_first_byte(certificates):
    with SmtpServer(certificates["good"], implicit_tls=True) as server:
        mail = mailer(server.port, implicit_tls=True, ca_file=certificates["good"][0])
        assert mail.send(notification()) == Delivered("")
        assert server.mails[0][2]


@pytest.mark.parametrize("implicit", [False, True], ids=["starttls", "implicit"])
@pytest.mark.parametrize(("name", "trusted"), [("good", False), ("other", True), ("over", True)])
def test_a_certificate_that_is_not_good(certificates, name, trusted, implicit):
    with SmtpServer(certificates[name], implicit_tls=implicit) as server:
        ca = certificates[name][0] if trusted else None
        got = mailer(server.port, starttls="required", implicit_tls=implicit, ca_file=ca).send(notification())
    assert isinstance(got, Retry), got
    assert "its certificate is not good" in got.why
    assert server.mails == []


@pytest.mark.parametrize(
    ("options", "outcome", "says"),
    [
        ({"starttls": "required"}, Retry, "offers no STARTTLS"),
        ({"starttls": "optional"}, Delivered, ""),
        ({"starttls": "never"}, Delivered, ""),
        ({"starttls": "optional", "user": "u", "password": "p"}, Retry, "not sent in the clear"),
        ({"starttls": "never", "user": "u", "password": "p"}, Retry, "535"),
    ],
    ids=["required", "optional", "never", "password", "wrong password"],
)
def test_a_server_without_tls(options, outcome, says):
    with SmtpServer(password="secret" if options.get("user") else "") as server:
        got = mailer(server.port, **options).send(notification())
    assert isinstance(got, outcome), got
    assert says in str(got)
    assert len(server.mails) == (outcome is Delivered)


@pytest.mark.parametrize(
    ("at", "outcome"),
    [
        ({"MAIL": "451 try later"}, Retry),
        ({"MAIL": "550 not you"}, Refused),
        ({"MAIL": "530 log in first"}, Retry),
        ({"DATA": "452 disk full"}, Retry),
        ({"DATA": "554 spam"}, Refused),
    ],
    ids=lambda value: next(iter(value.values())) if isinstance(value, dict) else "",
)
def test_what_an_answer_means(at, outcome):
    with SmtpServer(behaviour=Behaviour(at)) as server:
        got = mailer(server.port).send(notification())
    assert isinstance(got, outcome), got
    assert next(iter(at.values())) in got.why


A, B = "a@x.example", "b@x.example"
LEFT = [
    ("one unknown", {A: ["550 no"]}, ["never a told b"], [[B]]),
    ("one greylisted", {A: ["450 grey"]}, ["left a told b", "delivered"], [[B], [A]]),
    ("greylisted for long", {A: ["450 grey"] * 2}, ["left a told b", "left a", "delivered"], [[B], [A]]),
    ("greylisted, then unknown", {A: ["450 grey", "550 no"]}, ["left a told b", "never a"], [[B]]),
    ("both unknown", {A: ["550 no"], B: ["550 no"]}, ["refused"], []),
    ("both greylisted", {A: ["450 grey"], B: ["450 grey"]}, ["retry", "delivered"], [[A, B]]),
    ("unknown and greylisted", {A: ["550 no"] * 2, B: ["450 grey"]}, ["retry", "never a told b"], [[B]]),
    ("the server goes at the first", {A: ["421 closing"]}, ["left a told b", "delivered"], [[B], [A]]),
    ("the server goes at the second", {B: ["421 closing"]}, ["left b told a", "delivered"], [[A], [B]]),
    ("the server goes at each", {A: ["421 closing"], B: ["421 closing"]}, ["retry", "delivered"], [[A, B]]),
    (
        "the server goes at who is left",
        {A: ["450 grey", "421 closing"]}, ["left a told b", "left a", "delivered"], [[B], [A]],
    ),
]  # fmt: skip


def in_short(outcome):
    """never|left, whom, and who was told; or which outcome else."""
    if not isinstance(outcome, Partly):
        return type(outcome).__name__.lower()
    names = ["never" if outcome.never else "left", *outcome.left, *(["told", *outcome.told] if outcome.told else [])]
    return " ".join(names).replace("@x.example", "")


@pytest.mark.parametrize(("answers", "outcomes", "to"), [each[1:] for each in LEFT], ids=[each[0] for each in LEFT])
def test_some_addresses_are_refused(answers, outcomes, to):
    """Each attempt is for those that are left by the one before; who has it does not get it again."""
    answers = {address: [*said] for address, said in answers.items()}
    told, got = notification(), []
    with SmtpServer(behaviour=Behaviour(recipients=answers)) as server:
        mail = mailer(server.port, to=[f"Ann <{A}>", B, A])
        for _ in outcomes:
            got.append(mail.send(told))
            if isinstance(got[-1], Partly):
                told = msgspec.structs.replace(told, only_to=got[-1].left)
    assert [in_short(each) for each in got] == outcomes
    assert [recipients for recipients, _, _ in server.mails] == to
    assert len({message["Message-ID"] for _, message, _ in server.mails}) <= 1
    assert all(
        why[:3] in ("421", "450", "550") for each in got if isinstance(each, Partly) for why in each.left.values()
    )


@pytest.mark.parametrize(
    ("behind", "answers", "outcome", "to"),
    [
        ({A: "450 grey"}, {}, "left a told b", [[B]]),
        ({A: "450 grey"}, {B: ["550 no"]}, "left a b", []),
        ({A: "450 grey"}, {B: ["450 grey"]}, "retry", []),
        ({A: "450 grey", B: "450 grey"}, {}, "left a b", []),
        ({"gone@x.example": "450 grey"}, {}, "delivered", [[A, B]]),
    ],
    ids=["one", "and the other is unknown", "and the other greylisted", "both", "one that the file has no longer"],
)
def test_an_address_to_which_an_earlier_mail_is_to_go_waits(behind, answers, outcome, to):
    with SmtpServer(behaviour=Behaviour(recipients=answers)) as server:
        got = mailer(server.port, to=[A, B]).send(notification(but_not_to=behind))
    assert in_short(got) == outcome
    assert [recipients for recipients, _, _ in server.mails] == to


def test_an_address_that_has_left_the_file_is_sent_nothing():
    with SmtpServer() as server:
        got = mailer(server.port, to=[B]).send(notification(only_to={A: "450 grey"}))
    assert got == Refused(f"the file of receivers no longer has {A}")
    assert server.mails == []


@pytest.mark.parametrize(
    ("greeting", "outcome", "says"),
    [
        (b"421 too busy\r\n", Retry, "421 too busy"),
        (b"554 not for you\r\n", Retry, "554 not for you"),
        (b"", Retry, ""),
        (b"220 hello\r\n", Retry, "within 1 s"),
        (b"2", Retry, "within 1 s"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", Retry, ""),
    ],
    ids=["421", "554", "closes", "hangs after the greeting", "hangs", "no SMTP"],
)
def test_what_is_no_good_server(greeting, outcome, says):
    with RawServer(greeting) as server:
        began = time.monotonic()
        got = mailer(server.port, timeout="1s").send(notification())
    assert time.monotonic() - began < 6
    assert isinstance(got, outcome), got
    assert says in got.why


@pytest.mark.parametrize("implicit", [False, True], ids=["plain", "TLS"])
def test_one_deadline_for_all_of_it(implicit):
    with RawServer(b"220-hello\r\n", drip=True) as server:
        began = time.monotonic()
        got = mailer(server.port, timeout="1s", implicit_tls=implicit).send(notification())
    assert time.monotonic() - began < 6
    assert isinstance(got, Retry), got


def test_nobody_listens():
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert isinstance(mailer(port).send(notification()), Retry)


def test_a_ca_file_that_is_not_there():
    with pytest.raises(ConfigurationError, match="ca_file /nowhere"):
        mailer(25, ca_file="/nowhere/ca.pem")
