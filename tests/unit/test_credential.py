"""Tokens, their hashes, and what a credential may do at the MQTT broker."""

import base64
import hashlib
from datetime import UTC, datetime, timedelta

import pytest

from fleet.catalog import load_catalog
from fleet.credential import Credential, acl_of, mosquitto_hash, token_hash, token_of
from fleet.settings import Settings

CATALOG = load_catalog(Settings().types_dir)
NOW = datetime(2026, 11, 29, tzinfo=UTC)


def credential(type_name="lamp", device_id="lamp-1", number=1, ends_at=None):
    return Credential(
        type=type_name, device_id=device_id, number=number, site="home-1", token_hash=b"", mqtt_hash="",
        issued_at=NOW, ends_at=ends_at,
    )  # fmt: skip


def test_a_token_is_known_for_one_and_has_all_its_bits():
    token = token_of(bytes(range(32)))
    assert token.startswith("weir_")
    assert base64.urlsafe_b64decode(token.removeprefix("weir_") + "=") == bytes(range(32))


def test_a_hash_is_of_the_token_and_the_key():
    hashes = {token_hash(token, key) for token in ("weir_a", "weir_b") for key in ("k1", "k2")}
    assert len(hashes) == 4
    assert token_hash("weir_a", "k1") in hashes
    assert token_hash("\udc80 no text", "k1") not in hashes


def test_mosquitto_hash_is_pbkdf2_with_its_salt():
    _, kind, rounds, salt, digest = mosquitto_hash("secret", b"0123456789ab").split("$")
    assert (kind, rounds) == ("7", "101")
    assert base64.b64decode(salt) == b"0123456789ab"
    assert base64.b64decode(digest) == hashlib.pbkdf2_hmac("sha512", b"secret", b"0123456789ab", 101, 64)


@pytest.mark.parametrize(
    ("ends_in", "valid"),
    [(None, True), (timedelta(seconds=1), True), (timedelta(0), False), (-timedelta(seconds=1), False)],
    ids=["never", "later", "now", "before"],
)
def test_it_is_valid_until_its_end(ends_in, valid):
    assert credential(ends_at=None if ends_in is None else NOW + ends_in).is_valid(NOW) is valid


def test_a_user_has_no_colon_and_no_two_are_alike():
    users = [credential(device_id=d, number=n).user for d in ("a:b", "a-b", "a.b") for n in (1, 2)]
    assert len(set(users)) == len(users)
    assert not any(":" in user for user in users)


@pytest.mark.parametrize(
    ("type_name", "lines"),
    [
        (
            "lamp",
            [
                "user lamp/lamp-1/1",
                "topic write dt/home/attic/lamp/lamp-1",
                "topic read cmd/home/attic/lamp/lamp-1",
                "topic write cmd/home/attic/lamp/lamp-1/answer",
                "topic read rejected/home/attic/lamp/lamp-1",
            ],
        ),
        (
            "room_node",
            [
                "user room_node/lamp-1/1",
                "topic write dt/occupancy/attic/room_node/lamp-1/+",
                "topic read cmd/occupancy/attic/room_node/lamp-1",
                "topic write cmd/occupancy/attic/room_node/lamp-1/answer",
                "topic read rejected/occupancy/attic/room_node/lamp-1",
            ],
        ),
    ],
    ids=["one message", "one metric a message"],
)
def test_rights_are_of_its_own_topics_where_it_stands_now(type_name, lines):
    assert acl_of(CATALOG.type(type_name), credential(type_name), "attic").splitlines() == lines
