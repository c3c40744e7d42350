"""Which faults a run injects: the table of them, and what people write on the command line or in a file."""

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Any, NamedTuple

from fleet.catalog import Catalog
from fleet.duration import parse_duration
from fleet.errors import ConfigurationError
from fleet.nearest import nearest
from simulators import delivery, faults, malformed
from simulators.faults import Plan, Transformer
from simulators.message import Message


class Kind(NamedTuple):
    """`length` is the default, 0 where a fault has no length."""

    transform: Transformer
    length: int
    help: str


KINDS: dict[str, Kind] = {
    "stuck": Kind(faults.stuck, 10, "a gauge repeats its value for LENGTH readings"),
    "spike": Kind(faults.spike, 0, "a gauge jumps near the far end of its range"),
    "out_of_range": Kind(faults.out_of_range, 0, "a value beyond the metric's range"),
    "clock_skew": Kind(faults.clock_skew, 1, "event times off BY a duration (default: -1h, or 30d ahead) LENGTH times"),
    "truncated": Kind(malformed.truncated, 0, "JSON cut short"),
    "not_utf8": Kind(malformed.not_utf8, 0, "a byte that is not UTF-8"),
    "wrong_type": Kind(malformed.wrong_type, 0, "a value that is text, a list or an object"),
    "unknown_metric": Kind(malformed.unknown_metric, 0, "a field that the type does not have"),
    "oversized": Kind(malformed.oversized, 0, "longer than 256 KiB"),
    "dropout": Kind(delivery.dropout, 5, "a device is silent for LENGTH messages"),
    "duplicate": Kind(delivery.duplicate, 20, "a message sent again after up to LENGTH others"),
    "reordering": Kind(delivery.reordering, 20, "a message overtaken by up to LENGTH others"),
}
"""In the order in which they are applied: what a device measures, what it says, what becomes of the message."""
MALFORMED = ("truncated", "not_utf8", "wrong_type", "unknown_metric", "oversized")
"""What `malformed=SHARE` stands for, in equal parts."""


def parse_fault(text: str) -> list[Plan]:
    """`spike=0.001`, or `stuck=0.001,length=30,device=7,metric=temperature`. Raises ConfigurationError."""
    head, *rest = text.split(",")
    name, found, share = head.partition("=")
    options: dict[str, Any] = {}
    for part in rest:
        key, has_value, value = part.partition("=")
        if not has_value:
            raise ConfigurationError(f"--fault {text}: expected OPTION=VALUE, found {part!r}")
        options[key.strip()] = value.strip()
    if not found:
        raise ConfigurationError(f"--fault {text}: expected KIND=SHARE, as in spike=0.001")
    return plans_of(name.strip(), {"share": share, **options}, f"--fault {text}")


def plans_of(name: str, options: Mapping[str, Any] | object, where: str) -> list[Plan]:
    """One fault from its name and either its share or a mapping of its options. Raises ConfigurationError."""
    given = dict(options) if isinstance(options, Mapping) else {"share": options}
    if name == "malformed":
        return [
            plan for kind in MALFORMED
            for plan in plans_of(kind, {**given, "share": _share(given.get("share"), where) / len(MALFORMED)}, where)
        ]  # fmt: skip
    if name not in KINDS:
        raise ConfigurationError(f"{where}: no fault {name!r}{nearest(name, [*KINDS, 'malformed'])}")
    has_length = KINDS[name].length > 0
    allowed = (
        {"share", "device", "metric"}
        | ({"length"} if has_length else set())
        | ({"by"} if name == "clock_skew" else set())
    )
    unknown = sorted(set(given) - allowed)
    if unknown:
        raise ConfigurationError(f"{where}: {name} has no option {unknown[0]!r}; it has {', '.join(sorted(allowed))}")
    metric = given.get("metric")
    if metric is not None and name not in ("stuck", "spike", "out_of_range"):
        raise ConfigurationError(f"{where}: {name} touches whole messages; leave `metric` out")
    device = given.get("device")
    return [
        Plan(
            name,
            _share(given.get("share"), where),
            _length(given.get("length", KINDS[name].length or 1), where),
            _by(given["by"], where) if "by" in given else None,
            None if device is None else str(device),
            None if metric is None else str(metric),
        )
    ]


def parse_faults(data: object, where: str) -> list[Plan]:
    """A faults file, as read from YAML: {kind: share, or {share, length, by, device, metric}, or a list of those}."""
    if not isinstance(data, dict):
        raise ConfigurationError(f"{where}: expected `kind: share` lines, found {type(data).__name__}")
    return [
        plan
        for name, options in data.items()
        for item in (options if isinstance(options, list) else [options])
        for plan in plans_of(str(name), item, f"{where}: {name}")
    ]


def _share(value: object, where: str) -> float:
    try:
        share = float(str(value))
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise ConfigurationError(f"{where}: the share of the messages is a number from 0 to 1, found {value!r}")
    return share


def _length(value: object, where: str) -> int:
    text = str(value)
    if not text.isdecimal() or not 1 <= int(text) <= 1_000_000:
        raise ConfigurationError(f"{where}: length is a whole number from 1 to 1,000,000, found {value!r}")
    return int(text)


def _by(value: object, where: str) -> timedelta:
    text = str(value)
    try:
        size = parse_duration(text.lstrip("+-"))
    except ValueError as error:
        raise ConfigurationError(f"{where}: by: {error}; with a - for a clock that is behind; found {text!r}") from None
    return -size if text.startswith("-") else size


def check_metrics(plans: Iterable[Plan], metrics: Iterable[str]) -> None:
    """Raises ConfigurationError for a metric that no simulated type has."""
    known = sorted(set(metrics))
    for plan in plans:
        if plan.metric is not None and plan.metric not in known:
            raise ConfigurationError(f"fault {plan.kind}: no metric {plan.metric!r}; there are: {', '.join(known)}")


def inject(messages: Iterable[Message], plans: Iterable[Plan], seed: int, catalog: Catalog) -> Iterator[Message]:
    """The messages with every plan applied, in the order of KINDS. Each plan has its own random source, so that one
    more fault moves no other."""
    order = list(KINDS)
    seen: Counter[str] = Counter()
    stream = iter(messages)
    for plan in sorted(plans, key=lambda plan: order.index(plan.kind)):
        seen[plan.kind] += 1
        rng = random.Random(f"{seed}/{plan.kind}/{seen[plan.kind]}")  # noqa: S311
        stream = KINDS[plan.kind].transform(stream, rng, plan, catalog)
    return stream
