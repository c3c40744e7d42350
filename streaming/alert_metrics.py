"""What the engines of a worker's partitions say of themselves: for Prometheus, and for `weir_component`."""

from collections import Counter
from collections.abc import Iterator, Sequence

from prometheus_client.core import GaugeMetricFamily, Metric

from fleet.alert_state import LONG_AGO
from fleet.device_state import TypeState
from streaming.shard import Shard


def _types(shards: Sequence[Shard]) -> list[TypeState]:
    """Copies of what the worker changes while these are read, by another thread."""
    return [type_ for shard in shards for type_ in list(shard.engine.known.types.values())]


def engine_states(shards: Sequence[Shard], now: float) -> dict[str, float | None]:
    """`now` is in epoch seconds. The watermark that is furthest behind counts; None before there is any."""
    types = _types(shards)
    reached = [type_.watermark + type_.rules.lateness_us for type_ in types if type_.watermark != LONG_AGO]
    return {
        "active_alerts": sum(sum(list(type_.active.values())) for type_ in types),
        "capped_alerts": sum(type_.capped for type_ in types),
        "watermark_delay": round(max(0.0, now - min(reached) / 1e6), 3) if reached else None,
    }


def engine_metrics(shards: Sequence[Shard]) -> Iterator[Metric]:
    for name in ("readings", "duplicates", "out_of_order", "late", "evaluations"):
        total = sum(getattr(shard.engine.counts, name) for shard in shards)
        yield GaugeMetricFamily(f"weir_alerts_{name}", f"{name} of the partitions now held", value=total)
    for name, about, value in (
        ("unknown_type", "Of a type that the log has no spec of", sum(s.engine.counts.unreadable for s in shards)),
        ("unreadable", "Records that are no canonical reading", sum(s.unreadable for s in shards)),
        ("refused", "Control records passed over", sum(s.refused for s in shards)),
        ("capped", "Active alerts beyond their rule's cap", sum(t.capped for t in _types(shards))),
    ):
        yield GaugeMetricFamily(f"weir_alerts_{name}", about, value=value)
    errors: Counter[tuple[str, str]] = Counter()
    for shard in shards:
        errors.update(dict(shard.engine.journal.errors))
    failed = GaugeMetricFamily("weir_alerts_rule_errors", "Evaluations that raised", labels=["type", "rule"])
    for key, count in errors.items():
        failed.add_metric(list(key), count)
    yield failed
