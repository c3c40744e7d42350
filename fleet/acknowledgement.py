"""Somebody takes an alert on: who, and what that person says of it."""

import msgspec

from fleet.standing import AlertSoFar

LONGEST_COMMENT = 500
"""Characters: it stands in one line of text messages and mails."""
LONGEST_NAME = 100
"""Of who takes it on: it stands in the same line."""


def in_one_line(text: str) -> str:
    return " ".join(text.split())


def unfit(by: str, comment: str) -> str:
    """What is wrong with them; empty where nothing is."""
    if not 0 < len(by) <= LONGEST_NAME:
        return f"who acknowledges it has {len(by)} characters; 1 to {LONGEST_NAME} are passed on"
    if len(comment) > LONGEST_COMMENT:
        return f"the comment has {len(comment)} characters, and {LONGEST_COMMENT} at most are passed on"
    return ""


def acknowledged_by(so_far: AlertSoFar, by: str, comment: str) -> AlertSoFar:
    """The alert after that, nobody told of it yet. What the same person said of it stays until that person says
    something else."""
    if not comment and by == so_far.alert.acknowledged_by:
        comment = so_far.alert.acknowledged_comment
    alert = msgspec.structs.replace(so_far.alert, acknowledged_by=by, acknowledged_comment=comment)
    return msgspec.structs.replace(
        so_far, alert=alert, acknowledged=so_far.alert.severity, acknowledgements=so_far.acknowledgements + 1
    )
