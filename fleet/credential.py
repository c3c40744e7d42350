"""What a device shows to be let in: a token of 256 random bits, of which only a keyed hash is kept. Pure.

The same token serves HTTP, CoAP and, as the password of the credential's own user, MQTT.
See docs/decisions/0041.
"""

import base64
import hashlib
from datetime import datetime

import msgspec

from fleet.channels import Address, answer_topic, command_topic, data_topic, rejection_topic
from fleet.spec import DeviceType

PREFIX = "weir_"
"""By which a token is known for one, in a log or a repository where it does not belong."""
TOKEN_BYTES = 32
MQTT_ROUNDS = 101
"""As mosquitto_passwd's own. More would slow no guess at 256 random bits, and slows each connect."""


class Credential(msgspec.Struct, frozen=True, kw_only=True):
    """One of a device's, by number from 1. `site`: where the device stood when it was issued. `ends_at` None: never."""

    type: str
    device_id: str
    number: int
    site: str
    token_hash: bytes
    mqtt_hash: str
    issued_at: datetime
    ends_at: datetime | None = None

    @property
    def device(self) -> tuple[str, str]:
        return self.type, self.device_id

    @property
    def user(self) -> str:
        """At the MQTT broker. Each credential has its own, so that an old and a new one are valid side by side. A colon
        would end the name in the broker's file; no device id has a tilde."""
        return f"{self.type}/{self.device_id}/{self.number}".replace(":", "~")

    def is_valid(self, now: datetime) -> bool:
        return self.ends_at is None or now < self.ends_at


def token_of(random: bytes) -> str:
    """Of TOKEN_BYTES random bytes."""
    return PREFIX + base64.urlsafe_b64encode(random).decode().rstrip("=")


def token_hash(token: str, key: str) -> bytes:
    """Keyed by a secret that is not in the database: a copy of the table lets nobody in, nor does a row put into it.
    A microsecond; what is guessed at has 256 bits, so that a slow hash would protect nothing more."""
    return hashlib.blake2b(token.encode("utf-8", "replace"), key=key.encode()[:64], digest_size=32).digest()


def mosquitto_hash(password: str, salt: bytes) -> str:
    """As mosquitto_passwd writes it: PBKDF2 with SHA-512."""
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, MQTT_ROUNDS, 64)
    return f"$7${MQTT_ROUNDS}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"


def acl_of(spec: DeviceType, credential: Credential, site: str) -> str:
    """The broker's lines of one credential: its device's own topics and nothing else. `site`: where it stands now."""
    address = Address(spec.system, site, spec.type, credential.device_id)
    own = data_topic(address) + ("/+" if spec.adapter.form == "feature" else "")
    return (
        f"user {credential.user}\n"
        f"topic write {own}\n"
        f"topic read {command_topic(address)}\n"
        f"topic write {answer_topic(address)}\n"
        f"topic read {rejection_topic(address)}\n"
    )
