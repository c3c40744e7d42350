"""What a spec may say of commands and actions, and what is said of one that is wrong."""

import pytest

from fleet.catalog import Catalog, build_catalog, catalog_of, check_sites
from fleet.command import parse_args, wanted_values
from fleet.errors import CommandError, SpecError
from fleet.spec_file import load_spec

EXAMPLES = """\
examples:
  good: [{payload: {device_id: d, event_time: 1732985789000, values: {on: 1}}, values: {on: 1}}]
  bad: [{payload: nonsense, reason: malformed_json}]
"""
LAMP = (
    """\
type: lamp
version: 1
system: demo
cadence: 5s
partition_by: site
metrics:
  on: {unit: bool, kind: state, range: [0, 1]}
  brightness: {unit: percent, range: [0, 100]}
  energy: {unit: watt_hour, kind: counter}
commands:
  on: {sets: {on: 1}}
  off: {sets: {on: false}}
  dim: {args: {level: {unit: percent, range: [5, 100]}}, sets: {brightness: level, on: 1}, expires: 30s}
"""
    + EXAMPLES
)
MOTION = (
    """\
type: motion
version: 1
system: demo
cadence: 5s
partition_by: site
metrics:
  on: {unit: bool, kind: state}
  light: {unit: lux}
alerts:
  - id: someone
    when: on and light < 20
    actions:
      - {on: firing, type: lamp, device: hall, command: dim, args: {level: 40}}
      - {on: resolved, type: lamp, command: off}
"""
    + EXAMPLES
)

WRONG_COMMANDS = [
    ("a misspelt key", "expires: 30s", "expire: 30s", 13, "did you mean 'expires'"),
    ("no metric", "{sets: {on: 1}}", "{sets: {onn: 1}}", 11, "did you mean 'on'"),
    ("sets nothing", "{sets: {on: 1}}", "{sets: {}}", 11, "at least 1 item"),
    ("no sets", "{sets: {on: 1}}", "{title: On}", 11, "sets: is required"),
    ("a counter", "{sets: {on: 1}}", "{sets: {energy: 0}}", 11, "a counter counts"),
    ("out of range", "{sets: {on: 1}}", "{sets: {on: 2}}", 11, "outside the metric's range, 0 to 1"),
    ("a list", "{sets: {on: 1}}", "{sets: {on: [1]}}", 11, "a number, or the name of an argument"),
    ("infinite", "{sets: {on: 1}}", "{sets: {on: .inf}}", 11, "a number, or the name of an argument"),
    ("no argument", "brightness: level", "brightness: levle", 13, "did you mean 'level'"),
    ("another unit", "{unit: percent, range: [5", "{unit: lux, range: [5", 13, "is in lux, the metric in percent"),
    ("an unknown unit", "{unit: percent, range: [5", "{unit: per_cent, range: [5", 13, "allowed: degC"),
    ("no range", ", range: [5, 100]}}", "}}", 13, "give it a range"),
    ("too wide a range", "[5, 100]", "[5, 101]", 13, "takes 5 to 101, the metric only 0 to 100"),
    ("no time", "expires: 30s", "expires: 0s", 13, "longer than 0s"),
    ("a name with capitals", "  off:", "  Off:", 12, "must match"),
]

WRONG_ACTIONS = [
    ("on something else", "on: resolved", "on: escalated", 14, "'firing' or 'resolved'"),
    ("a misspelt key", "device: hall", "devices: hall", 13, "did you mean 'device'"),
    ("no type", "type: lamp, command", "type: lmap, command", 14, "did you mean 'lamp'"),
    ("a type that obeys nothing", "type: lamp, command: off", "command: off", 14, "types that do: lamp"),
    ("no command", "command: off", "command: of", 14, "did you mean 'off'"),
    ("an argument out of range", "level: 40", "level: 4", 13, "5 to 100 in percent; found 4"),
    ("an argument too many", "command: off", "command: off, args: {x: 1}", 14, "it takes none"),
    ("an argument too few", ", args: {level: 40}", "", 13, "dim wants level=…"),
]  # fmt: skip


