"""Simulated lamps, plugs and thermostats hear commands by the real Mosquitto, and show that they obeyed."""

import json
import threading
import time
from datetime import timedelta

import paho.mqtt.client as paho
import pytest

from connections import mqtt
from fleet.catalog import load_catalog
from fleet.settings import CHECKOUT
from simulators.homes import Town
from simulators.session import Order
from weir._simulate_homes import run

pytestmark = pytest.mark.stack
CATALOG = load_catalog(CHECKOUT / "fleet" / "types")
LAMP, PLUG, WARM = "lamp/home-1-hall-lamp", "smart_plug/home-1-fridge", "thermostat/home-1-living-thermostat"
COMMANDS = [
    (LAMP, {"id": "1", "command": "dim", "args": {"level": 40}}, {"on": 1, "brightness": 40}),
    (PLUG, {"id": "2", "command": "off", "args": {}}, {"on": 0, "power": 0}),
    (WARM, {"id": "3", "command": "set", "args": {"celsius": 25}}, {"setpoint": 25, "heating": 1}),
]


def test_obeyed_within_seconds(settings_for):
    seconds = 25
    heard: list[tuple[str, dict]] = []
    listener = mqtt.Subscriber(
        settings_for("operator"), "", [f"dt/home/home-1/{device}" for device, _, _ in COMMANDS], clean=True
    )
    commander = mqtt.client_of(settings_for("commander"), "")
    answers: list[tuple[str, dict]] = []
    commander.on_connect = lambda client, *_: client.subscribe("cmd/+/+/+/+/answer", qos=1)
    commander.on_message = lambda _c, _u, message: answers.append((message.topic, json.loads(message.payload)))
    mqtt.open_connection(commander, settings_for("commander"), True, 0, 100)
    commander.loop_start()
    town = Town(1, 0, seconds * 1_000_000, 7, timedelta(seconds=1), 0)
    order = Order("mqtt", seed=7, speed=1)
    running = threading.Thread(
        target=run, args=(settings_for("simulator"), CATALOG, order, town, False, False, {}), daemon=True
    )
    running.start()
    try:
        deadline = time.monotonic() + seconds
        missing = dict.fromkeys(device for device, _, _ in COMMANDS)
        sent = False
        while missing and time.monotonic() < deadline:
            for delivery in listener.poll(0.2):
                listener.ack([delivery.mid])
                heard.append((delivery.topic, json.loads(delivery.payload)["values"]))
            if heard and not sent:
                for device, command, _ in COMMANDS:
                    payload = json.dumps(command | {"expires": time.time() + 60})
                    assert commander.publish(f"cmd/home/home-1/{device}", payload, qos=1).rc == paho.MQTT_ERR_SUCCESS
                sent = True
            for device, _, wanted in COMMANDS:
                if any(topic.endswith(device) and wanted.items() <= values.items() for topic, values in heard[-3:]):
                    missing.pop(device, None)
        assert not missing
        assert {topic: answer["state"] for topic, answer in answers} == {
            f"cmd/home/home-1/{device}/answer": "delivered" for device, _, _ in COMMANDS
        }
    finally:
        running.join(seconds + 10)
        commander.disconnect()
        commander.loop_stop()
        listener.close()
