"""Files that are dropped, onto the real Kafka and into the real tables, by the command itself."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from kafka import TopicPartition

from connections import kafka
from connections.warehouse import Warehouse
from etl.inbox_folder import SETTLED_SECONDS
from fleet.channels import OWN_TYPE, REJECTED, RETURNED, mark_of
from fleet.dead_letter import decode_dead_letter
from fleet.reading import decode_reading
from fleet.settings import CHECKOUT, Settings
from tests.command import Weir, command
from tests.integration.broken_off import Commands, Point
from tests.integration.logs import readings, records

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]
SettingsFor = Callable[[str], Settings]
TYPE = "weather_station"
HOUR = datetime(2026, 11, 20, 7, tzinfo=UTC)


class Inbox:
    def __init__(self, settings_for: SettingsFor, home: Path):
        self.settings, self.path = settings_for("batch"), home / "inbox"
        (self.path / TYPE).mkdir(parents=True)
        self.environment = {
            "WEIR_ENV_FILE": str(self.settings.env_file), "WEIR_HOME": str(home), "WEIR_INBOX": str(self.path),
            "WEIR_TYPES_DIR": str(CHECKOUT / "fleet" / "types"),
        }  # fmt: skip
        self.weir: Weir = command(**self.environment)
        self.warehouse = Warehouse.of(self.settings)
        self._start = self._ends()

    def drop(self, name: str, content: str | bytes, age: float = 60, folder: str = TYPE) -> Path:
        path = self.path / folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        self.written(path, age)
        return path

    @staticmethod
    def written(path: Path, age: float) -> None:
        moment = time.time() - age
        os.utime(path, (moment, moment))

    def take(self, code: int = 0) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.weir("inbox", "take", "--json", code=code).stdout)
        return found

    def lying(self) -> set[str]:
        """Without the numbers that names get."""
        found = (p.relative_to(self.path) for p in self.path.rglob("*") if p.is_file() and p.name != ".lock")
        return {
            f"{p.parent}/{p.name.partition('-')[2] if p.parts[0].startswith('.') else p.name}" for p in found
        }  # fmt: skip

    def _topics(self) -> list[str]:
        return ["sensor", "readings.occupancy", REJECTED]

    def _ends(self) -> dict[TopicPartition, int]:
        consumer = kafka.consumer(self.settings, "tests-end")
        found = kafka.end_offsets(consumer, self._topics())
        consumer.close()
        return dict(found)

    def _new(self, topic: str, all_records: Callable[..., Any]) -> list[Any]:
        return [
            r for r in all_records(self.settings, topic) if r.offset >= self._start[TopicPartition(topic, r.partition)]
        ]

    def written_to_kafka(self, topic: str = "sensor") -> list[Any]:
        """(device, time, values, mark) of each reading since the test began."""
        found = []
        for record in self._new(topic, readings):
            reading = decode_reading(record.value)
            found.append((reading.device_id, reading.event_time, dict(reading.values), mark_of(record.headers)))
        return sorted(found, key=lambda one: (one[1], one[0]))

    def letters(self) -> list[Any]:
        return [decode_dead_letter(record.value) for record in self._new(REJECTED, records)]


@pytest.fixture
def inbox(settings_for: SettingsFor, tmp_path: Path) -> Iterator[Inbox]:
    made = Inbox(settings_for, tmp_path)
    yield made
    made.warehouse.close()


def csv(device: str, rows: int, first: datetime = HOUR) -> str:
    lines = (f"{device},{(first + timedelta(seconds=2 * i)).isoformat()},{20 + i % 9}" for i in range(rows))
    return "\n".join(["device_id,event_time,temperature", *lines, ""])


def test_rows_go_where_readings_go_once(inbox: Inbox, tmp_path: Path) -> None:
    name = tmp_path.name
    content = csv(name, 3) + f"{name},{HOUR.isoformat()},warm\n{name},2026\n"
    inbox.drop("roof.csv", content)
    inbox.drop("copy.csv", content)
    first, second = inbox.take()
    assert (first["name"], first["outcome"], first["rows"], first["readings"], first["old"], first["rejected"]) == (
        "copy.csv", "taken", 5, 3, 3, 2,
    )  # fmt: skip
    assert (second["name"], second["outcome"]) == ("roof.csv", "already_taken")
    assert "taken as copy.csv at" in second["detail"]
    assert [(d, v, mark) for d, _, v, mark in inbox.written_to_kafka()] == [
        (name, {"temperature": 20.0 + i}, RETURNED) for i in range(3)
    ]
    assert [(letter.reason, letter.mqtt_topic) for letter in inbox.letters()] == [
        ("wrong_type", f"file/{TYPE}/copy.csv:5"), ("malformed_row", f"file/{TYPE}/copy.csv:6"),
    ]  # fmt: skip
    inbox.drop("again.csv", content)
    assert [one["outcome"] for one in inbox.take()] == ["already_taken"]
    assert inbox.take() == []
    assert inbox.lying() == {f".taken/{TYPE}/{n}.csv" for n in ("roof", "copy", "again")}
    assert len(inbox.written_to_kafka()) == 3
    listed = json.loads(inbox.weir("inbox", "list", "--json", "--limit", "3").stdout)
    assert [row["outcome"] for row in listed] == ["already_taken", "already_taken", "taken"]
    assert "already_taken" in inbox.weir("inbox", "list", "--limit", "3").stdout


def test_rows_of_now_are_news(inbox: Inbox, tmp_path: Path) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    inbox.drop("now.jsonl", "".join(
        json.dumps({"device_id": tmp_path.name, "event_time": moment.isoformat(), "humidity": 50}) + "\n"
        for moment in (now - timedelta(hours=2), now - timedelta(minutes=5))
    ))  # fmt: skip
    (one,) = inbox.take()
    assert (one["readings"], one["old"]) == (2, 1)
    assert [mark for *_, mark in inbox.written_to_kafka()] == [RETURNED, None]


def test_what_is_being_written_is_not_taken(inbox: Inbox, tmp_path: Path) -> None:
    fresh = inbox.drop("fresh.csv", csv(f"{tmp_path.name}-a", 2), age=SETTLED_SECONDS / 2)
    inbox.drop("slow.csv.part", csv(f"{tmp_path.name}-b", 2))
    inbox.drop(".slow.csv", csv(f"{tmp_path.name}-c", 2))
    assert inbox.take() == []
    inbox.written(fresh, SETTLED_SECONDS + 1)
    (inbox.path / TYPE / "slow.csv.part").rename(inbox.path / TYPE / "slow.csv")
    assert [(one["name"], one["outcome"]) for one in inbox.take()] == [("fresh.csv", "taken"), ("slow.csv", "taken")]
    assert inbox.lying() == {f".taken/{TYPE}/fresh.csv", f".taken/{TYPE}/slow.csv", f"{TYPE}/.slow.csv"}


@pytest.mark.parametrize(
    ("make", "outcome", "told"),
    [
        (lambda p: p.write_bytes(b""), "empty", "nothing in it"),
        (lambda p: p.write_text("device_id,event_time,temperature\n"), "header_only", "line 1"),
        (lambda p: p.write_text("device_id,temperature\n1,2\n"), "missing_column", "no column is event_time"),
        (lambda p: p.write_text("device_id,event_time,temprature\n1,2,3\n"), "unknown_column", "'temperature'"),
        (lambda p: p.write_bytes("device_id,event_time,temperature\n".encode("utf-16")), "not_utf8", "save the file"),
        (lambda p: p.write_bytes(b"x" * 300_000), "line_too_long", "262,144 bytes"),
        (lambda p: p.mkdir(), "directory", "drop the files themselves"),
        (lambda p: p.symlink_to("/etc/passwd"), "symlink", "not followed"),
        (lambda p: p.symlink_to(p.parent / "nowhere"), "symlink", "not followed"),
        (lambda p: os.mkfifo(p), "no_file", "neither a file"),
        (lambda p: socket_at(p), "no_file", "neither a file"),
    ],
    ids=["empty", "header only", "missing column", "unknown column", "encoding", "line too long", "directory",
         "symlink", "dangling symlink", "pipe", "socket"],
)  # fmt: skip
def test_a_file_that_is_refused(
    inbox: Inbox, make: Callable[[Path], object], outcome: str, told: str, tmp_path: Path
) -> None:
    path = inbox.path / TYPE / "a.csv"
    make(path)
    if path.is_file() and not path.is_symlink():
        inbox.written(path, 60)
    inbox.drop("good.csv", csv(tmp_path.name, 1))
    refused, good = inbox.take(code=1)
    assert (refused["outcome"], told in refused["detail"]) == (outcome, True), refused
    assert good["outcome"] == "taken", "nobody else is held up"
    assert not os.path.lexists(path)
    assert [p.name.partition("-")[2] for p in (inbox.path / ".refused" / TYPE).iterdir()] == ["a.csv"]
    (row,) = inbox.warehouse.rows(
        "SELECT outcome, detail FROM inbox_files WHERE outcome <> 'taken' ORDER BY id DESC LIMIT 1"
    )
    assert (row["outcome"], row["detail"]) == (outcome, refused["detail"])
    assert inbox.take() == []


def socket_at(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made, contextlib.chdir(path.parent):
        made.bind(path.name)  # a whole path may be too long for one


def test_a_name_that_is_no_text(inbox: Inbox, tmp_path: Path) -> None:
    """Of an old share; its bad row is a dead letter that says where it stood."""
    name = os.fsdecode(b"me\xfc.csv")
    inbox.drop(name, csv(tmp_path.name, 1) + "x,no time,3\n")
    (one,) = inbox.take()
    assert (one["name"], one["readings"], one["rejected"]) == ("me\\udcfc.csv", 1, 1)
    (letter,) = inbox.letters()
    assert letter.mqtt_topic == "file/weather_station/me\\udcfc.csv:3"
    assert inbox.take() == []


def test_what_lies_elsewhere_is_left_alone(inbox: Inbox, tmp_path: Path) -> None:
    """A folder that is a link, and one in which somebody would speak for Weir's services."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "a.csv").write_text("x")
    (inbox.path / "room_node").symlink_to(elsewhere)
    inbox.drop("forged.csv", "device_id,event_time,parity\nhistory-1,2026-11-20T07:00:00Z,100\n", folder=OWN_TYPE)
    found = {one["name"]: one["outcome"] for one in inbox.take(code=1)}
    assert found == {"forged.csv": "unknown_type", "room_node": "symlink"}
    assert [path.name for path in elsewhere.iterdir()] == ["a.csv"]


