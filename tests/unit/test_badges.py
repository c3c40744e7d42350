"""Whose a token is, who may log in to the broker, and the files that say so."""

import signal
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from connections import mqtt_logins
from fleet.errors import Unavailable
from fleet.problem import Refused
from fleet.registry import new_entry
from fleet.settings import Settings
from stack.render import rendered
from streaming.badges import BadgeOffice, Badges
from tests.unit import gateway

NOW = datetime(2026, 11, 29, tzinfo=UTC)


def badges(*credentials, moved_to=None, retired=False):
    made = Badges(gateway.CATALOG, gateway.KEY)
    made.learn(credentials, 1)
    if moved_to or retired:
        entry = new_entry(gateway.CATALOG.type("lamp"), "lamp-1", moved_to or "home-1", NOW)
        fields = {f: getattr(entry, f) for f in entry.__struct_fields__} | {"retired_at": NOW if retired else None}
        made.learn_entries([type(entry)(**fields)])
    return made


LAMP = gateway.credential("lamp", "lamp-1", "t1")
ENDED = gateway.credential("lamp", "lamp-1", "t2", NOW, number=2)
ENDING = gateway.credential("lamp", "lamp-1", "t3", NOW + timedelta(seconds=5), number=3)
GONE = gateway.credential("gone", "x", "t4")


def test_a_token_is_its_devices_where_the_registry_has_it():
    assert badges(LAMP).of("t1", NOW).address == ("home", "elsewhere", "lamp", "lamp-1", None)
    assert badges(LAMP, moved_to="home-7").of("t1", NOW).address.site == "home-7"


@pytest.mark.parametrize(
    ("token", "reason"),
    [("", "no_token"), ("t9", "wrong_token"), ("t2", "token_ended"), ("t4", "wrong_token")],
    ids=["none", "nobody's", "ended", "of a type that is gone"],
)
def test_who_is_refused(token, reason):
    with pytest.raises(Refused) as refused:
        badges(LAMP, ENDED, GONE).of(token, NOW)
    assert refused.value.reason == reason


def test_before_the_table_was_read_nobody_is_wrong():
    with pytest.raises(Refused) as refused:
        Badges(gateway.CATALOG, gateway.KEY).of("t1", NOW)
    assert refused.value.reason == "registry_unavailable"


@pytest.mark.parametrize(
    ("made", "users", "next_end"),
    [
        (badges(LAMP, ENDED, ENDING, GONE), ["lamp/lamp-1/1", "lamp/lamp-1/3"], NOW + timedelta(seconds=5)),
        (badges(ENDED), [], None),
        (badges(LAMP, retired=True), [], None),
    ],
    ids=["valid ones", "an ended one", "a retired device"],
)
def test_who_may_log_in(made, users, next_end):
    assert [credential.user for credential, _ in made.logins(NOW)] == users
    assert made.next_end(NOW) == next_end


def test_files_are_written_where_something_is_another(tmp_path: Path):
    logins = badges(LAMP, ENDING).logins(NOW)
    assert mqtt_logins.write(tmp_path, logins)
    assert not mqtt_logins.write(tmp_path, logins)
    assert mqtt_logins.write(tmp_path, logins[:1])
    assert (tmp_path / mqtt_logins.PASSWORDS).read_text() == "lamp/lamp-1/1:\n"
    assert (tmp_path / mqtt_logins.RIGHTS).read_text().startswith("user lamp/lamp-1/1\ntopic write dt/home/elsewhere/")
    assert {path.name for path in tmp_path.iterdir()} == {mqtt_logins.PASSWORDS, mqtt_logins.RIGHTS}


def until(path: Path, said: str) -> None:
    deadline = time.monotonic() + 60
    while not (path.is_file() and said in path.read_text()):
        assert time.monotonic() < deadline, path.read_text() if path.is_file() else "nothing"
        time.sleep(0.05)


@pytest.fixture
def broker(tmp_path: Path):
    """A stand-in that says into `told` when it is told to read again, and its folders; `errors`: of the script."""
    folders = {name: tmp_path / f"a 'deep' {name}" for name in ("config", "mqtt_devices", "mosquitto_data")}
    for folder in folders.values():
        folder.mkdir()
    for kind in ("acl", "passwd"):
        (folders["config"] / f"mosquitto.{kind}").write_text(f"services' {kind}\n")
    script, stand_in, told = tmp_path / "start.sh", tmp_path / "broker.sh", tmp_path / "told"
    script.write_text(rendered("mosquitto/mosquitto.sh.j2", folders))
    stand_in.write_text(
        f"trap 'echo again >> {told}' HUP\ntrap exit TERM\necho up > {told}\nwhile :; do sleep 0.1; done\n"
    )
    with (
        (tmp_path / "errors").open("w") as errors,
        subprocess.Popen(
            ["env", "--default-signal=HUP", "sh", script, "sh", stand_in], stderr=errors, start_new_session=True
        ) as process,
    ):
        try:
            until(told, "up")
            yield folders | {"told": told, "errors": tmp_path / "errors"}
        finally:
            process.send_signal(signal.SIGTERM)


def test_the_broker_reads_both_again_when_the_devices_change(broker):
    passwords = broker["mosquitto_data"] / "passwd"
    assert passwords.read_text() == "services' passwd\n"
    assert passwords.stat().st_mode & 0o077 == 0
    mqtt_logins.write(broker["mqtt_devices"], badges(LAMP).logins(NOW))
    until(passwords, "services' passwd\nlamp/lamp-1/1:\n")
    until(broker["told"], "again")


def test_what_cannot_be_put_together_is_tried_again(broker):
    services = broker["config"] / "mosquitto.passwd"
    services.rename(away := services.with_name("away"))
    mqtt_logins.write(broker["mqtt_devices"], badges(LAMP).logins(NOW))
    until(broker["errors"], "No such file")
    away.rename(services)
    until(broker["mosquitto_data"] / "passwd", "services' passwd\nlamp/lamp-1/1:\n")
    until(broker["told"], "again")


class Table:
    """As connections.credentials.Credentials to the office; `is_away`: it raises."""

    is_away = False

    def revision(self):
        if self.is_away:
            raise Unavailable("the database is away")
        return 1

    def all(self, after):
        return [LAMP, ENDING]


def test_a_login_ends_while_the_database_is_away(tmp_path: Path):
    known = badges(LAMP, ENDING, moved_to="home-1")
    office = BadgeOffice(Settings(home=tmp_path, credentials_key="key", db_url="postgresql+psycopg2://"), known)
    office.credentials = Table()
    passwords = tmp_path / "mqtt" / mqtt_logins.PASSWORDS
    passwords.parent.mkdir()
    office.step(NOW)
    assert passwords.read_text() == "lamp/lamp-1/1:\nlamp/lamp-1/3:\n"
    office.credentials.is_away = True
    with pytest.raises(Unavailable):
        office.step(NOW + timedelta(seconds=5))
    assert passwords.read_text() == "lamp/lamp-1/1:\n"
