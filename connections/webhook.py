"""Notifications to a webhook: Alertmanager's body, signed as Standard Webhooks."""

from collections.abc import Callable
from datetime import UTC, datetime

from connections.outbound import Outbound
from fleet.errors import ConfigurationError, WeirError
from fleet.http_outcome import outcome_of
from fleet.notification import Notification, Outcome, Refused, Retry
from fleet.receivers import WebhookOptions
from fleet.webhook_body import body_of, excerpt, key_of, signed


class Webhook:
    """A certificate that is not good is a Retry: nothing was sent, certificates expire and are renewed within hours,
    and to refuse would make dead letters of all that happens meanwhile."""

    def __init__(self, options: WebhookOptions, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)):
        """Raises ConfigurationError for an address or a secret that is none."""
        self._options, self._clock = options, clock
        self._secrets = [secret.get_secret_value() for secret in options.secrets]
        for secret in self._secrets:
            try:
                key_of(secret)
            except ValueError as error:
                raise ConfigurationError(f"webhook {options.url}: {error}") from None
        self._client = Outbound(options.url, options.timeout_seconds, options.ca_file, options.allow_link_local)

    def send(self, notification: Notification) -> Outcome:
        body = body_of(notification, self._options.external_url)
        now = self._clock()
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "Weir",
            **signed(notification.notification_id, now, body, self._secrets),
        }
        try:
            answer = self._client.request("POST", self._options.url, headers, body)
        except WeirError as error:
            return Retry(str(error)) if error.retryable else Refused(str(error))
        return outcome_of(answer.status, answer.headers, excerpt(answer.body), now)

    def close(self) -> None:
        self._client.close()
