"""What the rules made of the demo's readings: counted on Kafka and in the warehouse, which must say the same."""

import time
from collections import Counter
from collections.abc import Collection
from datetime import datetime

from kafka import TopicPartition
from kafka.errors import KafkaError

from connections.kafka import consumer, end_offsets, unavailable
from connections.lake import Lake
from connections.warehouse import Warehouse
from fleet.catalog import Catalog
from fleet.channels import ALERTS_GROUP, REJECTED, TRANSITIONS
from fleet.errors import Unavailable
from fleet.settings import Settings
from fleet.transition import decode_transition
from weir._demo_books import Offsets

POLL_SECONDS = 1.0
Said = Counter[tuple[str, str]]
"""(`type.rule`, what the transition is to) → how many."""


def wait_until_evaluated(settings: Settings, end: Offsets, seconds: float) -> None:
    """Until the rules have seen every record before `end`. Raises Unavailable saying how far they came."""
    deadline = time.monotonic() + seconds
    client = consumer(settings, "demo-alerts", ALERTS_GROUP)
    try:
        places = {TopicPartition(*key): offset for key, offset in end.items() if key[0] != REJECTED}
        while True:
            left = {
                p: offset - (client.committed(p, timeout_ms=max(1, 1000 * (deadline - time.monotonic()))) or 0)
                for p, offset in places.items()
            }
            behind = {f"{p.topic}-{p.partition}": n for p, n in left.items() if n > 0}
            if not behind:
                return
            if time.monotonic() > deadline:
                raise Unavailable(f"the alert service did not come to the end of the log: {behind} records behind")
            time.sleep(POLL_SECONDS)
    except KafkaError as error:
        raise unavailable(settings, error) from error
    finally:
        client.close(autocommit=False)


def said_on_kafka(
    settings: Settings, start: Offsets, systems: Collection[str], seconds: float
) -> tuple[Said, list[str], Offsets]:
    """From `start` to the topic's present end, committed alone; the transitions' ids; and the offset after the last
    transition of each partition (the end lies behind it, by the marks of transactions). Raises Unavailable."""
    deadline = time.monotonic() + seconds
    said: Said = Counter()
    ids: list[str] = []
    after: dict[tuple[str, int], int] = {}
    client = consumer(settings, "demo-transitions", isolation_level="read_committed")
    try:
        ends = end_offsets(client, [TRANSITIONS])
        client.assign(list(ends))
        for tp in ends:
            client.seek(tp, start.get((tp.topic, tp.partition), 0))
        while left := {tp: end for tp, end in ends.items() if client.position(tp) < end}:
            if time.monotonic() > deadline:
                raise Unavailable(f"Kafka stopped answering while its transitions were counted: {sorted(left)}")
            for records in client.poll(timeout_ms=500).values():
                for record in records:
                    after[record.topic, record.partition] = record.offset + 1
                    t = decode_transition(record.value)
                    if t.system in systems:
                        said[f"{t.type}.{t.rule}", t.to] += 1
                        ids.append(t.transition_id)
    finally:
        client.close()
    return said, ids, after


def said_in_the_warehouse(settings: Settings, ids: list[str], seconds: float) -> Said:
    """Of those transitions, once all are there; after `seconds`, of those that are."""
    deadline = time.monotonic() + seconds
    warehouse = Warehouse.of(settings)
    try:
        while True:
            rows = warehouse.rows(
                'SELECT type, rule, "to", count(*) AS n FROM alert_transitions'
                " JOIN unnest(CAST(:ids AS text[])) AS told(transition_id) USING (transition_id)"
                ' GROUP BY type, rule, "to"',
                ids=ids,
            )
            said: Said = Counter({(f"{row['type']}.{row['rule']}", row["to"]): row["n"] for row in rows})
            if said.total() >= len(ids) or time.monotonic() > deadline:
                return said
            time.sleep(POLL_SECONDS)
    finally:
        warehouse.close()


def wait_until_said_in_the_lake(settings: Settings, after: Offsets, seconds: float) -> None:
    """Until the transitions before those offsets have landed. Raises Unavailable saying how far landing came."""
    lake = Lake.of(settings)
    deadline = time.monotonic() + seconds
    while True:
        behind = sorted(place for place, offset in after.items() if lake.landed_to(*place) < offset)
        if not behind:
            return
        if time.monotonic() > deadline:
            raise Unavailable(f"transitions of alerts did not land in {seconds:.0f} s: {behind}")
        time.sleep(POLL_SECONDS)


def audited(settings: Settings, start: datetime, end: datetime, systems: Collection[str]) -> dict[str, int]:
    """What the audit of that span wrote down of the systems: transitions published, those that are what the rules say
    of what landed, and differences."""
    warehouse = Warehouse.of(settings)
    try:
        (found,) = warehouse.rows(
            "SELECT coalesce(sum(published), 0)::bigint AS published, coalesce(sum(same), 0)::bigint AS same,"
            " coalesce(sum(explained + unexplained), 0)::bigint AS different FROM parity"
            " WHERE starts_at = :start AND ends_at = :end AND system = ANY(:systems)",
            start=start, end=end, systems=list(systems),
        )  # fmt: skip
        return found
    finally:
        warehouse.close()


def by_rule(said: Said, catalog: Catalog) -> dict[str, dict[str, int]]:
    """`type.rule` → fired, resolved; of every rule there is."""
    names = [f"{spec.type}.{rule.id}" for spec in catalog for rule in spec.alerts]
    return {name: {"fired": said[name, "firing"], "resolved": said[name, "resolved"]} for name in names}
