"""Couriers read their messages at the same time, from the first one on."""

import subprocess
import sys

import msgspec

from tests.alerts_told import notification

PROGRAM = """
import sys, threading
sys.setswitchinterval(1e-6)
import streaming.outbox as outbox

message, threads = sys.stdin.buffer.read(), 6
together, read = threading.Barrier(threads), []

def courier():
    together.wait()
    read.append(outbox.decode_notification(message))

couriers = [threading.Thread(target=courier) for _ in range(threads)]
for one in couriers:
    one.start()
for one in couriers:
    one.join()
assert len(read) == threads and len(set(map(repr, read))) == 1
"""
PROCESSES = 6
"""Of those in which msgspec made the type at its first use, two of five died."""


def test_the_first_messages_may_be_read_at_once() -> None:
    message = msgspec.json.encode(notification())
    for _ in range(PROCESSES):
        done = subprocess.run([sys.executable, "-c", PROGRAM], input=message, capture_output=True)
        assert done.returncode == 0, done.stderr.decode()
