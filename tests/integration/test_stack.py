"""The running servers let in whom they should, and nobody else; each role can do its own work and no other's."""

import socket
from contextlib import closing
from pathlib import Path

import pytest

from connections import probes
from connections.warehouse_admin import connect
from fleet.channels import REJECTED
from fleet.errors import Refused, Unavailable
from stack.credentials import admin_url
from stack.ports import Ports
from stack.programs import PORT_OF
from stack.stack import Stack
from stack.status import rows
from stack.supervisor import marked

pytestmark = pytest.mark.stack
READINGS = "sensor"


def password(secret):
    return secret.get_secret_value()


def test_mqtt_refuses_strangers(settings_for):
    s = settings_for("operator")
    probes.mqtt(s.mqtt_host, s.mqtt_port, s.mqtt_user, password(s.mqtt_password))
    for user, word in (("", ""), ("operator", "wrong"), ("nobody", password(s.mqtt_password))):
        with pytest.raises(Refused):
            probes.mqtt(s.mqtt_host, s.mqtt_port, user, word)


@pytest.mark.parametrize(
    ("role", "topic", "allowed"),
    [
        ("simulator", "dt/weather/s/weather_station/1", True),
        ("simulator", "cmd/weather/s/weather_station/1", False),
        ("bridge", "dt/weather/s/weather_station/1", False),
        ("operator", "dt/weather/s/weather_station/1", False),
        ("simulator", "cmd/weather/s/weather_station/1/answer", True),
        ("commander", "cmd/weather/s/weather_station/1", True),
        ("commander", "cmd/weather/s/weather_station/1/answer", False),
        ("commander", "dt/weather/s/weather_station/1", False),
        ("dispatcher", "alerts/weather/s/weather_station/1/high_temperature", True),
        ("dispatcher", "dt/weather/s/weather_station/1", False),
        ("simulator", "alerts/weather/s/weather_station/1/high_temperature", False),
    ],
)
def test_who_may_publish(settings_for, role, topic, allowed):
    import paho.mqtt.client as paho
    from paho.mqtt.enums import CallbackAPIVersion

    s = settings_for(role)
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    client.username_pw_set(s.mqtt_user, password(s.mqtt_password))
    answers = []
    client.on_publish = lambda _c, _d, _mid, reason, _p: answers.append(reason)
    client.connect(s.mqtt_host, s.mqtt_port)
    client.loop_start()
    try:
        client.publish(topic, b"{}", qos=1).wait_for_publish(5)
    finally:
        client.disconnect()
        client.loop_stop()
    assert len(answers) == 1
    assert answers[0].is_failure is not allowed


def test_alertmanager_refuses_strangers(settings_for):
    s = settings_for("operator")
    probes.alertmanager(s.alertmanager_url, s.alertmanager_user, password(s.alertmanager_password))
    for user, word in (("", ""), (s.alertmanager_user, "wrong"), ("nobody", password(s.alertmanager_password))):
        with pytest.raises(Refused):
            probes.alertmanager(s.alertmanager_url, user, word)


def test_kafka_refuses_strangers(settings_for):
    from kafka import KafkaConsumer
    from kafka.errors import KafkaError

    s = settings_for("operator")
    probes.kafka(s.kafka_bootstrap, s.kafka_user, password(s.kafka_password))
    with pytest.raises(Unavailable):
        probes.kafka(s.kafka_bootstrap, "operator", "wrong", seconds=2)
    with pytest.raises(KafkaError):
        KafkaConsumer(bootstrap_servers=s.kafka_bootstrap, bootstrap_timeout_ms=2000)


@pytest.mark.parametrize(
    ("role", "topic", "allowed"),
    [
        ("bridge", READINGS, True), ("bridge", REJECTED, True), ("simulator", READINGS, True),
        ("simulator", REJECTED, False), ("landing", READINGS, False), ("live", READINGS, False),
        ("stream", READINGS, False), ("batch", READINGS, True), ("operator", READINGS, False),
        ("registry", READINGS, True), ("registry", REJECTED, False),
    ],
)  # fmt: skip
def test_who_may_write_to_kafka(settings_for, role, topic, allowed):
    from kafka.errors import AuthorizationError, KafkaError

    from connections import kafka

    client = kafka.producer(settings_for(role), "test-rights")
    try:
        # A heartbeat is skipped by all who read, so it disturbs no other test of this session.
        sent = client.send(topic, value=b"", headers=[("weir", b"heartbeat")])
        if allowed:
            assert sent.get(10).offset >= 0
        else:
            with pytest.raises(KafkaError) as refused:
                sent.get(10)
            assert isinstance(refused.value, AuthorizationError) or "uthoriz" in str(refused.value)
    except AuthorizationError:
        assert not allowed
    finally:
        client.close()


def test_database_refuses_strangers(settings_for):
    url = password(settings_for("operator").db_url)
    probes.postgres(url)
    with pytest.raises(Refused):
        probes.postgres(url.replace("weir_operator:", "weir_operator:x"))


