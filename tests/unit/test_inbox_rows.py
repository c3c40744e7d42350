"""Files of CSV and JSON lines: what is a row, what is none, and what is no file to take at all."""

import io
import json
import sys
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.inbox_rows import MAX_LINE_BYTES, Row, rows
from fleet.catalog import Catalog, load_catalog
from fleet.contract import REASONS, Reject
from fleet.dead_letter import dead_letter_of_row, decode_dead_letter, encode_dead_letter
from fleet.file_row import FileForm, Refusal
from fleet.file_spec import Files, Scale
from fleet.reading import Reading, to_epoch_us
from fleet.requalify import Requalifier
from fleet.settings import CHECKOUT
from tests.mangled import mangled

NOW_US = to_epoch_us(datetime(2026, 11, 22, 12, tzinfo=UTC))
AT = "2026-11-22T03:00:00Z"
HEAD = b"device_id,event_time,temperature\n"
LINE = f"7,{AT},21.5\n".encode()
LONG = b"x" * (MAX_LINE_BYTES + 1)


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return load_catalog(CHECKOUT / "fleet" / "types")


@pytest.fixture(scope="module")
def form(catalog: Catalog) -> FileForm:
    return FileForm(catalog.type("weather_station"))


@pytest.fixture(scope="module")
def judge(catalog: Catalog) -> Requalifier:
    return Requalifier(catalog, {}, {})


def read(form: FileForm, content: bytes, name: str = "a.csv") -> list[Row] | Refusal:
    found = rows(io.BytesIO(content), name, form)
    return found if isinstance(found, Refusal) else list(found)


@pytest.mark.parametrize(
    ("name", "content", "outcome", "told"),
    [
        ("a.csv", b"", "empty", "nothing in it"),
        ("a.csv", b"\xef\xbb\xbf\r\n\n", "empty", "nothing in it"),
        ("a.jsonl", b"\n", "empty", "nothing in it"),
        ("a.csv", HEAD, "header_only", "line 1"),
        ("a.csv", b"\n" + HEAD + b"\n\n", "header_only", "line 2"),
        ("a.csv", b"device_id,temperature\n7,1\n", "missing_column", "no column is event_time; there are: device_id"),
        ("a.csv", b"device_id,event_time\n7,1\n", "missing_column", "no column is a metric (temperature, humidity"),
        ("a.csv", HEAD.replace(b"temp", b"temq") + LINE, "unknown_column", "'temqerature' is nothing that weather_"),
        ("a.csv", HEAD.replace(b"temperature", b"timestamp") + LINE, "unknown_column", "two columns are event_time"),
        ("a.csv", HEAD.decode().encode("utf-16") + LINE, "not_utf8", "at byte 0; save the file as UTF-8"),
        ("a.csv", b"device_id,event_time,temp\xe9rature\n" + LINE, "not_utf8", "line 1, the header, at byte 25"),
        ("a.csv", LONG + b"\n" + LINE, "line_too_long", "line 1, the header, has over 262,144 bytes"),
        ("a.csv", b'device_id,"event_time\n' + LINE, "unknown_column", "the header: unexpected end"),
        ("a.xlsx", b"PK", "unknown_format", ".csv, .tsv, .jsonl, .ndjson"),
        ("a", LINE, "unknown_format", "its name ends in none of"),
    ],
)
def test_a_file_that_is_refused(form: FileForm, name: str, content: bytes, outcome: str, told: str) -> None:
    found = read(form, content, name)
    assert isinstance(found, Refusal)
    assert (found.outcome, told in found.detail) == (outcome, True), found


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", HEAD + LINE),
        ("a.CSV", HEAD + LINE.rstrip()),
        ("a.csv", b"\xef\xbb\xbf" + HEAD + LINE),
        ("a.csv", (HEAD + LINE).replace(b"\n", b"\r\n")),
        ("a.csv", (HEAD + b"\n" + LINE + b"\n \n")),
        ("a.csv", (HEAD + LINE).replace(b",", b";")),
        ("a.tsv", (HEAD + LINE).replace(b",", b"\t")),
        ("a.csv", b'"device_id", event_time ,"temperature"\n"7",' + AT.encode() + b", 21.5 \n"),
        ("a.jsonl", f'{{"device_id": "7", "event_time": "{AT}", "temperature": 21.5}}\n'.encode()),
        ("a.ndjson", '\xef\xbb\xbf{"sensor_id": 7, "timestamp": 1795316400, "temperature": 21.5}'.encode("latin-1")),
    ],
    ids=[
        "plain",
        "no last line end",
        "BOM",
        "CRLF",
        "blank lines",
        "semicolons",
        "tabs",
        "quoted",
        "JSON",
        "JSON, BOM",
    ],
)
def test_the_same_reading_however_it_is_written(form: FileForm, name: str, content: bytes) -> None:
    (row,) = read(form, content, name)
    assert isinstance(row, Row) and row.cells is not None
    found = form.read(row.cells, NOW_US, {})
    assert found == Reading("7", "weather_station", "default", to_epoch_us(datetime.fromisoformat(AT)),
                            {"temperature": 21.5}, None, 1)  # fmt: skip


