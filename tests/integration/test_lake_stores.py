"""The lake's three promises, kept by each kind of store; and what is said where a store is away or refuses us."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from connections.lake import Lake
from connections.store import TEMPORARY
from fleet.errors import Unavailable
from fleet.lake_layout import manifest_folder, manifest_path
from fleet.manifest import DataFile, Manifest
from fleet.settings import CHECKOUT
from streaming.sweep import sweep
from tests.integration.processes import free_port, wait_for
from tests.integration.store_servers import SECRET, STORES, Place
from tests.unit.test_lake import assert_manifests_in_order

pytestmark = [pytest.mark.stack, pytest.mark.slow]


@pytest.fixture(params=["file", *STORES])
def place(request: pytest.FixtureRequest, places: dict[str, Place], tmp_path: Path) -> Iterator[Place]:
    """A lake of the test's own in each kind of store, for this process too."""
    if request.param == "file":
        yield Place(f"file://{tmp_path}/lake")
        return
    with places[request.param].used():
        yield places[request.param].below(tmp_path.name)


@pytest.fixture
def lake(place: Place) -> Lake:
    return place.lake


def test_a_file_is_written_replaced_read_listed_and_removed(lake: Lake) -> None:
    big = os.urandom(6_000_000)
    for data in (b"", b"first", big):
        lake.write("raw/system=weather/date=2026-11-22/a b.parquet", data)
        assert lake.read("raw/system=weather/date=2026-11-22/a b.parquet") == data
    lake.write("raw/system=weather/z.parquet", b"z")
    lake.write("rawer/a", b"another folder")
    assert lake.names("raw") == ["system=weather"]
    assert lake.names("raw/system=weather") == ["date=2026-11-22", "z.parquet"]
    assert lake.names("") == ["raw", "rawer"]
    assert lake.files("raw") == ["raw/system=weather/date=2026-11-22/a b.parquet", "raw/system=weather/z.parquet"]
    assert abs(datetime.now(UTC) - lake.modified("raw/system=weather/z.parquet")) < timedelta(minutes=5)
    assert lake.sweep(lake.files("raw")) == 2
    assert (lake.files("raw"), lake.names("raw/system=weather/date=2026-11-22")) == ([], [])
    assert lake.names("never") == lake.files("never") == []
    for asked in (lake.read, lake.modified):
        with pytest.raises(FileNotFoundError):
            asked("raw/system=weather/z.parquet")


