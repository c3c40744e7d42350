"""Quix Streams as its documentation has it for exactly once: one rule with hysteresis, its state in RocksDB with a
changelog topic, transitions to a topic, positions in the same transaction."""

import json
import sys

from quixstreams import Application, State
from quixstreams.kafka.configuration import ConnectionConfig
from reports import report

asked = json.loads(sys.argv[1])
client = asked["client"]
connection = ConnectionConfig(
    bootstrap_servers=client["bootstrap.servers"], security_protocol=client["security.protocol"],
    sasl_mechanism=client["sasl.mechanism"], sasl_username=client["sasl.username"],
    sasl_password=client["sasl.password"],
)  # fmt: skip
app = Application(
    broker_address=connection, consumer_group=asked["group"], auto_offset_reset="earliest",
    processing_guarantee="exactly-once", state_dir=asked["folder"], loglevel="ERROR",
)  # fmt: skip
taken = 0


def rule(reading: dict, state: State) -> dict | None:
    global taken
    taken += 1
    temperature = reading.get("values", {}).get("temperature")
    if temperature is None:
        return None
    firing = state.get("firing", False)
    if not firing and temperature > 35:
        state.set("firing", True)
        return {"device": reading["device_id"], "to": "firing", "at": reading["event_time"]}
    if firing and temperature < 34:
        state.set("firing", False)
        return {"device": reading["device_id"], "to": "resolved", "at": reading["event_time"]}
    return None


readings = app.topic(asked["topic"], value_deserializer="json", key_deserializer="bytes")
transitions = app.topic(asked["output"], value_serializer="json", key_serializer="bytes")
frame = app.dataframe(readings)
frame = frame.apply(rule, stateful=True).filter(lambda transition: transition is not None)
frame.to_topic(transitions)
report(lambda: taken)
app.run()
