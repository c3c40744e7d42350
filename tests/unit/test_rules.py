"""tests/rules, run; and what the runner says of files and tests that are wrong."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fleet.rule_test import check_file
from fleet.settings import CHECKOUT
from weir.main import build

RULES = CHECKOUT / "tests" / "rules"
FILES = sorted(RULES.rglob("*.test.yaml"))
GOOD = """\
spec:
  type: t
  version: 1
  system: demo
  cadence: 10s
  metrics: {a: {unit: count}, b: {unit: count}}
  alerts:
    - {id: high, when: a > 0}
tests:
  - name: one
    input:
      - {at: 0s, device: d, a: 1}
    expect:
      - {at: 0s, device: d, rule: high, to: firing}
"""


@pytest.mark.parametrize("file", FILES, ids=[str(f.relative_to(RULES)).removesuffix(".test.yaml") for f in FILES])
def test_rules(file: Path) -> None:
    result = CliRunner().invoke(build(), ["rules", "test", str(file), "--json"])
    report = json.loads(result.output)
    assert result.exit_code == 0, "\n".join(t["diff"] for t in report["tests"])
    assert report["failed"] == 0 < report["passed"] == len(report["tests"])


def diffs(text: str) -> list[str]:
    return [result.diff for result in check_file(text, "x.test.yaml", lambda name: [])]


def test_the_good_one_passes() -> None:
    assert diffs(GOOD) == [""]


def test_a_spec_is_no_test() -> None:
    (diff,) = diffs((CHECKOUT / "fleet" / "types" / "weather_station.yaml").read_text())
    assert diff.startswith("x.test.yaml:1: this is a device type's spec")


LINE = "{at: 0s, device: d, a: 1}"
WRONG = [
    ("no spec", "spec:", "speck:", 1, "did you mean 'spec'"),
    ("two specs", "tests:", "type: t\ntests:", 1, "exactly one of"),
    ("a broken condition", "when: a > 0", "when: a >", 8, "expected a value"),
    ("an unknown metric in a rule", "when: a", "when: c", 8, "unknown name 'c'"),
    ("a site function of no type", "when: a > 0", "when: site_max(x.a) > 0", 1, "not a type of this system"),
    ("a misspelt key of a test", "    input:", "    inputs:", 11, "did you mean 'input'"),
    ("no expect", "    expect:\n      - {at: 0s, device: d, rule: high, to: firing}\n", "", 10, "expect is required"),
    ("an unknown metric in a line", "a: 1}", "aa: 1}", 12, "did you mean 'a'"),
    ("text as value", "a: 1}", "a: one}", 12, "expected a number"),
    ("a time without unit", "at: 0s, device: d, a", "at: 5, device: d, a", 12, "a number with a unit"),
    ("no time", "at: 0s, device: d, a", "device: d, a", 12, "at is required"),
    ("no device", "at: 0s, device: d, a", "at: 0s, a", 12, "device is required"),
    ("a word that is no record", LINE, "reboot", 12, "found 'reboot'"),
    ("an unknown type", "device: d, a", "device: d, type: u, a", 12, "no type 'u'"),
    ("a seq that is no number", "device: d, a", "device: d, seq: x, a", 12, "whole number"),
    ("an unknown key in expect", "to: firing", "too: firing", 14, "did you mean 'to'"),
    ("an unknown rule in expect", "rule: high", "rule: hihg", 14, "no rule 'hihg' here; did you mean 'high'"),
    ("a resolve of no rule", LINE, "{at: 0s, resolve: {device: d, rule: hi}}", 12, "no rule 'hi'"),
    ("a param that is no number", "    input", "    registry: [{device: d, params: {x: y}}]\n    input", 11, "number"),
    ("a new spec that is wrong", LINE, "{at: 0s, spec: {type: t}}", 12, "is required and missing"),
    ("YAML that is not", "tests:", "tests: [", 10, "not YAML"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "line", "text"), [w[1:] for w in WRONG], ids=[w[0] for w in WRONG])
def test_errors_name_file_and_line(old: str, new: str, line: int, text: str) -> None:
    assert old in GOOD
    (diff,) = diffs(GOOD.replace(old, new, 1))
    assert any(part.startswith(f"x.test.yaml:{line}: ") and text in part for part in diff.splitlines()), diff


def test_all_that_is_wrong_with_a_test_is_told() -> None:
    (diff,) = diffs(
        GOOD.replace("a: 1", "aa: 1, bb: 2", 1).replace("rule: high", "rule: hihg").replace("to: f", "too: f")
    )
    told = [line.split(": ")[0] for line in diff.splitlines()]
    assert told == [f"x.test.yaml:{line}" for line in (12, 12, 14)], diff


def test_what_follows_a_spec_that_is_wrong_is_not_told() -> None:
    wrong = f"{{at: 0s, spec: {{type: t}}}}\n      - {LINE.replace('a: 1', 'new: 1')}"
    (diff,) = diffs(GOOD.replace(LINE, wrong, 1))
    assert "is required and missing" in diff and "new" not in diff


DIFFERENCES = [
    ("another value", "to: firing}", "to: resolved}", "transition 1 of 1 differs (x.test.yaml:14)"),
    ("one too few", "- {at: 0s, device: d, rule: high, to: firing}\n", "[]\n", "1 was not expected; none was"),
    ("one too many", "to: firing}", "to: firing}\n      - {at: 9s}", "2 of 2 did not come (x.test.yaml:15)"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "text"), [d[1:] for d in DIFFERENCES], ids=[d[0] for d in DIFFERENCES])
def test_a_diff_shows_the_first_difference(old: str, new: str, text: str) -> None:
    (diff,) = diffs(GOOD.replace(old, new, 1))
    assert text in diff


def test_one_wrong_test_leaves_the_others(tmp_path: Path) -> None:
    second = GOOD.split("tests:\n")[1].replace("name: one", "name: two").replace("a: 1", "aa: 1")
    (tmp_path / "x.test.yaml").write_text(GOOD + second)
    (tmp_path / "broken.test.yaml").write_text("spec: [")
    result = CliRunner().invoke(build(), ["rules", "test", str(tmp_path), "--json"])
    report = json.loads(result.output)
    assert (result.exit_code, report["passed"], report["failed"]) == (1, 1, 2)
    assert [(Path(t["file"]).name, t["name"], t["ok"]) for t in report["tests"]] == [
        ("broken.test.yaml", "", False), ("x.test.yaml", "one", True), ("x.test.yaml", "two", False),
    ]  # fmt: skip
    text = CliRunner().invoke(build(), ["rules", "test", str(tmp_path)])
    assert text.exit_code == 1
    assert "1 passed, 2 failed" in text.output


def test_a_folder_without_tests_is_an_error(tmp_path: Path) -> None:
    result = CliRunner().invoke(build(), ["rules", "test", str(tmp_path)])
    assert result.exit_code == 1