def test_of_many_writers_of_one_name_one_wins_and_its_file_is_whole(place: Place) -> None:
    if "s3proxy" in place.servers:
        pytest.skip("s3proxy 3.0 looks, then writes: of writers at the very same time several win")
    lakes = [place.lake for _ in range(8)]
    for n in range(5):
        path, outcomes, start = f"_landed/t/0/{n}.json", [], threading.Barrier(len(lakes))

        def write(number: int, path: str = path, outcomes: list = outcomes, start: threading.Barrier = start) -> None:
            data = bytes([number]) * 100_000
            start.wait()
            outcomes.append((data, lakes[number].put_if_absent(path, data)))

        threads = [threading.Thread(target=write, args=(number,)) for number in range(len(lakes))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        winners = [data for data, won in outcomes if won]
        assert (len(outcomes), len(winners)) == (len(lakes), 1)
        assert place.lake.read(path) == winners[0]
    assert place.lake.names("_landed/t/0") == [f"{n}.json" for n in range(5)]


def test_a_name_that_is_taken_stays_as_it_is(place: Place) -> None:
    assert place.lake.put_if_absent("_landed/x", b"first")
    assert not place.lake.put_if_absent("_landed/x", b"later")
    assert place.lake.read("_landed/x") == b"first"


def test_manifests_come_in_order_and_after_a_given_one(lake: Lake) -> None:
    assert_manifests_in_order(lake)


WRITER = """
import sys
from connections.lake import Lake
lake = Lake(sys.argv[1], int(sys.argv[2]))
for n in range(250):
    data = bytes([n]) * 8_000_000
    lake.write(f"raw/{sys.argv[3]}/{n}.parquet", data)
    lake.put_if_absent(f"_landed/{sys.argv[3]}/0/{n}.json", data)
"""


def whole(lake: Lake, folder: str) -> list[str]:
    """What readers take."""
    return [path for path in lake.files(folder) if TEMPORARY not in path]


def test_a_writer_killed_at_any_moment_leaves_no_half_file(place: Place) -> None:
    """After that the sweep takes what is left of it, in the end."""
    lake = place.lake
    for number in range(4):
        child = subprocess.Popen(
            [sys.executable, "-c", WRITER, place.uri, str(place.webhdfs_port), str(number)],
            cwd=CHECKOUT, env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        )  # fmt: skip
        wait_for(lambda folder=f"_landed/{number}/0": len(whole(lake, folder)) >= 2, 30, "it writes nothing")
        time.sleep(0.037 * number)  # any moment of a write may be hit
        child.kill()
        child.wait()
    assert len(whole(lake, "")) >= 4 * 4
    for path in whole(lake, ""):
        data = lake.read(path)
        assert data == data[:1] * 8_000_000, path
    later = datetime.now(UTC) + timedelta(hours=2)
    swept = sweep(lake, later)
    assert all(TEMPORARY in path for path in swept)
    assert lake.files("") == whole(lake, "")


def test_the_sweep_takes_what_no_manifest_names_and_nothing_else(lake: Lake) -> None:
    folder = "raw/system=weather/type=weather_station/v=1/date=2026-11-22/hour=03"
    named, orphan = (f"{folder}/sensor-2-{first}-{first + 8}.parquet" for first in (0, 9))
    for path in (named, orphan, f"{folder}/{TEMPORARY}x", f"{folder}/another's.parquet"):
        lake.write(path, b"x")
    file = DataFile(named, "weather/weather_station/2026-11-22T03", 1, 9, 1)
    assert lake.commit(Manifest("sensor", 2, 0, 8, 9, 0, 0, 0, 0, 1, 2, [file]))
    assert sweep(lake, datetime.now(UTC)) == []
    assert sorted(sweep(lake, datetime.now(UTC) + timedelta(hours=2))) == sorted([orphan, f"{folder}/{TEMPORARY}x"])
    assert lake.files("raw") == sorted([named, f"{folder}/another's.parquet"])
    assert lake.names(manifest_folder("sensor", 2)) == [manifest_path("sensor", 2, 0).rpartition("/")[2]]


# What is said


def asked_in_vain(lake: Lake) -> list[str]:
    """What each kind of question says; none of them passes for an empty lake."""
    said = []
    for ask in (
        lambda: lake.read("_landed/sensor/0/x.json"), lambda: lake.names("_landed"), lambda: lake.files("raw"),
        lambda: lake.write("raw/x", b"x"), lambda: lake.put_if_absent("_landed/x", b"x"),
        lambda: lake.modified("raw/x"),
    ):  # fmt: skip
        with pytest.raises(Unavailable) as told:
            ask()
        assert SECRET not in str(told.value)
        said.append(str(told.value))
    return said


def test_a_store_that_is_away_is_no_empty_lake(places: dict[str, Place]) -> None:
    port = free_port()
    with places["hdfs"].used():
        for said in asked_in_vain(Lake(places["hdfs"].uri, port)):
            assert f"127.0.0.1:{port}: [Errno 111] Connection refused; WEIR_WEBHDFS_PORT sets another port" in said
    with places["moto"].used(AWS_ENDPOINT_URL_S3=f"http://127.0.0.1:{port}", AWS_MAX_ATTEMPTS="1"):
        for said in asked_in_vain(places["moto"].lake):
            assert "Could not connect to the endpoint URL" in said


NO_KEYS = {"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None, "AWS_EC2_METADATA_DISABLED": "true"}
WRONG_KEYS = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
NO_BUCKET = "make the bucket, or name another in WEIR_LAKE_URI"
REFUSED: dict[str, tuple[str, dict[str, str | None], str, str]] = {
    "another's folder": ("hdfs", {"HADOOP_USER_NAME": "stranger"}, "", "HDFS takes us for 'stranger'"),
    "wrong secret": ("s3proxy", {"AWS_SECRET_ACCESS_KEY": "wrong"}, "", WRONG_KEYS),
    "unknown key": ("s3proxy", {"AWS_ACCESS_KEY_ID": "unknown"}, "", WRONG_KEYS),
    "no keys": ("s3proxy", NO_KEYS, "", "S3 wants keys, and there are none"),
    "no such bucket": ("s3proxy", {}, "s3://missing/lake", NO_BUCKET),
    "no such bucket, elsewhere": ("moto", {}, "s3://missing/lake", NO_BUCKET),
}


@pytest.mark.parametrize(("kind", "changes", "uri", "hint"), REFUSED.values(), ids=REFUSED)
def test_a_refusal_says_what_to_set(
    places: dict[str, Place], kind: str, changes: dict[str, str | None], uri: str, hint: str
) -> None:
    place = places[kind]
    with place.used(**changes):
        for said in asked_in_vain(Lake(uri or place.uri, place.webhdfs_port)):
            assert hint in said


def test_the_port_of_sparks_is_not_webhdfs(places: dict[str, Place]) -> None:
    for said in asked_in_vain(Lake(places["hdfs"].uri, urlsplit(places["hdfs"].uri).port or 0)):
        assert "WEIR_WEBHDFS_PORT sets another" in said
