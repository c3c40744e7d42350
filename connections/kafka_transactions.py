"""Kafka's transactions of the second kind (KIP-890) for kafka-python, and what becomes of one that failed.

kafka-python asks the coordinator to add partitions, then to add the group's offsets, before it may write either: five
round trips to a commit, one after the other. Where the cluster has `transaction.version` 2, writing is adding: records
and offsets go out together, and the answer to the transaction's end has the epoch of the next. Two trips are left.

A batch that failed is the end of its producer, whatever the reason. kafka-python would have the broker raise the epoch
and go on as if no transaction had been open: it then says of the next record that it cannot be sent "in state
BUMPING_PRODUCER_EPOCH", or commits what is left; and it may ask for the epoch when another producer has taken over.

Written against kafka-python 3.0.12 and what is looked up in `obstacles`. With another version nothing is changed.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import kafka as library
from kafka import KafkaProducer, OffsetAndMetadata, TopicPartition
from kafka.errors import AuthorizationError, KafkaError, KafkaTimeoutError
from kafka.producer.transaction_manager import (
    AddOffsetsToTxnHandler,
    AddPartitionsToTxnHandler,
    EndTxnHandler,
    ProducerIdAndEpoch,
    TransactionManager,
    TxnOffsetCommitHandler,
)
from kafka.structs import ConsumerGroupMetadata

from connections import kafka
from fleet.errors import Refused, WeirError
from fleet.settings import Settings

TIMEOUT_MS = 10_000
"""A dead worker's open transaction holds up its readers this long at most; one that takes longer is aborted."""
COMMIT_MS = TIMEOUT_MS + 5_000
"""Longer than any transaction is open."""
WAKE_MS = 500
FEATURE, SECOND = "transaction.version", 2
PRODUCE, OFFSET_COMMIT, END = 12, 5, 5
"""Versions of the requests that mean transactions of the second kind."""
MANAGER = (
    "_enqueue_request", "_begin_completing_transaction", "_add_partitions_to_transaction_handler", "has_error",
    "_new_partitions_in_transaction", "_pending_partitions_in_transaction", "_partitions_in_transaction",
    "_transaction_started", "_pending_txn_offset_commits", "_pending_requests", "_sequence_numbers",
    "_last_acked_offset", "classify_batch_error", "next_request_handler", "ERROR_CLASS_FATAL", "begin_commit",
    "send_offsets_to_transaction",
)  # fmt: skip

log = logging.getLogger("weir.kafka")


def transactional_producer(
    settings: Settings, client_id: str, transactional_id: str, timeout_ms: int = TIMEOUT_MS
) -> KafkaProducer:
    """Ready to begin a transaction; whoever had the id before is fenced, and what it had open is aborted. Raises
    Unavailable or Refused."""
    client = kafka.producer(
        settings, client_id,
        transactional_id=transactional_id, transaction_timeout_ms=timeout_ms,
        # A transaction begun right after another often waits for the coordinator once: 100 ms at the default.
        retry_backoff_ms=5, linger_ms=0, delivery_timeout_ms=TIMEOUT_MS, request_timeout_ms=5_000,
        max_request_size=kafka.MAX_RECORD_BYTES,
    )  # fmt: skip
    try:
        if found := obstacles(client):
            log.warning("Kafka's transactions go the library's way, at twice the time: %s", "; ".join(found))
        else:
            improve(client, second_is_in_force(settings))
        client.init_transactions()
    except WeirError:
        kafka.close(client)
        raise
    except AuthorizationError as error:
        kafka.close(client)
        raise Refused(f"Kafka user {settings.kafka_user!r} may not write as {transactional_id!r}: {error}") from error
    except KafkaError as error:
        kafka.close(client)
        raise kafka.unavailable(settings, error) from error
    return client


def second_is_in_force(settings: Settings) -> bool:
    """Raises Unavailable or Refused. A cluster that came from Kafka 3 has the first kind until its features are
    raised (`kafka-features upgrade`)."""
    client = kafka.admin(settings, "weir-features")
    try:
        return bool(client.describe_features().get(FEATURE, {}).get("finalized", (0, 0))[1] >= SECOND)
    except KafkaError as error:
        raise kafka.unavailable(settings, error) from error
    finally:
        client.close()


def improve(producer: KafkaProducer, has_second: bool) -> None:
    """Of one without `obstacles`, before its first transaction. `has_second`: the cluster has the second kind."""
    manager: Any = producer._transaction_manager
    if not has_second:
        manager.__class__ = _Strict
        return
    manager.__class__ = _Second
    manager.accumulator = producer._accumulator
    sender = producer._sender
    made = sender._produce_request

    def produce_request(*arguments: Any) -> Any:
        return _of_version(made(*arguments), PRODUCE)

    sender._produce_request = produce_request


