"""A gateway without servers: a deposit that keeps what it is given, and tokens that are there."""

from datetime import UTC, datetime, timedelta

from fleet.catalog import load_catalog
from fleet.channels import REJECTED
from fleet.credential import Credential, token_hash
from fleet.dead_letter import decode_dead_letter
from fleet.errors import Unavailable
from fleet.reading import decode_reading
from fleet.registry import new_entry
from fleet.settings import Settings
from streaming.admission import Admission
from streaming.badges import Badges
from streaming.gateway import Gate

SETTINGS = Settings()
CATALOG = load_catalog(SETTINGS.types_dir)
KEY = "key"
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)
DEVICES = {"lamp": "lamp-1", "room_climate": "c1", "room_node": "s5", "weather_station": "79"}
"""Type → a device of it that is registered, with the token `token_<type>`."""


class FakeDeposit:
    """As streaming.deposit.Deposit to those who put."""

    def __init__(self):
        self.records, self.problem, self.in_flight = [], "", 0

    async def put(self, records):
        if self.problem:
            raise Unavailable(self.problem)
        self.records += records

    @property
    def readings(self):
        return [(topic, decode_reading(value)) for topic, value, _ in self.records if topic != REJECTED]

    @property
    def letters(self):
        return [decode_dead_letter(value) for topic, value, _ in self.records if topic == REJECTED]


def credential(type_name, device_id, token, ends_at=None, number=1):
    return Credential(
        type=type_name, device_id=device_id, number=number, site="elsewhere", token_hash=token_hash(token, KEY),
        mqtt_hash="", issued_at=LONG_AGO, ends_at=ends_at,
    )  # fmt: skip


def gate(settings=SETTINGS, monotonic=lambda: 0.0):
    """Its deposit is a FakeDeposit; `token_old` has ended, `token_retired` and `token_nobody` are of a lamp that is
    retired, and of one that is not registered."""
    admission, badges = Admission(CATALOG), Badges(CATALOG, KEY)
    entries = [new_entry(CATALOG.type(t), d, "home-1", LONG_AGO) for t, d in DEVICES.items()]
    gone = new_entry(CATALOG.type("lamp"), "lamp-2", "home-1", LONG_AGO)
    entries.append(type(gone)(**{f: getattr(gone, f) for f in gone.__struct_fields__} | {"retired_at": LONG_AGO}))
    admission.learn(entries, 1)
    badges.learn_entries(entries)
    known = [credential(t, d, f"token_{t}") for t, d in DEVICES.items()]
    known.append(credential("lamp", "lamp-1", "token_old", LONG_AGO + timedelta(days=1), number=2))
    known.append(credential("lamp", "lamp-2", "token_retired"))
    known.append(credential("lamp", "lamp-3", "token_nobody"))
    badges.learn(known, 1)
    return Gate(settings, CATALOG, admission, badges, FakeDeposit(), monotonic)
