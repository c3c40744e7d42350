"""What a Spark task makes of a store's answers: the whole file, or an error that does not tell the address."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pyarrow as pa
import pytest

from etl import fetch_task

BODY = b"x" * 100_000


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[str]]]:
    """An address, and what is answered there, in order; the last answer stays."""
    monkeypatch.setattr(fetch_task, "PAUSES_SECONDS", (0.0, 0.0))
    answers: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
            self.send_response(200 if answer in ("whole", "half") else int(answer))
            self.send_header("Content-Length", str(len(BODY)))
            self.end_headers()
            self.wfile.write(BODY[: len(BODY) // (1 if answer == "whole" else 2)])

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/file?X-Amz-Signature=secret", answers
    server.shutdown()
    server.server_close()


OUTCOMES: dict[str, tuple[list[str], str]] = {
    "at once": (["whole"], ""),
    "busy at first": (["503", "500", "whole"], ""),
    "broken off at first": (["half", "whole"], ""),
    "busy for long": (["503"], "HTTP Error 503"),
    "always broken off": (["half"], "IncompleteRead"),
    "not there": (["404", "whole"], "HTTP Error 404"),
    "refused": (["403", "whole"], "HTTP Error 403"),
}


@pytest.mark.parametrize(("given", "fault"), OUTCOMES.values(), ids=OUTCOMES)
def test_a_file_comes_whole_or_not_at_all(store: tuple[str, list[str]], given: list[str], fault: str) -> None:
    address, answers = store
    answers += given
    files = pa.RecordBatch.from_pydict({"path": ["s3://b/a.parquet"], "address": [address]})
    if not fault:
        (found,) = fetch_task.fetch([files])
        assert found.to_pylist() == [{"path": "s3://b/a.parquet", "content": BODY}]
        return
    with pytest.raises(OSError, match=f"s3://b/a.parquet: .*{fault}") as told:
        list(fetch_task.fetch([files]))
    assert "secret" not in str(told.value)
