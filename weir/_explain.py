"""What `weir rules explain` finds in a partition's log."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from connections.publication import partition_of_key
from connections.warehouse import Warehouse
from etl.window import moment
from fleet.alert_state import LONG_AGO
from fleet.catalog import Catalog, load_catalog
from fleet.columns import ColumnReader
from fleet.errors import ConfigurationError
from fleet.explanation import Explanation, explain
from fleet.nearest import nearest
from fleet.reason import EPOCH, clock
from fleet.settings import Settings
from fleet.spec import DeviceType
from fleet.witness import Subject
from streaming.replay import Log, LogReader, Replay

if TYPE_CHECKING:
    from fleet.ruleset import CompiledRule


@dataclass(frozen=True)
class Found:
    explanation: Explanation
    log: Log
    read_to: int
    """The first offset that is not part of it."""


def found_at(device: str, rule: str, type_name: str | None, at: str) -> Found:
    """Raises ConfigurationError where there is no such device, type or rule, or not at that time."""
    now = datetime.now(UTC)
    time = moment(at, "at", now) or now
    if time > now:
        raise ConfigurationError(f"at: {time.isoformat()} lies ahead; nobody knows yet")
    settings = Settings.load()
    catalog = load_catalog(settings.types_dir)
    spec = _type(settings, catalog, device, rule, type_name)
    reader = LogReader(settings, spec.topic)
    try:
        log = reader.log(_partition(settings, spec, device, rule, time, reader.partitions))
        replay = Replay(
            log.partition, ColumnReader(catalog, spec.topic), Subject(spec.type, device, rule),
            (time - EPOCH) // timedelta(microseconds=1), log.begin,
            catalog.systems[spec.system].types if log.begin > 0 else (),
        )  # fmt: skip
        reader.read(log, replay)
    finally:
        reader.close()
    compiled = _rule(replay, log, spec, time)
    state = replay.device
    assert state is not None
    witness = replay.witness
    return Found(
        explain(state, compiled, replay.at_us, witness.events, witness.evaluated_us), log, replay.position
    )  # fmt: skip


def _type(settings: Settings, catalog: Catalog, device: str, rule: str, given: str | None) -> DeviceType:
    if given is not None:
        return catalog.type(given)
    having = catalog.having(rule)
    if len(having) > 1:
        names = [spec.type for spec in having]
        rows = _rows(
            settings, "SELECT type FROM devices WHERE device_id = :device AND type = ANY(:names)",
            device=device, names=names,
        )  # fmt: skip
        if len(rows) != 1:
            raise ConfigurationError(f"rule {rule!r} is one of {', '.join(names)}: say which with --type")
        return catalog.type(rows[0]["type"])
    return having[0]


def _partition(
    settings: Settings, spec: DeviceType, device: str, rule: str, at: datetime, partitions: Sequence[int]
) -> int:
    """Where the device's readings went at that time."""
    numbers = list(partitions)
    if spec.partition_by == "device":
        return partition_of_key(device, numbers)
    whose = {"type": spec.type, "device": device}
    rows = _rows(
        settings, "SELECT kafka_partition AS number FROM readings WHERE type = :type AND device_id = :device"
        " AND metric = ANY(:metrics) AND event_time <= :at ORDER BY event_time DESC, kafka_offset DESC LIMIT 1",
        metrics=list(spec.metrics), at=at, **whose,
    ) or _rows(
        settings, "SELECT source_partition AS number FROM alert_transitions WHERE type = :type AND device_id = :device"
        " AND rule = :rule AND event_time <= :at ORDER BY event_time DESC LIMIT 1",
        rule=rule, at=at, **whose,
    )  # fmt: skip
    if rows:
        return int(rows[0]["number"])
    sites = _rows(settings, "SELECT site FROM devices WHERE type = :type AND device_id = :device", **whose)
    if not sites:
        raise ConfigurationError(_unknown(spec.type, device))
    return partition_of_key(sites[0]["site"], numbers)


def _rows(settings: Settings, sql: str, **parameters: object) -> list[dict[str, Any]]:
    warehouse = Warehouse.of(settings)
    try:
        return warehouse.rows(sql, **parameters)
    finally:
        warehouse.close()


def _rule(replay: Replay, log: Log, spec: DeviceType, at: datetime) -> "CompiledRule":
    """The rule as it was in force; raises ConfigurationError where it, or the device, was not there."""
    where, device, type_name = f"{log.topic}-{log.partition}", replay.subject.device, spec.type
    gone = f"; Kafka's log begins at offset {log.begin} by now, and what was before is gone" if log.begin else ""
    state, later = replay.device, replay.first_later
    if state is not None and state.heard == LONG_AGO and state.registered > replay.at_us:
        later = state.registered
        state = None
    if state is None and later is not None:
        raise ConfigurationError(
            f"at: {at.isoformat()} lies before all that {where} has of {type_name} {device}:"
            f" that begins at {clock(later)}{gone}"
        )
    if state is None and ("device", type_name, device) in replay.engine.revisions:
        raise ConfigurationError(f"{type_name} {device} was retired by then; see `weir devices show`")
    if state is None:
        raise ConfigurationError(f"{_unknown(type_name, device)}; {where} has nothing of it{gone}")
    found = state.type.rules.rule(replay.subject.rule)
    if found is None:
        rules = state.type.rules
        near = nearest(replay.subject.rule, {rule.id for rule in rules.rules})
        raise ConfigurationError(
            f"no rule {replay.subject.rule!r} was in force then, by version {rules.spec.version} of {type_name}{near}"
        )
    return found


def _unknown(type_name: str, device: str) -> str:
    return f"no {type_name} {device!r} is known; `weir devices list` shows those there are"
