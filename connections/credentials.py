"""The table of devices' credentials. Changes take turns, as the registry's do, so that revisions rise in the order of
commits. A token is returned once, by the call that made it.
"""

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Connection, text

from connections.warehouse import Warehouse
from fleet.credential import TOKEN_BYTES, Credential, mosquitto_hash, token_hash, token_of
from fleet.errors import ConfigurationError, RegistryError
from fleet.settings import Settings
from fleet.spec import DeviceType

COLUMNS = "type, device_id, number, site, token_hash, mqtt_hash, issued_at, ends_at"


class Issued(NamedTuple):
    """`token` is told here and never again."""

    credential: Credential
    token: str


class CredentialChanges:
    """One transaction. `at` is its time."""

    def __init__(self, connection: Connection, key: str, revision: int, at: datetime):
        self._connection, self._key, self._revision, self.at = connection, key, revision, at

    def issue(
        self, spec: DeviceType, devices: Sequence[tuple[str, str | None]], ends_at: datetime | None = None
    ) -> list[Issued]:
        """First credentials of devices (id, site; None: as registered). Raises RegistryError where one has a valid one
        already, is retired, or is not registered and would not register itself."""
        entries, there = self._entries(spec, [d for d, _ in devices]), self._of(spec, [d for d, _ in devices])
        made = []
        for device_id, site in devices:
            before = there.get(device_id, [])
            if any(one.is_valid(self.at) for one in before):
                raise RegistryError(
                    f"{spec.type} {device_id} has a credential; `weir devices credentials rotate` renews it"
                )
            made.append(
                self._make(spec, device_id, _site(spec, device_id, entries.get(device_id), site), before, ends_at)
            )
        return self._insert(made)

    def rotate(self, spec: DeviceType, device_id: str, overlap: timedelta, ends_at: datetime | None = None) -> Issued:
        """A new one; those that are valid end after `overlap`, if not sooner."""
        before = self._of(spec, [device_id]).get(device_id, [])
        valid = [one for one in before if one.is_valid(self.at)]
        if not valid:
            raise RegistryError(
                f"{spec.type} {device_id[:80]} has no valid credential; `weir devices credentials issue` makes one"
            )
        self._end(valid, self.at + overlap)
        (issued,) = self._insert([self._make(spec, device_id, valid[-1].site, before, ends_at)])
        return issued

    def revoke(self, spec: DeviceType, device_id: str, number: int | None = None) -> int:
        """Ends all that are valid, or one of them, now. Returns how many."""
        valid = [
            one for one in self._of(spec, [device_id]).get(device_id, [])
            if one.is_valid(self.at) and number in (None, one.number)
        ]  # fmt: skip
        if not valid:
            which = "credential" if number is None else f"credential {number}"
            raise RegistryError(
                f"{spec.type} {device_id[:80]} has no valid {which}; `weir devices credentials list` shows all"
            )
        self._end(valid, self.at)
        return len(valid)

    def _make(
        self, spec: DeviceType, device_id: str, site: str, before: list[Credential], ends_at: datetime | None
    ) -> Issued:
        token = token_of(secrets.token_bytes(TOKEN_BYTES))
        credential = Credential(
            type=spec.type, device_id=device_id, number=max((one.number for one in before), default=0) + 1, site=site,
            token_hash=token_hash(token, self._key), mqtt_hash=mosquitto_hash(token, secrets.token_bytes(12)),
            issued_at=self.at, ends_at=ends_at,
        )  # fmt: skip
        return Issued(credential, token)

    def _insert(self, made: list[Issued]) -> list[Issued]:
        self._connection.execute(
            text(
                f"INSERT INTO credentials ({COLUMNS}, revision)"  # noqa: S608
                " VALUES (:type, :device_id, :number, :site, :token_hash,"
                " :mqtt_hash, :issued_at, :ends_at, :revision)"
            ),
            [{name: getattr(one.credential, name) for name in COLUMNS.split(", ")} | {"revision": self._revision}
             for one in made],
        )  # fmt: skip
        return made

    def _end(self, credentials: Sequence[Credential], at: datetime) -> None:
        self._connection.execute(
            text(
                "UPDATE credentials SET ends_at = least(ends_at, :at), revision = :revision"
                " WHERE type = :type AND device_id = :device_id AND number = ANY(:numbers)"
            ),
            {
                "at": at, "revision": self._revision, "type": credentials[0].type,
                "device_id": credentials[0].device_id, "numbers": [one.number for one in credentials],
            },
        )  # fmt: skip

    def _of(self, spec: DeviceType, device_ids: Sequence[str]) -> dict[str, list[Credential]]:
        rows = self._connection.execute(
            text(
                f"SELECT {COLUMNS} FROM credentials WHERE type = :type AND device_id = ANY(:ids)"  # noqa: S608
                " ORDER BY number"
            ),
            {"type": spec.type, "ids": list(device_ids)},
        ).mappings()
        found: dict[str, list[Credential]] = {}
        for row in rows:
            found.setdefault(row["device_id"], []).append(_credential(dict(row)))
        return found

    def _entries(self, spec: DeviceType, device_ids: Sequence[str]) -> dict[str, tuple[str, bool]]:
        rows = self._connection.execute(
            text(
                "SELECT device_id, site, retired_at IS NULL AS serves FROM devices"
                " WHERE type = :type AND device_id = ANY(:ids)"
            ),
            {"type": spec.type, "ids": list(device_ids)},
        )
        return {row.device_id: (row.site, row.serves) for row in rows}