@pytest.mark.parametrize(
    ("line", "reason", "told"),
    [
        (b"7," + AT.encode(), "malformed_row", "2 fields, the header has 3"),
        (b'7,"' + AT.encode() + b",21.5", "malformed_row", "unexpected end of data"),
        (b"7,\xff,21.5", "not_utf8", "byte 2"),
        (LONG, "oversized", "over 262,144 bytes"),
        (b"7," + AT.encode() + b",warm", "wrong_type", "'temperature' must be a number"),
        (b"7,yesterday,21.5", "bad_time", "'yesterday'"),
        (b"7,,21.5", "missing_field", "'event_time'"),
        (b"," + AT.encode() + b",21.5", "missing_field", "'device_id'"),
        (b"7," + AT.encode() + b",", "missing_field", "no metric"),
        (b"a b," + AT.encode() + b",1", "bad_id", "'a b'"),
        (b"7,2026-11-23,1", "future_time", "ahead"),
        (b"7," + AT.encode() + b",1_0", "wrong_type", "'temperature'"),
    ],
)
def test_a_row_that_is_none_holds_up_no_other(form: FileForm, line: bytes, reason: str, told: str) -> None:
    found = read(form, HEAD + line + b"\n" + LINE)
    assert isinstance(found, list)
    bad, good = found
    if bad.cells is not None:
        rejected = form.read(bad.cells, NOW_US, {})
        assert isinstance(rejected, Reject)
        bad = bad._replace(reason=rejected.reason, detail=rejected.detail)
    assert (bad.line, bad.reason, told in bad.detail) == (2, reason, True), bad
    assert len(bad.payload) <= MAX_LINE_BYTES
    assert good.cells is not None and isinstance(form.read(good.cells, NOW_US, {}), Reading)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "malformed_json"),
        (b"[1]", "malformed_json"),
        (f'{{"device_id": "7", "event_time": "{AT}", "sunshine": 1}}'.encode(), "unknown_metric"),
        (f'{{"device_id": "7", "event_time": "{AT}", "temperature": "\\ud800"}}'.encode(), "wrong_type"),
        (f'{{"device_id": {{}}, "event_time": "{AT}", "temperature": 1}}'.encode(), "wrong_type"),
        (b'{"device_id": "7", "event_time": [], "temperature": 1}', "wrong_type"),
        (b'{"device_id": "7", "event_time": 1e400, "temperature": 1}', "bad_time"),
    ],
)
def test_a_line_of_json_that_is_no_reading(catalog: Catalog, form: FileForm, line: bytes, reason: str) -> None:
    (row,) = read(form, line, "a.jsonl")
    assert isinstance(row, Row)
    found: Any = row
    if row.cells is not None:
        found = Requalifier(catalog, {}, {}).row("weather_station", row.cells, NOW_US)
        assert isinstance(found, Reject)
    assert found.reason == reason, found


MAPPED = Files(
    columns={"Gerät": "device_id", "Zeit": "event_time", "Temp (F)": "temperature", "Notiz": None, "Ort": "site"},
    scale={"temperature": Scale(factor=5 / 9, offset=-160 / 9)}, time_format="%d.%m.%Y %H:%M",
    time_zone="Europe/Berlin", site="roof",
)  # fmt: skip


