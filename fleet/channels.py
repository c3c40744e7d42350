"""The names of MQTT topics, Kafka topics and record headers. They are spelt nowhere else."""

import re
from collections.abc import Iterable
from datetime import timedelta
from functools import lru_cache
from typing import NamedTuple

from msgspec.structs import replace

from fleet.catalog import Catalog, System
from fleet.reading import Reading
from fleet.spec import DeviceType

REJECTED = "readings.rejected"
REJECTED_PARTITIONS = 1
TRANSITIONS = "alerts.transitions"
TRANSITIONS_PARTITIONS = 4
ALERTS_GROUP = "alerts"
"""The consumer group whose offsets say how far rules have been evaluated."""
OWN_TYPE = "weir_component"
"""The device type of Weir's own services, which write their readings to its topic themselves."""
TRANSITIONS_KEPT = timedelta(days=30)
"""In Kafka; the warehouse has them for good."""
MARK_HEADER = "weir"
"""Kafka header that marks what is not a reading (HEARTBEAT, CONTROL), and a reading that rules pass over (RETURNED).
Any other reading has none."""
HEARTBEAT = b"heartbeat"
CONTROL = b"control"
RETURNED = b"returned"
"""It was quarantined when it came, and is given back now, or is an old row of a file: no news, whatever it says."""


def mark_of(headers: Iterable[tuple[str, bytes | None]] | None) -> bytes | None:
    """A record's mark: HEARTBEAT, CONTROL, RETURNED, or None for a reading, as for a record without it."""
    for key, value in headers or ():
        if key == MARK_HEADER:
            return None if value == b"reading" else value
    return None


def is_reading(mark: bytes | None) -> bool:
    return mark in (None, RETURNED)


LEVEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}")
"""A device id or site: one level of an MQTT topic, safe in file names and URLs."""


class Address(NamedTuple):
    """Where a message came in. `metric` is the optional last level of the topic."""

    system: str
    site: str
    type: str
    device_id: str
    metric: str | None = None


def data_topic(address: Address) -> str:
    """`dt/<system>/<site>/<type>/<device_id>[/<metric>]`"""
    return "/".join(("dt", *(level for level in address if level is not None)))


def command_topic(address: Address) -> str:
    """`cmd/<system>/<site>/<type>/<device_id>`: what the device is to do."""
    return "/".join(("cmd", *address[:4]))


def answer_topic(address: Address) -> str:
    """Where the device says what became of a command."""
    return f"{command_topic(address)}/answer"


def rejection_topic(address: Address) -> str:
    """Where the device hears why a message of its own was rejected."""
    return "/".join(("rejected", *address[:4]))


@lru_cache(maxsize=65_536)
def parse_data_topic(topic: str) -> Address | None:
    """None where the topic is not one of ours."""
    levels = topic.split("/")
    if len(levels) not in (5, 6) or levels[0] != "dt" or not all(LEVEL.fullmatch(level) for level in levels[1:]):
        return None
    return Address(*levels[1:])


REQUEST_FORMS = {"http": False, "coap": False, "http+senml": True, "coap+senml": True}
"""How something came to the gateway → whether its bytes are a SenML pack; else they are a canonical message."""


def request_source(form: str, address: Address) -> str:
    """`http/<system>/<site>/<type>/<device_id>`: stands in the gateway's dead letters where a message's topic does."""
    return "/".join((form, *address[:4]))


def parse_request_source(source: str) -> tuple[Address, bool] | None:
    """Whose it is, and whether it is SenML. None where it did not come to the gateway."""
    form, _, rest = source.partition("/")
    address = parse_data_topic(f"dt/{rest}") if form in REQUEST_FORMS else None
    return (address, REQUEST_FORMS[form]) if address else None


ANSWERS = "cmd/+/+/+/+/answer"
"""The subscription to what devices say of their commands."""


def parse_answer_topic(topic: str) -> Address | None:
    """Who answers; None where the topic is none of an answer."""
    levels = topic.split("/")
    if len(levels) != 6 or (levels[0], levels[5]) != ("cmd", "answer"):
        return None
    return Address(*levels[1:5]) if all(LEVEL.fullmatch(level) for level in levels[1:5]) else None


