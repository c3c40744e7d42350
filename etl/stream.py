"""Live rollups by Structured Streaming: a query for each system, all of them in the one Spark of this process.

Spark's checkpoint says how far a query has read and keeps the buckets that are open; a batch's rows are whole buckets,
written in one transaction with its number. So a batch that is done again, after a kill at any moment, changes nothing.
"""

import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kafka import TopicPartition
from kafka.errors import KafkaError
from prometheus_client.core import CounterMetricFamily, Metric

from connections import kafka
from connections.spark_checkpoint import held, read_checkpoint, remove_checkpoint
from connections.spark_kafka import kafka_options
from connections.warehouse import Warehouse
from etl.live_frames import live_rollups
from etl.live_table import LiveTable
from etl.stream_start import first_span, lost_offsets
from fleet.catalog import System, catalog_of, read_files
from fleet.contract import MAX_FUTURE_US
from fleet.errors import ConfigurationError, SpecError, Unavailable, WeirError
from fleet.settings import Settings

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.streaming import StreamingQuery

ROLE = "stream"
LOOK_SECONDS = 0.5
MAX_FUTURE = timedelta(microseconds=MAX_FUTURE_US)
STARTING = "starting"
PAUSES_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0)
COUNTS = ("records", "readings", "unreadable", "duplicate", "late")

MASTER = "local[1]"
"""Not the batch's: the stores and the checkpoint are folders of this machine."""
DRIVER = {
    "spark.driver.memory": "512m",  # Spark starts with no less
    "spark.driver.defaultJavaOptions": "-XX:+UseSerialGC -XX:TieredStopAtLevel=1",
}
"""Of a driver that is small and lasts."""
QUERIES = {
    "spark.sql.shuffle.partitions": "1",  # a checkpoint keeps it for good; each has stores of its own
    "spark.sql.streaming.noDataMicroBatches.enabled": "false",  # they would only clear the stores a little earlier
    "spark.sql.streaming.numRecentProgressUpdates": "8",
    "spark.sql.streaming.minBatchesToRetain": "10",
}

log = logging.getLogger("weir.stream")


class Outdated(Exception):
    """The specs have changed; the batch is done again by the new ones."""


def folder(settings: Settings, system: str) -> Path:
    return settings.home / "stream" / system


def reset(settings: Settings, system: str) -> None:
    """Forgets all that the job has of a system. Raises ConfigurationError while one runs."""
    with held(folder(settings, system)):
        remove_checkpoint(folder(settings, system))
        LiveTable(Warehouse.of(settings), system).forget()


