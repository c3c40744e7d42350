"""Airflow through its REST API: trigger a DAG, wait for the run, see what its tasks did."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from fleet.errors import DataError, Refused, Unavailable
from fleet.settings import Settings

TIMEOUT_SECONDS = 30.0
FINAL_STATES = ("success", "failed")
"""Of a run."""
DONE_STATES = ("success", "skipped")
"""Of a task."""
LOG_TAIL_LINES = 30


@dataclass(frozen=True)
class TaskRun:
    """`map_index` is -1 for a task that is not mapped."""

    task_id: str
    map_index: int
    state: str
    try_number: int
    id: str
    """Of this try."""

    @property
    def name(self) -> str:
        return self.task_id if self.map_index < 0 else f"{self.task_id}[{self.map_index}]"


class Airflow:
    """One user's session. Raises Unavailable while Airflow does not answer, Refused where it says no."""

    def __init__(self, url: str, user: str, password: str):
        self.url, self._user, self._password = url.rstrip("/"), user, password
        self._client = httpx.Client(base_url=self.url, timeout=TIMEOUT_SECONDS)

    @classmethod
    def of(cls, settings: Settings) -> "Airflow":
        return cls(settings.airflow_url, settings.airflow_user, settings.airflow_password.get_secret_value())

    def __enter__(self) -> "Airflow":
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def health(self) -> dict[str, str]:
        """Component → its status, such as {"scheduler": "healthy"}."""
        return {name: str(part["status"]) for name, part in self._request("GET", "/api/v2/monitor/health").items()}

    def trigger(self, dag_id: str, conf: Mapping[str, object] | None = None) -> str:
        """Starts a run now; returns its id."""
        body = {"logical_date": None, "conf": dict(conf or {})}
        return str(self._authorised("POST", f"/api/v2/dags/{dag_id}/dagRuns", json=body)["dag_run_id"])

    def run(self, dag_id: str, run_id: str) -> dict[str, Any]:
        return self._authorised("GET", f"/api/v2/dags/{dag_id}/dagRuns/{run_id}")

    def wait(
        self,
        dag_id: str,
        run_id: str,
        seconds: float,
        on_state: Callable[[str], None] = lambda _: None,
        every: float = 0.5,
    ) -> str:
        """`success` or `failed`. Raises Unavailable when the run is not over within the time."""
        deadline, last = time.monotonic() + seconds, ""
        while True:
            state = str(self.run(dag_id, run_id)["state"])
            if state != last:
                on_state(state)
                last = state
            if state in FINAL_STATES:
                return state
            if time.monotonic() > deadline:
                left = [f"{t.name} {t.state}" for t in self.tasks(dag_id, run_id) if t.state not in DONE_STATES]
                raise Unavailable(
                    f"{dag_id} {run_id} is still {state} after {seconds:.0f} s ({', '.join(left) or 'no task'});"
                    f" see {self.url}/dags/{dag_id}"
                )
            time.sleep(every)

    def tasks(self, dag_id: str, run_id: str) -> list[TaskRun]:
        path = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances"
        found: list[TaskRun] = []
        while True:
            page = self._authorised("GET", path, params={"limit": 100, "offset": len(found)})
            found += [
                TaskRun(t["task_id"], t["map_index"], t["state"] or "none", t["try_number"], t["id"])
                for t in page["task_instances"]
            ]
            if len(found) >= page["total_entries"] or not page["task_instances"]:
                return found

    def result(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value") -> Any:
        """What a task returned. Raises DataError where it returned nothing."""
        path = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/{key}"
        answer = self._authorised("GET", path, params={"deserialize": True})
        if "value" not in answer:
            raise DataError(f"task {task_id} of {dag_id} {run_id} returned nothing")
        return answer["value"]

    def log_tail(self, dag_id: str, run_id: str, task: TaskRun, lines: int = LOG_TAIL_LINES) -> str:
        """The last lines of the task's last try."""
        path = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task.task_id}/logs/{max(task.try_number, 1)}"
        content = self._authorised("GET", path, params={"map_index": task.map_index, "full_content": True})["content"]
        texts = [_log_line(entry) for entry in content] if isinstance(content, list) else str(content).splitlines()
        return "\n".join(texts[-lines:])

    def _authorised(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        if "Authorization" not in self._client.headers:
            body = {"username": self._user, "password": self._password}
            token = self._request("POST", "/auth/token", json=body)["access_token"]
            self._client.headers["Authorization"] = f"Bearer {token}"
        return self._request(method, path, **options)

    def _request(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        try:
            answer = self._client.request(method, path, **options)
        except httpx.TransportError as error:
            raise Unavailable(f"Airflow does not answer at {self.url}: {error}") from error
        if answer.status_code >= 500:
            raise Unavailable(f"Airflow at {self.url}: {method} {path} gave {answer.status_code}: {answer.text[:300]}")
        if answer.status_code in (401, 403):
            raise Refused(
                f"Airflow at {self.url} refuses user {self._user!r}; WEIR_AIRFLOW_PASSWORD is wrong or too weak"
            )
        if answer.status_code >= 400:
            raise Refused(f"Airflow at {self.url}: {method} {path} gave {answer.status_code}: {answer.text[:300]}")
        return dict(answer.json())


def _log_line(entry: Any) -> str:
    if not isinstance(entry, dict):
        return str(entry)
    details = " ".join(str(e.get("exc_value", "")) for e in entry.get("error_detail") or [] if isinstance(e, dict))
    return " ".join(filter(None, (str(entry.get("timestamp", ""))[:19], entry.get("event", ""), details)))
