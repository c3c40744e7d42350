"""Records into Kafka for requests that wait on an event loop: each is answered when Kafka has all of its records.

All of it runs on that loop: records go into the producer's open batches (connections.kafka_appends), and its
confirmations are looked for every few milliseconds, as the bridge does. When Kafka fails all that wait are told so, and
the producer is opened anew. A topic that is lost while we run fails those alone that wait for it.
"""

import asyncio
import logging
import time
from collections import defaultdict, deque
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
LOOK_SECONDS = 10.0
"""Between two looks at whether a topic is there again, when somebody wants to write to it."""

log = logging.getLogger("weir.gateway")


class _Waiting(NamedTuple):
    topics: frozenset[str]
    confirmations: list[Any]
    bytes: int
    done: "asyncio.Future[None]"

    @property
    def is_confirmed(self) -> bool:
        """One way or the other."""
        return all(one.is_done for one in self.confirmations)

    @property
    def failure(self) -> Exception | None:
        return next((one.exception for one in self.confirmations if one.is_done and one.exception), None)

    def answer(self, failure: Exception | None) -> None:
        if self.done.done():  # its sender has gone
            return
        if failure is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(failure)


class Deposit:
    """`run` opens it, and keeps it open; `put` is for many at once."""

    def __init__(self, settings: Settings, topics: Iterable[str]):
        self._settings, self._topics = settings, sorted(topics)
        self._producer: Any = None
        self._appender: Appender | None = None
        self._waiting: defaultdict[str, deque[_Waiting]] = defaultdict(deque)
        """By the topic of their first record, so that one that is lost holds up nothing that goes elsewhere."""
        self._some = asyncio.Event()
        self._bytes = 0
        self.problem = "starting"
        """Why nothing is taken now; empty: it is."""
        self.barred: dict[str, str] = {}
        """Topic → why nothing can be written to it. Asked at each opening, and when somebody wants to write there."""
        self._looked_at = 0.0
        self._look: asyncio.Task[None] | None = None
        self.restarts = -1

    @property
    def in_flight(self) -> int:
        """Requests that wait for Kafka."""
        return sum(map(len, self._waiting.values()))

    async def put(self, records: Sequence[Record]) -> None:
        """Returns when Kafka has all of them. Raises Unavailable where it has not, or not yet: some may be there, and
        come again when the sender does."""
        if self._appender is None:
            raise Unavailable(self.problem)
        if barred := next((topic for topic, _, _ in records if topic in self.barred), None):
            self._look_again()
            raise Unavailable(f"topic {barred}: {self.barred[barred]}")
        size = sum(len(value) for _, value, _ in records)
        if self._bytes + size > MAX_BYTES_IN_FLIGHT:
            raise Unavailable(f"{self._bytes:,} bytes wait for Kafka already")
        confirmations, topic = [], ""
        try:
            for topic, value, key in records:
                keyed = key is not None
                confirmations.append(
                    self._appender.send(topic, value, key or b"") if keyed else self._producer.send(topic, value)
                )
        except MessageSizeTooLargeError:  # bodies are limited to what fits
            raise
        except KafkaError as error:
            self.barred = {**self.barred, topic: repr(error)}  # at once: each attempt would hold up the loop
            if not await self._is_lost(frozenset([topic])):
                self._fail(error)
            raise Unavailable(self.problem or f"topic {topic}: {error!r}") from error
        topics = frozenset(topic for topic, _, _ in records)
        waiting = _Waiting(topics, confirmations, size, asyncio.get_running_loop().create_future())
        self._waiting[records[0][0]].append(waiting)
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
        self.barred, self._looked_at = await asyncio.to_thread(self.look), time.monotonic()
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

    def _look_again(self) -> None:
        """Beside all else, and not too often."""
        if (self._look is None or self._look.done()) and time.monotonic() - self._looked_at > LOOK_SECONDS:
            self._looked_at = time.monotonic()
            self._look = asyncio.create_task(self._lift(self._producer))

    async def _lift(self, producer: Any) -> None:
        try:
            found = await asyncio.to_thread(self.look)
            for topic in [one for one in self.barred if one not in found]:
                await asyncio.to_thread(producer.partitions_for, topic)
        except (WeirError, KafkaError) as error:
            log.warning("whether topics are there again is not known: %s", error)
            return
        if producer is self._producer:  # it was not opened anew meanwhile
            self.barred = found

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
            if not self.in_flight:
                self._some.clear()
                await self._some.wait()
            await asyncio.sleep(CONFIRM_SECONDS)
            if self._appender is None:
                raise Unavailable(self.problem)
            for waiting in list(self._waiting.values()):
                while waiting and waiting[0].is_confirmed:
                    if failure := waiting[0].failure:
                        if not await self._is_lost(waiting[0].topics):
                            raise failure
                        self._tell(waiting, Unavailable(f"a topic was lost: {failure!r}"))
                        break
                    first = waiting.popleft()
                    self._bytes -= first.bytes
                    first.answer(None)

    async def _is_lost(self, topics: frozenset[str]) -> bool:
        """Whether one of them is missing, and is barred from now on; else it is Kafka that fails."""
        try:
            found = await asyncio.to_thread(self.look)
        except WeirError as error:
            log.warning("whether topics were lost is not known: %s", error)
            return False
        if not topics & found.keys():
            return False
        self.barred, self._looked_at = found, time.monotonic()
        return True

    def _tell(self, waiting: deque[_Waiting], failure: Exception) -> None:
        """All of them; what Kafka has nevertheless is answered as such."""
        for one in waiting:
            self._bytes -= one.bytes
            one.answer(None if one.is_confirmed and not one.failure else failure)
        waiting.clear()

    def _fail(self, error: Exception) -> None:
        """All that wait are told, and nothing more is taken before it is open again."""
        self._appender = None
        self.problem = str(error) if isinstance(error, WeirError) else repr(error)
        for waiting in self._waiting.values():
            self._tell(waiting, Unavailable(self.problem))
        self._some.set()

    async def _shut(self) -> None:
        producer, self._producer, self._appender = self._producer, None, None
        if producer is not None:
            await asyncio.to_thread(kafka.close, producer)
