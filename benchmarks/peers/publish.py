"""Readings of 40,000 devices, one each 2 s, into Kafka as fast as it takes them: `publish.py '{"options": …}'`.

The last one's event time is now. Values are calm, with one reading in 50,000 out of bounds.
"""

import json
import random
import sys
import time

from confluent_kafka import Producer

asked = json.loads(sys.argv[1])
producer = Producer({
    **asked["client"], "compression.type": "lz4", "linger.ms": 50, "batch.size": 262_144, "acks": "all",
    "queue.buffering.max.messages": 500_000, "partitioner": "murmur2_random",
})  # fmt: skip
chance = random.Random(7)  # noqa: S311
devices, count, topic = asked["devices"], asked["messages"], asked["topic"]
rounds = count // devices
begin = int(time.time() * 1000) - rounds * 2000
bases = [(chance.uniform(15, 30), chance.uniform(35, 75)) for _ in range(devices)]
names = [f"station-{number:05d}" for number in range(devices)]
noise = [chance.gauss(0, 0.1) for _ in range(9973)]
sent = 0
for turn in range(rounds):
    if turn % 5 == 0:
        for partition in range(asked["partitions"]):
            producer.produce(topic, b'{"at":0}', partition=partition, headers=[tuple(asked["heartbeat"])])
    for number in chance.sample(range(devices), devices):
        temperature, humidity = bases[number]
        temperature += noise[sent % 9973]
        if sent % 50_000 == 49_999:
            temperature += 30
        at = begin + turn * 2000 + sent % devices * 2000 // devices
        value = (
            f'{{"device_id":"{names[number]}","device_type":"station","site":"field","event_time":{at},"values":'
            f'{{"temperature":{temperature:.2f},"humidity":{humidity:.1f}}},"version":1,"seq":{turn}}}'
        )
        while True:
            try:
                producer.produce(topic, value, names[number])
                break
            except BufferError:
                producer.poll(0.05)
        sent += 1
    producer.poll(0)
producer.flush()
print(json.dumps({"sent": sent, "bytes": len(value)}))
