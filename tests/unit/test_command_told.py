"""What `weir command` says of a command, ended or not."""

from typing import get_args

import pytest

from fleet.command_state import UNDER_WAY, State
from weir.command import SO_FAR, told

ID = "0123456789abcdef"
SAID = [
    ("obeyed", "", f"obeyed  ({ID})"),
    ("refused", "too hot", f"refused: too hot  ({ID})"),
    ("delivered", "", f"delivered: the device has it, and its readings do not show it yet  ({ID})\n"
     "to look again: weir commands show 0123456789ab"),
    ("sent", "nobody listens on the device's topic", "sent: the broker has it, the device has not answered, and its"
     f" readings do not show it yet; nobody listens on the device's topic  ({ID})\n"
     "to look again: weir commands show 0123456789ab"),
]  # fmt: skip


@pytest.mark.parametrize(("state", "reason", "says"), SAID, ids=[case[0] for case in SAID])
def test_told(state: str, reason: str, says: str) -> None:
    assert told(state, reason, ID) == says


def test_asked_for_before() -> None:
    assert told("obeyed", "", ID, is_new=False) == f"obeyed  ({ID}, asked for before)"


def test_every_state_that_is_no_end_is_explained() -> None:
    assert set(SO_FAR) == set(UNDER_WAY) < set(get_args(State))
