"""`weir alerts held|dead|resend|receivers|test-receiver|ack`: who was told of alerts, who was not and why.

They read the dispatcher's tables, and ask it by a row of `dispatch_requests`; it answers within a second or two.
"""

import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from weir import _filters
from weir._alert_rows import AlertId, By, found_alert, moment_text, plain
from weir._table import AsJson, aligned, at_most

if TYPE_CHECKING:
    from connections.warehouse import Warehouse

ANSWER_SECONDS = 15.0
ASKED_EARLIER = timedelta(hours=1)
"""For clocks that differ: the notes of a test are not older than that."""
HELD = "cause, note, kind, alert_id, transition_id, system, type, rule, device_id, site, severity, summary"
RECEIVERS = """
SELECT r.name, r.kind,
       CASE WHEN r.gone_at IS NOT NULL THEN 'gone' WHEN r.failing_since IS NOT NULL THEN 'failing' ELSE 'on' END
       AS state,
       coalesce(r.gone_at, r.failing_since) AS since, r.sent_at, coalesce(o.waiting, 0) AS waiting,
       coalesce(o.dead, 0) AS dead, r.problem
  FROM dispatch_receivers r
  LEFT JOIN (SELECT receiver, count(*) FILTER (WHERE dead_at IS NULL) AS waiting,
                    count(*) FILTER (WHERE dead_at IS NOT NULL) AS dead FROM outbox GROUP BY receiver) o
    ON o.receiver = r.name
 ORDER BY r.name
"""


def _warehouse() -> "Warehouse":
    from connections.warehouse import Warehouse
    from fleet.settings import Settings

    return Warehouse.of(Settings.load())


def held(
    cause: Annotated[str | None, typer.Option(help="For this cause only, such as silenced.")] = None,
    receiver: Annotated[str | None, typer.Option(help="From this receiver only.")] = None,
    system: Annotated[str | None, typer.Option(help="Of this system only.")] = None,
    rule: Annotated[str | None, typer.Option(help="Of this rule only.")] = None,
    device: Annotated[str | None, typer.Option(help="Of this device only.")] = None,
    site: Annotated[str | None, typer.Option(help="Of this site only.")] = None,
    since: Annotated[str, typer.Option(help="From then on: -1h, 2026-11-22.")] = "-24h",
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the latest first.")] = 100,
    as_json: AsJson = False,
) -> None:
    """What was not told, to whom and why."""
    from etl.window import moment
    from fleet.standing import CAUSES

    filters = _filters.given(cause=cause, receiver=receiver, system=system, rule=rule, device_id=device, site=site)
    where = "".join(f" AND {name} = :{name}" for name in filters)
    warehouse = _warehouse()
    try:
        rows = warehouse.rows(
            f"SELECT max(at) AS at, {HELD}, array_agg(DISTINCT receiver) AS receivers FROM notifications"  # noqa: S608
            f" WHERE outcome = 'held' AND at >= :start{where} GROUP BY {HELD}"
            " ORDER BY at DESC, transition_id DESC, cause LIMIT :limit",
            start=moment(since, "since", datetime.now(UTC)), limit=limit, **filters,
        )  # fmt: skip
        if not rows:
            _filters.check(warehouse, "notifications", filters)
    finally:
        warehouse.close()
    for row in [] if as_json else rows:
        row["what"] = f"{row['severity']} {row['summary']}: {row['device_id']} at {row['site']}"
        row["why"] = row["cause"] + (f" ({row['note']})" if row["note"] else "")
        row["not told"] = ", ".join(row["receivers"])
    _print(rows, ("at", "why", "kind", "what", "not told"), as_json, "nothing was held back in that time", limit)
    for each in [] if as_json else sorted({row["cause"] for row in rows}):
        typer.echo(f"{each}: {CAUSES[each]}")


def dead(
    receiver: Annotated[str | None, typer.Option(help="Of this receiver only.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the latest first.")] = 100,
    as_json: AsJson = False,
) -> None:
    """Messages that were given up or refused; `weir alerts resend` sends them again."""
    warehouse = _warehouse()
    try:
        rows = warehouse.rows(
            "SELECT notification_id AS id, receiver, kind, created_at, dead_at, attempts, problem,"
            " notification->>'summary' AS summary FROM outbox WHERE dead_at IS NOT NULL"
            " AND (CAST(:receiver AS text) IS NULL OR receiver = :receiver)"
            " ORDER BY dead_at DESC, id DESC LIMIT :limit",
            receiver=receiver, limit=limit,
        )  # fmt: skip
        if not rows:
            _filters.check(warehouse, "outbox", _filters.given(receiver=receiver))
    finally:
        warehouse.close()
    _print(rows, ("id", "dead_at", "attempts", "summary", "problem"), as_json, "no dead letters", limit)


def receivers(
    as_json: AsJson = False,
    check: Annotated[bool, typer.Option("--check", help="Only say whether the file is good; needs no server.")] = False,
) -> None:
    """Who is told: each receiver's state, what waits for it and what it never got."""
    from fleet.catalog import load_catalog
    from fleet.settings import Settings
    from streaming.policy import checked_receivers

    if check:
        settings = Settings.load(role="dispatcher")
        policy = checked_receivers(settings)
        named = ", ".join(f"{name} ({options.kind})" for name, options in policy.receivers.items()) or "none"
        nobody = "; nobody is told of anything" if not policy.receivers else ""
        catalog = load_catalog(settings.types_dir)
        rules = {rule.id for spec in catalog for rule in spec.alerts}
        for problem in policy.fitting_nothing({"system": catalog.systems, "type": catalog.types, "rule": rules}):
            typer.echo(f"weir: {_short(settings.receivers_file)}: {problem}", err=True)
        typer.echo(f"{_short(settings.receivers_file)}: good; receivers: {named}; {len(policy.routes)} routes{nobody}")
        return
    warehouse = _warehouse()
    try:
        rows = warehouse.rows(RECEIVERS)
    finally:
        warehouse.close()
    columns = ("name", "kind", "state", "since", "waiting", "dead", "problem")
    _print(rows, columns, as_json, "no receivers; they stand in fleet/receivers.yaml")


