"""Who may speak: the bridge and the registry on the real servers, with the database gone and back; and that landing and
live take control records for no readings."""

import json
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from connections import kafka
from connections.lake import Lake
from connections.mqtt_publisher import BulkPublisher
from connections.warehouse import Warehouse
from fleet.channels import CONTROL, mark_of
from fleet.control import Device, Retire, decode_control
from fleet.ledger import topic_books, topic_imbalances
from fleet.reading import Reading, decode_reading
from fleet.settings import Settings
from stack.stack import Stack
from tests.command import Weir
from tests.integration.logs import records
from tests.integration.processes import Process, wait_for
from tests.integration.registry_log import TOPICS, about, away, each_once, heard, refused, say, until_known

pytestmark = pytest.mark.stack

SettingsFor = Callable[[str], Settings]


def test_strangers_are_rejected_until_they_are_registered(
    weir: Weir, settings_for: SettingsFor, own_bridge: Process, publisher: BulkPublisher
) -> None:
    operator = settings_for("operator")
    own_bridge.start().ready()
    # Who registers before the log has been told of the type is told of again behind it.
    wait_for(lambda: "weir.specs announced" in own_bridge.log.read_text(), 20, own_bridge.log.read_text)
    say(publisher, "s-1", 1)
    say(publisher, "s-2", 1, "beacon")
    wait_for(lambda: refused(operator, "s-1") and heard(operator, "s-2"), 20, own_bridge.log.read_text)
    assert refused(operator, "s-1") == {"unknown_device": 1}
    wait_for(lambda: about(operator, "s-2"), 20, own_bridge.log.read_text)
    ((partition, record),) = each_once(about(operator, "s-2"))
    assert isinstance(record, Device)
    assert (partition, record.site) == (heard(operator, "s-2")[0][0], "hall")
    shown = json.loads(weir("devices", "show", "beacon", "s-2", "--json").stdout)
    assert shown["registered_by"] == "self"

    weir("devices", "add", "badge", "s-1", "--site", "hall")
    weir("devices", "retire", "beacon", "s-2")
    until_known(own_bridge, about(operator, "s-1", "s-2"))
    say(publisher, "s-1", 2)
    say(publisher, "s-2", 2, "beacon")
    wait_for(lambda: heard(operator, "s-1") and refused(operator, "s-2"), 20, own_bridge.log.read_text)
    assert refused(operator, "s-2") == {"retired_device": 1}, "also of a type that registers itself"
    weir("devices", "add", "beacon", "s-2", "--site", "yard")
    until_known(own_bridge, about(operator, "s-2"))
    say(publisher, "s-2", 3, "beacon")
    wait_for(lambda: len(heard(operator, "s-2")) == 2, 20, own_bridge.log.read_text)
    again = json.loads(weir("devices", "show", "beacon", "s-2", "--json").stdout)
    assert again["retired_at"] is None
    assert again["registered_at"] > shown["registered_at"]
    kinds = [type(r) for _, r in about(operator, "s-2")]
    assert (kinds[0], set(kinds[1:-1]), kinds[-1]) == (Device, {Retire}, Device)


@pytest.mark.parametrize("type_name", ["badge", "beacon"])
def test_a_device_that_is_retired_while_it_speaks_does_not_come_back(
    weir: Weir, settings_for: SettingsFor, own_bridge: Process, publisher: BulkPublisher, type_name: str
) -> None:
    """What the bridge let in before it knew stands behind the record that retired the device; another follows."""
    operator = settings_for("operator")
    own_bridge.start().ready()

    def in_the_log(device: str) -> list[type]:
        """Of each reading and control record of the device, in the order of its partition."""
        found: list[type] = []
        for record in records(operator, "readings.access"):
            said = decode_control(record.value) if mark_of(record.headers) == CONTROL else None
            reading = decode_reading(record.value) if mark_of(record.headers) is None else None
            if device in (getattr(said, "device", None), reading and reading.device_id):
                found.append(type(said or reading))
        return found

    for attempt in range(8):  # until the bridge lets one in after the record that retires it
        device = f"r-{type_name}-{attempt}"
        weir("devices", "add", type_name, device, "--site", "hall")
        until_known(own_bridge, about(operator, device))
        retiring = threading.Thread(target=weir, args=("devices", "retire", type_name, device))
        retiring.start()
        seq = 0
        while not refused(operator, device):
            for _ in range(50):
                say(publisher, device, seq := seq + 1, type_name)
        retiring.join()
        wait_for(lambda device=device: in_the_log(device).count(Retire) == 2, 20, own_bridge.log.read_text)
        kinds = in_the_log(device)
        assert kinds[-1] is Retire
        assert set(refused(operator, device)) == {"retired_device"}
        shown = json.loads(weir("devices", "show", type_name, device, "--json").stdout)
        assert shown["retired_at"] is not None
        if Reading in kinds[kinds.index(Retire) :]:
            return
    pytest.fail("no reading was let in after its device was retired: nothing was tested")


