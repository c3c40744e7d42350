"""Records into Kafka for requests that wait on an event loop: each is answered when Kafka has all of its records.

All of it runs on that loop: records go into the producer's open batches (connections.kafka_appends), and its
confirmations are looked for every few milliseconds, as the bridge does. When Kafka fails all that wait are told so, and
the producer is opened anew.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from kafka.errors import KafkaError, MessageSizeTooLargeError

from connections import kafka
from connections.kafka_appends import Appender
from fleet.channels import REJECTED
from fleet.errors import Unavailable, WeirError
from fleet.settings import Settings
from streaming.entrance import MAX_REQUEST_BYTES, Record
from streaming.service import BACKOFF_SECONDS

CONFIRM_SECONDS = 0.004
MAX_BYTES_IN_FLIGHT = 32 * 1024 * 1024
BLOCK_MS = 500
"""So long a send may hold up the loop, for a topic that the producer has not heard of. It hears of all before."""

log = logging.getLogger("weir.gateway")


class _Waiting(NamedTuple):
    confirmations: list[Any]
    bytes: int
    done: "asyncio.Future[None]"


class Deposit:
    """`run` opens it, and keeps it open; `put` is for many at once."""

    def __init__(self, settings: Settings, topics: Iterable[str]):
        self._settings, self._topics = settings, sorted(topics)
        self._producer: Any = None
        self._appender: Appender | None = None
        self._waiting: deque[_Waiting] = deque()
        self._some = asyncio.Event()
        self._bytes = 0
        self.problem = "starting"
        """Why nothing is taken now; empty: it is."""
        self.barred: dict[str, str] = {}
        """Topic → why nothing can be written to it, asked anew at each opening. That holds up nothing that goes
        elsewhere."""
        self.restarts = -1

    @property
    def in_flight(self) -> int:
        """Requests that wait for Kafka."""
        return len(self._waiting)

    async def put(self, records: Sequence[Record]) -> None:
        """Returns when Kafka has all of them. Raises Unavailable where it has not, or not yet: some may be there, and
        come again when the sender does."""
        if self._appender is None:
            raise Unavailable(self.problem)
        if barred := next((topic for topic, _, _ in records if topic in self.barred), None):
            raise Unavailable(f"topic {barred}: {self.barred[barred]}")
        size = sum(len(value) for _, value, _ in records)
        if self._bytes + size > MAX_BYTES_IN_FLIGHT:
            raise Unavailable(f"{self._bytes:,} bytes wait for Kafka already")
        confirmations = []
        try:
            for topic, value, key in records:
                keyed = key is not None
                confirmations.append(
                    self._appender.send(topic, value, key or b"") if keyed else self._producer.send(topic, value)
                )
        except MessageSizeTooLargeError:  # bodies are limited to what fits
            raise
        except KafkaError as error:
            self._fail(error)
            raise Unavailable(self.problem) from error
        waiting = _Waiting(confirmations, size, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._bytes += size
        self._some.set()
        await waiting.done

    async def run(self) -> None:
        """Until it is cancelled."""
        attempt = 0
        try:
            while True:
                try:
                    await self._open()
                    attempt = 0
                    await self._confirm()
                except (WeirError, KafkaError) as error:
                    self._fail(error)
                await self._shut()
                pause = BACKOFF_SECONDS[min(attempt, len(BACKOFF_SECONDS) - 1)]
                attempt += 1
                log.error("Kafka failed, again in %.1f s: %s", pause, self.problem)
                await asyncio.sleep(pause)
        finally:
            self._fail(Unavailable("the gateway stops"))
            await asyncio.shield(self._shut())

    async def _open(self) -> None:
        self.barred = await asyncio.to_thread(self.look)
        seconds = min(self._settings.kafka_delivery_seconds, self._settings.gateway_confirm_seconds)

        def opened() -> Any:
            producer = kafka.producer(
                self._settings, "weir-gateway", max_request_size=MAX_REQUEST_BYTES, max_block_ms=BLOCK_MS,
                delivery_timeout_ms=int(seconds * 1000), request_timeout_ms=int(seconds * 1000) - kafka.LINGER_MS,
            )  # fmt: skip
            try:
                for topic in self._topics:
                    if topic not in self.barred:
                        producer.partitions_for(topic)
            except BaseException:
                kafka.close(producer)
                raise
            return producer

        self._producer = await asyncio.to_thread(opened)
        self._appender = Appender(self._producer)
        self.problem = ""
        self.restarts += 1
        log.info("connected to Kafka")

    def look(self) -> dict[str, str]:
        """The topics that are barred now. Raises Unavailable, or Refused where nothing could be written."""
        problems = kafka.access_problems(self._settings, kafka.WRITE, self._topics)
        if REJECTED in problems or len(problems) == len(self._topics) - 1:
            raise kafka.refused(self._settings, kafka.WRITE, problems)
        for problem in problems.items():
            log.error("topic=%s %s; its readings cannot be taken (`make up` creates what fleet/types names)", *problem)
        return problems

    async def _confirm(self) -> None:
        """Raises what Kafka raised."""
        while True:
            if not self._waiting:
                self._some.clear()
                await self._some.wait()
            await asyncio.sleep(CONFIRM_SECONDS)
            if self._appender is None:
                raise Unavailable(self.problem)
            while self._waiting and all(one.is_done for one in self._waiting[0].confirmations):
                first = self._waiting[0]
                if failed := next((one.exception for one in first.confirmations if one.exception), None):
                    raise failed
                self._waiting.popleft()
                self._bytes -= first.bytes
                if not first.done.done():  # its sender may have gone
                    first.done.set_result(None)

    def _fail(self, error: Exception) -> None:
        """All that wait are told, and nothing more is taken before it is open again."""
        self._appender = None
        self.problem = str(error) if isinstance(error, WeirError) else repr(error)
        for waiting in self._waiting:
            if not waiting.done.done():
                waiting.done.set_exception(Unavailable(self.problem))
        self._waiting.clear()
        self._bytes = 0
        self._some.set()

    async def _shut(self) -> None:
        producer, self._producer, self._appender = self._producer, None, None
        if producer is not None:
            await asyncio.to_thread(kafka.close, producer)
