"""The running servers let in whom they should, and nobody else."""

import pytest

from connections import probes
from fleet.errors import Refused, Unavailable

pytestmark = pytest.mark.stack


def test_mqtt_refuses_strangers(stack, settings_for):
    s = settings_for("operator")
    probes.mqtt(s.mqtt_host, s.mqtt_port, s.mqtt_user, s.mqtt_password.get_secret_value())
    with pytest.raises(Refused):
        probes.mqtt(s.mqtt_host, s.mqtt_port, "", "")
    with pytest.raises(Refused):
        probes.mqtt(s.mqtt_host, s.mqtt_port, "operator", "wrong")


def test_kafka_refuses_strangers(settings_for):
    s = settings_for("operator")
    probes.kafka(s.kafka_bootstrap, s.kafka_user, s.kafka_password.get_secret_value())
    with pytest.raises(Unavailable):
        probes.kafka(s.kafka_bootstrap, "operator", "wrong", seconds=2)


def test_database_refuses_strangers(settings_for):
    url = settings_for("operator").db_url.get_secret_value()
    probes.postgres(url)
    with pytest.raises(Refused):
        probes.postgres(url.replace("weir_reader:", "weir_reader:x"))
