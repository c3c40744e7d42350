"""The registry on the real servers: control records beside the readings, exactly what was committed, killed and cut
off; and the bridge, which asks the registry who may speak, with the database gone."""

import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from kafka.errors import KafkaTimeoutError
from sqlalchemy import text

from connections import kafka
from connections.lake import Lake
from connections.mqtt_publisher import BulkPublisher
from connections.publication import open_producer, publish
from connections.registry import Registry
from connections.warehouse import Warehouse
from fleet.catalog import Catalog, load_catalog
from fleet.channels import CONTROL, REJECTED, mark_of
from fleet.control import Control, Device, Resolve, Retire, Site, Spec, decode_control
from fleet.dead_letter import decode_dead_letter
from fleet.errors import RegistryError, Unavailable
from fleet.ledger import topic_books, topic_imbalances
from fleet.reading import Reading, decode_reading
from fleet.registry import new_entry
from fleet.settings import CHECKOUT, Settings
from stack.credentials import owner_url
from stack.provision import provision_kafka
from stack.stack import Stack
from tests.integration.logs import records
from tests.integration.processes import Process, wait_for

pytestmark = pytest.mark.stack

SettingsFor = Callable[[str], Settings]
SPEC = """\
type: {type}
version: 1
system: {system}
cadence: 10s
partition_by: {by}
self_registration: {open}
metrics:
  temperature: {{unit: degC}}
examples:
  good:
    - {{payload: {{device_id: d1, event_time: 1732985789000, values: {{temperature: 1}}}}, values: {{temperature: 1}}}}
  bad: [{{payload: 1, reason: malformed_json}}]
alerts:
  - {{id: hot, when: temperature > limit, params: {{limit: 35}}}}
"""
TOPICS = ("readings.access", "readings.racks")
"""Of their own: consumers of other tests would wait at types that they do not know."""