def commit(
    producer: KafkaProducer,
    sent: Sequence[Any],
    offsets: Mapping[TopicPartition, OffsetAndMetadata],
    group: ConsumerGroupMetadata,
) -> None:
    """Ends the transaction that holds the records `sent` and a group's offsets. Raises KafkaError where it did not come
    about, or is not known to."""
    manager = producer._transaction_manager
    if isinstance(manager, _Strict):  # all is asked at once: what fails on the way fails the end
        for one in sent:  # but for a record that was never on its way
            if one.failed():
                raise one.exception
        manager.send_offsets_to_transaction(offsets, group)
        ended = manager.begin_commit()
        deadline = time.monotonic() + COMMIT_MS / 1000
        while time.monotonic() < deadline:
            producer._sender.wakeup()  # again and again: it sleeps after an error, with the end still to be refused
            if ended.wait(WAKE_MS):
                return
        raise KafkaTimeoutError(f"the transaction has not ended within {COMMIT_MS // 1000} s")
    else:
        producer.send_offsets_to_transaction(offsets, group)
        for one in sent:  # it may commit without a word about one that failed
            one.get(COMMIT_MS / 1000)
        producer.commit_transaction()


def obstacles(producer: KafkaProducer) -> list[str]:
    """Why this producer's transactions stay the library's; empty: they need not."""
    if library.__version__ != kafka.INTERNALS_OF:
        return [f"kafka-python is {library.__version__}, its internals are known of {kafka.INTERNALS_OF} alone"]
    manager = getattr(producer, "_transaction_manager", None)
    found = [f"the producer's transaction manager has no {name}" for name in MANAGER if not hasattr(manager, name)]
    if not hasattr(getattr(producer, "_sender", None), "_produce_request"):
        found.append("the producer's sender has no _produce_request")
    if not hasattr(getattr(producer, "_accumulator", None), "has_undrained"):
        found.append("the producer's accumulator has no has_undrained")
    return found


def _of_version(request: Any, version: int) -> Any:
    request._min_version = request._max_version = version
    return request


class _Strict(TransactionManager):
    def classify_batch_error(self, error: Any, batch: Any, log_start_offset: int = -1) -> str:
        """Of a batch that is not tried again. What is fatal ends the open transaction, too."""
        return str(self.ERROR_CLASS_FATAL)


class _Second(_Strict):
    accumulator: Any

    def _enqueue_request(self, handler: Any) -> None:
        if isinstance(handler, AddPartitionsToTxnHandler):
            self._partitions_in_transaction |= self._pending_partitions_in_transaction
            self._pending_partitions_in_transaction.clear()
            self._transaction_started = True
            return
        if isinstance(handler, AddOffsetsToTxnHandler):
            self._pending_txn_offset_commits |= handler.offsets
            self._transaction_started = True
            handler = _OffsetCommit(self, handler.group_metadata, self._pending_txn_offset_commits, handler.result)
        super()._enqueue_request(handler)

    def next_request_handler(self, has_incomplete_batches: bool) -> Any:
        """Records first: while an answer of the coordinator is waited for, the library's sender sends none."""
        with self._lock:
            if self._new_partitions_in_transaction:
                self._enqueue_request(self._add_partitions_to_transaction_handler())
            first = self._pending_requests[0][2] if self._pending_requests else None
            may_wait = isinstance(first, _OffsetCommit) and not first.is_retry and not self.has_error()
        if may_wait and self.accumulator.has_undrained():
            return None
        return super().next_request_handler(has_incomplete_batches)

    def _begin_completing_transaction(self, committed: bool) -> Any:
        handler = _End(self, committed)
        self._enqueue_request(handler)
        return handler.result


class _OffsetCommit(TxnOffsetCommitHandler):
    def _build_request(self) -> Any:
        return _of_version(super()._build_request(), OFFSET_COMMIT)


class _End(EndTxnHandler):
    def __init__(self, manager: TransactionManager, committed: bool):
        super().__init__(manager, committed)
        _of_version(self.request, END)

    def handle_response(self, response: Any) -> None:
        if response.error_code == 0:
            manager = self.transaction_manager
            manager.set_producer_id_and_epoch(ProducerIdAndEpoch(response.producer_id, response.producer_epoch))
            manager._sequence_numbers.clear()
            manager._last_acked_offset.clear()
        super().handle_response(response)
