"""`weir demo`: three systems for a minute, from devices to validated tables, and whether the figures reconcile."""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from fleet.errors import DataError, Unavailable, WeirError
from fleet.settings import CHECKOUT, Settings
from stack.clock import say

RECORDING = Path("room-occupancy-estimation") / "Occupancy_Estimation.csv"
WEATHER_MINUTES = 20
RECORDED_HOURS, SKIPPED_HOURS = 3, 2
"""The part of the recording in which CO2 rises over its rule's limit and falls below it again."""
SIMULATED_HOURS = 12
"""From ten in the morning: the room fills with people, and is empty in the end.

All of event time: 100 stations at 2 s make 60,000 messages; an hour of the room's 17 values at 30 s makes 2,040. Of the
homes weir/_demo_homes.py says how long they live."""
FAULTS = (
    "spike=0.0005", "out_of_range=0.001", "stuck=0.001", "duplicate=0.002", "reordering=0.002", "clock_skew=0.0005",
    "dropout=0.002", "malformed=0.001",
)  # fmt: skip
ROOM_FAULTS = ("out_of_range=0.005", "duplicate=0.005")
"""A message of the room has one value: where that is bad, nothing of the reading lives, and it is quarantined whole."""
DAG = "sensor_etl"
AUDIT = "parity_nightly"
TELLS_HOMES = "home_energy"
"""The DAG that writes readings of a type of the same name: they are nobody's messages, and stand in no books here."""
BEFORE = timedelta(minutes=10)
"""The audit is of that much more: landing may have opened a file for heartbeats five minutes before the first reading,
and a file is of the day in which it begins."""
COMMAND_AFTER, COMMAND_BEFORE = 0.25, 45.0
"""A command is sent when so much of the simulators' time is over, and the homes are heard, and so many seconds
before its end at the earliest: then, before it expires, their clocks have come to where it was sent."""
RUN_SECONDS = 600
BRIDGE_SECONDS = 120
QUIET_SECONDS = 10
"""Longer than a killed bridge takes to come back and go on."""
LANDING_SECONDS = 180
LIVE_SECONDS = 60
ALERTS_SECONDS = 60
TOLD_SECONDS = 180
"""A storm's digest comes a minute after its first message."""

SYSTEMS = ("home", "occupancy", "weather")

Say = Callable[[str], None]


