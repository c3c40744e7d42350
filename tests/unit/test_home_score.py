"""What counts as told: an alert that fires while the truth lasts, of its rule and device."""

import pytest

from fleet.backtest import Episode, Truth
from simulators.incidents import SMOKE_TOLD_WITHIN
from tests.unit.test_homes import TOWN
from weir._home_score import Score, score_of

TRUTH = Truth("home-1-hall-motion", 100, 200, frozenset({"motion_while_away"}))
TOLD, NOT = Score(true=1, told=1), Score(false=1, missed=1)

# fired, ended
EPISODES: dict[str, tuple[int, int | None, Score]] = {
    "as it begins": (100, 300, TOLD),
    "as it ends": (200, None, TOLD),
    "before, and active still": (99, 150, NOT),
    "before, and active for good": (50, None, NOT),
    "before, and over": (50, 60, NOT),
    "too late": (201, 300, NOT),
}


@pytest.mark.parametrize(("fired", "ended", "score"), EPISODES.values(), ids=EPISODES)
def test_one_alert_and_one_truth(fired: int, ended: int | None, score: Score) -> None:
    episode = Episode("motion_while_away", TRUTH.device, "home-1", "critical", fired, fired, ended)
    assert score_of([episode], [TRUTH]) == score


def test_smoke_that_is_told_minutes_later_is_missed() -> None:
    (smoke,) = (incident for incident in TOWN.schedule().incidents if incident.kind == "smoke")
    (told,) = smoke.told
    assert (told.begin, told.end) == (smoke.begin, smoke.begin + SMOKE_TOLD_WITHIN)
    assert told.end < smoke.end
