"""The registry on the real servers: control records beside the readings, exactly what was committed, whatever is killed
or cut off in between."""

import json
import re
import threading
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from kafka.errors import KafkaTimeoutError
from sqlalchemy import text

from connections import kafka
from connections.mqtt_publisher import BulkPublisher
from connections.publication import open_producer, publish
from connections.registry import Registry
from connections.warehouse import Warehouse
from etl.retention import CONTROL_RECORDS_KEPT, expire
from fleet.catalog import Catalog
from fleet.channels import CONTROL, mark_of
from fleet.control import Device, Resolve, Retire, Site, Spec, decode_control
from fleet.errors import RegistryError, Unavailable
from fleet.registry import new_entry
from fleet.settings import Settings
from stack.credentials import owner_url
from stack.stack import Stack
from tests.command import Weir
from tests.integration.logs import records
from tests.integration.processes import Process, wait_for
from tests.integration.registry_log import TOPICS, about, away, controls, heard, refused, say, until_known, waiting

pytestmark = pytest.mark.stack

SettingsFor = Callable[[str], Settings]


def test_a_device_from_its_registration_to_its_end(
    weir: Weir, settings_for: SettingsFor, own_bridge: Process, publisher: BulkPublisher
) -> None:
    operator = settings_for("operator")
    own_bridge.start().ready()
    assert "registered badge b-1 at gate" in weir("devices", "add", "badge", "b-1", "--site", "gate").stdout
    weir("sites", "set", "access", "gate", "--time-zone", "Europe/Berlin")
    weir("devices", "set", "badge", "b-1", "--param", "limit=30.5", "--room", "gate 3")
    shown = json.loads(weir("devices", "show", "badge", "b-1", "--json").stdout)
    assert (shown["site"], shown["room"], shown["time_zone"]) == ("gate", "gate 3", "Europe/Berlin")
    assert (shown["params"], shown["rule_params"], shown["registered_by"]) == (
        {"limit": 30.5}, {"limit": 30.5}, "operator",
    )  # fmt: skip
    wait_for(
        lambda: own_bridge.metric("weir_bridge_registry_revision") >= about(operator, "b-1")[-1][1].revision, 10, ""
    )
    say(publisher, "b-1", 1, site="gate")
    wait_for(lambda: heard(operator, "b-1"), 20, own_bridge.log.read_text)
    weir("devices", "retire", "badge", "b-1")
    said = weir("devices", "set", "badge", "b-1", "--room", "x", code=1).stderr
    assert re.search(r"is retired since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC$", said.strip())
    assert "say where it stands with --site" in weir("devices", "add", "badge", "b-0", code=1).stderr
    assert weir("devices", "list", "--site", "gate").stdout.endswith("\n0 devices; 1 retired: see --all\n")
    shown = weir("devices", "list", "--site", "gate", "--all").stdout.splitlines()
    assert [line.split()[:3] for line in shown] == [
        ["type", "device", "site"], ["badge", "b-1", "gate"], ["gate", "3;", "limit=30.5;"], ["1", "device"],
    ]  # fmt: skip
    assert max(map(len, shown)) <= 80

    ((home, reading),) = heard(operator, "b-1")
    assert reading.site == "gate"
    told = about(operator, "b-1", "gate")
    assert {p for p, r in told if not isinstance(r, Site)} == {home}, "in the partition of the device's readings"
    assert sorted(p for p, r in told if isinstance(r, Site)) == [0, 1, 2, 3]
    mine = [r for p, r in told if p == home]
    assert [type(r) for r in mine[:4]] == [Device, Site, Device, Retire]
    assert {type(r) for r in mine[4:]} <= {Retire}, "said again by the bridge"
    assert [r.revision for r in mine] == sorted({r.revision for r in mine})
    assert [r.time_zone for r in mine if isinstance(r, Device)] == ["UTC", "Europe/Berlin"]
    assert [r.params for r in mine if isinstance(r, Device)] == [{}, {"limit": 30.5}]
    # A change takes effect within a second or so: a device that is retired is not listened to.
    until_known(own_bridge, told)
    say(publisher, "b-1", 2, site="gate")
    wait_for(lambda: refused(operator, "b-1"), 20, own_bridge.log.read_text)
    assert refused(operator, "b-1") == {"retired_device": 1}
    assert len(heard(operator, "b-1")) == 1
    assert "registered badge b-1 at gate" in weir("devices", "add", "badge", "b-1").stdout


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
    registry: Registry, own_catalog: Catalog, settings_for: SettingsFor, own_types: Path
) -> None:
    operator, producer = settings_for("operator"), open_producer(settings_for("registry"))
    newer = (own_types / "badge.yaml").read_text() + "# again\n"
    try:
        with registry.changes() as changes:
            changes.resolve(own_catalog.type("badge"), "x-1", "hot", "ada")
            changes.resolve(own_catalog.type("rack"), "x-1", "hot", "ada")
            changes.reload(own_catalog.type("badge"), newer)
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
    registry: Registry, own_catalog: Catalog, settings_for: SettingsFor, own_bridge: Process
) -> None:
    """A command that dies between its commit and Kafka; one that dies before its commit leaves nothing."""
    badge = own_catalog.type("badge")
    with registry.changes() as changes:
        changes.put(badge, None, new_entry(badge, "left-1", "hall", changes.at))
    with pytest.raises(ZeroDivisionError), registry.changes() as changes:
        changes.put(badge, None, new_entry(badge, "left-2", "hall", changes.at))
        1 / 0  # noqa: B018
    assert len(waiting(registry)) == 1
    assert about(settings_for("operator"), "left-1", "left-2") == []
    own_bridge.start().ready()
    wait_for(lambda: not waiting(registry), 15, own_bridge.log.read_text)
    ((_, record),) = about(settings_for("operator"), "left-1", "left-2")
    assert isinstance(record, Device)