def resend(
    notification_id: Annotated[str | None, typer.Argument(help="A dead letter's id: see `weir alerts dead`.")] = None,
    receiver: Annotated[str | None, typer.Option(help="All of this one's; it is switched on if it was off.")] = None,
    by: By = "operator",
) -> None:
    """Send a dead letter again, or all of a receiver's."""
    from fleet.errors import ConfigurationError

    if (notification_id is None) == (receiver is None):
        raise ConfigurationError("give a dead letter's id, or --receiver NAME")
    _ask("resend", notification_id or f"receiver:{receiver}", by)


def test_receiver(
    name: Annotated[str, typer.Argument(help="As in the file of receivers.")],
    comment: Annotated[str, typer.Option(help="What it is to say.")] = "",
    by: By = "operator",
) -> None:
    """Send a test to a receiver, and say what came of it. One that was switched off is on again."""
    asked_at = datetime.now(UTC) - ASKED_EARLIER
    request = _ask("test", name, by, comment, say=False)
    warehouse = _warehouse()
    message = f"test-{request}@{name}"
    try:
        deadline = time.monotonic() + ANSWER_SECONDS
        while time.monotonic() < deadline:
            if rows := warehouse.rows(
                "SELECT outcome, note FROM notifications WHERE notification_id = :id AND outcome <> 'held'"
                " AND at >= :at ORDER BY outcome",
                id=message, at=asked_at,
            ):  # fmt: skip
                said = f": {rows[0]['note']}" if rows[0]["note"] else ""
                where = " everywhere" if len(rows) > 1 else ""  # some addresses of a mail have it
                _fail_unless(rows[0]["outcome"] == "sent", f"{name} did not take it{where}{said}")
                typer.echo(f"{message} has arrived{said}")
                return
            waiting = warehouse.rows("SELECT problem FROM outbox WHERE notification_id = :id", id=message)
            if waiting and waiting[0]["problem"]:
                _fail_unless(False, f"{name} does not take it yet, it is tried again: {waiting[0]['problem']}")
            time.sleep(0.1)
    finally:
        warehouse.close()
    _fail_unless(False, f"{message} is still on its way; `weir alerts receivers` shows how {name} is")


def ack(
    alert_id: AlertId,
    comment: Annotated[str, typer.Option(help="Why, or what is being done; it is passed on.")] = "",
    by: By = "operator",
) -> None:
    """Take an alert on: no repeats and no escalation, until it gets worse. Who was told of it is told by whom, and the
    comment."""
    from fleet.errors import ConfigurationError

    warehouse = _warehouse()
    try:
        # The history may be behind the dispatcher, and a dispatcher that has not begun knows nothing yet.
        found = warehouse.rows(
            "SELECT alert_id FROM dispatch_alerts WHERE left(alert_id, length(:id)) = :id LIMIT 2", id=alert_id
        )
        known = found[0]["alert_id"] if len(found) == 1 and alert_id else found_alert(warehouse, alert_id)["alert_id"]
    finally:
        warehouse.close()
    if not known:
        raise ConfigurationError(f"no alert {alert_id!r}")
    _ask("acknowledge", known, by, comment)


def _ask(what: str, subject: str, by: str, comment: str = "", say: bool = True) -> int:
    """The request's number, once the dispatcher has done it. Raises ConfigurationError with its objection."""
    from sqlalchemy import text

    from fleet.errors import ConfigurationError

    warehouse = _warehouse()
    try:
        with warehouse.transaction() as connection:
            number = connection.execute(
                text(
                    "INSERT INTO dispatch_requests (what, subject, by, comment)"
                    " VALUES (:what, :subject, :by, :comment) RETURNING id"
                ),
                {"what": what, "subject": subject, "by": by, "comment": comment},
            ).scalar_one()
        deadline = time.monotonic() + ANSWER_SECONDS
        while time.monotonic() < deadline:
            (row,) = warehouse.rows("SELECT answer FROM dispatch_requests WHERE id = :id", id=number)
            if row["answer"] is not None:
                if not row["answer"].startswith("done"):
                    raise ConfigurationError(row["answer"])
                if say:
                    typer.echo(row["answer"])
                return int(number)
            time.sleep(0.1)
    finally:
        warehouse.close()
    raise ConfigurationError("the dispatcher has not answered; it will do it when it runs (`weir status`)")


def _fail_unless(is_good: bool, said: str) -> None:
    from fleet.errors import ConfigurationError

    if not is_good:
        raise ConfigurationError(said)


def _short(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _print(
    rows: list[dict[str, Any]], columns: tuple[str, ...], as_json: bool, nothing: str, limit: int | None = None
) -> None:
    if as_json:
        typer.echo(json.dumps(rows, default=plain))
    elif rows:
        typer.echo("\n".join(aligned([columns, *([_cell(row[column]) for column in columns] for row in rows)])))
        if len(rows) == limit:
            typer.echo(at_most(limit))
    else:
        typer.echo(nothing)


def _cell(value: Any) -> str:
    return "" if value is None else moment_text(value)[:-4] if isinstance(value, datetime) else str(value)


COMMANDS = (held, dead, receivers, resend, test_receiver, ack)
