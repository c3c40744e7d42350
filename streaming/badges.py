"""Whose a token is: the credentials as the gateway remembers them, and the thread that keeps them as the table is.

Requests ask from the event loop, the thread changes: each step of either is one operation on a dict.
"""

import logging
import threading
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import NamedTuple

from connections import mqtt_logins
from connections.credentials import Credentials
from fleet.catalog import Catalog
from fleet.channels import Address
from fleet.credential import Credential, acl_of, token_hash
from fleet.problem import Refused
from fleet.registry import Entry
from fleet.settings import Settings

LOOK_SECONDS = 1.0
"""As the registrar: a change takes effect within it."""
MAX_TOKEN = 256

log = logging.getLogger("weir.gateway")


class Badge(NamedTuple):
    """Who sends: the device that the token was given to, where it stands now."""

    address: Address

    @property
    def device(self) -> tuple[str, str]:
        return self.address.type, self.address.device_id


class Badges:
    def __init__(self, catalog: Catalog, key: str):
        self._types, self._key = catalog.types, key
        self._by_hash: dict[bytes, Credential] = {}
        self._entries: dict[tuple[str, str], Entry] = {}
        self.revision = self.moves = 0
        """Of the table, as far as it is known here; and how often the registry told of devices."""
        self.is_known = threading.Event()
        """Set once the table has been read; before, nobody is refused for a wrong token."""

    def __len__(self) -> int:
        return len(self._by_hash)

    def of(self, token: str, now: datetime) -> Badge:
        """Raises Refused."""
        if not token:
            raise Refused("no_token", "send the device's token: `weir devices credentials issue` makes one")
        credential = self._by_hash.get(token_hash(token[:MAX_TOKEN], self._key))
        if credential is None:
            if not self.is_known.is_set():
                raise Refused("registry_unavailable", "who may send is not known yet", retry_after=5)
            raise Refused("wrong_token", "`weir devices credentials list` shows which devices have one")
        if credential.ends_at is not None and now >= credential.ends_at:
            said = f"credential {credential.number} of {credential.type} {credential.device_id} ended"
            raise Refused("token_ended", f"{said} {credential.ends_at:%Y-%m-%d %H:%M:%S} UTC")
        spec = self._types.get(credential.type)
        if spec is None:
            raise Refused("wrong_token", f"it is of type {credential.type}, which no spec defines any more")
        return Badge(Address(spec.system, self._site(credential), spec.type, credential.device_id))

    def learn(self, credentials: Iterable[Credential], revision: int) -> None:
        for credential in credentials:
            self._by_hash[credential.token_hash] = credential
        self.revision = revision
        self.is_known.set()

    def learn_entries(self, entries: Iterable[Entry]) -> None:
        """Where devices stand, by the registry."""
        for entry in entries:
            self._entries[entry.key] = entry
        self.moves += 1

    def next_end(self, now: datetime) -> datetime | None:
        """When the next credential ends of those that are valid."""
        ends = (one.ends_at for one in self._by_hash.values() if one.ends_at is not None)
        return min((end for end in ends if end > now), default=None)

    def logins(self, now: datetime) -> list[tuple[Credential, str]]:
        """Who may log in to the MQTT broker, with its rights, in a fixed order."""
        found = []
        for one in sorted(self._by_hash.values(), key=lambda c: (c.type, c.device_id, c.number)):
            entry, spec = self._entries.get(one.device), self._types.get(one.type)
            if spec is not None and one.is_valid(now) and (entry is None or entry.retired_at is None):
                found.append((one, acl_of(spec, one, self._site(one))))
        return found

    def _site(self, credential: Credential) -> str:
        entry = self._entries.get(credential.device)
        return credential.site if entry is None else entry.site


class BadgeOffice:
    """Keeps badges, and the broker's files of them, as the table is. While the database is away those known hold."""

    def __init__(self, settings: Settings, badges: Badges):
        """Raises ConfigurationError."""
        self.badges, self.credentials = badges, Credentials.of(settings)
        self._folder = settings.home / "mqtt"
        self._written: tuple[int, int] | None = None
        self._until: datetime | None = None
        """The state of the badges that the broker's files are of, and when it ends by itself."""

    def run(self, stop: threading.Event, under_way: Callable[[], None] = lambda: None) -> None:
        """Until `stop`, or until the database fails."""
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            while not stop.is_set():
                self.step(datetime.now(UTC))
                under_way()
                stop.wait(LOOK_SECONDS)
        finally:
            self.credentials.warehouse.close()

    def step(self, now: datetime) -> None:
        """Raises Unavailable where the database is away; the broker's files are of what is known all the same."""
        try:
            revision = self.credentials.revision()
            if revision != self.badges.revision or not self.badges.is_known.is_set():
                self.badges.learn(self.credentials.all(after=self.badges.revision), revision)
                log.info("credentials=%d revision=%d", len(self.badges), revision)
        finally:
            self._tell_the_broker(now)

    def _tell_the_broker(self, now: datetime) -> None:
        state = (self.badges.revision, self.badges.moves)
        if self.badges.moves and (state != self._written or (self._until and now >= self._until)):
            self._until = self.badges.next_end(now)
            if mqtt_logins.write(self._folder, self.badges.logins(now)):
                log.info("the MQTT broker's logins of devices are written anew")
            self._written = state
