"""A real Alertmanager: alerts, severities, the end of an alert, silences; and one that says no, is ill or away."""

from datetime import UTC, datetime, timedelta

import pytest
from pydantic import SecretStr

from connections.alertmanager import Alertmanager
from fleet import errors
from fleet.alert_labels import labels_of
from fleet.notification import Delivered, Refused, Retry
from fleet.receivers import AlertmanagerOptions
from fleet.silence import Matcher, Silence
from tests.alerts_told import alert, empty, notification
from tests.integration.hostile_http import HostileServer, answer, hang, raw
from tests.integration.processes import wait_for

pytestmark = pytest.mark.stack
NOTHING = SecretStr("")


@pytest.fixture(scope="module")
def settings(settings_for):
    return settings_for("operator")


@pytest.fixture
def alertmanager(settings):
    client = Alertmanager.of(settings)
    yield client
    client.close()


@pytest.fixture
def now():
    return datetime.now(UTC).replace(microsecond=0)


def other(url, user="", password=NOTHING, **options):
    return Alertmanager(AlertmanagerOptions(kind="alertmanager", url=url, user=user, password=password, **options))


def listed(client, device):
    """Severity → state of the device's alerts that are not over."""
    found = client._answered("GET", f"/api/v2/alerts?filter=device%3D{device}")
    return {each["labels"]["severity"]: each["status"]["state"] for each in found}


def told(device, now, kind="firing", **changes):
    return notification(kind, alert(device=device, starts_at=now, event_time=now, **changes))


def test_an_alert_from_firing_to_resolved(alertmanager, now):
    assert isinstance(alertmanager.send(told("life", now)), Delivered)
    (found,) = alertmanager._answered("GET", "/api/v2/alerts?filter=device%3Dlife")
    assert found["labels"] == labels_of(alert(device="life"))
    assert found["annotations"]["title"] == "High Temperature"
    assert datetime.fromisoformat(found["startsAt"]) == now
    assert 250 < (datetime.fromisoformat(found["endsAt"]) - now).total_seconds() < 310
    over = told("life", now, "resolved", resolved_at=now)
    assert isinstance(alertmanager.send(over), Delivered)
    assert listed(alertmanager, "life") == {}


def test_a_severity_more_ends_the_one_before(alertmanager, now):
    assert isinstance(alertmanager.send(told("step", now)), Delivered)
    both = ("warning", "critical")
    steps = [("critical", both, "escalated"), ("warning", ("warning", "critical", "warning"), "deescalated")]
    for severity, severities, kind in steps:
        assert isinstance(
            alertmanager.send(told("step", now, kind, severity=severity, severities=severities)), Delivered
        )
        assert listed(alertmanager, "step") == {severity: "unprocessed"} or list(listed(alertmanager, "step")) == [
            severity
        ]
    last = told("step", now, "resolved", severity="warning", severities=both, resolved_at=now)
    assert isinstance(alertmanager.send(last), Delivered)
    assert listed(alertmanager, "step") == {}


def test_a_step_that_was_never_told_leaves_nothing_behind(alertmanager, now):
    late = told("late", now, "escalated", severity="critical", severities=("info", "warning", "critical"))
    assert isinstance(alertmanager.send(late), Delivered)
    assert list(listed(alertmanager, "late")) == ["critical"]


def test_unless_told_again_it_ends_by_itself(settings, now):
    client = other(settings.alertmanager_url, "weir", settings.alertmanager_password, refresh="1s", expire="2s")
    assert isinstance(client.refresh([alert(device="brief", starts_at=now)]), Delivered)
    assert listed(client, "brief")
    wait_for(lambda: not listed(client, "brief"), 5, "the alert did not end")


def test_thousands_at_once(alertmanager, now):
    many = [alert(device=f"many-{n}", rule="flood", starts_at=now) for n in range(2500)]
    assert alertmanager.refresh(many) == Delivered("2500 alerts")
    assert len(alertmanager._answered("GET", "/api/v2/alerts?filter=alertname%3Dflood")) == 2500


@pytest.mark.parametrize(("kind", "severity"), [("heartbeat", "none"), ("test", "info")])
def test_alerts_of_weirs_own(alertmanager, kind, severity):
    assert isinstance(alertmanager.send(empty(kind)), Delivered)
    (found,) = alertmanager._answered("GET", f"/api/v2/alerts?filter=alertname%3DWeir{kind.capitalize()}")
    assert found["labels"]["severity"] == severity