@pytest.mark.parametrize(
    ("time", "site", "utc", "stands"),
    [
        ("22.11.2026 04:00", "yard", "2026-11-22T03:00", "yard"),
        ("22.07.2026 04:00", "", "2026-07-22T02:00", "roof"),
        ("25.10.2026 02:30", "", "2026-10-25T00:30", "roof"),
        ("29.03.2026 02:30", "", "2026-03-29T01:30", "roof"),
    ],
    ids=["winter", "summer", "comes twice", "never comes"],
)
def test_names_units_times_and_zones_are_the_specs(
    catalog: Catalog, time: str, site: str, utc: str, stands: str
) -> None:
    form = FileForm(catalog.type("weather_station").model_copy(update={"files": MAPPED}))
    content = f"Gerät;Zeit;Temp (F);Notiz;Ort\n7;{time};68;dry, warm;{site}\n".encode()
    (row,) = read(form, content)
    assert isinstance(row, Row) and row.cells is not None
    found = form.read(row.cells, NOW_US, {})
    assert isinstance(found, Reading)
    assert (found.event_time, found.site) == (datetime.fromisoformat(utc).replace(tzinfo=UTC), stands)
    assert found.values["temperature"] == pytest.approx(20.0)


def test_a_device_stands_where_the_registry_says(form: FileForm) -> None:
    row = {"device_id": "7", "event_time": AT, "temperature": "1"}
    found = form.read(row, NOW_US, {("weather_station", "7"): "mast"})
    assert isinstance(found, Reading) and found.site == "mast"


def test_a_type_that_sends_each_metric_apart_gets_its_rows_so(catalog: Catalog) -> None:
    row = {"device_id": "s1", "event_time": AT, "temperature": "20", "light": "3"}
    found = Requalifier(catalog, {}, {}).row("room_node", row, NOW_US)
    assert isinstance(found, list)
    assert [(one.reading.values, one.topics) for one in found] == [
        ({"temperature": 20.0}, ("readings.occupancy", "occupancy.temperature")),
        ({"light": 3.0}, ("readings.occupancy", "occupancy.light")),
    ]


def test_new_devices_are_let_in_up_to_their_types_number(catalog: Catalog) -> None:
    few = catalog.type("weather_station").model_copy(update={"max_devices": 2})
    judge = Requalifier(Catalog({"weather_station": few}), {("weather_station", "old"): False}, {})
    said = [
        judge.row("weather_station", {"device_id": d, "event_time": AT, "temperature": "1"}, NOW_US)
        for d in ("a", "b", "a", "c", "old")
    ]
    assert [one.reason if isinstance(one, Reject) else "" for one in said] == [
        "", "", "", "unknown_device", "retired_device",
    ]  # fmt: skip


@pytest.mark.parametrize("seq", ["--5", "9" * 5000, "1.5", "five"])
def test_a_seq_that_is_none(form: FileForm, seq: str) -> None:
    found = form.read({"device_id": "7", "event_time": AT, "temperature": "1", "seq": seq}, NOW_US, {})
    assert isinstance(found, Reject) and (found.reason, "'seq'" in found.detail) == ("wrong_type", True)


def test_a_number_too_large_to_be_scaled_is_unknown(catalog: Catalog) -> None:
    form = FileForm(catalog.type("weather_station").model_copy(update={"files": MAPPED}))
    found = form.read({"Gerät": "7", "Zeit": "22.11.2026 04:00", "Temp (F)": 10**400, "humidity": 5}, NOW_US, {})
    assert isinstance(found, Reading) and found.values == {"temperature": None, "humidity": 5.0}


@pytest.mark.parametrize("end", [b"\r\r", b"\r\r\r", b"\r\rx"])
def test_a_line_that_is_cut_within_its_end_is_one(form: FileForm, end: bytes) -> None:
    found = read(form, HEAD + LONG[1:] + end + LINE + LINE)
    assert isinstance(found, list)
    assert [(row.line, row.reason) for row in found] == [(2, "oversized"), (3, "")]


@pytest.mark.parametrize("key", ["device_id", "event_time", "temperature", "seq", "site", "another"])
def test_however_deep_a_line_nests_it_is_a_dead_letter(form: FileForm, judge: Requalifier, key: str) -> None:
    message = {"device_id": "7", "event_time": AT, "temperature": 1, key: 0}
    for depth in range(sys.getrecursionlimit() - 250, sys.getrecursionlimit()):
        line = json.dumps(message).replace(f'"{key}": 0', f'"{key}": {"[" * depth}{"]" * depth}').encode()
        (row,) = read(form, line, "a.jsonl")
        assert isinstance(row, Row)
        reason = judged(judge, row)
        assert (reason in REASONS, reason == "contract_error") == (True, False)