def demo(
    seconds: Annotated[float, typer.Option(help="How long the simulators run.", min=5)] = 60,
    recording: Annotated[
        Path | None, typer.Option(help="The room's real recording; without it the room is simulated.")
    ] = None,
) -> None:
    """Start the stack if need be, run three systems faster than real time, load it through Airflow, show the books."""
    from weir._demo_screen import show
    from weir.stack import _stack, progress

    # A minute's wait for landing's usual 60 s would be most of the demo.
    os.environ.setdefault("WEIR_LANDING_MAX_SECONDS", "10")
    stack = _stack()
    stack.up(progress)
    settings = stack.settings("operator")
    figures = run(settings, seconds, recording or find_recording(Settings.load()), say, stack.log_tail)
    (settings.home / "demo.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    show(figures, settings, has_grafana="grafana" in stack.services)
    if figures["differences"]:
        raise DataError("the figures do not reconcile:\n" + "\n".join(figures["differences"]))


def find_recording(settings: Settings) -> Path | None:
    """The room's recording in the folder that WEIR_DATA_DIR names, where it is there."""
    path = settings.data_dir / RECORDING
    return path if path.is_file() else None


@contextmanager
def _blaming(part: str, log_tail: Callable[[str], str]) -> Iterator[None]:
    """An error in the block ends with the part's last words."""
    try:
        yield
    except WeirError as error:
        raise type(error)(f"{error}\n--- the log of {part} ends:\n{log_tail(part)}") from error


def run(
    settings: Settings,
    seconds: float,
    recording: Path | None,
    say: Say,
    log_tail: Callable[[str], str] = lambda _: "",
    weather_minutes: int = WEATHER_MINUTES,
) -> dict[str, Any]:
    """The figures of one run. Raises WeirError with the failing part's last words, by `log_tail`."""
    from fleet.catalog import Catalog, load_catalog
    from fleet.channels import TRANSITIONS
    from simulators.outcome import differences
    from weir._demo_alerts import (
        audited,
        by_rule,
        said_in_the_warehouse,
        said_on_kafka,
        wait_until_evaluated,
        wait_until_said_in_the_lake,
    )
    from weir._demo_books import (
        count_live,
        count_on_kafka,
        loaded,
        log_ends,
        outcome,
        topics_of,
        total,
        wait_until_landed,
    )
    from weir._demo_homes import became, dim, register_homes
    from weir._demo_told import inbox, told, wait_until_told

    every = load_catalog(settings.types_dir)
    # Only what the simulators feed: Weir's own services report all the time, and nobody says how much they sent.
    catalog = Catalog({t.type: t for t in every if t.system in SYSTEMS})
    types = [t.type for t in catalog if t.type != TELLS_HOMES]
    topics = topics_of(catalog)
    started = time.monotonic()
    folder = settings.home / "demo"
    folder.mkdir(exist_ok=True)
    register_homes(settings, folder / "homes.csv", _environ(settings))
    ends = log_ends(settings, topics)
    with _blaming("landing", log_tail):
        wait_until_landed(settings, ends, LANDING_SECONDS)
    _run_dag(settings, say, DAG, "takes what came before")
    before, start = loaded(settings, SYSTEMS), log_ends(settings, topics)
    with _blaming("alerts", log_tail):
        wait_until_evaluated(settings, start, ALERTS_SECONDS)
    said_before = log_ends(settings, [TRANSITIONS])
    with _blaming("dispatcher", log_tail):
        wait_until_told(settings, {}, TOLD_SECONDS)
    arrived_before, told_from = inbox(settings), datetime.now(UTC)
    summaries, command_id = _simulate(
        settings, folder, seconds, weather_minutes, recording, say, lambda: dim(settings, catalog)
    )
    published = sum(s["published"] for s in summaries)
    with _blaming("bridge", log_tail):
        end = _wait_until_bridged(
            lambda: log_ends(settings, topics), lambda end: count_on_kafka(settings, start, end, types), published
        )
    readings, rejected = count_on_kafka(settings, start, end, types)
    say(
        f"bridge: {readings.total():,} readings and {rejected.total():,} rejects of {published:,} messages are on Kafka"
    )
    with _blaming("landing", log_tail):
        wait_until_landed(settings, end, LANDING_SECONDS)
    say("landing: all of it is in the lake")
    with _blaming("live", log_tail):
        live = count_live(settings, start, end, LIVE_SECONDS)
    say(f"live: {sum(live[name] for name in types):,} readings are in the table of recent ones")
    with _blaming("alerts", log_tail):
        wait_until_evaluated(settings, end, ALERTS_SECONDS)
    evaluated_at = datetime.now(UTC)
    said, ids, last = said_on_kafka(settings, said_before, SYSTEMS, ALERTS_SECONDS)
    say(f"alerts: {said.total():,} transitions are on Kafka")
    written = said_in_the_warehouse(settings, ids, ALERTS_SECONDS)
    untold = [
        f"{rule} {to}: {n} on Kafka, {written[rule, to]} in the warehouse"
        for (rule, to), n in sorted(said.items())
        if written[rule, to] != n
    ]
    run_id = _run_dag(settings, say, DAG, "takes the demo's readings")
    _run_dag(settings, say, TELLS_HOMES, "tells the rules what the homes have used")
    of_homes = log_ends(settings, [catalog.types[TELLS_HOMES].topic])
    with _blaming("landing", log_tail):
        wait_until_said_in_the_lake(settings, last, LANDING_SECONDS)
    span = {"from": (told_from - BEFORE).isoformat(), "to": evaluated_at.isoformat()}
    _run_dag(settings, say, AUDIT, "runs the rules over what landed once more", span)
    audit = audited(settings, told_from - BEFORE, evaluated_at, SYSTEMS)
    with _blaming("landing", log_tail):
        wait_until_landed(settings, of_homes, LANDING_SECONDS)
    _run_dag(settings, say, DAG, "takes what was told of the homes", {"system": catalog.types[TELLS_HOMES].system})
    with _blaming("dispatcher", log_tail):
        wait_until_told(settings, last, TOLD_SECONDS)
    messages = told(settings, told_from, arrived_before)
    say(f"dispatcher: {sum(of['sent'] for of in messages['receivers'].values()):,} messages were sent")
    after = loaded(settings, SYSTEMS)
    found = outcome(readings, rejected, live, before, after, types)
    of_system = {
        name: vars(total(found.types[t.type] for t in system.types if t.type in types))
        for name, system in catalog.systems.items()
    }
    return {
        "published": published,
        "bridged": readings.total(),
        "rejected": dict(found.rejected),
        **vars(total(found.types.values())),
        "systems": of_system,
        "types": {name: vars(o) for name, o in found.types.items()},
        "rejects_loaded": dict(found.rejects_loaded),
        "rollups": after.rollups - before.rollups,
        "anomalies": after.anomalies - before.anomalies,
        "transitions": said.total(),
        "alerts": by_rule(said, catalog),
        "audit": audit,
        "dag_run": run_id,
        "seconds": round(time.monotonic() - started, 1),
        "recording": str(recording) if recording else None,
        "simulators": summaries,
        "told": messages,
        "command": became(settings, command_id),
        "differences": [
            *differences(summaries, found),
            *untold,
            *messages["different"],
            *_unproven(audit, said.total()),
        ],
    }


def _simulate(
    settings: Settings, folder: Path, seconds: float, weather_minutes: int, recording: Path | None, say: Say,
    meanwhile: Callable[[], str],
) -> tuple[list[dict[str, Any]], str]:  # fmt: skip
    """All systems at once, each in a process of its own; their summaries, and what `meanwhile` returned. What they did
    stands in `folder`."""
    from weir import _demo_homes

    speed = ["--duration", f"{weather_minutes}m", "--speed", str(weather_minutes * 60 / seconds)]
    weather = ["simulate", "weather", *speed]
    weather += [part for fault in FAULTS for part in ("--fault", fault)]
    hours = RECORDED_HOURS if recording else SIMULATED_HOURS
    speed = ["--duration", f"{hours}h", "--speed", str(hours * 3600 / seconds)]
    replay = ["replay", "occupancy", str(recording), "--skip", f"{SKIPPED_HOURS}h", *speed]
    room = replay if recording else ["simulate", "occupancy", *speed]
    source = "the real recording" if recording else "simulated"
    room += [part for fault in ROOM_FAULTS for part in ("--fault", fault)]
    heard_before = _demo_homes.heard(settings)
    homes, minutes = _demo_homes.arguments(heard_before, seconds)
    say(
        f"simulators: {weather_minutes} minutes of 100 weather stations with faults, {hours} hours of a room ({source})"
        f" and {minutes:.0f} minutes of {_demo_homes.HOMES} homes, in {seconds:.0f} s"
    )
    environ = _environ(settings)
    seed = str(int(time.time()))
    processes = []
    for name, arguments in (("weather", weather), ("occupancy", room), ("home", homes)):
        truth = str(folder / f"{name}.truth.jsonl")
        command = [sys.executable, "-m", "weir.main", *arguments, "--seed", seed, "--json", "--truth", truth]
        processes.append(
            subprocess.Popen(
                command,
                cwd=CHECKOUT,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    summaries = []
    try:
        time.sleep(max(seconds * COMMAND_AFTER, seconds - COMMAND_BEFORE))
        _demo_homes.wait_until_heard(settings, heard_before, seconds)
        done_meanwhile = meanwhile()
        for process in processes:
            out, err = process.communicate(timeout=seconds + 120)
            if process.returncode:
                raise WeirError(f"a simulator failed: {err.strip()[-2000:]}")
            summaries.append(json.loads(out))
    except subprocess.TimeoutExpired:
        raise Unavailable(f"a simulator did not end within {seconds + 120:.0f} s") from None
    finally:
        for process in processes:
            process.kill()  # nothing to who has ended
    return summaries, done_meanwhile


def _environ(settings: Settings) -> dict[str, str]:
    """Of a `weir` that works on this stack."""
    environ = {**os.environ, "WEIR_HOME": str(settings.home)}
    environ.pop("WEIR_ENV_FILE", None)
    return environ


def _wait_until_bridged(
    ends: Callable[[], Any], count_to: Callable[[Any], tuple[Counter[str], Counter[str]]], published: int
) -> Any:
    """Until as many readings and rejects came in as were published, and then no more. Returns the log's ends then.

    After a restart of the bridge some come twice: more than were published may be there while others are on their way,
    so that then a longer silence is waited for.
    """
    deadline, before, quiet_since = time.monotonic() + BRIDGE_SECONDS, -1, time.monotonic()
    while True:
        end = ends()
        readings, rejected = count_to(end)
        count, now = readings.total() + rejected.total(), time.monotonic()
        if count != before:
            before, quiet_since = count, now
        elif count >= published and now - quiet_since >= (1 if count == published else QUIET_SECONDS):
            return end
        if now > deadline:
            raise Unavailable(f"the bridge put {count:,} records on Kafka for {published:,} messages")
        time.sleep(1)


def _unproven(audit: Mapping[str, int], said: int) -> list[str]:
    """Where the audit is not of all that was said, or found something else."""
    published, same, different = audit["published"], audit["same"], audit["different"]
    found = [f"audit: {said:,} transitions on Kafka, {published:,} audited"] if published < said else []
    if same != published or different:
        found.append(
            f"audit: {same:,} of {published:,} transitions are what the rules say, {different:,} differ;"
            " see the table parity_differences"
        )
    return found


def _run_dag(settings: Settings, say: Say, dag: str, what: str, conf: Mapping[str, object] | None = None) -> str:
    """One run of a DAG through Airflow's own API; its id. Raises with the failing tasks' logs."""
    from connections.airflow import Airflow

    with Airflow.of(settings) as airflow:
        run_id = airflow.trigger(dag, conf)
        say(f"Airflow: {dag} {what}: {airflow.url}/dags/{dag}/runs/{run_id}")
        state = airflow.wait(dag, run_id, RUN_SECONDS)
        say(f"Airflow: {dag} ended: {state}")
        if state != "success":
            failed = [t for t in airflow.tasks(dag, run_id) if t.state == "failed"]
            logs = "\n".join(f"--- {t.name}\n{airflow.log_tail(dag, run_id, t)}" for t in failed)
            raise DataError(f"{dag} {run_id} failed; see {airflow.url}/dags/{dag}\n{logs}")
    return run_id


def register(app: typer.Typer) -> None:
    app.command()(demo)
