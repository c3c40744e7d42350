"""A bad spec names file, line, what was found and how to put it right."""

from datetime import timedelta
from pathlib import Path

import pytest

from fleet.catalog import build_catalog, check_sites, load_catalog
from fleet.errors import ConfigurationError, SpecError
from fleet.settings import CHECKOUT
from fleet.spec import DeviceType
from fleet.spec_file import load_spec, without_rules

GOOD = """\
type: roof_sensor
version: 1
system: demo
cadence: 10s
metrics:
  temperature: {unit: degC, range: [-40, 85], outside: quarantine}
  energy: {unit: watt_hour, kind: counter}
examples:
  good:
    - {payload: {device_id: d, event_time: 1732985789000, values: {temperature: 1}}, values: {temperature: 1}}
  bad:
    - {payload: nonsense, reason: malformed_json}
alerts:
  - id: hot
    when: temperature > limit
    clear: temperature < limit - 1
    for: 30s
    params: {limit: 35}
  - {id: silent, no_data: 5m}
"""

FLAT = "version: 1\nadapter: {form: flat, "
WRONG = [
    ("a misspelt key", "version: 1", "verzion: 1", 2, "did you mean 'version'"),
    ("an area that there is not", "system: demo", "system: demo\narea: comfort", 4, "'energy', 'security'"),
    ("a missing key", "system: demo\n", "", 1, "system: is required"),
    ("a bare number as duration", "cadence: 10s", "cadence: 10", 4, "a number with a unit"),
    ("a duration beyond all dates", "cadence: 10s", "cadence: 9999999999999d", 4, "at most 36,525d"),
    ("a duration of 400 digits", "cadence: 10s", f"cadence: {'9' * 400}d", 4, "at most 36,525d"),
    ("a window beyond all dates", "when: temperature >", "when: avg(temperature, 99999999999d) >", 15, "at most"),
    ("no cadence", "cadence: 10s", "cadence: 0s", 4, "longer than 0s"),
    ("a list as key", "version: 1", "version: 1\n? [a, b]\n: 1", 3, "a key is a word"),
    ("a mapping as key", "outside: quarantine", "{a: b}: 1", 6, "a key is a word"),
    ("a date that is none", "system: demo", "system: 2024-13-45", 1, "quote what is text"),
    ("two fields of one key", "version: 1", "version: 1\nadapter: {seq: device_id}", 3, "adapter.device_id already"),
    ("a metric under a field's key", "version: 1", FLAT + "event_time: temperature}", 7, "adapter.event_time already"),
    ("a rename onto a field's key", "version: 1", FLAT + "rename: {seq: energy}}", 3, "adapter.seq already"),
    ("a rename onto a metric", "version: 1", "version: 1\nadapter: {rename: {energy: temperature}}", 8, "key 'energy'"),
    ("two renames onto one", "version: 1", "version: 1\nadapter: {rename: {a: energy, b: energy}}", 3, "from 'a'"),
    ("a value under a field's key", "version: 1", "version: 1\nadapter: {form: feature, value: seq}", 3, "adapter.seq"),
    ("a field under a fixed key", "version: 1", "version: 1\nadapter: {seq: values}", 3, "key 'values'"),
    ("the dead letters' type", "type: roof_sensor", "type: rejected", 1, "reserved name"),
    ("the dead letters' system", "system: demo", "system: rejected", 3, "reserved name"),
    ("the first page's system", "system: demo", "system: fleet", 3, "reserved name"),
    ("the dead letters' topic", "version: 1", "version: 1\nkafka_topic: readings.rejected", 3, "reserved for dead"),
    ("carried as metric", "  energy:", "  carried:", 7, "reserved name"),
    ("starts_at as metric", "  energy:", "  starts_at:", 7, "reserved name"),
    ("spec_version as metric", "  energy:", "  spec_version:", 7, "reserved name"),
    ("a metric with _", "  energy:", "  _energy:", 7, "must match"),
    ("a value that is not allowed", "outside: quarantine", "outside: quarentine", 6, "did you mean 'quarantine'"),
    ("an unknown unit", "unit: degC", "unit: Celsius", 6, "allowed: degC"),
    ("a range upside down", "[-40, 85]", "[85, -40]", 6, "must be below high"),
    ("a range of one", "[-40, 85]", "[-40]", 6, "a range is [low, high]"),
    ("NaN as bound", "[-40, 85]", "[.nan, 85]", 6, "finite"),
    ("a change that is a number", "outside: quarantine", "max_change: 5", 6, "a change is {by: 5, within: 1m}"),
    ("a change without a time", "outside: quarantine", "max_change: {by: 5}", 6, "max_change.within: is required"),
    ("a change within nothing", "outside: quarantine", "max_change: {by: 5, within: 0s}", 6, "longer than 0s"),
    ("a change of nothing", "outside: quarantine", "max_change: {by: 0, within: 1m}", 6, "greater than 0"),
    ("a misspelt part of a change", "outside: quarantine", "max_change: {bye: 5, within: 1m}", 6, "did you mean 'by'"),
    ("stuck at once", "outside: quarantine", "stuck_after: 0s", 6, "longer than 0s"),
    ("stuck for longer than a folder", "outside: quarantine", "stuck_after: 1h", 6, "shorter than 1h"),
    ("a history of a day", "outside: quarantine", "history: 1d", 6, "is not between 7d"),
    ("a history beyond what is kept", "outside: quarantine", "history: 2000d", 6, "1825d (retention.rollups)"),
    ("a lake that forgets first", "version: 1", "version: 1\nretention: {lake: 30d}", 3, "retention.rollups, 1825d"),
    ("a counter that is stuck", "kind: counter", "kind: counter, stuck_after: 5m", 7, "are for gauges"),
    ("outside without range", "range: [-40, 85], ", "", 6, "there is no range"),
    ("a profile beyond the sensor", "outside: quarantine", "simulate: {range: [0, 99]}", 6, "must lie inside range"),
    ("a reserved name", "  energy:", "  seq:", 7, "reserved name"),
    ("a key twice", "version: 1", "version: 1\nversion: 2", 3, "stands here and on line 2"),
    ("text where a number is due", "version: 1", "version: one", 2, "valid integer"),
    ("an unknown metric", "when: temperature", "when: temprature", 15, "did you mean 'temperature'"),
    ("an unknown function", "when: temperature >", "when: avrg(temperature, 5m) >", 15, "did you mean 'avg'"),
    ("a broken condition", "temperature > limit", "temperature > ", 15, "expected a value"),
    ("a condition that is too long", "when: temperature", f"when: {'1 + ' * 200}temperature", 15, "more than 300"),
    ("a control character", "  - id: ", '  - title: "a\\0b"\n    id: ', 14, "control characters"),
    ("a window that is too long", "when: temperature >", "when: avg(temperature, 30d) >", 15, "at most 10,000"),
    ("a window that is no duration", "when: temperature >", "when: avg(temperature, 5) >", 15, "literal duration"),
    ("today of a gauge", "when: temperature >", "when: today(temperature) >", 15, "is for counters"),
    (
        "a rule without a metric",
        "when: temperature > limit\n    clear: temperature < limit - 1",
        "when: local_hour() > 5\n    clear: local_hour() < limit",
        15,
        "at least one metric",
    ),
    ("a site function by device", "when: temperature >", "when: site_max(roof_sensor.energy) >", 15, "partition_by"),
    ("a param that hides a metric", "{limit: 35}", "{temperature: 1, limit: 1}", 18, "is a metric"),
    ("a param that is a word", "{limit: 35}", "{not: 1, limit: 1}", 18, "a word of the language"),
    ("a param that no condition can name", "{limit: 35}", "{my-limit: 1, limit: 1}", 18, "must match"),
    ("an infinite param", "{limit: 35}", "{limit: .inf}", 18, "finite"),
    ("a number beyond all numbers", "temperature > limit", "temperature > 1e999", 15, "beyond the largest"),
    ("today of nothing", "when: temperature >", "when: today() >", 15, "takes 1 argument"),
    ("previous of a number", "when: temperature >", "when: previous(3) >", 15, "wants a metric"),
    ("a window of nothing", "when: temperature >", "when: avg(temperature, 0s) >", 15, "longer than 0s"),
    ("max_gap beside no_data", "no_data: 5m", "no_data: 5m, max_gap: 5m", 19, "cannot stand beside no_data"),
    ("for beside levels", "for: 30s", "for: 30s\n    levels: {info: {when: energy > 1}}", 14, "exactly one of"),
    ("a severity that is none", "for: 30s", "severity: fatal", 17, "'critical'"),
    ("flap upside down", "for: 30s", "flap: {high: 0.2, low: 0.3}", 17, "must be below"),
    ("an id with capitals", "id: hot", "id: Hot", 14, "must match"),
    ("two kinds in a rule", "no_data: 5m", "no_data: 5m, when: energy > 1", 19, "exactly one of"),
    ("for beside no_data", "no_data: 5m", "no_data: 5m, for: 5m", 19, "cannot stand beside no_data"),
    ("count of more than there are", "for: 30s", "count: 6 of 5", 17, "6 of only 5"),
    ("two rules of one id", "id: silent", "id: hot", 19, "used twice"),
    ("YAML that is not", "metrics:", "metrics: [", 7, "not YAML"),
    ("no good example", "  good:\n    - {", "  good: []\n  other:\n    - {", 9, "at least 1"),
]  # fmt: skip