def catalog(*texts: str) -> Catalog:
    return build_catalog([load_spec(text, f"{text.split()[1]}.yaml") for text in texts])


@pytest.mark.parametrize(
    ("old", "new", "line", "says"), [w[1:] for w in WRONG_COMMANDS], ids=[w[0] for w in WRONG_COMMANDS]
)
def test_a_wrong_command_is_named_with_its_line(old: str, new: str, line: int, says: str) -> None:
    assert old in LAMP
    with pytest.raises(SpecError) as error:
        load_spec(LAMP.replace(old, new, 1), "lamp.yaml")
    assert any(
        one.startswith(f"lamp.yaml:{line}: commands") and says in one for one in str(error.value).splitlines()
    ), error.value


@pytest.mark.parametrize(
    ("old", "new", "line", "says"), [w[1:] for w in WRONG_ACTIONS], ids=[w[0] for w in WRONG_ACTIONS]
)
def test_a_wrong_action_is_named_with_its_line(tmp_path, old: str, new: str, line: int, says: str) -> None:
    assert old in MOTION
    files = {tmp_path / "lamp.yaml": LAMP.encode(), tmp_path / "motion.yaml": MOTION.replace(old, new, 1).encode()}
    with pytest.raises(SpecError) as error:
        catalog_of(files)
    (said,) = str(error.value).splitlines()
    assert said.startswith(f"{tmp_path}/motion.yaml:{line}: alerts.0.actions.")
    assert says in said


def test_an_action_is_checked_among_the_folders_types(tmp_path) -> None:
    file = tmp_path / "motion.yaml"
    file.write_text(MOTION)
    with pytest.raises(SpecError, match=r"motion.yaml:13: .* 'lamp' is no type of system demo"):
        check_sites(load_spec(MOTION, "motion.yaml"), file, tmp_path)
    (tmp_path / "lamp.yaml").write_text(LAMP)
    check_sites(load_spec(MOTION, "motion.yaml"), file, tmp_path)


def test_good_ones() -> None:
    made = catalog(LAMP, MOTION)
    assert wanted_values(made.type("lamp"), "dim", {"level": 40}) == {"brightness": 40, "on": 1}
    assert wanted_values(made.type("lamp"), "off", {}) == {"on": 0}
    first, second = made.type("motion").alerts[0].actions
    assert (first.on, first.type, first.device, first.command, first.args) == (
        "firing", "lamp", "hall", "dim", {"level": 40},
    )  # fmt: skip
    assert (second.on, second.command, second.device) == ("resolved", "off", None)


def lamp_with(rule: str) -> str:
    return f"{LAMP}alerts:\n  - {rule}\n"


ON = "actions: [{on: firing, type: lamp, command: on}]"
OFF = "actions: [{on: firing, type: lamp, command: off}]"
SWITCH = LAMP.replace("type: lamp", "type: switch").replace("energy", "count")
LOOPS = [
    ("itself", [lamp_with("{id: burning, when: on > 0, for: 5m, actions: [{on: firing, command: off}]}")],
     "lamp.yaml", "off sets lamp.on, at which this rule itself looks"),
    ("itself, by clear alone", [lamp_with(f"{{id: a, when: brightness > 5, clear: on < 1, {OFF}}}")],
     "lamp.yaml", "this rule itself"),
    ("itself, by a level", [lamp_with(f"{{id: a, levels: {{info: {{when: on > 0}}}}, {OFF}}}")],
     "lamp.yaml", "this rule itself"),
    ("itself, by the site", [LAMP, MOTION.replace("on and light < 20", "on and site_max(lamp.brightness) < 20")],
     "motion.yaml", "dim sets lamp.brightness, at which this rule itself looks"),
    ("itself, by its silence", [lamp_with(
        "{id: silent, no_data: 30s, actions: [{on: firing, command: on}, {on: resolved, type: switch, command: off}]}"
    ), SWITCH], "lamp.yaml", "on sets lamp.on, at which this rule itself looks"),
    ("by way of another's silence", [
        lamp_with("{id: silent, no_data: 30s, actions: [{on: firing, type: switch, command: on}]}"),
        SWITCH + "alerts: [{id: thrown, when: on > 0, " + ON + "}]\n",
    ], "lamp.yaml", "at which rule thrown of switch looks, which commands what silent of lamp looks at"),
    ("by way of another", [
        lamp_with("{id: lit, when: on > 0, actions: [{on: resolved, type: switch, command: off}]}"),
        SWITCH + "alerts: [{id: thrown, when: on > 0, " + ON + "}]\n",
    ], "lamp.yaml", "at which rule thrown of switch looks, which commands what lit of lamp looks at"),
]  # fmt: skip