@pytest.fixture(scope="module")
def types(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weir's own, and three more: of `access`, `badge` wants the registry and `beacon` does not; `rack` is by site."""
    folder = tmp_path_factory.mktemp("registry") / "types"
    folder.mkdir()
    for spec in (CHECKOUT / "fleet" / "types").glob("*.yaml"):
        (folder / spec.name).write_text(spec.read_text())
    own = [("badge", "access", "device", False), ("beacon", "access", "device", True), ("rack", "racks", "site", False)]
    for name, system, by, is_open in own:
        (folder / f"{name}.yaml").write_text(SPEC.format(type=name, system=system, by=by, open=str(is_open).lower()))
    return folder


@pytest.fixture(scope="module")
def catalog(types: Path, stack: Stack) -> Catalog:
    catalog = load_catalog(types)
    provision_kafka(f"127.0.0.1:{stack.ports.kafka}", stack.secrets, catalog)
    return catalog


@pytest.fixture
def registry(settings_for: SettingsFor, catalog: Catalog) -> Iterator[Registry]:
    warehouse = Warehouse.of(settings_for("registry"))
    yield Registry(warehouse)
    warehouse.close()


@pytest.fixture
def weir(stack: Stack, types: Path, catalog: Catalog) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The command as a person types it."""

    def command(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        environ = {k: v for k, v in os.environ.items() if not k.startswith("WEIR_")}
        done = subprocess.run(
            [sys.executable, "-m", "weir.main", *arguments], capture_output=True, text=True, timeout=90, cwd=CHECKOUT,
            env={**environ, "WEIR_HOME": str(stack.layout.home), "WEIR_TYPES_DIR": str(types)},
        )  # fmt: skip
        assert done.returncode == code, f"{arguments}\n{done.stdout}\n{done.stderr}"
        return done

    return command


Weir = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def bridge(settings_for: SettingsFor, types: Path, catalog: Catalog, tmp_path: Path) -> Iterator[Process]:
    with Process("bridge", settings_for("bridge"), tmp_path / "bridge.log", WEIR_TYPES_DIR=types) as process:
        yield process


@pytest.fixture
def publisher(settings_for: SettingsFor) -> Iterator[BulkPublisher]:
    publisher = BulkPublisher(settings_for("simulator"))
    yield publisher
    publisher.close(5)


def say(publisher: BulkPublisher, device: str, seq: int, type_name: str = "badge", site: str = "hall") -> None:
    system = "racks" if type_name == "rack" else "access"
    message = {"device_id": device, "event_time": int(time.time() * 1000), "seq": seq, "values": {"temperature": 20.5}}
    publisher.publish(f"dt/{system}/{site}/{type_name}/{device}", json.dumps(message).encode())
    publisher.flush()


@contextmanager
def away(stack: Stack, server: str) -> Iterator[None]:
    stack.supervisor.stop_program(server)
    try:
        yield
    finally:
        stack.restart(server)


def controls(settings: Settings, *topics: str) -> list[tuple[int, Control]]:
    """(partition, control record), as they stand in each partition."""
    return [
        (r.partition, decode_control(r.value))
        for r in records(settings, *(topics or TOPICS))
        if mark_of(r.headers) == CONTROL
    ]


def about(settings: Settings, *names: str) -> list[tuple[int, Control]]:
    return [
        (partition, record)
        for partition, record in controls(settings)
        if {getattr(record, "device", None), getattr(record, "site", None)} & set(names)
    ]


def heard(settings: Settings, device: str) -> list[tuple[int, Reading]]:
    """(partition, reading) of a device, in the log's order."""
    found = [(r.partition, decode_reading(r.value)) for r in records(settings, *TOPICS) if mark_of(r.headers) is None]
    return [(partition, reading) for partition, reading in found if reading.device_id == device]


def refused(settings: Settings, device: str) -> Counter[str]:
    letters = [decode_dead_letter(r.value) for r in records(settings, REJECTED) if mark_of(r.headers) is None]
    return Counter(x.reason for x in letters if (x.mqtt_topic or "").endswith(f"/{device}"))


def waiting(registry: Registry) -> list[int]:
    rows = registry.warehouse.rows("SELECT revision FROM control_records WHERE published_at IS NULL ORDER BY revision")
    return [row["revision"] for row in rows]


# What the commands write, and where it goes


def test_a_device_from_its_registration_to_its_end(
    weir: Weir, settings_for: SettingsFor, bridge: Process, publisher: BulkPublisher
) -> None:
    operator = settings_for("operator")
    bridge.start().ready()
    assert "registered badge b-1 at hall" in weir("devices", "add", "badge", "b-1", "--site", "hall").stdout
    weir("sites", "set", "access", "hall", "--time-zone", "Europe/Berlin")
    weir("devices", "set", "badge", "b-1", "--param", "limit=30.5", "--room", "gate 3")
    shown = json.loads(weir("devices", "show", "badge", "b-1", "--json").stdout)
    assert (shown["site"], shown["room"], shown["time_zone"]) == ("hall", "gate 3", "Europe/Berlin")
    assert (shown["params"], shown["rule_params"], shown["registered_by"]) == (
        {"limit": 30.5}, {"limit": 30.5}, "operator",
    )  # fmt: skip
    wait_for(lambda: bridge.metric("weir_bridge_registry_revision") >= about(operator, "b-1")[-1][1].revision, 10, "")
    say(publisher, "b-1", 1)
    wait_for(lambda: heard(operator, "b-1"), 20, bridge.log.read_text)
    weir("devices", "retire", "badge", "b-1")
    assert "is retired since" in weir("devices", "set", "badge", "b-1", "--room", "x", code=1).stderr
    assert [e["device_id"] for e in json.loads(weir("devices", "list", "--type", "badge", "--json").stdout)] == []
    assert len(json.loads(weir("devices", "list", "--site", "hall", "--all", "--json").stdout)) == 1

    ((home, reading),) = heard(operator, "b-1")
    assert reading.site == "hall"
    told = about(operator, "b-1", "hall")
    assert {p for p, r in told if not isinstance(r, Site)} == {home}, "in the partition of the device's readings"
    assert sorted(p for p, r in told if isinstance(r, Site)) == [0, 1, 2, 3]
    mine = [r for p, r in told if p == home]
    assert [type(r) for r in mine] == [Device, Site, Device, Retire]
    assert [r.revision for r in mine] == sorted({r.revision for r in mine})
    assert [r.time_zone for r in mine if isinstance(r, Device)] == ["UTC", "Europe/Berlin"]
    assert [r.params for r in mine if isinstance(r, Device)] == [{}, {"limit": 30.5}]
    # A change takes effect within a second or so: a device that is retired is not listened to.
    wait_for(lambda: bridge.metric("weir_bridge_registry_revision") >= mine[-1].revision, 10, "revision")
    say(publisher, "b-1", 2)
    wait_for(lambda: refused(operator, "b-1"), 20, bridge.log.read_text)
    assert refused(operator, "b-1") == {"retired_device": 1}
    assert len(heard(operator, "b-1")) == 1


def test_where_partitions_go_by_site_all_that_may_know_the_device_hear(weir: Weir, settings_for: SettingsFor) -> None:
    """Sites a to h lie in several of the four partitions; a move is heard where it was and where it is."""
    operator, home = settings_for("operator"), {}
    for site in "abcdefgh":
        weir("devices", "add", "rack", f"r-{site}", "--site", site)
        ((home[site], _),) = about(operator, f"r-{site}")
    (other,) = [s for s in "bcdefgh" if home[s] != home["a"]][:1]
    (same,) = [s for s in "bcdefgh" if home[s] == home["a"]][:1]

    weir("devices", "set", "rack", "r-a", "--site", other)
    moved = about(operator, "r-a")[1:]
    assert sorted((p, type(r), r.site if isinstance(r, Device) else r.moved_to) for p, r in moved) == sorted(
        [(home[other], Device, other), (home["a"], Retire, other)], key=lambda x: x[0]
    )
    weir("devices", "set", "rack", "r-a", "--site", "a")
    before = len(about(operator, "r-a"))
    weir("devices", "set", "rack", "r-a", "--site", same)
    stayed = about(operator, "r-a")
    assert len(stayed) == before + 1, "within one partition it only moves"
    weir("devices", "retire", "rack", "r-a")
    retired = [p for p, r in about(operator, "r-a") if isinstance(r, Retire) and r.moved_to is None]
    assert sorted(retired) == [0, 1, 2, 3]


def test_resolve_and_spec_go_where_they_must(
    registry: Registry, catalog: Catalog, settings_for: SettingsFor, types: Path
) -> None:
    operator, producer = settings_for("operator"), open_producer(settings_for("registry"))
    newer = (types / "badge.yaml").read_text() + "# again\n"
    try:
        with registry.changes() as changes:
            changes.resolve(catalog.type("badge"), "x-1", "hot", "ada")
            changes.resolve(catalog.type("rack"), "x-1", "hot", "ada")
            changes.reload(catalog.type("badge"), newer)
        assert publish(registry.warehouse, producer, TOPICS) == 3
    finally:
        kafka.close(producer)
    found = [(r.topic, r.partition, decode_control(r.value)) for r in records(operator, *TOPICS)
             if mark_of(r.headers) == CONTROL]  # fmt: skip
    found = [f for f in found if isinstance(f[2], Resolve) or (isinstance(f[2], Spec) and f[2].text == newer)]
    where = Counter((topic, type(r)) for topic, _, r in found)
    assert where == {("readings.access", Resolve): 1, ("readings.racks", Resolve): 4, ("readings.access", Spec): 4}


def test_a_csv_is_taken_whole_or_not_at_all(weir: Weir, settings_for: SettingsFor, tmp_path: Path) -> None:
    operator, file = settings_for("operator"), tmp_path / "devices.csv"
    good = "type,device_id,site,time_zone,params\n" + "".join(
        f"badge,c-{n},csv,Asia/Tokyo,limit={n}\n" for n in range(300)
    )
    file.write_text(good + "badge,c 300,csv,Asia/Tokyo,\nrack,c-301,csv,,limt=1\n")
    told = weir("devices", "import", str(file), code=1).stderr
    assert f"{file}:302: device id 'c 300'" in told
    assert f"{file}:303: param 'limt': no rule of rack has it; did you mean 'limit'?" in told
    assert json.loads(weir("devices", "list", "--site", "csv", "--json").stdout) == []

    file.write_text(good)
    assert weir("devices", "import", str(file)).stdout == "registered 300, changed 0, unchanged 0\n"
    file.write_text(good.replace("limit=7\n", "limit=7.5\n"))
    assert weir("devices", "import", str(file)).stdout == "registered 0, changed 1, unchanged 299\n"
    listed = {e["device_id"]: e for e in json.loads(weir("devices", "list", "--site", "csv", "--json").stdout)}
    assert listed["c-7"]["params"] == {"limit": 7.5}
    assert len(listed) == 300
    told_of = Counter(r.device for _, r in controls(operator) if isinstance(r, Device) and r.site == "csv")
    assert told_of == {f"c-{n}": 2 if n == 7 else 1 for n in range(300)}
    places = [p for p in json.loads(weir("sites", "list", "--json").stdout) if p["site"] == "csv"]
    assert places == [{"system": "access", "site": "csv", "time_zone": "Asia/Tokyo", "devices": 300}]


# Committed and published: the same, whatever dies between


def test_what_a_command_left_behind_the_bridge_publishes(
    registry: Registry, catalog: Catalog, settings_for: SettingsFor, bridge: Process
) -> None:
    """A command that dies between its commit and Kafka; one that dies before its commit leaves nothing."""
    badge = catalog.type("badge")
    with registry.changes() as changes:
        changes.put(badge, None, new_entry(badge, "left-1", "hall", changes.at))
    with pytest.raises(ZeroDivisionError), registry.changes() as changes:
        changes.put(badge, None, new_entry(badge, "left-2", "hall", changes.at))
        1 / 0  # noqa: B018
    assert len(waiting(registry)) == 1
    assert about(settings_for("operator"), "left-1", "left-2") == []
    bridge.start().ready()
    wait_for(lambda: not waiting(registry), 15, bridge.log.read_text)
    ((_, record),) = about(settings_for("operator"), "left-1", "left-2")
    assert isinstance(record, Device)


def test_a_publisher_that_dies_before_its_mark_repeats_itself(
    registry: Registry, catalog: Catalog, settings_for: SettingsFor
) -> None:
    """Each again with the same revision, those of a device in order: who keeps the last revision takes each once."""
    badge, operator = catalog.type("badge"), settings_for("operator")

    class Dies:
        """A producer whose process ends after Kafka has confirmed so many records of it."""

        def __init__(self, after: int):
            self.producer, self.left = open_producer(settings_for("registry")), after

        def partitions_for(self, topic: str) -> Any:
            return self.producer.partitions_for(topic)

        def send(self, *arguments: Any) -> Any:
            if self.left == 0:
                raise KafkaTimeoutError("killed")
            self.left -= 1
            self.producer.send(*arguments).get(timeout=10)
            return self

        def get(self, timeout: float) -> None: ...

    with registry.changes() as changes:
        for name in ("again-1", "again-2"):
            entry = new_entry(badge, name, "hall", changes.at)
            for limit in range(3):
                changes.put(badge, entry, new_entry(badge, name, "hall", changes.at, params={"limit": float(limit)}))
    committed = waiting(registry)
    assert len(committed) == 6
    for after in (1, 2, 0):
        dying = Dies(after)
        with pytest.raises(Unavailable, match="wait in the registry"):
            publish(registry.warehouse, dying, TOPICS)
        kafka.close(dying.producer)
    producer = open_producer(settings_for("registry"))
    publish(registry.warehouse, producer, TOPICS)
    kafka.close(producer)
    assert waiting(registry) == []
    found = about(operator, "again-1", "again-2")
    assert len(found) > len(committed)
    taken: dict[tuple[str, ...], list[int]] = {}
    for _, record in found:
        seen = taken.setdefault(record.subject, [])
        if not seen or record.revision > seen[-1]:
            seen.append(record.revision)
    assert sorted(revision for seen in taken.values() for revision in seen) == committed
    limits = [r.params["limit"] for _, r in found if isinstance(r, Device) and r.device == "again-1"]
    assert sorted(set(limits)) == [0.0, 1.0, 2.0]
    assert limits[-1] == 2.0


def test_many_writers_and_publishers_at_once(
    registry: Registry, catalog: Catalog, settings_for: SettingsFor
) -> None:  # fmt: skip
    """Revisions rise in the order of commits, and each record is published once."""
    badge, settings, failures = catalog.type("badge"), settings_for("registry"), []
    seen: list[int] = []

    def work(n: int) -> None:
        own, producer = Warehouse.of(settings), open_producer(settings)
        try:
            for m in range(10):
                with Registry(own).changes() as changes:
                    changes.put(badge, None, new_entry(badge, f"many-{n}-{m}", "hall", changes.at))
                seen.append(Registry(own).state(TOPICS)[0])
                publish(own, producer, TOPICS)
        except Exception as error:
            failures.append(error)
        finally:
            kafka.close(producer)
            own.close()

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert waiting(registry) == []
    found = [(p, r) for p, r in controls(settings_for("operator")) if str(getattr(r, "device", "")).startswith("many-")]
    assert len({r.device for _, r in found}) == len(found) == 40  # type: ignore[union-attr]
    assert len({r.revision for _, r in found}) == 40
    for partition in range(4):
        revisions = [r.revision for p, r in found if p == partition]
        assert revisions == sorted(revisions)
        assert [r.at for p, r in found if p == partition] == sorted(r.at for p, r in found if p == partition)


def test_with_kafka_away_the_change_stands_and_is_told_later(
    weir: Weir, registry: Registry, settings_for: SettingsFor, stack: Stack, bridge: Process
) -> None:
    bridge.start().ready()
    with away(stack, "kafka"):
        done = weir("devices", "add", "badge", "later-1", "--site", "hall")
        assert "registered badge later-1" in done.stdout
        assert "the change stands in the registry" in done.stderr
        assert "nothing answers at Kafka's address" in done.stderr
        assert len(waiting(registry)) == 1
    wait_for(lambda: not waiting(registry), 40, bridge.log.read_text)
    assert {type(r) for _, r in about(settings_for("operator"), "later-1")} == {Device}


def test_two_adds_of_one_device(registry: Registry, catalog: Catalog, weir: Weir) -> None:
    weir("devices", "add", "badge", "twice-1", "--site", "hall")
    assert "registered already" in weir("devices", "add", "badge", "twice-1", "--site", "hall", code=1).stderr
    with pytest.raises(RegistryError, match="no badge 'twice-2'"), registry.changes() as changes:
        changes.entry(catalog.type("badge"), "twice-2")


# Who may speak


def test_strangers_are_rejected_until_they_are_registered(
    weir: Weir, settings_for: SettingsFor, bridge: Process, publisher: BulkPublisher
) -> None:
    operator = settings_for("operator")
    bridge.start().ready()
    say(publisher, "s-1", 1)
    say(publisher, "s-2", 1, "beacon")
    wait_for(lambda: refused(operator, "s-1") and heard(operator, "s-2"), 20, bridge.log.read_text)
    assert refused(operator, "s-1") == {"unknown_device": 1}
    wait_for(lambda: about(operator, "s-2"), 20, bridge.log.read_text)
    ((partition, record),) = about(operator, "s-2")
    assert isinstance(record, Device)
    assert (partition, record.site) == (heard(operator, "s-2")[0][0], "hall")
    shown = json.loads(weir("devices", "show", "beacon", "s-2", "--json").stdout)
    assert shown["registered_by"] == "self"

    weir("devices", "add", "badge", "s-1", "--site", "hall")
    weir("devices", "retire", "beacon", "s-2")
    revision = about(operator, "s-1", "s-2")[-1][1].revision
    wait_for(lambda: bridge.metric("weir_bridge_registry_revision") >= revision, 10, "revision")
    say(publisher, "s-1", 2)
    say(publisher, "s-2", 2, "beacon")
    wait_for(lambda: heard(operator, "s-1") and len(heard(operator, "s-2")) == 2, 20, bridge.log.read_text)
    # One that registers itself and reports again is a new device.
    wait_for(lambda: len(about(operator, "s-2")) == 3, 20, bridge.log.read_text)
    again = json.loads(weir("devices", "show", "beacon", "s-2", "--json").stdout)
    assert again["retired_at"] is None
    assert again["registered_at"] > shown["registered_at"]
    assert [type(r) for _, r in about(operator, "s-2")] == [Device, Retire, Device]


def test_with_the_database_away_those_it_knows_go_on(
    weir: Weir, settings_for: SettingsFor, stack: Stack, bridge: Process, publisher: BulkPublisher
) -> None:
    operator = settings_for("operator")
    bridge.start().ready()
    weir("devices", "add", "badge", "d-1", "--site", "hall")
    wait_for(lambda: bridge.metric("weir_bridge_registry_revision") >= about(operator, "d-1")[-1][1].revision, 10, "")
    with away(stack, "postgres"):
        wait_for(lambda: bridge.metric("weir_bridge_registry_up") == 0, 20, bridge.log.read_text)
        for seq in range(20):
            say(publisher, "d-1", seq)
            say(publisher, f"d-new-{seq % 4}", seq, "beacon")
            say(publisher, "d-nobody", seq)
        wait_for(lambda: len(heard(operator, "d-1")) == 20, 20, bridge.log.read_text)
        wait_for(lambda: refused(operator, "d-nobody")["unknown_device"] == 20, 20, bridge.log.read_text)
        for n in range(4):
            assert len(heard(operator, f"d-new-{n}")) == 5
        assert bridge.readiness().strip() == "ready", "messages pass: the bridge does its work"
        assert bridge.metric("weir_bridge_newcomers") == 4
        assert about(operator, *(f"d-new-{n}" for n in range(4))) == []
    wait_for(lambda: bridge.metric("weir_bridge_newcomers") == 0, 30, bridge.log.read_text)
    wait_for(lambda: len(about(operator, *(f"d-new-{n}" for n in range(4)))) == 4, 20, bridge.log.read_text)
    assert bridge.stop() == 0


def test_a_bridge_that_starts_without_the_database_loses_nothing(
    weir: Weir, settings_for: SettingsFor, stack: Stack, bridge: Process, publisher: BulkPublisher
) -> None:
    """Who is known cannot be told: messages of types that want the registry stay with Mosquitto till it is there."""
    operator = settings_for("operator")
    weir("devices", "add", "badge", "w-1", "--site", "hall")
    bridge.start().ready().stop()  # its sessions are there
    with away(stack, "postgres"):
        bridge.start()
        for seq in range(20):
            say(publisher, "w-1", seq)
            say(publisher, "w-2", seq)
            say(publisher, "w-open", seq, "beacon")
        wait_for(lambda: len(heard(operator, "w-open")) == 20, 30, bridge.log.read_text)
        wait_for(lambda: "badge: Unavailable: the registry has not been read yet" in bridge.readiness(), 20,
                 bridge.readiness)  # fmt: skip
        assert heard(operator, "w-1") == []
        bridge.kill()  # and after a kill it is the same
        bridge.start()
        wait_for(lambda: "badge: Unavailable" in bridge.readiness(), 30, bridge.readiness)
        assert heard(operator, "w-1") == [] and not refused(operator, "w-2")
    bridge.ready(40)
    wait_for(lambda: refused(operator, "w-2")["unknown_device"] == 20, 30, bridge.log.read_text)
    assert Counter(r.seq for _, r in heard(operator, "w-1")) == dict.fromkeys(range(20), 1)
    # Who waited to be registered when the bridge was killed is registered by the next reading.
    say(publisher, "w-open", 20, "beacon")
    wait_for(lambda: about(operator, "w-open"), 20, bridge.log.read_text)


# Who passes over them


def test_landing_counts_them_and_live_passes_over_them(
    weir: Weir, settings_for: SettingsFor, types: Path, bridge: Process, publisher: BulkPublisher, tmp_path: Path
) -> None:
    operator, lake = settings_for("operator"), Lake(f"file://{tmp_path}/lake")
    weir("devices", "add", "badge", "l-1", "--site", "ledger")
    bridge.start().ready()
    for seq in range(30):
        say(publisher, "l-1", seq, site="ledger")
        say(publisher, f"l-open-{seq % 3}", seq, "beacon", site="ledger")
    wait_for(lambda: len(about(operator, *(f"l-open-{n}" for n in range(3)))) == 3, 20, bridge.log.read_text)
    weir("devices", "retire", "badge", "l-1")
    assert bridge.stop() == 0
    landing = Process("landing", settings_for("landing"), tmp_path / "landing.log", WEIR_LAKE_URI=lake.uri,
                      WEIR_LANDING_MAX_SECONDS=0.3, WEIR_TYPES_DIR=types)  # fmt: skip
    live = Process("live", settings_for("live"), tmp_path / "live.log", WEIR_TYPES_DIR=types)
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


def test_the_log_can_be_told_again(weir: Weir, settings_for: SettingsFor, stack: Stack) -> None:
    """For who came too late for its beginning: every site, and every device that is in service."""
    operator = settings_for("operator")
    before = len(controls(operator))
    listed = json.loads(weir("devices", "list", "--json").stdout)
    weir("devices", "publish")
    told = controls(operator)
    assert len(told) > before
    owner = Warehouse(owner_url(stack.secrets, stack.ports), "tests")
    with owner.transaction() as connection:
        after = connection.execute(text("SELECT max(revision) FROM devices")).scalar_one()
    owner.close()
    first = min(r.revision for _, r in told if isinstance(r, Device) and r.revision > after - len(listed))
    again = {(r.type, r.device) for _, r in told if isinstance(r, Device) and r.revision >= first}
    assert again == {(e["type"], e["device_id"]) for e in listed if e["type"] in ("badge", "beacon", "rack")}
