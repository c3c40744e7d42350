"""How fast rules are evaluated on one core: `python -m benchmarks.rules`. No servers; prints readings a second.

- simple: one device type of five metrics, five thresholds, as fleet/types/weather_station.yaml
- mixed: 20 rules of all kinds (hysteresis, for, count, levels, windows, rates, previous, flap, no_data, local time)
"""

import argparse
import random
import time

from fleet.engine import Engine
from fleet.reading import Reading
from fleet.rule_test import inline_spec

METRICS = {name: {"unit": "count"} for name in ("temperature", "humidity", "rainfall", "wind", "uv")}
SIMPLE = [
    {"id": "high_temperature", "when": "temperature > 35", "clear": "temperature < 34"},
    {"id": "low_humidity", "when": "humidity < 20"},
    {"id": "high_uv", "when": "uv > 8"},
    {"id": "heavy_rain", "when": "rainfall > 50"},
    {"id": "high_wind", "when": "wind > 20"},
]
MIXED = [
    *SIMPLE,
    {"id": "hot_for", "when": "temperature > 33", "for": "10s", "keep_firing_for": "10s"},
    {"id": "band", "when": "18 < humidity < 25 and temperature > 30"},
    {"id": "limit", "when": "temperature > limit", "params": {"limit": 39}},
    {"id": "often", "when": "humidity > 65", "count": "3 of 5"},
    {"id": "levels", "levels": {"info": {"when": "wind > 15"}, "critical": {"when": "wind > 19", "for": "4s"}}},
    {"id": "mean", "when": "avg(temperature, 1m) > 33"},
    {"id": "spread", "when": "stddev(humidity, 1m) > 20"},
    {"id": "rise", "when": "rate(temperature, 30s) > 0.5"},
    {"id": "jump", "when": "abs(temperature - previous(temperature)) > 15"},
    {"id": "gone", "no_data": "1m"},
    {"id": "night", "when": "uv > 10 and local_hour() < 6"},
    {"id": "nervous", "when": "rainfall > 49", "flap": True},
    {"id": "dew", "when": "temperature - (100 - humidity) / 5 > 35"},
    {"id": "many", "when": "count(uv, 20s) > 12"},
    {"id": "worst", "when": "max(wind / 20, rainfall / 50, uv / 11) > 0.999"},
]


RANGES = {"temperature": (10, 38), "humidity": (15, 75), "rainfall": (0, 52), "wind": (0, 21), "uv": (0, 9)}


def readings(devices: int, rounds: int) -> list[Reading]:
    """Each metric walks through its range, at most a fiftieth of it a reading; every two seconds."""
    draw = random.Random(7).uniform  # noqa: S311 - nothing secret
    start = 1_732_985_789_000_000
    now = {(d, m): draw(*RANGES[m]) for d in range(devices) for m in RANGES}
    made = []
    for n in range(rounds):
        for device in range(devices):
            values = {}
            for metric, (low, high) in RANGES.items():
                step = (high - low) / 50
                value = min(high, max(low, now[device, metric] + draw(-step, step)))
                values[metric] = now[device, metric] = value
            event_time_us = start + n * 2_000_000 + device * 1000
            made.append(Reading(f"d{device}", "station", "field", event_time_us, values, n))
    return made


def measure(name: str, alerts: list[dict[str, object]], devices: int, rounds: int) -> None:
    spec = inline_spec(
        {"type": "station", "version": 1, "system": "demo", "cadence": "2s", "metrics": METRICS, "alerts": alerts}
    )  # fmt: skip
    batch = readings(devices, rounds)
    engine = Engine(0, [spec])
    transitions = 0
    started = time.process_time()
    for offset, reading in enumerate(batch):
        transitions += len(engine.reading(reading, offset=offset, append_us=reading.event_time_us))
    seconds = time.process_time() - started
    evaluations = engine.counts.evaluations
    started = time.process_time()
    data = engine.snapshot()
    written = time.process_time() - started
    started = time.process_time()
    Engine.restore(data)
    read = time.process_time() - started
    print(
        f"{name:7} {len(alerts):3} rules, {devices:,} devices: {len(batch) / seconds:9,.0f} readings/s, "
        f"{evaluations / seconds:11,.0f} evaluations/s, {transitions:,} transitions; "
        f"snapshot {len(data) / devices:,.0f} B a device, written in {written:.2f} s, read in {read:.2f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--devices", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=100)
    arguments = parser.parse_args()
    measure("simple", SIMPLE, arguments.devices, arguments.rounds)
    measure("mixed", MIXED, arguments.devices, arguments.rounds)


if __name__ == "__main__":
    main()