def _site(spec: DeviceType, device_id: str, entry: tuple[str, bool] | None, site: str | None) -> str:
    if entry is not None:
        if not entry[1]:
            raise RegistryError(f"{spec.type} {device_id} is retired; `weir devices add` puts it into service again")
        if site not in (None, entry[0]):
            raise RegistryError(f"{spec.type} {device_id} stands at {entry[0]}; `weir devices set --site` moves it")
        return entry[0]
    if not spec.self_registration:
        raise RegistryError(f"the registry has no {spec.type} {device_id[:80]!r}; `weir devices add` makes one")
    if site is None:
        raise RegistryError(f"{spec.type} {device_id[:80]} is not registered yet: say where it stands with --site")
    return site


class Credentials:
    """Reading needs SELECT, changing the role `registry`."""

    def __init__(self, warehouse: Warehouse, key: str):
        """Raises ConfigurationError without a key."""
        if not key:
            raise ConfigurationError(
                "WEIR_CREDENTIALS_KEY is not set: `make setup` writes it into var/env/ for the roles that need it"
            )
        self.warehouse, self._key = warehouse, key

    @classmethod
    def of(cls, settings: Settings) -> "Credentials":
        return cls(Warehouse.of(settings), settings.credentials_key.get_secret_value())

    @contextmanager
    def changes(self) -> Iterator[CredentialChanges]:
        with self.warehouse.transaction() as connection:
            row = connection.execute(
                text("UPDATE registry SET credentials = credentials + 1 RETURNING credentials, clock_timestamp() AS at")
            ).one()
            yield CredentialChanges(connection, self._key, row.credentials, row.at.astimezone(UTC))

    def revision(self) -> int:
        """Cheap: asked each second."""
        (row,) = self.warehouse.rows("SELECT credentials FROM registry")
        return int(row["credentials"])

    def all(self, after: int = 0, type_name: str | None = None, device_id: str | None = None) -> list[Credential]:
        """By type, device and number, ended ones too. `after`: only those that a revision above it changed."""
        rows = self.warehouse.rows(
            f"SELECT {COLUMNS} FROM credentials WHERE revision > :after"  # noqa: S608
            " AND (CAST(:type AS text) IS NULL OR type = :type) AND (CAST(:id AS text) IS NULL OR device_id = :id)"
            " ORDER BY type, device_id, number",
            after=after, type=type_name, id=device_id,
        )  # fmt: skip
        return [_credential(row) for row in rows]


def _credential(row: dict[str, Any]) -> Credential:
    ends_at = row["ends_at"]
    return Credential(
        **row
        | {
            "token_hash": bytes(row["token_hash"]),
            "issued_at": row["issued_at"].astimezone(UTC),
            "ends_at": ends_at and ends_at.astimezone(UTC),
        }
    )
