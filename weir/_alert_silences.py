"""`weir alerts silence|unsilence|silences`: silences live in Alertmanager, and are honoured for every receiver."""

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from weir._alert_rows import By, moment_text, plain
from weir._table import AsJson, aligned

if TYPE_CHECKING:
    from connections.alertmanager import Alertmanager
    from fleet.silence import Matcher

MATCHER = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(=~|!~|!=|=)(.*)", re.DOTALL)


@contextmanager
def _alertmanager() -> "Iterator[Alertmanager]":
    from connections.alertmanager import Alertmanager
    from fleet.settings import Settings

    client = Alertmanager.of(Settings.load())
    try:
        yield client
    finally:
        client.close()


def matcher_of(text: str) -> "Matcher":
    """`site=roof`, `device!=s1`, `rule=~high_.*`, `rule!~low_.*`. Raises ConfigurationError."""
    from fleet.errors import ConfigurationError
    from fleet.silence import Matcher

    found = MATCHER.fullmatch(text)
    if found is None:
        raise ConfigurationError(f"{text!r} is no matcher; such as system=weather, site!=roof, device=~s[0-9]+")
    name, sign, value = found.groups()
    if name == "rule":
        name = "alertname"  # as every receiver knows it
    if "~" in sign:
        try:
            re.compile(value)
        except re.error as error:
            raise ConfigurationError(f"{text!r}: {value!r} is no regular expression: {error}") from None
    return Matcher(name, value, is_regex="~" in sign, is_equal="!" not in sign)


def fitting_nothing(matchers: "Iterable[Matcher]", known: Mapping[str, Collection[str]]) -> list[str]:
    """What of a silence can fit no alert of today's, in words. `known`: label → the values that it can have; labels of
    rules' own have none."""
    from fleet.nearest import did_you_mean, nearest

    said = []
    for matcher in matchers:
        name = "rule" if matcher.name == "alertname" else matcher.name
        if matcher.name not in known and matcher.matches({}):
            continue  # a label that is absent is the empty text
        if matcher.name not in known:
            said.append(f"no alert has a label {name!r}{nearest(name, ['rule', *known])}")
        elif matcher.is_equal and (values := known[matcher.name]) and not any(
            matcher.matches({matcher.name: value}) for value in values
        ):  # fmt: skip
            near = "" if matcher.is_regex else did_you_mean(matcher.value, values)
            said.append(f"no {name} fits {str_of(matcher)}{near}")
    return said


def _known() -> dict[str, set[str]]:
    """Labels and their values, by specs and registry."""
    from connections.warehouse import Warehouse
    from fleet.catalog import load_catalog
    from fleet.settings import Settings
    from fleet.standing import SEVERITIES

    settings = Settings.load()
    catalog, warehouse = load_catalog(settings.types_dir), Warehouse.of(settings)
    try:
        devices = warehouse.rows("SELECT DISTINCT site, device_id FROM devices")
        active = warehouse.rows("SELECT DISTINCT rule, site, device_id, labels FROM alerts WHERE resolved_at IS NULL")
    finally:
        warehouse.close()
    own = [rule for spec in catalog for rule in spec.alerts]
    labels = {name for rule in own for name in rule.labels} | {name for row in active for name in row["labels"]}
    return {name: set[str]() for name in labels} | {
        "system": set(catalog.systems), "type": set(catalog.types), "severity": set(SEVERITIES),
        "site": {row["site"] for row in (*devices, *active)},
        "device": {row["device_id"] for row in (*devices, *active)},
        "alertname": {rule.id for rule in own} | {row["rule"] for row in active},
    }  # fmt: skip


