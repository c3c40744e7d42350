"""What arrived at the demo's inbox: counted, checked as a careful receiver checks it, the last of it kept."""

import re
import threading
from collections import Counter, deque
from collections.abc import Mapping
from datetime import datetime
from email import message_from_bytes, policy
from typing import Any

from fleet.webhook_body import decoded, verify

LAST = 5
MOST_IDS = 100_000
"""By which what comes again is known; of more, the oldest are forgotten."""
_OF_AN_ALERT = re.compile(r"<(?P<alert>[0-9a-f]{32})-")
_FIRST = re.compile(r"<(?P<alert>[0-9a-f]{32})-1\.")


class _Ids:
    def __init__(self) -> None:
        self._known: dict[str, None] = {}
        self.count = 0

    def add(self, name: str) -> bool:
        """Whether it is new."""
        if name in self._known:
            return False
        if len(self._known) >= MOST_IDS:
            del self._known[next(iter(self._known))]
        self._known[name] = None
        self.count += 1
        return True


class Arrivals:
    """For several threads."""

    def __init__(self, secret: str):
        """`secret`: with which webhooks are signed."""
        self._secret, self._lock = secret, threading.Lock()
        self._hooks, self._mails = Counter[str](), Counter[str]()
        self._hook_ids, self._mail_ids, self._threads = _Ids(), _Ids(), _Ids()
        self._last_hooks: deque[dict[str, Any]] = deque(maxlen=LAST)
        self._last_mails: deque[dict[str, Any]] = deque(maxlen=LAST)
        self._single: dict[str, dict[str, Any] | None] = {"webhook": None, "mail": None}
        """The last about one alert, which a storm's digests would drive out of the last few."""

    def hook(self, headers: Mapping[str, str], body: bytes, now: datetime) -> tuple[int, str]:
        """The HTTP status, and what is wrong. `headers` in small letters."""
        wrong, status, told = verify(headers, body, self._secret, now), 401, {}
        if not wrong:
            try:
                told = decoded(body)
                wrong = "" if told.get("version") == "4" else "the body is not of version 4"
            except ValueError as error:
                wrong = f"the body is no JSON: {error}"
            status = 400
        with self._lock:
            if wrong:
                self._hooks["refused"] += 1
                return status, wrong
            self._hooks["received"] += 1
            if self._hook_ids.add(headers["webhook-id"]):
                self._hooks[str(told["status"])] += 1
            self._last_hooks.append(hook := {"id": headers["webhook-id"], "body": told})
            if _is_of_one_alert(told):
                self._single["webhook"] = hook
        return 200, ""

    def mail(self, to: list[str], content: bytes, encrypted: bool) -> None:
        mail = message_from_bytes(content, policy=policy.default)
        own, first = str(mail["Message-ID"] or ""), str(mail["References"] or "")
        text = mail.get_body(("plain",))
        with self._lock:
            self._mails["received"] += 1
            if self._mail_ids.add(own):
                self._mails["in_a_thread" if first else "first_or_alone"] += 1
                if problem := thread_problem(own, first, str(mail["In-Reply-To"] or "")):
                    self._mails[problem] += 1
            self._last_mails.append(last := {
                "to": to, "subject": str(mail["Subject"]), "message_id": own, "references": first,
                "encrypted": encrypted, "text": text.get_content() if text else "",
            })  # fmt: skip
            if found := _OF_AN_ALERT.match(own):
                self._threads.add(found["alert"])
                self._single["mail"] = last

    def told(self) -> dict[str, Any]:
        """`different`: without those that came again. `wrong_thread` should never be there."""
        with self._lock:
            return {
                "webhook": {
                    **self._hooks,
                    "different": self._hook_ids.count,
                    "last": list(self._last_hooks),
                    "single": self._single["webhook"],
                },
                "mail": {
                    **self._mails,
                    "different": self._mail_ids.count,
                    "alerts": self._threads.count,
                    "last": list(self._last_mails),
                    "single": self._single["mail"],
                },
            }


def _is_of_one_alert(body: Mapping[str, Any]) -> bool:
    alerts, common = body.get("alerts"), body.get("commonAnnotations")
    kind = common.get("kind") if isinstance(common, dict) else None
    return isinstance(alerts, list) and len(alerts) == 1 and kind != "digest"


def thread_problem(own: str, first: str, reply_to: str) -> str:
    """`wrong_thread` where a mail's references are not to its own alert's first mail; empty where all is well."""
    alert, root = _OF_AN_ALERT.match(own), _FIRST.match(first)
    if first != reply_to:
        return "wrong_thread"
    if not first:
        return "wrong_thread" if alert and not _FIRST.match(own) else ""
    return "" if alert and root and alert["alert"] == root["alert"] else "wrong_thread"