def judged(judge: Requalifier, row: Row) -> str:
    """Why it is no reading, or nothing."""
    found: Any = row if row.cells is None else judge.row("weather_station", row.cells, NOW_US)
    if isinstance(found, list):
        return ""
    reject = found if isinstance(found, Reject) else Reject(row.reason, row.detail)
    letter = decode_dead_letter(encode_dead_letter(dead_letter_of_row(reject, "file/a:1", row.payload, NOW_US)))
    assert letter.payload == row.payload
    return reject.reason


NAMES = ["device_id", "event_time", "temperature", "seq", "site"]
cells = st.sampled_from(["7", "8", AT, "21.5", "", '"', '"a""b"', "true", "nan", "-5", " 3 "]) | st.text(max_size=5)
csv_rows = st.lists(st.lists(cells, min_size=2, max_size=6).map(",".join), max_size=4)
json_cells = st.recursive(
    st.sampled_from(["7", AT, 21.5, True, None, 10**400]) | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
json_rows = st.lists(
    st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=3), json_cells).map(json.dumps), max_size=4
)


@st.composite
def files(draw: st.DrawFn) -> tuple[str, bytes]:
    """(name, content)"""
    name = draw(st.sampled_from(["a.csv", "a.jsonl"]))
    rows_of = csv_rows if name == "a.csv" else json_rows
    good = (
        LINE.rstrip().decode() if name == "a.csv" else json.dumps({"device_id": "7", "event_time": AT, "humidity": 4})
    )
    body = "\n".join(draw(st.permutations([*draw(rows_of), good]))).encode("utf-8", "surrogatepass")
    head = draw(st.sampled_from([HEAD, (",".join(NAMES) + "\n").encode()])) if name == "a.csv" else b""
    kind = draw(st.sampled_from(["whole", "bad rows", "bad anywhere", "no file of ours"]))
    if kind == "no file of ours":
        return name, draw(st.binary(max_size=200))
    if kind == "bad anywhere":
        return name, draw(mangled(head + body))
    return name, head + (body if kind == "whole" else draw(mangled(body)))


def lines_of(content: bytes) -> dict[int, bytes]:
    """Number → what stands there, of those that are not blank."""
    found = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    return {number: line.rstrip(b"\r") for number, line in enumerate(found, start=1) if line.strip()}


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_a_first_line_of_the_very_limit_may_have_a_bom(
    form: FileForm, monkeypatch: pytest.MonkeyPatch, end: bytes
) -> None:
    line = f'{{"device_id": "7", "event_time": "{AT}", "temperature": 21.5}}'.encode()
    for most, reason in ((len(line), ""), (len(line) - 1, "oversized")):
        monkeypatch.setattr("etl.inbox_rows.MAX_LINE_BYTES", most)
        (row,) = read(form, b"\xef\xbb\xbf" + line + end, "a.jsonl")
        assert isinstance(row, Row) and row.reason == reason


@given(files(), st.sampled_from([40, MAX_LINE_BYTES]))
def test_of_any_file_each_line_is_a_row_or_a_dead_letter_once(
    form: FileForm, judge: Requalifier, file: tuple[str, bytes], most: int
) -> None:
    name, content = file
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("etl.inbox_rows.MAX_LINE_BYTES", most)
        found = read(form, content, name)
    if isinstance(found, Refusal):
        assert found.outcome in {
            "empty", "header_only", "not_utf8", "line_too_long", "unknown_column", "missing_column",
        }  # fmt: skip
        return
    lines = lines_of(content)
    numbers = sorted(lines)[1 if name == "a.csv" else 0 :]
    # One of nothing but blanks may be too long as well.
    assert [row.line for row in found if row.raw.strip()] == numbers
    for row in found:
        line = lines.get(row.line, row.raw)
        if row.reason == "oversized":
            assert line.startswith(row.raw)
        else:
            assert (row.raw, len(line) <= most) == (line, True)
        reason = judged(judge, row)
        assert reason in ("", *REASONS) and reason != "contract_error", row
