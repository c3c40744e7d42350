"""What may stand in the registry, by hand and by CSV, and what the commands say before they ask a server."""

import re
import shlex
from pathlib import Path

import pytest
from hypothesis import given
from typer.testing import CliRunner

from fleet.catalog import build_catalog, load_catalog
from fleet.errors import RegistryError, WeirError
from fleet.registry import params_of, parse_params, problems_of, time_zone_problem
from fleet.registry_csv import Row, parse_csv, read_csv
from fleet.settings import CHECKOUT
from fleet.spec_file import load_spec
from tests.mangled import mangled
from tests.unit.test_control import SPEC
from weir.main import build

ALERTS = """\
alerts:
  - {id: hot, when: temperature > limit, params: {limit: 35, margin: 2}}
  - {id: cold, when: temperature < limit, params: {limit: 5}}
"""
NODE = load_spec(SPEC.format(by="site") + ALERTS, "node.yaml")
CATALOG = build_catalog([*load_catalog(CHECKOUT / "fleet" / "types"), NODE])


def test_params_of_a_types_rules() -> None:
    assert params_of(NODE) == {"limit": 35, "margin": 2}


@pytest.mark.parametrize(
    ("device_id", "site", "room", "params", "problem"),
    [
        ("n1", "roof", None, {}, ""),
        ("n1", "roof", "3rd floor, Süd", {"limit": 30.0, "margin": 0}, ""),
        ("n 1", "roof", None, {}, "device id 'n 1'"),
        ("", "roof", None, {}, "device id ''"),
        ("n1", "ro/of", None, {}, "site 'ro/of'"),
        ("n1", "x" * 65, None, {}, "at most 64"),
        ("n1", "roof", "a\nb", {}, "characters that can be printed"),
        ("n1", "roof", None, {"limt": 3.0}, "did you mean 'limit'?"),
        ("n1", "roof", None, {"qqqq": 3.0}, "there are: limit, margin"),
        ("n1", "roof", None, {"limit": float("nan")}, "not a number that a rule can use"),
    ],
)
def test_what_is_wrong_with_a_device(
    device_id: str, site: str, room: str | None, params: dict[str, float], problem: str
) -> None:
    found = problems_of(NODE, device_id, site, room, params)
    assert len(found) == bool(problem)
    assert problem in "".join(found)


def test_all_that_is_wrong_is_told_at_once() -> None:
    assert len(problems_of(NODE, "n 1", "a b", "\0", {"limt": 1.0, "limit": float("inf")})) == 5


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        ([], {}),
        (["limit=35.5", "margin=-1e3"], {"limit": 35.5, "margin": -1000.0}),
        (["limit"], "expected NAME=NUMBER"),
        (["limit=warm"], "'limit=warm'"),
        (["limit="], "expected NAME=NUMBER"),
        (["limit=1", "limit=2"], "given twice"),
    ],
)
def test_params_as_people_write_them(texts: list[str], found: dict[str, float] | str) -> None:
    if isinstance(found, str):
        with pytest.raises(ValueError, match=found):
            parse_params(texts)
    else:
        assert parse_params(texts) == found


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("UTC", ""),
        ("Europe/Berlin", ""),
        ("America/Argentina/Buenos_Aires", ""),
        ("europe/berlin", "did you mean 'Europe/Berlin'?"),
        ("Europe/Berln", "did you mean 'Europe/Berlin'?"),
        ("CEST+2", "is not known"),
        ("../etc/passwd", "is not known"),
        ("", "is not known"),
    ],
)
def test_time_zones(name: str, problem: str) -> None:
    assert problem in time_zone_problem(name)
    assert bool(time_zone_problem(name)) == bool(problem)


HEAD = "type,device_id,site,room,time_zone,params\n"