class Stream:
    """One system's query: begun, looked after, begun again."""

    def __init__(self, spark: "SparkSession", settings: Settings, system: System, stop: threading.Event):
        self.settings, self.system = settings, system
        self.problem = STARTING
        """Why nothing is written now; empty when all is well."""
        self.totals = dict.fromkeys(COUNTS, 0)
        self._spark, self._stop = spark, stop
        self._folder = folder(settings, system.name)
        self._table = LiveTable(Warehouse.of(settings), system.name)
        self._files = read_files(settings.types_dir)
        self._query: StreamingQuery | None = None
        self._counted = -1
        self._held = ExitStack()
        self._outdated = False
        self._refused: WeirError | None = None
        """What ended a query from our side: Spark tells of it as a Python traceback inside a Java one."""
        self._failures, self._again_at = 0, 0.0

    def look(self, now: float) -> None:
        """To be called again and again; `now` by time.monotonic()."""
        if self._query is None:
            if now >= self._again_at:
                self._begin(now)
        elif self._query.isActive:
            if self.problem == STARTING and self._query.lastProgress is not None:
                self.problem = ""
            self._count(self._query)
        else:
            self._ended(self._query, now)

    def close(self) -> None:
        if self._query is not None:
            self._query.stop()
            self._count(self._query)
        self._held.close()
        self._table.warehouse.close()

    def _begin(self, now: float) -> None:
        try:
            self._held.enter_context(held(self._folder))
            now_utc = datetime.now(UTC)
            span = first_span(lambda span: self._appended_since(now_utc - span - MAX_FUTURE))
            progress = self._table.progress((now_utc - span).replace(second=0, microsecond=0))
            checkpoint = read_checkpoint(self._folder)
            lost = lost_offsets(self.system, progress, checkpoint, self._reach())
            if lost:
                self._table.lose(lost)
            self._query, self.problem = self._start(progress.begins_at), STARTING
            self._counted = -1  # after a reset, batches are counted from 0 again
        except WeirError as error:
            self._failed(str(error), now)

    def _reach(self) -> Mapping[int, tuple[int, int]]:
        """Of the topic, by partition. Raises Unavailable, Refused."""
        kafka.check_access(self.settings, kafka.READ, [self.system.topic])
        with self._places() as (client, places):
            return {place.partition: extent for place, extent in kafka.extents(client, places).items()}

    def _appended_since(self, moment: datetime) -> int:
        """Records of the topic. Raises Unavailable, Refused."""
        at_ms = int(moment.timestamp() * 1000)
        with self._places() as (client, places):
            first = client.offsets_for_times(dict.fromkeys(places, at_ms), timeout_ms=kafka.ANSWER_MS)
            extents = kafka.extents(client, places)
        return sum(extents[place].end - found.offset for place, found in first.items() if found is not None)

    @contextmanager
    def _places(self) -> Iterator[tuple[Any, list[TopicPartition]]]:
        client = kafka.consumer(self.settings, ROLE)
        try:
            yield client, kafka.partitions(client, [self.system.topic])
        except KafkaError as error:
            raise kafka.unavailable(self.settings, error) from error
        finally:
            client.close()

    def _start(self, begins_at: datetime) -> "StreamingQuery":
        # A clock may be ahead by so much: no reading of a bucket was appended before.
        since_ms = int((begins_at - MAX_FUTURE).timestamp() * 1000)
        source = {
            "subscribe": self.system.topic,
            "includeHeaders": "true",
            "groupIdPrefix": ROLE,
            "startingTimestamp": str(since_ms),
            "startingOffsetsByTimestampStrategy": "latest",  # where a partition has nothing since then
            "failOnDataLoss": "false",  # `lost_offsets` says and counts it, and the job goes on
        }
        records = self._spark.readStream.format("kafka").options(**kafka_options(self.settings), **source).load()
        log.info("system=%s topic=%s begins_at=%s", self.system.name, self.system.topic, begins_at.isoformat())
        return (
            live_rollups(records, self.system, begins_at, self.system.name)
            .writeStream.queryName(self.system.name)
            .outputMode("update")
            .option("checkpointLocation", str(self._folder))
            .trigger(processingTime=f"{self.settings.stream_trigger_seconds} seconds")
            .foreachBatch(self._write)
            .start()
        )

    def _write(self, frame: "DataFrame", batch: int) -> None:
        """Called by Spark, on a thread of its own; what it raises ends the query before the batch is committed."""
        from pyspark.sql import functions as F

        # A reading of a new version is in Kafka only after its spec was in the folder: nothing is taken by old specs.
        if self._specs_changed():
            self._outdated = True
            raise Outdated
        system = F.lit(self.system.name).alias("system")
        rows = [row.row for row in frame.select(F.to_json(F.struct(system, "*")).alias("row")).collect()]
        failures = 0
        while True:
            try:
                checkpoint = read_checkpoint(self._folder)
                self._table.write(checkpoint.id if checkpoint else "", batch, iter(rows))
                break
            except Unavailable as error:
                self.problem = str(error)
                log.log(
                    logging.ERROR if failures == 0 else logging.DEBUG, "system=%s waits: %s", self.system.name, error
                )
                if self._stop.wait(_pause(failures)):
                    raise
                failures += 1
            except WeirError as error:
                self._refused = error
                raise
        self._failures, self.problem = 0, ""

    def _specs_changed(self) -> bool:
        """Whether the system's specs in the folder are others now; those are taken then. With a mistake in them, the
        job goes on with those it has."""
        with suppress(OSError):
            files = read_files(self.settings.types_dir)
            if files == self._files:
                return False
            self._files = files
            try:
                system = catalog_of(files).system(self.system.name)
            except (SpecError, ConfigurationError) as error:
                log.error("system=%s goes on with the specs it has: %s", self.system.name, error)
                return False
            self.system, before = system, self.system
            return system != before
        return False

    def _ended(self, query: "StreamingQuery", now: float) -> None:
        self._count(query)
        self._query = None
        self._held.close()
        if self._outdated:
            self._outdated = False
            log.info("system=%s its specs have changed", self.system.name)
            return
        why = str(self._refused or query.exception() or "it ended").strip().splitlines()[0]
        self._refused = None
        self._failed(why, now)

    def _failed(self, why: str, now: float) -> None:
        self._held.close()
        pause = _pause(self._failures)
        if why != self.problem:
            log.error("system=%s again in %.0f s: %s", self.system.name, pause, why)
        self.problem = why
        self._failures += 1
        self._again_at = now + pause

    def _count(self, query: "StreamingQuery") -> None:
        """What the batches since the last look were made of. Killed in between, one's counts are lost, not its rows."""
        for progress in query.recentProgress:
            batch, observed = progress["batchId"], progress["observedMetrics"].get(self.system.name)
            if batch <= self._counted or observed is None:
                continue
            counts = counts_of(observed, progress["stateOperators"])
            try:
                self._table.count(batch, counts)
            except WeirError:
                return  # at the next look
            self._counted = batch
            for name, number in counts.items():
                self.totals[name] += number
            if counts["late"]:
                log.warning(
                    "system=%s batch=%d late=%d: older than the watermark, left to the batch's rollups",
                    self.system.name, batch, counts["late"],
                )  # fmt: skip