def test_where_nobody_looks(inbox: Inbox) -> None:
    inbox.drop("a.csv", csv("x", 1), folder="weather_sation")
    (inbox.path / "loose.csv").write_text("x")
    said = inbox.weir("inbox", "take", code=1).stdout
    assert "weather_sation/a.csv: unknown_type: no device type 'weather_sation' that files may be of" in said
    assert "; did you mean 'weather_station'?" in said
    assert "loose.csv: no_folder:" in said
    assert (inbox.path / "loose.csv").exists()


def test_a_file_that_may_not_be_read_stays_where_it_is(
    inbox: Inbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The refusal is made here, as tests may be run by root, who may read anything."""
    path, real = inbox.drop("secret.csv", csv(tmp_path.name, 1)), os.open

    def refuses(path: object, *arguments: Any, **options: Any) -> int:
        if str(path).endswith("secret.csv"):
            raise PermissionError
        return real(path, *arguments, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr("etl.inbox_folder.os.open", refuses)
        for is_new in (True, False):
            (one,) = inbox.take(code=1)
            assert (one["outcome"], one["is_new"]) == ("no_permission", is_new)
            assert path.exists()
    rows = inbox.warehouse.rows("SELECT outcome FROM inbox_files ORDER BY id DESC LIMIT 2")
    assert [row["outcome"] for row in rows].count("no_permission") == 1
    assert [one["outcome"] for one in inbox.take()] == ["taken"]


def test_a_device_that_is_not_admitted(inbox: Inbox, tmp_path: Path) -> None:
    device = tmp_path.name[-40:]
    registry = command(WEIR_HOME=inbox.settings.home)
    registry("devices", "add", TYPE, device, "--site", "mast")
    registry("devices", "retire", TYPE, device)
    inbox.drop("a.csv", csv(device, 2))
    (one,) = inbox.take()
    assert (one["readings"], one["rejected"]) == (0, 2)
    assert {letter.reason for letter in inbox.letters()} == {"retired_device"}
    registry("devices", "add", TYPE, device)
    inbox.drop("b.csv", csv(device, 2, HOUR + timedelta(hours=1)))
    assert [one["readings"] for one in inbox.take()] == [2]
    first, _ = inbox._new("sensor", readings)
    assert decode_reading(first.value).site == "mast"


def test_a_large_file_is_never_in_memory_whole(inbox: Inbox, tmp_path: Path) -> None:
    """100 MB, within 50 MB beyond what a run with nothing to do needs."""
    pad, path = " " * 3300, inbox.path / TYPE / "large.csv"
    with path.with_suffix(".part").open("w") as file:
        file.write("device_id,event_time,temperature\n")
        for i in range(30_000):
            file.write(f"{tmp_path.name},{(HOUR + timedelta(milliseconds=i)).isoformat()},{pad}20\n")
    empty = _peak_kib(inbox, "nothing is there")
    inbox.written(path.with_suffix(".part").rename(path), 60)
    large = _peak_kib(inbox, "large.csv: taken: rows 30,000, readings 30,000")
    assert large - empty < 50 * 1024, (empty, large)


def _peak_kib(inbox: Inbox, told: str) -> int:
    code = (
        "import resource, sys; from weir.main import build; sys.argv = ['weir', 'inbox', 'take']\n"
        "try: build()()\nfinally: print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("WEIR_")} | inbox.environment
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=CHECKOUT, capture_output=True, text=True)
    assert told in done.stdout, done.stdout + done.stderr
    return int(done.stdout.rsplit("peak", 1)[1])


KILLS = {
    "claimed": Point("after", "etl.inbox_folder:Folder.claim"),
    "entered": Point("after", "etl.inbox:Taker._begin"),
    "half sent": Point("before", "etl.inbox:encode_reading", 500),
    "all sent": Point("after", "etl.inbox:Taker._send"),
    "written down": Point("after", "etl.inbox:Taker._end"),
}


@pytest.fixture(scope="module")
def commands(settings_for: SettingsFor, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Commands, Inbox]]:
    home = tmp_path_factory.mktemp("inbox")
    inbox = Inbox(settings_for, home)
    made = Commands(inbox.environment, home)
    yield made, inbox
    made.close()
    inbox.warehouse.close()


@pytest.mark.parametrize("point", KILLS)
def test_killed_in_the_middle_and_taken_again_no_row_is_lost(commands: tuple[Commands, Inbox], point: str) -> None:
    made, inbox = commands
    device = f"killed-{point.replace(' ', '-')}-{time.time_ns()}"
    inbox.drop(f"{device}.csv", csv(device, 1000))
    assert made.run("inbox", "take", point=KILLS[point])[0] == -signal.SIGKILL
    code, said = made.run("inbox", "take")
    assert code == 0, said
    sent = [(moment, tuple(values)) for d, moment, values, _ in inbox.written_to_kafka() if d == device]
    assert set(sent) == {(HOUR + timedelta(seconds=2 * i), ("temperature",)) for i in range(1000)}
    most = {"half sent": 2, "all sent": 2}.get(point, 1)
    assert max(Counter(sent).values()) <= most, "copies are the batch's duplicates"
    rows = inbox.warehouse.rows("SELECT outcome, rows, readings FROM inbox_files WHERE name = :n ORDER BY id",
                                n=f"{device}.csv")  # fmt: skip
    assert tuple(rows[0].values()) == ("taken", 1000, 1000)
    assert inbox.lying() >= {f".taken/{TYPE}/{device}.csv"}
    assert made.run("inbox", "take")[1].strip() == "nothing is there that is whole"


def test_two_at_once_take_it_once(commands: tuple[Commands, Inbox]) -> None:
    made, inbox = commands
    device = f"twice-{time.time_ns()}"
    inbox.drop(f"{device}.csv", csv(device, 2000))
    both = [made.start("inbox", "take") for _ in range(2)]
    codes = [made.end(one) for one in both]
    assert 0 in codes
    assert len([1 for d, *_ in inbox.written_to_kafka() if d == device]) == 2000