class Route(NamedTuple):
    """One worker of the bridge: an MQTT subscription and the Kafka topic with the readings it feeds.

    `copy_topic` is a feature's own Kafka topic, which gets the same records.
    """

    name: str
    type: str
    subscription: str
    readings_topic: str
    copy_topic: str | None = None

    def takes(self, topic: str) -> bool:
        """Whether MQTT delivers this topic to the route's subscription."""
        levels, wanted = topic.split("/"), self.subscription.split("/")
        return len(levels) == len(wanted) and all(w in ("+", level) for w, level in zip(wanted, levels, strict=True))


def routes_of(spec: DeviceType) -> list[Route]:
    """One route for a type, or one for each metric where messages carry one metric each."""
    base = f"dt/{spec.system}/+/{spec.type}/+"
    if spec.adapter.form != "feature":
        return [Route(spec.type, spec.type, base, spec.topic)]
    copies = copy_topics(spec)
    return [
        Route(f"{spec.type}.{metric}", spec.type, f"{base}/{metric}", spec.topic, copies.get(metric))
        for metric in spec.metrics
    ]


def copy_topics(spec: DeviceType) -> dict[str, str]:
    """Metric → the Kafka topic that gets its readings beside the system's own."""
    return {metric: f"{spec.system}.{metric}" for metric in spec.adapter.feature_topics}


def parts_of(spec: DeviceType, reading: Reading) -> list[tuple[Reading, tuple[str, ...]]]:
    """A whole reading as the bridge would have had it, and the Kafka topics of each part: where messages of the type
    carry one metric each, a reading for each."""
    if spec.adapter.form != "feature":
        return [(reading, (spec.topic,))]
    copies = copy_topics(spec)
    return [
        (replace(reading, values={metric: value}), tuple(filter(None, (spec.topic, copies.get(metric)))))
        for metric, value in reading.values.items()
    ]


def routes(catalog: Catalog) -> list[Route]:
    return [route for spec in catalog for route in routes_of(spec)]


def unrouted_subscription() -> str:
    """Every data message; what no route takes is rejected as `bad_topic` or `unknown_type`."""
    return "dt/#"


def state_topic(system: str) -> str:
    """Snapshots of the alerts' state, compacted: of each partition of the system's readings in the same partition."""
    return f"alerts.state.{system}"


def readings_topics(catalog: Catalog) -> dict[str, int]:
    """The topics that the ingest side writes → their number of partitions."""
    topics = {REJECTED: REJECTED_PARTITIONS}
    for system in catalog.systems.values():
        topics[system.topic] = system.partitions
        for name in feature_topics(system):
            topics[name] = 1
    return topics


def kafka_topics(catalog: Catalog) -> dict[str, int]:
    """Every topic that Weir needs → its number of partitions."""
    states = {state_topic(system.name): system.partitions for system in catalog.systems.values()}
    return {**readings_topics(catalog), TRANSITIONS: TRANSITIONS_PARTITIONS, **states}


def topic_configs(catalog: Catalog) -> dict[str, dict[str, str]]:
    """Of the topics that are not kept as the broker keeps any other.

    A snapshot is a few MiB every 30 s: small segments and an eager cleaner keep what a restart reads short.
    """
    compacted = {
        "cleanup.policy": "compact",
        "segment.bytes": str(16 * 1024 * 1024),
        "min.cleanable.dirty.ratio": "0.2",
    }
    return {
        TRANSITIONS: {"retention.ms": str(TRANSITIONS_KEPT // timedelta(milliseconds=1))},
        **{state_topic(name): compacted for name in catalog.systems},
    }


def feature_topics(system: System) -> list[str]:
    return [name for spec in system.types for name in copy_topics(spec).values()]


def topics_of_obeying(catalog: Catalog) -> list[str]:
    """The topics with readings that show whether a command was obeyed."""
    return [system.topic for system in catalog.systems.values() if any(spec.commands for spec in system.types)]
