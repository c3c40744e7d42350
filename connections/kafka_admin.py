"""What an administrator does to Kafka: topics, users, rights. All of it can be done again without harm."""

import time
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from fleet.errors import Refused, Unavailable

GROUPS_SECONDS = 20
"""How long a broker that has just started may take to make, or to read, what it keeps of consumer groups."""


class Right(NamedTuple):
    """`resource`: topic, group, cluster or transactional_id. A name that ends in `*` is a prefix (`*` alone is all)."""

    user: str
    operation: str
    resource: str
    name: str


class KafkaAdmin:
    def __init__(self, bootstrap: str, user: str, password: str, seconds: float = 5) -> None:
        """Raises Unavailable: kafka-python tells a wrong password and a dead broker apart as little as we can."""
        from kafka import KafkaAdminClient
        from kafka.errors import KafkaError

        try:
            self._client: Any = KafkaAdminClient(
                bootstrap_servers=bootstrap, security_protocol="SASL_PLAINTEXT", sasl_mechanism="SCRAM-SHA-512",
                sasl_plain_username=user, sasl_plain_password=password, client_id="weir-admin",
                bootstrap_timeout_ms=int(seconds * 1000), request_timeout_ms=max(10_000, int(seconds * 1000)),
            )  # fmt: skip
        except KafkaError as error:
            raise Unavailable(
                f"Kafka at {bootstrap} as {user!r}: {error} (is it up, and is the password right?)"
            ) from None

    def __enter__(self) -> "KafkaAdmin":
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def topics(self) -> list[str]:
        return list(self._client.list_topics())

    def ensure_topics(
        self, partitions: Mapping[str, int], configs: Mapping[str, Mapping[str, str]] | None = None
    ) -> list[str]:
        """Create what is missing; returns those. Partitions are never changed: keys would move. `configs`: topic →
        its own settings, where it has some."""
        from kafka.admin import NewTopic

        there = set(self.topics())
        missing = [
            NewTopic(name, count, 1, topic_configs=dict((configs or {}).get(name, {})))
            for name, count in partitions.items()
            if name not in there
        ]
        if missing:
            self._client.create_topics(missing)
        return [topic.name for topic in missing]

    def ensure_users(self, passwords: Mapping[str, str]) -> None:
        """Set the SCRAM-SHA-512 password of each user. Raises Refused with the broker's reason."""
        from kafka.admin import ScramMechanism, UserScramCredentialUpsertion

        told = self._client.alter_user_scram_credentials([
            UserScramCredentialUpsertion(user, ScramMechanism.SCRAM_SHA_512, password.encode(), iterations=4096)
            for user, password in passwords.items()
        ])  # fmt: skip
        refused = {user: error for user, error in told.items() if error}
        if refused:
            raise Refused(f"Kafka did not set these users' passwords: {refused}")

    def forget_member(self, group: str, instance: str) -> None:
        """Take a fixed member that has stopped out of its consumer group; nothing happens where there is none."""
        from kafka.admin import MemberToRemove
        from kafka.errors import GroupIdNotFoundError, KafkaError, NoError, UnknownMemberIdError

        told: Mapping[str, Any] = {}
        deadline = time.monotonic() + GROUPS_SECONDS
        while True:
            try:
                told = self._client.remove_group_members(group, [MemberToRemove(group_instance_id=instance)])
                break
            except (GroupIdNotFoundError, UnknownMemberIdError):
                break
            except KafkaError as error:
                if not error.retriable or time.monotonic() > deadline:
                    raise Unavailable(f"Kafka did not take {instance!r} out of the group {group!r}: {error}") from None
            time.sleep(0.2)
        refused = {name: kind for name, kind in told.items() if kind not in (UnknownMemberIdError, NoError)}
        if refused:
            raise Refused(f"Kafka did not take {instance!r} out of the group {group!r}: {refused}")

    def ensure_rights(self, rights: Iterable[Right]) -> None:
        from kafka.admin import (
            ACL,
            ACLOperation,
            ACLPermissionType,
            ACLResourcePatternType,
            ResourcePattern,
            ResourceType,
        )

        acls = []
        for right in rights:
            prefixed = right.name.endswith("*") and right.name != "*"
            kind = ACLResourcePatternType.PREFIXED if prefixed else ACLResourcePatternType.LITERAL
            pattern = ResourcePattern(
                ResourceType[right.resource.upper()], right.name[:-1] if prefixed else right.name, kind
            )
            acls.append(
                ACL(f"User:{right.user}", "*", ACLOperation[right.operation.upper()], ACLPermissionType.ALLOW, pattern)
            )
        told = self._client.create_acls(acls)
        if told.get("failed"):
            raise Refused(f"Kafka did not take these rights: {told['failed']}")