@pytest.mark.parametrize(
    ("role", "statement", "allowed"),
    [
        ("operator", "select count(*) from readings", True),
        ("operator", "delete from readings", False),
        ("live", "insert into readings select * from readings where false", True),
        ("live", "delete from rollups", False),
        ("stream", "delete from rollups_live where false", True),
        ("stream", "select count(*) from rollups", False),
        ("batch", "delete from rollups_live where false", False),
        ("batch", "delete from rollups where false", True),
        ("batch", "delete from readings", False),
        ("batch", "drop table rollups", False),
        ("batch", "create table intruder (x int)", False),
        ("live", "create role intruder", False),
        ("operator", "select count(*) from devices", True),
        ("operator", "update devices set room = 'x' where false", False),
        ("registry", "update devices set room = 'x' where false", True),
        ("registry", "delete from devices where false", False),
        ("registry", "delete from control_records where false", False),
        ("registry", "select expire_control_records(now())", False),
        ("registry", "select count(*) from readings", False),
        ("bridge", "update control_records set published_at = now() where false", True),
        ("bridge", "insert into readings select * from readings where false", False),
        ("batch", "update sites set time_zone = 'UTC' where false", False),
    ],
)
def test_who_may_do_what_in_the_database(settings_for, role, statement, allowed):
    import psycopg2.errors

    with closing(connect(password(settings_for(role).db_url))) as connection, connection.cursor() as cursor:
        if allowed:
            cursor.execute(statement)
        else:
            with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                cursor.execute(statement)


def test_the_warehouse_is_closed_to_airflows_login_and_back(settings_for, stack):
    from stack.credentials import login_url

    with pytest.raises(Unavailable, match="permission denied"):
        connect(login_url("weir_airflow", stack.secrets, stack.ports, "weir"))
    with pytest.raises(Unavailable, match="permission denied"):
        connect(password(settings_for("batch").db_url), "weir_airflow")


def test_no_job_runs_that_the_apache_edition_cannot(stack):
    """It would log an error when the extension is made, and at each start."""
    with closing(connect(admin_url(stack.secrets, stack.ports), "weir")) as connection, connection.cursor() as cursor:
        cursor.execute(
            "select job.scheduled, coalesce(stat.total_runs, 0) from _timescaledb_config.bgw_job job"
            " left join _timescaledb_internal.bgw_job_stat stat on stat.job_id = job.id"
            " where job.proc_name = 'policy_job_stat_history_retention'"
        )
        assert cursor.fetchall() == [(False, 0)]
    assert "license" not in (stack.layout.home / "logs" / "postgres.log").read_text()


def test_nothing_listens_beyond_this_machine(stack):
    wanted = {getattr(stack.ports, port) for name in stack.services for port in PORT_OF[name]}
    listening = {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            address, _, port = words[1].rpartition(":")
            if words[3] == "0A" and int(port, 16) in wanted:
                listening[int(port, 16)] = address
    assert set(listening) == wanted
    assert all(address in ("0100007F", "0000000000000000FFFF00000100007F") for address in listening.values())


def test_status_shows_every_program(stack):
    *programs, together = rows(stack)
    assert {row[0] for row in programs} == set(stack.services)
    assert {row[1] for row in programs} == {"up"}
    told = sum(int(row[-1].removesuffix(" MiB")) for row in programs)
    assert abs(int(together[-1].removesuffix(" MiB").replace(",", "")) - told) <= len(programs)  # each is rounded


def test_a_killed_server_comes_back(stack):
    import os
    import signal
    import time

    from stack import readiness

    pid = stack.supervisor.programs()["mosquitto"]["pid"]
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while stack.supervisor.programs()["mosquitto"]["pid"] in (0, pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    stack._wait("mosquitto", time.monotonic(), lambda: False)
    readiness.check("mosquitto", stack.ports, stack.secrets)


def test_a_second_stack_beside_it_in_a_deep_folder_leaves_nothing_running(tmp_path, stack):
    deep = tmp_path / ("d" * 60) / ("e" * 60) / "with space"
    other = Stack(deep, Ports.free(), ("mosquitto", "postgres"), environ={})
    other.up()
    try:
        assert marked(deep)
        s = other.settings("operator")
        probes.mqtt(s.mqtt_host, s.mqtt_port, s.mqtt_user, password(s.mqtt_password))
        probes.postgres(password(s.db_url))
    finally:
        other.down()
    assert marked(deep) == []
    assert marked(stack.layout.home)


def test_a_taken_port_is_told_before_anything_starts(tmp_path):
    from fleet.errors import ConfigurationError

    ports = Ports.free()
    with socket.socket() as server:
        server.bind(("127.0.0.1", ports.mqtt))
        server.listen()
        other = Stack(tmp_path / "home", ports, ("mosquitto",), environ={})
        with pytest.raises(ConfigurationError, match=f"mqtt: port {ports.mqtt} is taken by .* \\(pid"):
            other.up()
    assert marked(tmp_path / "home") == []