def test_the_good_one_loads() -> None:
    assert load_spec(GOOD, "roof_sensor.yaml").alerts[0].params == {"limit": 35}


@pytest.mark.parametrize(("old", "new", "line", "text"), [w[1:] for w in WRONG], ids=[w[0] for w in WRONG])
def test_errors_name_line_and_fix(old: str, new: str, line: int, text: str) -> None:
    assert old in GOOD
    with pytest.raises(SpecError) as caught:
        load_spec(GOOD.replace(old, new, 1), "roof_sensor.yaml")
    message = str(caught.value)
    assert any(part.startswith(f"roof_sensor.yaml:{line}: ") and text in part for part in message.splitlines()), message


def test_on_and_off_are_words_as_keys_and_commands_and_switches_as_values() -> None:
    action = "for: 30s\n    flap: on\n    actions:\n      - {on: firing, type: fan, command: off}"
    rule = load_spec(GOOD.replace("for: 30s", action), "x").alerts[0]
    assert (rule.actions[0].on, rule.actions[0].command, rule.flap and rule.flap.high) == ("firing", "off", 0.5)
    assert load_spec(GOOD.replace("for: 30s", "flap: off"), "x").alerts[0].flap is None


@pytest.mark.parametrize(
    "conditions",
    [
        "when: temperature > 35 and local_hour() < 6\n    clear: local_hour() >= 6",
        "when: local_hour() < 6\n    clear: temperature < limit",
    ],
)
def test_a_rule_looks_at_a_metric_in_any_of_its_conditions(conditions: str) -> None:
    old = "when: temperature > limit\n    clear: temperature < limit - 1"
    assert old in GOOD
    assert load_spec(GOOD.replace(old, conditions), "roof_sensor.yaml").alerts[0].clear


