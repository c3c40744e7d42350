"""Alertmanager by its API v2: a receiver of alerts, and the place where silences live."""

import base64
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from connections.outbound import Answer, Outbound
from fleet.alert_labels import annotations_of, labels_of
from fleet.errors import Refused, Unavailable, WeirError
from fleet.http_outcome import outcome_of
from fleet.notification import Delivered, Notification, Outcome, Retry, TellingAlert
from fleet.notification import Refused as NeverTaken
from fleet.receivers import AlertmanagerOptions
from fleet.settings import Settings
from fleet.silence import Matcher, Silence
from fleet.webhook_body import excerpt, rfc3339

AT_ONCE = 1000
"""Alerts in one request, about 0.7 MB."""
MOST_BYTES = 32 * 1024 * 1024
OWN_SEVERITY = {"heartbeat": "none", "test": "info"}
log = logging.getLogger("weir.alertmanager")


class Alertmanager:
    """An active alert is told to end `expire_seconds` from now: unless it is told again, as by `refresh`, it ends by
    itself, so that a Weir that died leaves none behind.

    To Alertmanager another severity is another alert: the ones that an alert had before are ended with each telling.
    """

    def __init__(self, options: AlertmanagerOptions, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)):
        self._options, self._clock = options, clock
        self._url = options.url.rstrip("/")
        self._client = Outbound(options.url, options.timeout_seconds, options.ca_file)
        self._headers = {"Content-Type": "application/json", "User-Agent": "Weir"}
        if options.user:
            pair = f"{options.user}:{options.password.get_secret_value()}".encode()
            self._headers["Authorization"] = f"Basic {base64.b64encode(pair).decode()}"

    @classmethod
    def of(cls, settings: Settings) -> "Alertmanager":
        """The stack's own."""
        return cls(
            AlertmanagerOptions(
                kind="alertmanager",
                url=settings.alertmanager_url,
                user=settings.alertmanager_user,
                password=settings.alertmanager_password,
            )
        )

    def send(self, notification: Notification) -> Outcome:
        if notification.alerts:
            return self.refresh(notification.alerts)
        return self._post([self._of_weir(notification)])

    def refresh(self, alerts: Sequence[TellingAlert]) -> Outcome:
        """Tells them all as they are. What it refuses of some does not keep the others from it."""
        refused: list[Outcome] = []
        for first in range(0, len(alerts), AT_ONCE):
            told = [each for alert in alerts[first : first + AT_ONCE] for each in self._as_told(alert)]
            outcome = self._post(told)
            if isinstance(outcome, NeverTaken):
                refused.append(outcome)
            elif not isinstance(outcome, Delivered):
                return outcome
        return refused[0] if refused else Delivered(f"{len(alerts)} alerts")

    def _as_told(self, alert: TellingAlert) -> list[dict[str, Any]]:
        expires = self._clock() + timedelta(seconds=self._options.expire_seconds)
        told = []
        for severity in dict.fromkeys((*alert.severities, alert.severity)):
            ends = alert.resolved_at or (expires if severity == alert.severity else alert.event_time)
            told.append(self._alert(labels_of(alert, severity), annotations_of(alert), alert.starts_at, ends))
        return told

    def _of_weir(self, notification: Notification) -> dict[str, Any]:
        """A heartbeat or a test: an alert of Weir's own, which also ends by itself."""
        labels = {
            "alertname": f"Weir{notification.kind.capitalize()}",
            "severity": OWN_SEVERITY.get(notification.kind, "info"),
        }
        expires = self._clock() + timedelta(seconds=self._options.expire_seconds)
        return self._alert(labels, {"summary": notification.summary}, notification.created_at, expires)

    def _alert(
        self, labels: Mapping[str, str], annotations: Mapping[str, str], starts: datetime, ends: datetime
    ) -> dict[str, Any]:
        # A nameless one, which a spec may have, would make it refuse the alert.
        labels, annotations = ({n: text for n, text in each.items() if n} for each in (labels, annotations))
        told: dict[str, Any] = {"labels": labels, "annotations": annotations, "startsAt": rfc3339(starts)}
        told["endsAt"] = rfc3339(max(starts, ends))  # it takes no alert that ends before it starts
        return told | ({"generatorURL": self._options.external_url} if self._options.external_url else {})

    def _post(self, alerts: list[dict[str, Any]]) -> Outcome:
        try:
            answer = self._request("POST", "/api/v2/alerts", alerts)
        except WeirError as error:
            return Retry(str(error)) if error.retryable else NeverTaken(str(error))
        return outcome_of(answer.status, answer.headers, excerpt(answer.body), self._clock())

    def silences(self) -> list[Silence]:
        """Those in force and those to come. Raises Unavailable while it does not answer, Refused where it says no."""
        found = self._answered("GET", "/api/v2/silences")
        silences = [_silence(each) for each in found if each["status"]["state"] != "expired"]
        return [silence for silence in silences if _understood(silence)]

    def add_silence(self, silence: Silence) -> str:
        """Its id. One that has an id replaces the one of that id."""
        body = {
            "matchers": [
                {"name": m.name, "value": m.value, "isRegex": m.is_regex, "isEqual": m.is_equal}
                for m in silence.matchers
            ],
            "startsAt": rfc3339(silence.starts_at),
            "endsAt": rfc3339(silence.ends_at),
            "createdBy": silence.created_by,
            "comment": silence.comment,
        }
        if silence.silence_id:
            body["id"] = silence.silence_id
        return str(self._answered("POST", "/api/v2/silences", body)["silenceID"])

    def expire(self, silence_id: str) -> None:
        """Ends a silence now. Raises Refused where there is none of that id."""
        if not re.fullmatch(r"[0-9a-fA-F-]{36}", silence_id):
            raise Refused(f"{silence_id!r} is no silence's id, which looks like 8a4c4bfd-58a6-4d20-b4a4-8b1d7c5d2f3e")
        self._answered("DELETE", f"/api/v2/silence/{silence_id}")

    def close(self) -> None:
        self._client.close()

    def _answered(self, method: str, path: str, body: Any = None) -> Any:
        answer = self._request(method, path, body)
        said = f"Alertmanager at {self._url}: {method} {path} gave {answer.status}: {excerpt(answer.body)}"
        if answer.status in (401, 403):
            raise Refused(f"Alertmanager at {self._url} refuses user {self._options.user!r}: check its password")
        if answer.status >= 500 or not answer.whole:
            raise Unavailable(said)
        if answer.status >= 300:
            raise Refused(said)
        try:
            return msgspec.json.decode(answer.body) if answer.body else None
        except msgspec.DecodeError:
            raise Refused(f"{said} is no JSON; is it Alertmanager that listens there?") from None

    def _request(self, method: str, path: str, body: Any = None) -> Answer:
        content = b"" if body is None else msgspec.json.encode(body)
        try:
            return self._client.request(method, self._url + path, self._headers, content, MOST_BYTES)
        except Unavailable as error:
            raise Unavailable(f"Alertmanager at {self._url}: {error}") from None


def _silence(found: Mapping[str, Any]) -> Silence:
    matchers = tuple(Matcher(m["name"], m["value"], m["isRegex"], m.get("isEqual", True)) for m in found["matchers"])
    starts, ends = (datetime.fromisoformat(found[key]).astimezone(UTC) for key in ("startsAt", "endsAt"))
    return Silence(found["id"], matchers, starts, ends, found["createdBy"], found["comment"])


def _understood(silence: Silence) -> bool:
    """Alertmanager's expressions are Go's; one that Python cannot read holds nothing back."""
    for matcher in silence.matchers:
        try:
            re.compile(matcher.value if matcher.is_regex else "")
        except re.error as error:
            log.warning("silence=%s not honoured, its expression %r: %s", silence.silence_id, matcher.value, error)
            return False
    return True
