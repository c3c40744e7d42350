"""Requests that wait for Kafka: answered when it has all of their records, told when it fails."""

import asyncio

import pytest
from kafka.errors import KafkaTimeoutError

from fleet.errors import Unavailable
from fleet.settings import Settings
from streaming import deposit
from streaming.deposit import Deposit

RECORD = ("readings.home", b"value", b"key")


class Confirmation:
    def __init__(self):
        self.is_done, self.exception = False, None

    def say(self, exception=None):
        self.is_done, self.exception = True, exception


class Producer:
    """Both kinds of send, and what became of each."""

    def __init__(self):
        self.sent, self.failure = [], None

    def send(self, topic, value, key=None):
        if self.failure:
            raise self.failure
        self.sent.append(((topic, value, key), Confirmation()))
        return self.sent[-1][1]


class OnFakes(Deposit):
    """Opens a Producer at once, one after another."""

    def __init__(self):
        super().__init__(Settings(), ["readings.home"])
        self.opened = []

    async def _open(self):
        self._producer = self._appender = Producer()
        self.opened.append(self._producer)
        self.problem = ""
        self.restarts += 1

    async def _shut(self):
        self._producer = self._appender = None


def run(scenario):
    async def started():
        made = OnFakes()
        task = asyncio.create_task(made.run())
        while not made.opened:
            await asyncio.sleep(0)
        try:
            return await asyncio.wait_for(scenario(made), 60)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    return asyncio.run(started())


async def waits(task):
    """For long enough that it would have been answered."""
    await asyncio.sleep(5 * deposit.CONFIRM_SECONDS)
    return not task.done()


def test_it_is_answered_when_all_records_are_there():
    async def scenario(made):
        first, second = (asyncio.create_task(made.put([RECORD, ("readings.rejected", b"letter", None)])) for _ in "ab")
        assert await waits(first)
        sent = made.opened[0].sent
        assert [record[0] for record, _ in sent] == ["readings.home", "readings.rejected"] * 2
        sent[0][1].say()
        assert await waits(first)
        assert made.in_flight == 2
        sent[1][1].say()
        await first
        assert await waits(second)
        sent[2][1].say()
        sent[3][1].say()
        await second
        assert made.in_flight == 0

    run(scenario)


@pytest.mark.parametrize("how", ["a confirmation", "a send"])
def test_when_kafka_fails_all_that_wait_are_told_and_it_is_opened_anew(how):
    async def scenario(made):
        tasks = [asyncio.create_task(made.put([RECORD])) for _ in range(3)]
        assert await waits(tasks[0])
        if how == "a send":
            made.opened[0].failure = KafkaTimeoutError("away")
            tasks.append(asyncio.create_task(made.put([RECORD])))
        else:
            made.opened[0].sent[0][1].say(KafkaTimeoutError("away"))
        for task in tasks:
            with pytest.raises(Unavailable, match="away"):
                await task
        with pytest.raises(Unavailable):
            await made.put([RECORD])
        while len(made.opened) < 2:
            await asyncio.sleep(deposit.CONFIRM_SECONDS)
        again = asyncio.create_task(made.put([RECORD]))
        assert await waits(again)
        made.opened[1].sent[0][1].say()
        await again
        assert (made.problem, made.restarts) == ("", 1)

    run(scenario)


def test_who_waits_when_it_ends_is_told():
    async def scenario(made):
        task = asyncio.create_task(made.put([RECORD]))
        assert await waits(task)
        return task

    task = run(scenario)
    with pytest.raises(Unavailable, match="stops"):
        task.result()


def test_what_is_too_much_or_barred_is_not_sent():
    async def scenario(made):
        made.barred = {"readings.ghost": "missing"}
        with pytest.raises(Unavailable, match="missing"):
            await made.put([("readings.ghost", b"", b"")])
        with pytest.raises(Unavailable, match="bytes wait"):
            await made.put([("readings.home", b"x" * (deposit.MAX_BYTES_IN_FLIGHT + 1), b"")])
        assert made.opened[0].sent == []

    run(scenario)


def test_a_sender_that_has_gone_holds_up_nobody():
    async def scenario(made):
        gone, stays = (asyncio.create_task(made.put([RECORD])) for _ in "ab")
        assert await waits(gone)
        gone.cancel()
        for _, confirmation in made.opened[0].sent:
            confirmation.say()
        await stays

    run(scenario)


def test_a_topic_that_is_gone_is_barred_and_holds_up_no_other(monkeypatch):
    topics = ["readings.gone", "readings.home", "readings.rejected"]
    opened, gone = [], {}

    class Known(Producer):
        def partitions_for(self, topic):
            if topic in gone:
                raise KafkaTimeoutError(topic)

    def producer(*_, **__):
        opened.append(Known())
        return opened[-1]

    monkeypatch.setattr(deposit.kafka, "producer", producer)
    monkeypatch.setattr(deposit.kafka, "access_problems", lambda *_: dict(gone))
    monkeypatch.setattr(deposit.kafka, "close", lambda _: None)

    async def opens(times):
        while len(opened) < times or made.problem:
            await asyncio.sleep(deposit.CONFIRM_SECONDS)

    async def scenario():
        await opens(1)
        lost = asyncio.create_task(made.put([("readings.gone", b"value", b"key")]))
        assert await waits(lost)
        gone["readings.gone"] = "missing"
        opened[0].sent[0][1].say(KafkaTimeoutError("it did not come"))
        with pytest.raises(Unavailable):
            await lost
        await opens(2)
        with pytest.raises(Unavailable, match="gone: missing"):
            await made.put([("readings.gone", b"value", b"key")])
        stays = asyncio.create_task(made.put([RECORD]))
        assert await waits(stays)
        opened[1].sent[0][1].say()
        await stays

    async def started():
        task = asyncio.create_task(made.run())
        try:
            await asyncio.wait_for(scenario(), 20)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    made = Deposit(Settings(), topics)
    asyncio.run(started())