@pytest.mark.parametrize(("texts", "file", "says"), [w[1:] for w in LOOPS], ids=[w[0] for w in LOOPS])
def test_an_action_that_comes_back_to_its_rule_is_an_error(tmp_path, texts: list[str], file: str, says: str) -> None:
    files = {tmp_path / f"{text.split()[1]}.yaml": text.encode() for text in texts}
    with pytest.raises(SpecError) as error:
        catalog_of(files)
    said = [one for one in str(error.value).splitlines() if one.startswith(f"{tmp_path}/{file}:")]
    assert len(said) == 1, error.value
    assert "the alert would go on for ever" in said[0]
    assert says in said[0]


@pytest.mark.parametrize(
    "texts",
    [
        [LAMP, MOTION],
        [lamp_with(f"{{id: dark, when: brightness < 5, {ON}}}")],
        [lamp_with("{id: silent, no_data: 5m, actions: [{on: firing, type: switch, command: off}]}"), SWITCH],
        [
            lamp_with("{id: lit, when: on > 0, actions: [{on: firing, type: switch, command: on}]}"),
            SWITCH + "alerts: [{id: thrown, when: on > 0}]\n",
        ],
    ],
    ids=["a motion's lamp", "another metric of its own", "another type, for silence", "a chain with an end"],
)
def test_what_has_an_end_is_no_loop(texts: list[str]) -> None:
    assert catalog(*texts)


@pytest.mark.parametrize(
    ("name", "args", "says"),
    [
        ("onn", {}, "a lamp knows no command 'onn'; did you mean 'on'?"),
        ("blink", {}, "; there are: on, off, dim"),
        ("dim", {}, "dim wants level=… (percent, 5 to 100)"),
        ("dim", {"lvl": 40}, "dim has no argument 'lvl'; did you mean 'level'?"),
        ("dim", {"level": 101}, "level is 5 to 100 in percent; found 101"),
        ("dim", {"level": float("nan")}, "found nan"),
        ("on", {"level": 40}, "on has no argument 'level'; it takes none"),
    ],
)
def test_a_command_that_a_type_does_not_know(name: str, args: dict[str, float], says: str) -> None:
    with pytest.raises(CommandError) as error:
        wanted_values(catalog(LAMP).type("lamp"), name, args)
    assert says in str(error.value)


def test_a_type_that_obeys_nothing() -> None:
    with pytest.raises(CommandError, match="a motion obeys no commands"):
        wanted_values(catalog(LAMP, MOTION).type("motion"), "on", {})


def test_arguments_of_the_command_line() -> None:
    assert parse_args(["level=40", "x=-1.5", "y=true", "z=OFF"]) == {"level": 40, "x": -1.5, "y": 1, "z": 0}


@pytest.mark.parametrize("texts", [["level"], ["level=high"], ["level="], ["level=1", "level=2"]])
def test_arguments_that_are_none(texts: list[str]) -> None:
    with pytest.raises(CommandError, match="argument"):
        parse_args(texts)