def test_without_rules_it_is_the_same_spec() -> None:
    before = load_spec(GOOD, "x")
    assert before.alerts
    after = load_spec(without_rules(GOOD), "x")
    assert after.model_dump() == before.model_dump() | {"alerts": []}


@pytest.mark.parametrize("text", ["", "[]", "text", "\t", "{" * 3000, "a: &a [*a]"], ids=repr)
def test_files_that_are_no_spec(text: str) -> None:
    with pytest.raises(SpecError, match=r"x\.yaml:\d+: "):
        load_spec(text, "x.yaml")


def test_all_files_are_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "roof_sensor.yaml").write_text(GOOD.replace("version: 1", "version: x"))
    (tmp_path / "other.yaml").write_text(GOOD)
    (tmp_path / "latin.yaml").write_bytes(b"type: \xe9")
    with pytest.raises(SpecError) as caught:
        load_catalog(tmp_path)
    assert {Path(line.split(":")[0]).name for line in str(caught.value).splitlines()} == {
        "roof_sensor.yaml", "other.yaml", "latin.yaml",
    }  # fmt: skip


def test_an_empty_folder_says_how_to_begin(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="weir types new"):
        load_catalog(tmp_path)


def test_types_of_a_system_share_a_topic() -> None:
    one = load_spec(GOOD, "a")
    other = load_spec(GOOD.replace("type: roof_sensor", "type: yard_sensor\nkafka_topic: x"), "b")
    with pytest.raises(SpecError, match="share a topic"):
        build_catalog([one, other])


def test_site_functions_know_the_other_types(tmp_path: Path) -> None:
    site = GOOD.replace("cadence: 10s", "cadence: 10s\npartition_by: site")
    (tmp_path / "roof_sensor.yaml").write_text(
        site.replace("temperature > limit", "site_max(roof_sensor.temprature) > 1")
    )
    with pytest.raises(SpecError, match=r"roof_sensor\.yaml:16: .*did you mean 'temperature'"):
        load_catalog(tmp_path)


def test_one_spec_is_checked_among_the_others(tmp_path: Path) -> None:
    site = GOOD.replace("cadence: 10s", "cadence: 10s\npartition_by: site")
    (tmp_path / "other.yaml").write_text(site.replace("type: roof_sensor", "type: other"))
    for condition, problem in (
        ("other.energy", ""),
        ("othr.energy", "did you mean 'other'"),
        ("roof_sensor.x", "roof_"),
    ):
        text = site.replace("temperature > limit", f"site_max({condition}) > 1")
        file = tmp_path / "roof_sensor.yaml"
        file.write_text(text)
        if not problem:
            check_sites(load_spec(text, str(file)), file, tmp_path)
        else:
            with pytest.raises(SpecError, match=rf"roof_sensor\.yaml:16: .*{problem}"):
                check_sites(load_spec(text, str(file)), file, tmp_path)


@pytest.mark.parametrize("microseconds", [1, 500, 999_999, 1_000_001, 1_234_567_800, 86_400_000_000, 90_000_000])
def test_a_spec_is_read_as_it_was_written(microseconds: int) -> None:
    """As the engine's snapshots keep it."""
    spec = load_spec(GOOD, "x")
    spec = spec.model_copy(update={"cadence": timedelta(microseconds=microseconds)})
    again = DeviceType.model_validate(spec.model_dump(mode="json", by_alias=True, exclude_unset=True))
    assert again == spec


def test_the_types_that_ship_load() -> None:
    assert set(load_catalog(CHECKOUT / "fleet" / "types").systems) >= {"occupancy", "weather"}
