"""What every contender prints ten times a second: {"n": messages so far, "cpu": seconds, "at": seconds, "rss": MiB}."""

import json
import resource
import threading
import time
from collections.abc import Callable


def report(count: Callable[[], int]) -> None:
    def run() -> None:
        while True:
            usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
            cpu = sum(u.ru_utime + u.ru_stime for u in usage)
            said = {"n": count(), "cpu": cpu, "at": time.time(), "rss": usage[0].ru_maxrss / 1024}
            print(json.dumps(said), flush=True)
            time.sleep(0.1)

    threading.Thread(target=run, daemon=True).start()