def test_a_publisher_that_dies_before_its_mark_repeats_itself(
    registry: Registry, own_catalog: Catalog, settings_for: SettingsFor
) -> None:
    """Each again with the same revision, those of a device in order: who keeps the last revision takes each once."""
    badge, operator = own_catalog.type("badge"), settings_for("operator")

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
    registry: Registry, own_catalog: Catalog, settings_for: SettingsFor
) -> None:  # fmt: skip
    """Revisions rise in the order of commits, and each record is published once."""
    badge, settings, failures = own_catalog.type("badge"), settings_for("registry"), []
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
    weir: Weir, registry: Registry, settings_for: SettingsFor, stack: Stack, own_bridge: Process
) -> None:
    own_bridge.start().ready()
    with away(stack, "kafka"):
        done = weir("devices", "add", "badge", "later-1", "--site", "hall")
        assert "registered badge later-1" in done.stdout
        assert "the change stands in the registry" in done.stderr
        assert "nothing answers at Kafka's address" in done.stderr
        assert len(waiting(registry)) == 1
    wait_for(lambda: not waiting(registry), 40, own_bridge.log.read_text)
    assert {type(r) for _, r in about(settings_for("operator"), "later-1")} == {Device}


def test_what_kafka_has_had_for_long_is_trimmed(
    weir: Weir, registry: Registry, own_catalog: Catalog, stack: Stack, settings_for: SettingsFor
) -> None:
    """By the role that runs `weir etl expire`; what waits stays, however old."""
    owner, batch = Warehouse(owner_url(stack.secrets, stack.ports), "tests"), Warehouse.of(settings_for("batch"))
    weir("devices", "add", "badge", "trim-1", "--site", "hall")
    with registry.changes() as changes:
        changes.put(own_catalog.type("badge"), None, new_entry(own_catalog.type("badge"), "trim-2", "hall", changes.at))
    kept = "SELECT record::json ->> 'device' AS device FROM control_records WHERE record ~ 'trim-' ORDER BY revision"
    assert expire(batch, own_catalog, datetime.now(UTC))["all types"]["control_records"] == 0
    assert [row["device"] for row in owner.rows(kept)] == ["trim-1", "trim-2"]
    with owner.transaction() as connection:
        age = {"age": CONTROL_RECORDS_KEPT + timedelta(minutes=1)}
        connection.execute(text("UPDATE control_records SET published_at = published_at - CAST(:age AS interval)"), age)
    assert expire(batch, own_catalog, datetime.now(UTC))["all types"]["control_records"] > 0
    assert [row["device"] for row in owner.rows(kept)] == ["trim-2"]
    for warehouse in (owner, batch):
        warehouse.close()


def test_two_adds_of_one_device(registry: Registry, own_catalog: Catalog, weir: Weir) -> None:
    weir("devices", "add", "badge", "twice-1", "--site", "hall")
    assert "registered already" in weir("devices", "add", "badge", "twice-1", "--site", "hall", code=1).stderr
    with pytest.raises(RegistryError, match="no badge 'twice-2'"), registry.changes() as changes:
        changes.entry(own_catalog.type("badge"), "twice-2")


def test_the_log_can_be_told_again(weir: Weir, settings_for: SettingsFor) -> None:
    """For who came too late for its beginning: every spec, every site, and every device that is in service."""
    operator, own = settings_for("operator"), ("access", "racks")
    weir("devices", "add", "badge", "told-1", "--site", "hall")
    weir("devices", "add", "badge", "told-2", "--site", "hall")
    weir("devices", "retire", "badge", "told-2")
    before = max(r.revision for _, r in controls(operator))
    weir("devices", "publish")
    again = [(p, r) for p, r in controls(operator) if r.revision > before]
    listed = [e for e in json.loads(weir("devices", "list", "--json").stdout) if e["system"] in own]
    assert Counter((r.type, r.device) for _, r in again if isinstance(r, Device)) == Counter(
        (e["type"], e["device_id"]) for e in listed
    )
    sites = [p for p in json.loads(weir("sites", "list", "--json").stdout) if p["system"] in own]
    assert Counter((r.site, r.time_zone) for _, r in again if isinstance(r, Site)) == Counter(
        {(p["site"], p["time_zone"]): 4 * sum(q["site"] == p["site"] for q in sites) for p in sites}
    )
    specs = Counter(r.type for _, r in again if isinstance(r, Spec))
    assert specs == {"badge": 4, "beacon": 4, "rack": 4}
    assert len(again) == len(listed) + 4 * len(sites) + specs.total()
    assert max(r.revision for _, r in again if isinstance(r, Spec)) < min(
        r.revision for _, r in again if not isinstance(r, Spec)
    ), "devices of a type that is not known would be passed over"
