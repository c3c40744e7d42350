"""Bytewax: one rule with hysteresis over a keyed, stateful map; in memory, without recovery and without transactions.
Its Kafka source commits nothing: a worker takes the partitions that Bytewax gives it."""

import json
import sys

from bytewax import operators as op
from bytewax.connectors.kafka import KafkaSource
from bytewax.dataflow import Dataflow
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.run import cli_main
from reports import report

asked = json.loads(sys.argv[1])
client = dict(asked["client"])
taken = 0


def read(message) -> tuple[str, tuple[float | None, int]]:
    global taken
    taken += 1
    reading = json.loads(message.value)
    return reading.get("device_id", ""), (reading.get("values", {}).get("temperature"), reading.get("event_time", 0))


def rule(firing: bool | None, said: tuple[float | None, int]) -> tuple[bool | None, str | None]:
    temperature, _ = said
    if temperature is None:
        return firing, None
    if not firing and temperature > 35:
        return True, "firing"
    if firing and temperature < 34:
        return None, "resolved"
    return firing, None


class Drop(StatelessSinkPartition):
    def write_batch(self, items: list) -> None:
        pass


class Dropped(DynamicSink):
    def build(self, step_id: str, worker_index: int, worker_count: int) -> Drop:
        return Drop()


flow = Dataflow("alerts")
source = KafkaSource([client.pop("bootstrap.servers")], [asked["topic"]], tail=True, add_config=client, batch_size=5000)
keyed = op.map("read", op.input("readings", flow, source), read)
transitions = op.filter("changes", op.stateful_map("rule", keyed, rule), lambda pair: pair[1] is not None)
op.output("transitions", transitions, Dropped())
report(lambda: taken)
cli_main(flow, process_id=asked["number"], addresses=asked["addresses"]) if asked["addresses"] else cli_main(flow)
