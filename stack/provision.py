"""What the servers need before a client comes: Kafka's topics, users and rights; the database's logins and tables."""

from collections.abc import Mapping

from connections import warehouse_admin
from connections.kafka import instance_id
from connections.kafka_admin import KafkaAdmin, Right
from fleet.catalog import Catalog
from fleet.channels import (
    ALERTS_GROUP,
    OWN_TYPE,
    REJECTED,
    TRANSITIONS,
    feature_topics,
    kafka_topics,
    state_topic,
    topic_configs,
    topics_of_obeying,
)
from fleet.settings import Settings
from stack.credentials import DB_LOGINS, ROLES

WAREHOUSE = "weir"
AIRFLOW_DATABASE = "weir_airflow"


def kafka_rights(catalog: Catalog) -> list[Right]:
    """Who may do what, and nothing beyond it. An idempotent producer needs no more than WRITE on its topics."""
    readings = [system.topic for system in catalog.systems.values()]
    features = [name for system in catalog.systems.values() for name in feature_topics(system)]
    rights = []
    for topic in [*readings, *features, REJECTED]:
        for user in ("bridge", "gateway"):
            rights += [Right(user, operation, "topic", topic) for operation in ("write", "describe")]
    own = {catalog.types[OWN_TYPE].topic} if OWN_TYPE in catalog.types else set()
    for topic in [*readings, *features]:
        if topic in own:  # nothing simulates Weir's own services
            continue
        rights += [Right("simulator", operation, "topic", topic) for operation in ("write", "describe")]
    for topic in [*readings, REJECTED, TRANSITIONS]:
        rights += [Right("landing", operation, "topic", topic) for operation in ("read", "describe")]
    for topic in readings:
        # Control records stand among the readings. Kafka's rights know no headers: who may write one may write both.
        rights += [Right("registry", operation, "topic", topic) for operation in ("write", "describe")]
        rights += [Right("live", operation, "topic", topic) for operation in ("read", "describe")]
        rights += [Right("alerts", operation, "topic", topic) for operation in ("read", "describe")]
        rights += [Right("stream", operation, "topic", topic) for operation in ("read", "describe")]
    for topic in topics_of_obeying(catalog):
        rights += [Right("commander", operation, "topic", topic) for operation in ("read", "describe")]
    for topic in readings:
        # What the quarantine gives back.
        rights += [Right("batch", operation, "topic", topic) for operation in ("write", "describe")]
    for topic in own:  # each service reports of itself; bridge and gateway may write it already
        for user in ("landing", "live", "alerts", "history", "dispatcher", "commander"):
            rights += [Right(user, operation, "topic", topic) for operation in ("write", "describe")]
    # … and rows of files, of which some are none.
    for topic in [*features, REJECTED]:
        rights += [Right("batch", operation, "topic", topic) for operation in ("write", "describe")]
    for system in catalog.systems:
        rights += [
            Right("alerts", operation, "topic", state_topic(system)) for operation in ("read", "write", "describe")
        ]
    rights += [Right("alerts", operation, "topic", TRANSITIONS) for operation in ("write", "describe")]
    rights += [Right("alerts", operation, "transactional_id", "alerts*") for operation in ("write", "describe")]
    for user in ("history", "dispatcher", "commander"):
        rights += [Right(user, operation, "topic", TRANSITIONS) for operation in ("read", "describe")]
    for user in ("landing", "live", "alerts", "stream", "batch", "operator"):
        rights.append(Right(user, "read", "group", f"{user}*"))
    for user in ("batch", "operator"):
        rights += [Right(user, operation, "topic", "*") for operation in ("read", "describe")]
    rights.append(Right("batch", "describe", "group", ALERTS_GROUP))  # how far they have come, for the parity audit
    rights.append(Right("dispatcher", "describe", "group", ALERTS_GROUP))  # … and for heartbeats to receivers
    rights += [
        Right("operator", "describe_configs", "topic", "*"),
        Right("operator", "describe", "group", "*"),
        Right("operator", "describe", "cluster", "kafka-cluster"),
    ]
    return rights


def provision_kafka(bootstrap: str, secrets: Mapping[str, str], catalog: Catalog) -> list[str]:
    """Returns the topics that were made."""
    with KafkaAdmin(bootstrap, "admin", secrets["KAFKA_ADMIN"], seconds=10) as admin:
        made = admin.ensure_topics(kafka_topics(catalog), topic_configs(catalog))
        admin.ensure_users({role: secrets[f"KAFKA_{role.upper()}"] for role in ROLES})
        admin.ensure_rights(kafka_rights(catalog))
        return made


def forget_member(bootstrap: str, secrets: Mapping[str, str], service: str, settings: Settings) -> None:
    """A worker keeps its partitions over a quick restart, and so would not get those of a topic that is new to it:
    before the stack starts one, Kafka forgets the one that stopped."""
    with KafkaAdmin(bootstrap, "admin", secrets["KAFKA_ADMIN"], seconds=10) as admin:
        admin.forget_member(service, instance_id(settings, service))


def provision_database(admin_url: str, secrets: Mapping[str, str], own_server: bool) -> None:
    """Logins, the two databases, the extension. `admin_url` is a superuser's on a server of ours."""
    database = WAREHOUSE
    if not own_server:
        database = admin_url.rpartition("/")[2].partition("?")[0]
        warehouse_admin.ensure_timescaledb(admin_url)
    logins = [login for login in DB_LOGINS if own_server or login != "weir"]
    warehouse_admin.ensure_logins(admin_url, {login: secrets[f"DB_{login.upper()}"] for login in logins})
    if own_server:
        readers = tuple(login for login in DB_LOGINS if login not in ("weir", "weir_airflow"))
        warehouse_admin.ensure_database(admin_url, database, "weir", readers)
        warehouse_admin.ensure_timescaledb(admin_url, database, own_server)
    warehouse_admin.ensure_database(admin_url, AIRFLOW_DATABASE, "weir_airflow")


def migrate(owner_url: str) -> None:
    """The warehouse's tables, as their owner."""
    from connections import warehouse

    warehouse.migrate(Settings.from_values({"WEIR_DB_URL": owner_url, "WEIR_ROLE": "owner"}))
