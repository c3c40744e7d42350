"""The webhook's body and signature, as pure functions."""

import json
from datetime import UTC, datetime

import pytest

from fleet.alert_labels import labels_of
from fleet.webhook_body import MOST_ALERTS, body_of, signed, verify
from tests.alerts_told import ALERT_ID, alert, empty, notification, resolved

NOW = datetime(2026, 5, 4, 12, 0, 30, tzinfo=UTC)


def test_the_body_is_alertmanagers_version_4():
    assert json.loads(body_of(notification(), "https://weir.example")) == {
        "version": "4",
        "groupKey": '{}:{alertname="high_temperature", system="weather", type="weather_station", site="roof",'
        ' device="s1"}',
        "truncatedAlerts": 0,
        "status": "firing",
        "receiver": "r",
        "groupLabels": {
            "alertname": "high_temperature", "system": "weather", "type": "weather_station", "site": "roof",
            "device": "s1",
        },
        "commonLabels": labels_of(alert()),
        "commonAnnotations": {
            "runbook": "open a window", "title": "High Temperature", "alert_id": ALERT_ID,
            "transition_id": f"{ALERT_ID}-1", "values": "temperature 36.5", "kind": "firing",
            "summary": "warning High Temperature at roof: s1 36.5",
        },
        "externalURL": "https://weir.example",
        "alerts": [
            {
                "status": "firing",
                "labels": {
                    "team": "facility", "alertname": "high_temperature", "system": "weather",
                    "type": "weather_station", "site": "roof", "device": "s1", "severity": "warning",
                },
                "annotations": {
                    "runbook": "open a window", "title": "High Temperature", "alert_id": ALERT_ID,
                    "transition_id": f"{ALERT_ID}-1", "values": "temperature 36.5",
                },
                "startsAt": "2026-05-04T12:00:00Z",
                "endsAt": "0001-01-01T00:00:00Z",
                "generatorURL": "https://weir.example",
                "fingerprint": json.loads(body_of(resolved()))["alerts"][0]["fingerprint"],
            }
        ],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("told", "status", "ends", "truncated"),
    [
        (resolved(), "resolved", ["2026-05-04T12:05:00Z"], 0),
        (notification("digest", alert(), *resolved(device="s2").alerts), "firing",
         ["0001-01-01T00:00:00Z", "2026-05-04T12:05:00Z"], 0),
        (notification("digest", *[alert(n) for n in range(1, MOST_ALERTS + 13)]), "firing", None, 12),
        (empty(), "firing", [], 0),
    ],
    ids=["resolved", "mixed digest", "storm", "heartbeat"],
)  # fmt: skip
def test_what_differs_by_what_is_told(told, status, ends, truncated):
    body = json.loads(body_of(told))
    assert (body["status"], body["truncatedAlerts"]) == (status, truncated)
    assert ends is None or [each["endsAt"] for each in body["alerts"]] == ends
    assert body["commonAnnotations"]["kind"] == told.kind


def test_a_specs_own_labels_do_not_override():
    own = dict.fromkeys(("alertname", "severity", "device", "site", "type", "system", "team"), "mine")
    assert [k for k, v in labels_of(alert(labels=own)).items() if v == "mine"] == ["team"]


def test_the_standards_own_example():
    """Of standardwebhooks' reference libraries."""
    secret, body = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", b'{"test": 2432232314}'
    headers = signed("msg_p5jXN8AQM9LWM0D4loKWxJek", datetime.fromtimestamp(1614265330, UTC), body, [secret])
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"webhook-id": ""}, "are wanted"),
        ({"webhook-signature": ""}, "are wanted"),
        ({"webhook-timestamp": "soon"}, "no number"),
        ({"webhook-timestamp": "1"}, "from now"),
        ({"webhook-id": "another"}, "no signature"),
        ({"webhook-signature": "v1,é"}, "no signature"),
    ],
)
def test_a_signature_that_is_none(changes, says):
    secret = "whsec_" + "b2xk" * 8
    headers = signed("id", NOW, b"{}", [secret])
    assert verify(headers, b"{}", secret, NOW) == ""
    assert says in verify(headers | changes, b"{}", secret, NOW)