def counts_of(observed: Any, operators: Sequence[Any]) -> dict[str, int]:
    """By the names of `stream_progress`, from what a query's progress says of one batch."""
    late = sum(operator["numRowsDroppedByWatermark"] for operator in operators)
    duplicate = sum(operator["customMetrics"].get("numDroppedDuplicateRows", 0) for operator in operators)
    seen = {name: int(observed[name] or 0) for name in ("records", "readings", "unreadable")}
    return {**seen, "duplicate": duplicate, "late": late}


def _pause(failures: int) -> float:
    return PAUSES_SECONDS[min(failures, len(PAUSES_SECONDS) - 1)]


class Streams:
    """The queries of some systems."""

    def __init__(self, settings: Settings, systems: Sequence[str]):
        """Raises ConfigurationError for a system that there is not, with the nearest name; SpecError."""
        if not systems:
            raise ConfigurationError("no system: name one by --system, or in WEIR_STREAM_SYSTEMS")
        catalog = catalog_of(read_files(settings.types_dir))
        self.settings, self.systems = settings, [catalog.system(name) for name in dict.fromkeys(systems)]
        self.streams: list[Stream] = []

    def run(self, spark: "SparkSession", stop: threading.Event) -> None:
        # What a batch raises ends its query, which says it; this would say it as a traceback.
        logging.getLogger("py4j").setLevel(logging.CRITICAL)
        for key, value in QUERIES.items():
            spark.conf.set(key, value)
        self.streams = [Stream(spark, self.settings, system, stop) for system in self.systems]
        log.info("started systems=%s", ",".join(system.name for system in self.systems))
        try:
            while not stop.wait(LOOK_SECONDS):
                for stream in self.streams:
                    stream.look(time.monotonic())
        finally:
            stop.set()
            for stream in self.streams:
                stream.close()
            log.info("stopped")

    def problem(self) -> str:
        if not self.streams:
            return "Spark starts"
        return "; ".join(stream.problem for stream in self.streams if stream.problem)

    def collect(self) -> Iterator[Metric]:
        for name in COUNTS:
            found = CounterMetricFamily(f"weir_stream_{name}", f"See {name} of stream_progress", labels=["system"])
            for stream in self.streams:
                found.add_metric([stream.system.name], stream.totals[name])
            yield found