def test_a_silence_comes_back_as_it_was_made(alertmanager, now):
    matchers = (
        Matcher("device", "quiet"),
        Matcher("site", "ro.f|yard", is_regex=True),
        Matcher("team", "x", False, False),
    )
    wanted = Silence("", matchers, now + timedelta(seconds=1), now + timedelta(hours=1), "me", "works on the roof")
    silence_id = alertmanager.add_silence(wanted)
    (found,) = [each for each in alertmanager.silences() if each.silence_id == silence_id]
    assert (set(found.matchers), found.ends_at, found.created_by, found.comment) == (
        set(matchers), wanted.ends_at, "me", "works on the roof",
    )  # fmt: skip
    assert found.covers(labels_of(alert(device="quiet")), now + timedelta(minutes=1))
    alertmanager.send(told("quiet", now))
    wait_for(lambda: listed(alertmanager, "quiet") == {"warning": "suppressed"}, 5, "Alertmanager does not agree")
    alertmanager.expire(silence_id)
    assert silence_id not in [each.silence_id for each in alertmanager.silences()]


def test_an_expression_that_python_cannot_read_holds_nothing_back(alertmanager, now):
    odd = Silence("", (Matcher("device", r"\pN+", True),), now, now + timedelta(hours=1), "me", "Go's expressions")
    silence_id = alertmanager.add_silence(odd)
    assert silence_id not in [each.silence_id for each in alertmanager.silences()]
    alertmanager.expire(silence_id)


@pytest.mark.parametrize(
    ("silence_id", "says"),
    [("roof", "is no silence's id"), ("8a4c4bfd-58a6-4d20-b4a4-8b1d7c5d2f3e", "404")],
)
def test_a_silence_that_is_not_there(alertmanager, silence_id, says):
    with pytest.raises(errors.Refused, match=says):
        alertmanager.expire(silence_id)


def test_a_silence_that_it_does_not_take(alertmanager, now):
    for wrong in (
        Silence("", (), now, now + timedelta(hours=1), "me", "no matcher"),
        Silence("", (Matcher("a", "(", True),), now, now + timedelta(hours=1), "me", "no expression"),
        Silence("", (Matcher("a", "b"),), now, now - timedelta(hours=1), "me", "over before it begins"),
    ):
        with pytest.raises(errors.Refused, match=r"400|422"):
            alertmanager.add_silence(wrong)


def test_a_label_without_a_name_is_left_out(alertmanager, now):
    odd = told("nameless", now, labels={"": "no name"}, annotations={"": "nor this"})
    assert isinstance(alertmanager.send(odd), Delivered)
    assert listed(alertmanager, "nameless")


@pytest.mark.parametrize(
    ("statuses", "outcome"),
    [(("400 Bad Request", "200 OK", "200 OK"), Refused), (("503 Service Unavailable",), Retry)],
    ids=["refused: the others follow", "ill: it is left alone"],
)
def test_of_many_batches_the_first_fails(statuses, outcome):
    def act(connection, server):
        answer(statuses[len(server.requests) - 1])(connection, server)

    with HostileServer({"/api/v2/alerts": act}) as server:
        got = other(server.url("/")).refresh([alert(device=f"batch-{n}") for n in range(2500)])
        assert isinstance(got, outcome), got
        assert len(server.requests) == len(statuses)


@pytest.mark.parametrize(("user", "password"), [("weir", "wrong"), ("", ""), ("nobody", "x")])
def test_a_wrong_password(settings, user, password, now):
    client = other(settings.alertmanager_url, user, SecretStr(password))
    got = client.send(told("locked", now))
    assert isinstance(got, Refused)
    assert "401" in got.why
    with pytest.raises(errors.Refused, match="check its password"):
        client.silences()


@pytest.mark.parametrize(
    ("act", "outcome", "error"),
    [
        (answer("503 Service Unavailable"), Retry, errors.Unavailable),
        (answer("302 Found", "Location: /login"), Refused, errors.Refused),
        (answer("200 OK", body=b"<html>a proxy</html>"), Delivered, errors.Refused),
        (raw(b""), Retry, errors.Unavailable),
        (raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[{"), Delivered, errors.Unavailable),
        (hang, Retry, errors.Unavailable),
    ],
    ids=["503", "redirect", "no JSON", "closes", "closes mid-body", "hangs"],
)
def test_one_that_is_ill(act, outcome, error, now):
    with HostileServer({"/api/v2/alerts": act, "/api/v2/silences": act}) as server:
        client = other(server.url("/"), timeout="1s")
        assert isinstance(client.send(told("ill", now)), outcome)
        with pytest.raises(error):
            client.silences()


def test_down_and_up_again(stack, alertmanager, now):
    wanted = Silence("", (Matcher("device", "kept"),), now, now + timedelta(hours=1), "me", "outlives a restart")
    silence_id = alertmanager.add_silence(wanted)
    stack.supervisor.stop_program("alertmanager")
    assert isinstance(alertmanager.send(told("down", now)), Retry)
    with pytest.raises(errors.Unavailable):
        alertmanager.silences()
    stack.restart("alertmanager")
    assert isinstance(alertmanager.send(told("down", now)), Delivered)
    assert silence_id in [each.silence_id for each in alertmanager.silences()]
    alertmanager.expire(silence_id)
