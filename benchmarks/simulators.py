"""How many messages a second a simulator gets confirmed, with all its accounting: `python -m benchmarks.simulators`.

Starts a stack of its own (as the tests do), and stops it. One run of 40,000 weather messages for each target.
"""

import time
from pathlib import Path
from tempfile import TemporaryDirectory

from fleet.catalog import load_catalog
from simulators.session import Order, Source, conduct
from simulators.simulation import plan_parts, simulated_readings, simulated_types
from stack.ports import Ports
from stack.stack import Stack
from tests.conftest import own_home

MESSAGES = 40_000


def main() -> None:
    with own_home() as home, TemporaryDirectory() as folder:
        stack = Stack(home, Ports.free(), ("mosquitto", "kafka"), environ={})
        stack.up()
        try:
            measure(stack, Path(folder) / "log.jsonl")
        finally:
            stack.down()


def measure(stack: Stack, path: Path) -> None:
    settings = stack.settings("simulator")
    catalog = load_catalog(settings.types_dir)
    parts = plan_parts(simulated_types(catalog, "weather"))
    source = Source(
        MESSAGES * 20_000,
        ("weather_station",),
        lambda t: simulated_readings(parts, first_us=t.first_us, end_us=t.end_us, seed=7),
    )
    for target in ("mqtt", "kafka", "file"):
        for faults in ((), ("malformed=0.001", "spike=0.001", "duplicate=0.001", "stuck=0.001", "out_of_range=0.001")):
            order = Order(target, path if target == "file" else None, speed=0, faults=faults)
            busy = time.process_time()
            summary = conduct(settings, catalog, order, source, {})
            busy = time.process_time() - busy
            print(
                f"{target}, {len(faults)} faults: {summary['published']:,} confirmed,"
                f" {summary['messages_per_second']:,.0f}/s; {summary['published'] / busy:,.0f}/s of processor time"
            )


if __name__ == "__main__":
    main()