def test_a_csv_that_is_right() -> None:
    text = (
        "\ufeffsite, type,device_id ,params,time_zone\n"
        "roof,node,n1,limit=30 margin=1,Europe/Berlin\n"
        "\n"
        'roof,node,n2,,\n"field",weather_station,79,,\n'
    )
    assert parse_csv(text.lstrip("\ufeff"), "d.csv", CATALOG) == [
        Row(2, "node", "n1", "roof", None, "Europe/Berlin", {"limit": 30.0, "margin": 1.0}),
        Row(4, "node", "n2", "roof"),
        Row(5, "weather_station", "79", "field"),
    ]


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("", ["d.csv:1: the first line must name the columns; missing: type, device_id, site"]),
        ("type,site\n", ["d.csv:1: the first line must name the columns; missing: device_id"]),
        ("type,device_id,site,colour\n", ["d.csv:1: unknown column 'colour'; allowed: type, device_id, site, room"]),
        ("type,type,device_id,site\n", ["d.csv:1: column 'type' stands twice"]),
        (HEAD, ["d.csv:1: no devices"]),
        (HEAD + "nod,n1,roof,,,\n", ["d.csv:2: no device type 'nod'; did you mean 'node'?"]),
        (HEAD + "node,n1,roof\n", ["d.csv:2: 3 cells, and the first line names 6 columns"]),
        (HEAD + 'node,"n1,roof,,,\n', ["d.csv:2: not CSV"]),
        (HEAD + "node,n 1,roof,,,\nnode,n2,r/f,,,limit\n", ["d.csv:2: device id", "d.csv:3: param", "d.csv:3: site"]),
        (HEAD + "node,n1,roof,,Mars/Base,\n", ["d.csv:2: time zone 'Mars/Base'"]),
        (HEAD + "node,n1,a,,,\nnode,n2,a,,,\nnode,n1,b,,,\n", ["d.csv:4: node n1 stands on line 2 already"]),
        (
            HEAD + "node,n1,a,,Europe/Berlin,\nnode,n2,a,,UTC,\n",
            ["d.csv:3: site a is in UTC here and in Europe/Berlin on line 2"],
        ),
    ],
    ids=[
        "empty", "no header", "unknown column", "a column twice", "no rows", "unknown type", "cells missing",
        "no CSV", "several lines", "unknown time zone", "a device twice", "two time zones of a site",
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_csv(text: str, problems: list[str]) -> None:
    with pytest.raises(RegistryError) as told:
        parse_csv(text, "d.csv", CATALOG)
    lines = str(told.value).splitlines()
    assert len(lines) == len(problems)
    assert all(line.startswith(problem) for line, problem in zip(sorted(lines), problems, strict=True)), lines


WHOLE = (
    HEAD + 'node,n1,roof,"3rd floor, Süd",Europe/Berlin,limit=30 margin=1\nnode,n2,roof,,,\nlamp,l1,h,,,\n'
).encode()


@given(mangled(WHOLE))
def test_any_csv_is_devices_or_is_told_by_line(content: bytes) -> None:
    try:
        rows = parse_csv(content.decode("utf-8", "replace"), "d.csv", CATALOG)
    except RegistryError as error:
        for line in str(error).split("\n"):
            assert re.match(r"d\.csv:\d+: \S", line) and len(line) < 1_000, line
        return
    assert 0 < len({(row.type, row.device_id) for row in rows}) == len(rows)
    for row in rows:
        assert not problems_of(CATALOG.type(row.type), row.device_id, row.site, row.room, row.params)
        assert not row.time_zone or not time_zone_problem(row.time_zone)


def test_a_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "latin.csv").write_bytes("type,device_id,site\nnode,n1,Düne\n".encode("latin-1"))
    (tmp_path / "bom.csv").write_bytes(b"\xef\xbb\xbftype,device_id,site\nnode,n1,roof\n")
    for name, problem in (("latin.csv", "not UTF-8 at byte"), ("gone.csv", "No such file")):
        with pytest.raises(RegistryError, match=problem):
            read_csv(tmp_path / name, CATALOG)
    assert read_csv(tmp_path / "bom.csv", CATALOG) == [Row(2, "node", "n1", "roof")]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("devices add weather_statoin 1 --site roof", "did you mean 'weather_station'?"),
        ("devices add weather_station 's 1' --site roof", "device id 's 1'"),
        ("devices add weather_station 1 --site 'a b'", "site 'a b'"),
        ("devices add weather_station 1 --site roof --param limit=3", "no rule of weather_station has it"),
        ("devices add weather_station 1 --site roof --param limit", "expected NAME=NUMBER"),
        ("devices set weather_station 1 --site 'a b'", "site 'a b'"),
        ("devices set room 1", "did you mean 'room_node'?"),
        ("devices retire room 1", "did you mean 'room_node'?"),
        ("devices import gone.csv", "gone.csv: No such file"),
        ("devices list --type room", "did you mean 'room_node'?"),
        ("devices show room 1", "did you mean 'room_node'?"),
        ("sites set wether roof --time-zone UTC", "did you mean 'weather'?"),
        ("sites set weather roof --time-zone Berlin", "time zone 'Berlin'"),
        ("sites set weather 'a b' --time-zone UTC", "site 'a b'"),
    ],
)
def test_a_command_says_what_is_wrong_before_it_asks_a_server(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, line: str, problem: str
) -> None:
    monkeypatch.setenv("WEIR_HOME", str(tmp_path / "home"))
    result = CliRunner().invoke(build(), shlex.split(line))
    assert isinstance(result.exception, WeirError)
    assert problem in str(result.exception)