def silence(
    matchers: Annotated[list[str], typer.Argument(help="Such as system=weather site=roof; all must fit.")],
    for_: Annotated[str, typer.Option("--for", help="How long: 30m, 2h, 1d.")],
    comment: Annotated[str, typer.Option(help="Why, for whoever finds it.")],
    by: By = "operator",
) -> None:
    """Hold back what fits, for a while. It is recorded, and what still fires at the end is told then."""
    from datetime import timedelta

    from fleet.duration import parse_duration
    from fleet.errors import ConfigurationError
    from fleet.silence import Silence

    try:
        length = parse_duration(for_)
    except ValueError as error:
        raise ConfigurationError(f"--for {for_!r}: {error}") from None
    if length <= timedelta(0):
        raise ConfigurationError(f"--for {for_!r}: a silence is longer than 0s")
    now = datetime.now(UTC)
    wanted = Silence("", tuple(map(matcher_of, matchers)), now, now + length, by, comment)
    with _alertmanager() as client:
        number = client.add_silence(wanted)
    typer.echo(f"silenced until {moment_text(wanted.ends_at)} UTC; to end it: weir alerts unsilence {number}")
    for problem in _problems(wanted.matchers):
        typer.echo(f"weir: {problem}", err=True)


def _problems(matchers: "Iterable[Matcher]") -> list[str]:
    """Silences are made while the database is away, too, and whatever else is wrong."""
    from fleet.errors import WeirError

    try:
        return [
            f"{problem}; as it is, the silence holds nothing back" for problem in fitting_nothing(matchers, _known())
        ]
    except WeirError as error:
        return [f"not checked whether it fits anything: {error}"]


def maintenance(as_json: AsJson = False) -> None:
    """Maintenance windows of the receivers' file: which is open now, until when, and when the others begin."""
    from fleet.duration import format_duration
    from fleet.settings import Settings
    from streaming.policy import read_receivers

    now = datetime.now(UTC)
    rows = [
        {"name": window.name, "cron": window.cron, "time_zone": window.time_zone,
         "duration": format_duration(window.duration),
         "match": window.match.model_dump(exclude_defaults=True), "open_until": window.ends(now),
         "begins": window.begins(now)}
        for window in read_receivers(Settings.load(role="dispatcher")).maintenance
    ]  # fmt: skip
    if as_json:
        typer.echo(json.dumps(rows, default=plain))
    elif not rows:
        typer.echo("no maintenance windows; they stand in fleet/receivers.yaml")
    else:
        typer.echo("\n".join(aligned([("name", "cron", "what", "now"), *map(_of_window, rows)])))


def _of_window(row: dict[str, Any]) -> tuple[str, str, str, str]:
    match = {name: words for name, words in row["match"].items() if name != "labels"} | row["match"].get("labels", {})
    what = " ".join(f"{name}={','.join(words)}" for name, words in match.items()) or "everything"
    until, next_ = row["open_until"], f"begins {moment_text(row['begins'])[:-4]} UTC"
    state = f"open until {moment_text(until)[:-4]} UTC" if until else next_
    return row["name"] or "-", f"{row['cron']} {row['time_zone']}", what, state


def unsilence(silence_id: Annotated[str, typer.Argument(help="As `weir alerts silences` has it.")]) -> None:
    """End a silence now. What still fires is told."""
    with _alertmanager() as client:
        client.expire(silence_id)
    typer.echo("ended")


def silences(as_json: AsJson = False) -> None:
    """Silences in force, and those to come."""
    import msgspec

    with _alertmanager() as client:
        found = sorted(client.silences(), key=lambda s: s.ends_at)
    if as_json:
        typer.echo(json.dumps([msgspec.to_builtins(s) for s in found], default=plain))
        return
    if not found:
        typer.echo("no silences")
        return
    rows = [("id", "what", "ends", "by", "comment")]
    for each in found:
        what = " ".join(str_of(m) for m in each.matchers)
        rows.append((each.silence_id, what, moment_text(each.ends_at), each.created_by, each.comment))
    typer.echo("\n".join(aligned(rows)))


def str_of(matcher: "Matcher") -> str:
    sign = ("=~" if matcher.is_equal else "!~") if matcher.is_regex else ("=" if matcher.is_equal else "!=")
    return f"{matcher.name}{sign}{matcher.value}"


COMMANDS = (silence, unsilence, silences, maintenance)
