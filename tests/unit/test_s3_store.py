"""What an S3 lake makes of answers that the tests' real stores do not give; and whose environment has its keys."""

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from connections.lake import Lake
from fleet.errors import ConfigurationError, Unavailable
from stack import programs

REFUSALS = {404: "NoSuchBucket", 409: "ConditionalRequestConflict", 412: "PreconditionFailed", 501: "NotImplemented"}


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Status codes of a store's answers to PUTs, to be filled in; the last one stays."""
    codes: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            assert self.headers["If-None-Match"] == "*"
            code = codes.pop(0) if len(codes) > 1 else codes[0]
            body = f"<Error><Code>{REFUSALS[code]}</Code></Error>".encode() if code in REFUSALS else b""
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_DELETE(self) -> None:
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name, value in {
        "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{server.server_port}", "AWS_MAX_ATTEMPTS": "1",
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    yield codes
    server.shutdown()
    server.server_close()


TRIED = [200, 412]
"""The first that a process asks: a file of no meaning is created twice."""
OUTCOMES: dict[str, tuple[list[int], bool | str]] = {
    "written": ([*TRIED, 200], True),
    "there is one": ([*TRIED, 412], False),
    "another writer was at it, and won": ([*TRIED, 409, 412], False),
    "another writer was at it, and gave up": ([*TRIED, 409, 409, 200], True),
    "it never ends": ([*TRIED, 409], "other writers are at it all the time"),
    "a store that knows no conditions": ([501], "does not keep two writers apart"),
    "a store that passes over conditions": ([200], "does not keep two writers apart"),
    "no bucket": ([404], "make the bucket"),
}


@pytest.mark.parametrize(("codes", "outcome"), OUTCOMES.values(), ids=OUTCOMES)
def test_only_a_store_that_keeps_writers_apart_is_taken(
    answers: list[int], codes: list[int], outcome: bool | str
) -> None:
    answers += codes
    lake = Lake("s3://bucket/lake")
    if isinstance(outcome, str):
        with pytest.raises(Unavailable, match=outcome):
            lake.put_if_absent("it", b"x")
    else:
        assert lake.put_if_absent("it", b"x") is outcome


@pytest.mark.parametrize(
    ("uri", "fault"),
    {"s3:///lake": "names no bucket", "hdfs:///lake": "names no NameNode", "gs://x/y": "not gs://"}.items(),
)
def test_a_lake_that_is_nowhere(uri: str, fault: str) -> None:
    with pytest.raises(ConfigurationError, match=fault):
        Lake(uri)


def test_who_opens_the_lake_has_the_users_keys_and_nobody_else(tmp_path: Path) -> None:
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").write_text("[default]\n")
    environ = {"HOME": str(tmp_path), "AWS_PROFILE": "weir", "HADOOP_USER_NAME": "weir", "OTHER": "x"}
    told: Callable[[str], dict[str, str]] = lambda name: programs.lake_environment(name, environ)  # noqa: E731
    whole = {
        "AWS_PROFILE": "weir", "HADOOP_USER_NAME": "weir",
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / ".aws" / "credentials"),
    }  # fmt: skip
    assert {name: told(name) for name in programs.KNOWN if told(name)} == {
        "landing": whole, "airflow-scheduler": whole, "spark": {"HADOOP_USER_NAME": "weir"},
    }  # fmt: skip
