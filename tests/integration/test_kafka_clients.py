"""Kafka's clients when Kafka says no, or nothing: each failure has its own words, and nothing lives on after it."""

from collections.abc import Callable

import pytest
from kafka.errors import KafkaError
from pydantic import SecretStr

from connections import kafka
from fleet.errors import Refused, Unavailable
from fleet.settings import Settings
from stack.stack import Stack
from tests.integration.processes import wait_for

pytestmark = pytest.mark.stack


def test_a_wrong_password_is_told_from_a_server_that_is_away(settings_for: Callable[[str], Settings]) -> None:
    settings = settings_for("bridge")
    wrong = settings.model_copy(update={"kafka_password": SecretStr("wrong")})
    with pytest.raises(Unavailable, match=r"does not let user 'bridge' in.*bridge\.env"):
        kafka.producer(wrong, "tests", bootstrap_timeout_ms=1500)
    away = settings.model_copy(update={"kafka_bootstrap": "127.0.0.1:1"})
    with pytest.raises(Unavailable, match=r"nothing answers at Kafka.s address 127\.0\.0\.1:1"):
        kafka.producer(away, "tests", bootstrap_timeout_ms=500)


def test_a_missing_right_is_named_before_anything_starts(settings_for: Callable[[str], Settings]) -> None:
    kafka.check_access(settings_for("landing"), kafka.READ, ["sensor", "readings.rejected"])
    with pytest.raises(Refused, match=r"user 'landing' cannot WRITE: sensor"):
        kafka.check_access(settings_for("landing"), kafka.WRITE, ["sensor"])
    with pytest.raises(Refused, match=r"cannot READ: nonesuch \(missing"):
        kafka.check_access(settings_for("landing"), kafka.READ, ["sensor", "nonesuch"])


def test_a_producer_that_gave_up_can_be_ended(settings_for: Callable[[str], Settings], stack: Stack) -> None:
    options = {"delivery_timeout_ms": 2_000, "request_timeout_ms": 1_500}
    producer = kafka.producer(settings_for("simulator"), "tests", **options)
    producer.send("sensor", b"junk of the tests").get(10)
    stack.supervisor.stop_program("kafka")
    try:
        lost = producer.send("sensor", b"junk that must not be written later")
        wait_for(lambda: lost.is_done, 15, "it never gives up")
        assert isinstance(lost.exception, KafkaError)
        held = producer.send("sensor", b"junk that must not be written later")
        kafka.close(producer)
        wait_for(lambda: not producer._sender.is_alive(), 10, "its thread lives on")
        assert held.is_done
    finally:
        stack.restart("kafka")
