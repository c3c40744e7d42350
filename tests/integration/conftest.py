"""The servers, on ports of their own, for all integration tests; down before the end-to-end tests begin."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import text

from connections.lake import Lake
from connections.mqtt_publisher import BulkPublisher
from connections.registry import Registry
from connections.warehouse import Warehouse
from etl.run import Job
from fleet.catalog import Catalog, load_catalog
from fleet.settings import CHECKOUT, Settings
from stack.certificate import self_signed
from stack.ports import Ports
from stack.provision import provision_kafka
from stack.stack import Stack
from stack.supervisor import marked
from tests.command import Weir, command
from tests.conftest import JVM, own_home
from tests.integration.batch_runs import STRICT, TABLES
from tests.integration.commander_ground import Ground, commander_ground
from tests.integration.gateway_clients import Gateway
from tests.integration.processes import Process
from tests.integration.registry_log import TYPES
from tests.integration.small_lake import SmallLake
from tests.integration.store_servers import STORES, Place


@pytest.fixture(scope="package")
def stack() -> Iterator[Stack]:
    """Mosquitto, Kafka, TimescaleDB and Alertmanager, fresh, with Weir's topics, users and tables; down at the end."""
    with own_home() as home:
        running = Stack(home, Ports.free(), ("mosquitto", "kafka", "postgres", "alertmanager"), environ=JVM)
        running.up()
        try:
            yield running
        finally:
            running.down()
        assert marked(home) == []


@pytest.fixture(scope="package")
def settings_for(stack: Stack) -> Callable[[str], Settings]:
    """The settings of a role (operator, registry, bridge, landing, live, batch, simulator) on the tests' stack."""
    return stack.settings


@pytest.fixture(scope="package")
def places() -> Iterator[dict[str, Place]]:
    """Where a lake may lie besides this machine: each kind of store, with its servers."""
    with ExitStack() as held:
        home = held.enter_context(own_home())
        home.mkdir()
        yield {name: held.enter_context(made(home)) for name, made in STORES.items()}
    assert marked(home) == []


@pytest.fixture
def publisher(settings_for: Callable[[str], Settings]) -> Iterator[BulkPublisher]:
    publisher = BulkPublisher(settings_for("simulator"))
    yield publisher
    publisher.close(5)


@pytest.fixture(scope="package")
def own_types(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weir's own device types, and those of tests.integration.registry_log."""
    folder = tmp_path_factory.mktemp("registry") / "types"
    folder.mkdir()
    for spec in (CHECKOUT / "fleet" / "types").glob("*.yaml"):
        (folder / spec.name).write_text(spec.read_text())
    for name, spec_text in TYPES.items():
        (folder / f"{name}.yaml").write_text(spec_text)
    return folder


@pytest.fixture(scope="package")
def own_catalog(own_types: Path, stack: Stack) -> Catalog:
    catalog = load_catalog(own_types)
    provision_kafka(f"127.0.0.1:{stack.ports.kafka}", stack.secrets, catalog)
    return catalog


@pytest.fixture
def own_bridge(
    settings_for: Callable[[str], Settings], own_types: Path, own_catalog: Catalog, tmp_path: Path
) -> Iterator[Process]:
    with Process("bridge", settings_for("bridge"), tmp_path / "bridge.log", WEIR_TYPES_DIR=own_types) as process:
        yield process


@pytest.fixture
def gateway(
    settings_for: Callable[[str], Settings], own_types: Path, own_catalog: Catalog, tmp_path: Path
) -> Iterator[Gateway]:
    """Impatient: it waits 2 s for a body, and 3 s for Kafka."""
    with Gateway(
        settings_for("gateway"), tmp_path / "gateway.log",
        WEIR_TYPES_DIR=own_types, WEIR_GATEWAY_BODY_SECONDS=2, WEIR_GATEWAY_CONFIRM_SECONDS=3,
    ) as process:  # fmt: skip
        yield process


@pytest.fixture
def registry(settings_for: Callable[[str], Settings], own_catalog: Catalog) -> Iterator[Registry]:
    warehouse = Warehouse.of(settings_for("registry"))
    yield Registry(warehouse)
    warehouse.close()


@pytest.fixture(scope="module")
def yard(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """Lamps that obey, with the bridge of their system."""
    with commander_ground(stack, tmp_path_factory.mktemp("commander")) as made:
        yield made


@pytest.fixture
def ground(yard: Ground) -> Iterator[Ground]:
    """The yard with a commander that runs, unless the test stops it."""
    yard.process.start().ready()
    yield yard
    yard.process.kill()


@pytest.fixture(scope="package")
def weir(stack: Stack, own_types: Path, own_catalog: Catalog) -> Weir:
    return command(WEIR_HOME=stack.layout.home, WEIR_TYPES_DIR=own_types)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """good, other (another host's) and over (not valid any more): certificate and key."""
    folder = tmp_path_factory.mktemp("certificates")
    made = {
        "good": self_signed(["127.0.0.1"]),
        "other": self_signed(["other.example"]),
        "over": self_signed(["127.0.0.1"], datetime(2010, 1, 1, tzinfo=UTC)),
    }
    for name, (certificate, key) in made.items():
        (folder / f"{name}.pem").write_text(certificate)
        (folder / f"{name}.key").write_text(key)
    return {name: (folder / f"{name}.pem", folder / f"{name}.key") for name in made}


@pytest.fixture
def settings(settings_for: Callable[[str], Settings], tmp_path: Path) -> Settings:
    """The batch role on empty tables and an empty lake. Kafka is not asked: these lakes' offsets are our own."""
    types = tmp_path / "types"
    types.mkdir()
    for name in ("weather_station", "room_node"):
        (types / f"{name}.yaml").write_text((CHECKOUT / "fleet" / "types" / f"{name}.yaml").read_text())
    (types / "boiler.yaml").write_text(STRICT)
    found = settings_for("batch").model_copy(
        update={
            "home": tmp_path, "lake_uri": f"file://{tmp_path}/lake", "types_dir": types, "kafka_user": "",
            "spark_remote": SecretStr(""),
        }
    )  # fmt: skip
    warehouse = Warehouse.of(found)
    with warehouse.transaction() as c:
        for table in TABLES:
            c.execute(text(f"DELETE FROM {table}"))
    warehouse.close()
    return found


@pytest.fixture
def job(settings: Settings) -> Iterator[Job]:
    made = Job(settings)
    yield made
    made.warehouse.close()


@pytest.fixture
def lake(settings: Settings) -> SmallLake:
    return SmallLake(Lake(settings.lake))
