"""A service of ours is up when it says so, on the port that the stack gave it."""

import pytest

from fleet.errors import Unavailable
from stack import readiness
from stack.ports import Ports
from streaming.service import Health


def test_a_service_is_asked_whether_it_works():
    ports, problem = Ports.free(), ["no partitions yet"]
    with pytest.raises(Unavailable, match="refused"):
        readiness.check("live", ports, {})
    health = Health(ports.live_metrics, lambda: problem[0])
    try:
        with pytest.raises(Unavailable, match="503 no partitions yet"):
            readiness.check("live", ports, {})
        problem[0] = ""
        readiness.check("live", ports, {})
    finally:
        health.close()
