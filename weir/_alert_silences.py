"""`weir alerts silence|unsilence|silences`: silences live in Alertmanager, and are honoured for every receiver."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

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


COMMANDS = (silence, unsilence, silences)
