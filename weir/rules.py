"""`weir rules`: alert rules, their tests, and why one fired or did not."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from fleet.rule_test import Result
    from fleet.spec import RuledType

SUFFIX = ".test.yaml"

rules = typer.Typer(no_args_is_help=True, help="Alert rules: what they do with given readings, and did.")


def register(app: typer.Typer) -> None:
    app.add_typer(rules, name="rules")


@rules.callback()
def about() -> None:
    """Alert rules: what they do with given readings, and did."""


@rules.command()
def test(
    paths: Annotated[list[Path], typer.Argument(help=f"Files, or folders with *{SUFFIX}.", metavar="PATH…")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of text.")] = False,
) -> None:
    """Run rule tests: given readings, expected transitions. Exit 1 where one fails, with its first difference."""
    results = [result for file in _files(paths) for result in _run(file)]
    failed = sum(not result.ok for result in results)
    if as_json:
        tests = [{"file": r.file, "name": r.name, "ok": r.ok, "diff": r.diff} for r in results]
        typer.echo(json.dumps({"passed": len(results) - failed, "failed": failed, "tests": tests}, ensure_ascii=False))
    else:
        _show(results)
        typer.echo(f"{len(results) - failed} passed, {failed} failed")
    if failed:
        raise typer.Exit(1)


@rules.command()
def explain(
    device: Annotated[str, typer.Option(help="Its id.")],
    rule: Annotated[str, typer.Option(help="The rule's id, such as high_temperature.")],
    type_: Annotated[str | None, typer.Option("--type", help="Its type, where several have such a rule.")] = None,
    at: Annotated[str, typer.Option(help="When: now, -1h, 2026-11-22T03:00; without a zone UTC.")] = "now",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of text.")] = False,
) -> None:
    """Why a rule did or did not fire for a device: what it saw, where it stood, what it waited for.

    Runs the rules over the partition's own log, up to that moment.
    """
    from weir._explain import found_at
    from weir._explanation import as_lines, as_object

    found = found_at(device, rule, type_, at)
    typer.echo(json.dumps(as_object(found), ensure_ascii=False) if as_json else "\n".join(as_lines(found)))


@rules.command()
def backtest(
    rule: Annotated[str, typer.Option(help="A rule's id, or a changed copy of a spec file (.yaml): its rules.")],
    start: Annotated[
        str,
        typer.Option("--from", help="2026-11-22, 2026-11-22T03:00, -1h (ago); UTC. Told is what fired from then on."),
    ],
    to: Annotated[str, typer.Option(help="As --from: till then, and by what had arrived till then.")] = "now",
    type_: Annotated[str | None, typer.Option("--type", help="Its type, where several have such a rule.")] = None,
    truth: Annotated[
        Path | None,
        typer.Option(
            help="JSON lines of device, begin, end: what should be told; or what weir simulate --truth wrote.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    against: Annotated[str | None, typer.Option(help="live: compare with the rules in force.")] = None,
    warm_up: Annotated[str, typer.Option(help="How long before --from rules begin to look.")] = "1d",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of text.")] = False,
) -> None:
    """What a rule would have said of the readings in the lake, in their order of arrival. Changes nothing."""
    from fleet.duration import parse_duration
    from fleet.errors import ConfigurationError
    from weir._backtest import as_lines, as_object, outcome

    if against not in (None, "live"):
        raise ConfigurationError(f"--against {against!r}: it can only be live")
    try:
        before = parse_duration(warm_up)
    except ValueError as error:
        raise ConfigurationError(f"--warm-up: {error}") from None
    found = outcome(rule, type_, start, to, truth, against == "live", before, as_json)
    typer.echo(json.dumps(as_object(found)) if as_json else "\n".join(as_lines(found)))


@rules.command()
def parity(
    system: Annotated[str, typer.Option(help="A system of fleet/types, or all.")] = "all",
    start: Annotated[
        str | None, typer.Option("--from", help="2026-11-22, -1h (ago); UTC. Without it: all of yesterday.")
    ] = None,
    to: Annotated[
        str | None, typer.Option(help="As --from; the first moment to leave out. Without it: 2m ago.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of text.")] = False,
) -> None:
    """Whether what was published is what the rules say of the landed log. Exit 1 where a difference is unexplained.

    Leaves its findings in the tables parity and parity_differences, as the DAG parity_nightly does.
    """
    from weir._parity import as_lines, as_object, audits

    found = audits(system, start, to)
    if as_json:
        typer.echo(json.dumps({"systems": [as_object(one) for one in found]}, ensure_ascii=False))
    else:
        typer.echo("\n".join(line for one in found for line in as_lines(one)))
    if any(one.total("unexplained") for one in found):
        raise typer.Exit(1)


def _files(paths: Iterable[Path]) -> list[Path]:
    from fleet.errors import ConfigurationError

    found: list[Path] = []
    for path in paths:
        files = sorted(path.rglob(f"*{SUFFIX}")) if path.is_dir() else [path]
        if not files:
            raise ConfigurationError(f"no *{SUFFIX} in {path}")
        if not path.exists():
            raise ConfigurationError(f"no such file or folder: {path}")
        found += files
    return list(dict.fromkeys(found))


def _run(file: Path) -> "list[Result]":
    from fleet.rule_test import Result, check_file

    try:
        return check_file(file.read_text(encoding="utf-8"), str(file), _find_types)
    except UnicodeDecodeError as error:
        return [Result(str(file), "", f"{file}:1: not UTF-8 at byte {error.start}; save it as UTF-8")]


def _find_types(name: str) -> "list[RuledType]":
    from fleet.catalog import load_catalog
    from fleet.settings import Settings

    catalog = load_catalog(Settings.load().types_dir)
    spec = catalog.type(name)
    return [spec, *(other for other in catalog.systems[spec.system].types if other is not spec)]


def _show(results: "Iterable[Result]") -> None:
    for result in results:
        if not result.ok:
            typer.echo(f"{result.file}: {result.name}".rstrip(": "))
            typer.echo("".join(f"  {line}\n" for line in result.diff.splitlines()))
