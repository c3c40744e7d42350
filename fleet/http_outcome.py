"""What an HTTP answer means to the message that was sent."""

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from fleet.notification import Delivered, Gone, Outcome, Refused, Retry

TRY_AGAIN = (408, 425, 429)
LONGEST_WAIT_SECONDS = 86_400.0
"""A receiver that asks for more is asked again after a day."""


def outcome_of(status: int, headers: Mapping[str, str], said: str, now: datetime) -> Outcome:
    """`headers` in small letters; `said` is the body's beginning."""
    told = f"{status}{': ' if said else ''}{said}"
    if 200 <= status < 300:
        return Delivered(str(status))
    if 300 <= status < 400:
        # Followed, it would take a signed body, and maybe a password, to a place that nobody named.
        place = headers.get("location", "nowhere")[:200]
        return Refused(
            f"{status}: it redirects to {place}, and redirects are not followed; name that place if it is right"
        )
    if status == 410:
        return Gone(told)
    if status in TRY_AGAIN or status >= 500:
        return Retry(told, retry_after(headers.get("retry-after", ""), now))
    return Refused(told)


def retry_after(text: str, now: datetime) -> float | None:
    """Seconds, out of `120` or a date; None where it is neither."""
    text = text.strip()
    if text.isascii() and text.isdigit():
        return min(float(text), LONGEST_WAIT_SECONDS)
    try:
        then = parsedate_to_datetime(text)
    except ValueError:
        return None
    then = then if then.tzinfo else then.replace(tzinfo=UTC)
    return min(max((then - now).total_seconds(), 0.0), LONGEST_WAIT_SECONDS)