def test_with_the_database_away_those_it_knows_go_on(
    weir: Weir, settings_for: SettingsFor, stack: Stack, own_bridge: Process, publisher: BulkPublisher
) -> None:
    operator = settings_for("operator")
    own_bridge.start().ready()
    weir("devices", "add", "badge", "d-1", "--site", "hall")
    wait_for(
        lambda: own_bridge.metric("weir_bridge_registry_revision") >= about(operator, "d-1")[-1][1].revision, 10, ""
    )
    with away(stack, "postgres"):
        wait_for(lambda: own_bridge.metric("weir_bridge_registry_up") == 0, 20, own_bridge.log.read_text)
        for seq in range(20):
            say(publisher, "d-1", seq)
            say(publisher, f"d-new-{seq % 4}", seq, "beacon")
            say(publisher, "d-nobody", seq)
        wait_for(lambda: len(heard(operator, "d-1")) == 20, 20, own_bridge.log.read_text)
        wait_for(lambda: refused(operator, "d-nobody")["unknown_device"] == 20, 20, own_bridge.log.read_text)
        for n in range(4):
            assert len(heard(operator, f"d-new-{n}")) == 5
        assert own_bridge.readiness().strip() == "ready", "messages pass: the bridge does its work"
        assert own_bridge.metric("weir_bridge_newcomers") == 4
        assert about(operator, *(f"d-new-{n}" for n in range(4))) == []
    wait_for(lambda: own_bridge.metric("weir_bridge_newcomers") == 0, 30, own_bridge.log.read_text)
    wait_for(lambda: len(about(operator, *(f"d-new-{n}" for n in range(4)))) == 4, 20, own_bridge.log.read_text)
    assert own_bridge.stop() == 0


def test_a_bridge_that_starts_without_the_database_loses_nothing(
    weir: Weir, settings_for: SettingsFor, stack: Stack, own_bridge: Process, publisher: BulkPublisher
) -> None:
    """Who is known cannot be told: messages of types that want the registry stay with Mosquitto till it is there."""
    operator = settings_for("operator")
    weir("devices", "add", "badge", "w-1", "--site", "hall")
    own_bridge.start().ready().stop()  # its sessions are there
    with away(stack, "postgres"):
        own_bridge.start()
        for seq in range(20):
            say(publisher, "w-1", seq)
            say(publisher, "w-2", seq)
            say(publisher, "w-open", seq, "beacon")
        wait_for(lambda: len(heard(operator, "w-open")) == 20, 30, own_bridge.log.read_text)
        wait_for(lambda: "badge: Unavailable: the registry has not been read yet" in own_bridge.readiness(), 20,
                 own_bridge.readiness)  # fmt: skip
        assert heard(operator, "w-1") == []
        own_bridge.kill()  # and after a kill it is the same
        own_bridge.start()
        wait_for(lambda: "badge: Unavailable" in own_bridge.readiness(), 30, own_bridge.readiness)
        assert heard(operator, "w-1") == [] and not refused(operator, "w-2")
    own_bridge.ready(40)
    wait_for(lambda: refused(operator, "w-2")["unknown_device"] == 20, 30, own_bridge.log.read_text)
    assert Counter(r.seq for _, r in heard(operator, "w-1")) == dict.fromkeys(range(20), 1)
    # Who waited to be registered when the bridge was killed is registered by the next reading.
    say(publisher, "w-open", 20, "beacon")
    wait_for(lambda: about(operator, "w-open"), 20, own_bridge.log.read_text)


def test_landing_counts_them_and_live_passes_over_them(
    weir: Weir,
    settings_for: SettingsFor,
    own_types: Path,
    own_bridge: Process,
    publisher: BulkPublisher,
    tmp_path: Path,
) -> None:
    operator, lake = settings_for("operator"), Lake(f"file://{tmp_path}/lake")
    weir("devices", "add", "badge", "l-1", "--site", "ledger")
    own_bridge.start().ready()
    for seq in range(30):
        say(publisher, "l-1", seq, site="ledger")
        say(publisher, f"l-open-{seq % 3}", seq, "beacon", site="ledger")
    wait_for(lambda: len(about(operator, *(f"l-open-{n}" for n in range(3)))) == 3, 20, own_bridge.log.read_text)
    weir("devices", "retire", "badge", "l-1")
    assert own_bridge.stop() == 0
    landing = Process("landing", settings_for("landing"), tmp_path / "landing.log", WEIR_LAKE_URI=lake.uri,
                      WEIR_LANDING_MAX_SECONDS=0.3, WEIR_TYPES_DIR=own_types)  # fmt: skip
    live = Process("live", settings_for("live"), tmp_path / "live.log", WEIR_TYPES_DIR=own_types)
    warehouse = Warehouse.of(operator)
    with landing.start(), live.start():
        count = "SELECT count(*) AS n FROM readings WHERE site = 'ledger'"
        wait_for(lambda: warehouse.rows(count)[0]["n"] == 60, 60, live.log.read_text)
        rows = len([r for r in records(operator, *TOPICS) if mark_of(r.headers) is None])
        wait_for(lambda: _landed_rows(lake) == rows, 60, landing.log.read_text)
        assert landing.stop() == live.stop() == 0
    warehouse.close()
    consumer = kafka.consumer(operator, "tests")
    ends = {(p.topic, p.partition): end for p, end in kafka.end_offsets(consumer, TOPICS).items()}
    consumer.close(autocommit=False)
    in_log = Counter((r.topic, r.partition) for r in records(operator, *TOPICS) if mark_of(r.headers) == CONTROL)
    assert in_log.total() >= 5
    for (topic, partition), end in ends.items():
        books = topic_books(topic, partition, lake.manifests(topic, partition), end)
        assert topic_imbalances(books) == []
        assert (books.landed_to, books.controls) == (end, in_log[topic, partition])
        assert books.rows + books.heartbeats + books.controls == end
        assert books.unreadable == books.missing == 0


def _landed_rows(lake: Lake) -> int:
    places = [place for place in lake.landed_partitions() if place[0] in TOPICS]
    return sum(m.rows for place in places for m in lake.manifests(*place))
