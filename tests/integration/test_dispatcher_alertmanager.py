"""The dispatcher beside a real Alertmanager: silences made there, and alerts that are kept alive there."""

import json
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from connections.alertmanager import Alertmanager
from fleet.settings import Settings
from stack.stack import Stack
from tests.command import Weir
from tests.integration.processes import wait_for
from tests.integration.test_dispatcher import Ground, ground

__all__ = ["ground"]
pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]


@pytest.fixture
def alertmanager(settings_for: Callable[[str], Settings]) -> Iterator[Alertmanager]:
    client = Alertmanager.of(settings_for("operator"))
    yield client
    client.close()


def silenced(ground: Ground, weir: Weir, *matchers: str) -> str:
    """The id of a silence that the dispatcher knows of."""
    said = weir("alerts", "silence", f"system={ground.system}", *matchers, "--for", "10m", "--comment", "works").stdout
    silence_id = said.split()[-1]
    known = "SELECT 1 FROM dispatch_silences WHERE silence_id = :id"
    wait_for(lambda: ground.reader.rows(known, id=silence_id), 20, ground.log)
    return silence_id


def held(ground: Ground) -> set[str]:
    rows = ground.reader.rows(
        "SELECT transition_id FROM notifications WHERE outcome = 'held' AND cause = 'silenced' AND system = :system",
        system=ground.system,
    )
    return {row["transition_id"] for row in rows}


def test_a_silence_holds_back_and_its_end_tells(ground: Ground, weir: Weir, stack: Stack) -> None:
    ground.process.start().ready()
    silence_id = silenced(ground, weir, "device=q0")
    for alert in ("q0", "q1"):
        ground.say(alert, 1, "firing")
    wait_for(lambda: "q1-1@ops" in ground.ops.ids() and "q0-1" in held(ground), 20, ground.log)
    assert "q0-1@ops" not in ground.ops.asked
    (row,) = json.loads(weir("alerts", "held", "--system", ground.system, "--json").stdout)
    assert (row["cause"], row["note"], row["receivers"]) == ("silenced", silence_id, ["boss", "ops"])
    assert f"silenced ({silence_id})" in weir("alerts", "held", "--system", ground.system).stdout
    weir("alerts", "unsilence", silence_id)
    wait_for(lambda: {"q0-1@ops", "q0-1@boss"} <= {*ground.ops.ids(), *ground.boss.ids()}, 20, ground.log)

    silence_id = silenced(ground, weir, "device=~q[23]")
    stack.supervisor.stop_program("alertmanager")
    try:
        for alert in ("q2", "q4"):
            ground.say(alert, 1, "firing")
        wait_for(lambda: "q4-1@ops" in ground.ops.ids() and "q2-1" in held(ground), 20, ground.log)
        ground.process.kill()
        ground.process.start().ready()
        for alert in ("q3", "q5"):
            ground.say(alert, 1, "firing")
        wait_for(lambda: "q5-1@ops" in ground.ops.ids() and "q3-1" in held(ground), 20, ground.log)
        assert "silences stay as they were last known" in ground.log()
    finally:
        stack.restart("alertmanager")
    assert not {"q2-1@ops", "q3-1@ops"} & set(ground.ops.asked)
    weir("alerts", "unsilence", silence_id)
    wait_for(lambda: {"q2-1@ops", "q3-1@ops"} <= set(ground.ops.ids()), 20, ground.log)


def ends(client: Alertmanager, device: str) -> dict[str, datetime]:
    """Severity → when an active alert of the device ends unless it is told again."""
    found: list[Any] = client._answered("GET", f"/api/v2/alerts?filter=device%3D{device}")
    return {each["labels"]["severity"]: datetime.fromisoformat(each["endsAt"]) for each in found}


def test_what_was_told_is_kept_alive(ground: Ground, weir: Weir, stack: Stack, alertmanager: Alertmanager) -> None:
    ground.file.write_text(
        f"receivers:\n  am: {{kind: alertmanager, url: '{alertmanager._url}', user: weir,"
        " password: '${WEIR_ALERTMANAGER_PASSWORD}', refresh: 1s, expire: 4s}\n"
    )

    def lives_on(severity: str) -> Callable[[], bool]:
        """For longer than it would if it were not told again."""
        until = ends(alertmanager, "kept0")[severity] + timedelta(seconds=5)

        def reached() -> bool:
            found = ends(alertmanager, "kept0")
            assert set(found) == {severity}, ground.log()
            return found[severity] > until

        return reached

    ground.process.start().ready()
    ground.say("kept0", 1, "firing")
    wait_for(lambda: "warning" in ends(alertmanager, "kept0"), 20, ground.log)
    wait_for(lives_on("warning"), 20, ground.log)

    silence_id = silenced(ground, weir, "device=kept0")
    ground.say("kept0", 2, "escalated")
    wait_for(lambda: "kept0-2" in held(ground), 20, ground.log)
    wait_for(lives_on("warning"), 20, ground.log)
    weir("alerts", "unsilence", silence_id)
    wait_for(lambda: set(ends(alertmanager, "kept0")) == {"critical"}, 20, ground.log)

    stack.supervisor.stop_program("postgres")
    try:
        wait_for(lives_on("critical"), 20, ground.log)
    finally:
        stack.restart("postgres")
    ground.say("kept0", 3, "resolved")
    wait_for(lambda: ends(alertmanager, "kept0") == {}, 30, ground.log)
