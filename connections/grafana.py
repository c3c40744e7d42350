"""Alerts as annotations in Grafana, through grafana-api."""

import io
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlsplit

import requests
from grafana_api.grafana_api import GrafanaException
from grafana_api.grafana_face import GrafanaFace
from requests.adapters import BaseAdapter
from requests.structures import CaseInsensitiveDict

from connections.outbound import Outbound
from fleet.annotation import Annotation, annotation_of, identity_tag
from fleet.errors import Unavailable
from fleet.http_outcome import TRY_AGAIN, retry_after
from fleet.notification import Delivered, Notification, Outcome, Refused, Retry, TellingAlert
from fleet.receivers import GrafanaOptions

MOST_BYTES = 32 * 1024 * 1024
"""Of an answer: a dashboard has megabytes."""


class _Deadlined(BaseAdapter):
    """What grafana-api asks by `requests`, which knows a timeout of each read alone, asked as all of ours is: with one
    deadline, by no proxy."""

    def __init__(self, client: Outbound):
        super().__init__()
        self._client = client
        self.until = 0.0
        """Of time.monotonic()."""
        self.headers: Mapping[str, str] = {}
        """Of the last answer: grafana-api's errors are without."""

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        """Raises Unavailable where no answer came."""
        self.headers = {}
        body = request.body if isinstance(request.body, bytes) else b""
        method, url = str(request.method), str(request.url)
        answer = self._client.request(method, url, request.headers, body, MOST_BYTES, self.until)
        if not answer.whole and answer.status < 300:
            raise Unavailable("its answer broke off, or took too long")
        self.headers = answer.headers
        response = requests.Response()
        response.status_code, response.request, response.url = answer.status, request, url
        response.headers = CaseInsensitiveDict(answer.headers)
        response.raw, response.encoding = io.BytesIO(answer.body), "utf-8"
        return response

    def close(self) -> None:
        self._client.close()


class Grafana:
    """The annotation of an alert is looked for by a tag with its id before one is made: a message that comes twice, or
    a restart, makes no second one. Heartbeats and tests ask whether Grafana lets us in, and leave nothing behind."""

    def __init__(self, options: GrafanaOptions, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)):
        """Raises ConfigurationError for an address that is none, and a CA file that is not there."""
        self._options, self._clock = options, clock
        self._adapter = _Deadlined(Outbound(options.url, options.timeout_seconds, options.ca_file))
        parts = urlsplit(options.url)
        prefix = parts.path.strip("/")
        token = options.token.get_secret_value()
        self._face = GrafanaFace(
            auth=token or (options.user, options.password.get_secret_value()),
            host=parts.netloc, protocol=parts.scheme, url_path_prefix=f"{prefix}/" if prefix else "",
        )  # fmt: skip
        session: requests.Session = self._face.api.s
        session.mount(f"{parts.scheme}://", self._adapter)
        session.trust_env = False  # no password out of a .netrc
        session.max_redirects = 0
        session.headers["Accept-Encoding"] = "identity"  # the adapter unpacks nothing
        self._dashboard_id: int | None = None
        self._begun = ("", 0)
        """A digest that was not delivered as a whole, and how many of its alerts are there: it goes on there."""

    def send(self, notification: Notification) -> Outcome:
        where = f"Grafana at {self._options.url}"
        try:
            if not notification.alerts or notification.kind in ("heartbeat", "test"):
                self._begin()
                self._face.annotations.get_annotation(limit=1)
            else:
                done = self._begun[1] if self._begun[0] == notification.notification_id else 0
                for number, alert in enumerate(notification.alerts[done:], done):
                    self._begun = (notification.notification_id, number)
                    self._begin()
                    self._annotate(alert, annotation_of(alert, notification.summary))
        except GrafanaException as error:
            told = f"{where}: {error.message}"[:300]
            if error.status_code in TRY_AGAIN or error.status_code >= 500:
                return Retry(told, self._retry_after())
            return Refused(told)
        except requests.TooManyRedirects as error:
            place = error.response.headers.get("location", "nowhere") if error.response is not None else "nowhere"
            return Refused(
                f"{where} redirects to {place[:200]}, and redirects are not followed; name that place itself"
            )
        except (ValueError, TypeError, KeyError) as error:
            # JSON that is none, or none of Grafana's: a login page or a proxy in front of it, which may go away.
            return Retry(
                f"{where} gave no answer of Grafana's ({type(error).__name__}); is it Grafana that listens there?",
                self._retry_after(),
            )
        except Unavailable as error:
            return Retry(f"{where}: {error}"[:300])
        return Delivered("")

    def close(self) -> None:
        self._face.api.s.close()

    def _retry_after(self) -> float | None:
        return retry_after(self._adapter.headers.get("retry-after", ""), self._clock())

    def _begin(self) -> None:
        """The timeout is for all that is asked about one alert."""
        self._adapter.until = time.monotonic() + self._options.timeout_seconds

    def _annotate(self, alert: TellingAlert, wanted: Annotation) -> None:
        found = self._find(alert)
        tags = list(wanted.tags)
        if found is None:
            # Without an end it would be a point; Grafana makes a region of it when the end comes.
            made = self._face.annotations.add_annotation(
                dashboard_id=self._dashboard(), time_from=wanted.begin_ms, time_to=wanted.end_ms, tags=tags,
                text=wanted.text,
            )  # fmt: skip
            int(made["id"])
        else:
            # Tags too: for those that are not given the package sends an empty list, and so would remove them.
            self._face.annotations.partial_update_annotation(
                found, time_from=wanted.begin_ms, time_to=wanted.end_ms, tags=tags, text=wanted.text
            )

    def _find(self, alert: TellingAlert) -> int | None:
        """Grafana's own search by tag. Without a span of time it looks at all of them."""
        found: list[dict[str, Any]] = self._face.annotations.get_annotation(
            tags=[quote(identity_tag(alert), safe="")], ann_type=None, limit=10
        )
        ids = sorted(int(each["id"]) for each in found if identity_tag(alert) in each["tags"])
        return ids[0] if ids else None

    def _dashboard(self) -> int | None:
        if self._options.dashboard_uid and self._dashboard_id is None:
            uid = quote(self._options.dashboard_uid, safe="")
            self._dashboard_id = int(self._face.dashboard.get_dashboard(uid)["dashboard"]["id"])
        return self._dashboard_id
