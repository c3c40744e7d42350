"""A real Mosquitto keeps the state of each alert, and says who may."""

import getpass
import json
import signal
import time
from contextlib import closing

import pytest

from connections.mqtt import Subscriber
from connections.mqtt_state import MqttState
from fleet.errors import Unavailable
from fleet.notification import Delivered, Refused, Retry
from fleet.receivers import MqttOptions
from fleet.retained_state import topic_of
from stack import prefix
from tests.alerts_told import alert, empty, notification, resolved
from tests.integration.hostile_smtp import RawServer
from tests.integration.processes import free_port
from tests.integration.store_servers import Server

pytestmark = pytest.mark.stack


@pytest.fixture
def sender(settings_for):
    with closing(state(settings_for("dispatcher"))) as made:
        yield made


def state(settings, **options):
    return MqttState(MqttOptions(kind="mqtt", **options), settings)


def retained(settings, topic):
    """What a panel finds that begins to listen now: topic → payload."""
    with closing(Subscriber(settings, "", [topic], clean=True)) as subscriber:
        deadline = time.monotonic() + 10
        while not (found := subscriber.poll(0.2)):
            assert time.monotonic() < deadline, f"nothing is kept under {topic}"
        return {delivery.topic: delivery.payload for delivery in found}


def test_who_begins_to_listen_finds_the_present_state(sender, settings_for):
    operator, topic = settings_for("operator"), "alerts/weather/roof/weather_station/s1/high_temperature"
    for told, seen in (
        (notification(), ("firing", "warning", None)),
        (notification("escalated", alert(2, severity="critical")), ("firing", "critical", None)),
        (resolved(3, severity="critical"), ("resolved", "critical", "recovered")),
    ):
        assert sender.send(told) == Delivered("")
        found = json.loads(retained(operator, topic)[topic])
        assert (found["state"], found["severity"], found["reason"]) == seen
        assert found["transition_id"] == told.alerts[0].transition_id
        assert found["values"] == {"temperature": 36.5}


def test_a_digest_is_a_message_for_each(sender, settings_for):
    many = [alert(device=f"d{n}", rule="storm") for n in range(1200)]
    assert sender.send(notification("digest", *many)) == Delivered("")
    assert json.loads(retained(settings_for("operator"), topic_of("alerts", many[-1]))[topic_of("alerts", many[-1])])


@pytest.mark.parametrize("told", [empty(), notification("test", alert(device="made-up"))], ids=["heartbeat", "test"])
def test_what_is_no_alert(sender, settings_for, told):
    topic = f"alerts/weir/{told.kind}"
    assert sender.send(told) == Delivered("")
    assert told.summary.encode() in retained(settings_for("operator"), topic)[topic]


@pytest.mark.parametrize(
    ("site", "level"), [("a/b", "a_b"), ("+", "_"), ("#", "_"), ("a\x00\nb", "a__b"), ("dach süd", "dach süd")]
)
def test_no_name_leaves_its_level(sender, site, level):
    odd = alert(site=site)
    assert topic_of("alerts", odd) == f"alerts/weather/{level}/weather_station/s1/high_temperature"
    assert sender.send(notification("firing", odd)) == Delivered("")


def test_who_may_not(settings_for):
    with closing(state(settings_for("simulator"))) as sender:
        got = sender.send(notification())
    assert isinstance(got, Refused)
    assert "see its ACL" in got.why


def test_a_wrong_password(settings_for):
    s = settings_for("dispatcher")
    got = state(s, host=s.mqtt_host, port=s.mqtt_port, user="dispatcher", password="wrong").send(notification())
    assert isinstance(got, Retry)
    assert "refuses user 'dispatcher'" in got.why


@pytest.mark.parametrize("greeting", [b"", b"x"], ids=["closes", "no MQTT"])
def test_what_is_no_broker(settings_for, greeting):
    with RawServer(greeting) as server:
        got = state(settings_for("dispatcher"), host="127.0.0.1", port=server.port, timeout="1s").send(notification())
    assert isinstance(got, Retry), got


def test_a_broker_that_hangs_and_one_that_came_again(sender, stack):
    assert sender.send(notification()) == Delivered("")
    pid = stack.supervisor.programs()["mosquitto"]["pid"]
    import os

    os.kill(pid, signal.SIGSTOP)
    try:
        hasty = state(sender._settings, timeout="1s")
        assert isinstance(hasty.send(notification()), Retry)
    finally:
        os.kill(pid, signal.SIGCONT)
    stack.restart("mosquitto")
    assert sender.send(notification()) == Delivered("")


@pytest.fixture
def tls_broker(settings_for, certificates, tmp_path):
    """Settings of a Mosquitto that speaks TLS alone, and lets in everybody."""
    port, (certificate, key) = free_port(), certificates["good"]
    configuration = tmp_path / "mosquitto.conf"
    configuration.write_text(
        f"user {getpass.getuser()}\nlistener {port} 127.0.0.1\ncertfile {certificate}\nkeyfile {key}\n"
        "allow_anonymous true\n"
    )
    broker = Server(tmp_path, "mosquitto", [prefix.ensure(lambda _: None).mosquitto, "-c", configuration])
    settings = settings_for("dispatcher").model_copy(
        update={"mqtt_host": "127.0.0.1", "mqtt_port": port, "mqtt_user": "", "mqtt_ca": certificate, "env_file": None}
    )

    def answers():
        try:
            Subscriber(settings, "", [], clean=True).close()
        except Unavailable:
            return False
        return True

    try:
        broker.start().ready(answers)
        yield settings
    finally:
        broker.kill()


def test_a_broker_by_tls(tls_broker, settings_for, certificates):
    topic = topic_of("alerts", alert())
    with closing(Subscriber(tls_broker, "", ["alerts/#"], clean=True)) as panel:
        for name in ("other", ""):
            ca = {"ca_file": certificates[name][0]} if name else {}
            wrong = state(settings_for("dispatcher"), host="127.0.0.1", port=tls_broker.mqtt_port, timeout="2s", **ca)
            got = wrong.send(notification())
            assert isinstance(got, Retry), got
            assert ("certificate verify failed" in got.why) == bool(name)
        assert panel.poll(0.2) == []
    good = state(
        settings_for("dispatcher"), host="127.0.0.1", port=tls_broker.mqtt_port, ca_file=certificates["good"][0]
    )
    with closing(good):
        assert good.send(notification()) == Delivered("")
    assert topic in retained(tls_broker, topic)
