"""A lake in HDFS, over WebHDFS: a file is written beside its place and renamed, which is one step of the NameNode.

The NameNode names a DataNode to whom bytes go and from whom they come. Users are believed (`user.name`), as HDFS itself
does without Kerberos.
"""

import getpass
import os
import uuid
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import httpx

from connections.store import TEMPORARY
from fleet.settings import WEBHDFS_PORT

PATIENCE = httpx.Timeout(60, connect=10)


class HdfsStore:
    def __init__(self, host: str, root: str, user: str | None = None, port: int = WEBHDFS_PORT):
        """`user` None: HADOOP_USER_NAME, or this process's own, as Hadoop's clients do."""
        self.root = root.rstrip("/")
        self.user = user or os.environ.get("HADOOP_USER_NAME") or getpass.getuser()
        self._port = port
        self._http = httpx.Client(base_url=f"http://{host}:{port}/webhdfs/v1", timeout=PATIENCE)

    def write(self, path: str, data: bytes | memoryview) -> None:
        temporary = self._write(path, data)
        self._ask("PUT", "RENAME", temporary, destination=self._full(path), renameoptions="OVERWRITE")

    def put_if_absent(self, path: str, data: bytes) -> bool:
        # CREATE with overwrite=false shows an empty file before its content; a rename to a name that is taken fails as
        # a whole.
        temporary = self._write(path, data)
        if self._ask("PUT", "RENAME", temporary, destination=self._full(path)).json()["boolean"]:
            return True
        self.remove(temporary)
        return False

    def _write(self, path: str, data: bytes | memoryview) -> str:
        folder, slash, _ = path.rpartition("/")
        temporary = f"{folder}{slash}{TEMPORARY}{uuid.uuid4().hex}"
        try:
            place = self._ask("PUT", "CREATE", temporary, overwrite="false").headers["location"]
            self._answer(lambda: self._http.put(place, content=bytes(data)))
        except OSError:
            with suppress(OSError):  # else the sweep does it
                self.remove(temporary)
            raise
        return temporary

    def read(self, path: str) -> bytes:
        return self._ask("GET", "OPEN", path, follow=True).content

    def signed_address(self, path: str) -> None:
        return None

    def names(self, folder: str) -> list[str]:
        return [entry["pathSuffix"] for entry in self._list(folder)]

    def files(self, folder: str) -> Iterator[str]:
        for entry in self._list(folder):
            path = f"{folder}/{entry['pathSuffix']}".lstrip("/")
            if entry["type"] == "FILE":
                yield path
                continue
            with suppress(FileNotFoundError):  # a folder that went meanwhile
                yield from self.files(path)

    def modified(self, path: str) -> datetime:
        status = self._ask("GET", "GETFILESTATUS", path).json()["FileStatus"]
        return datetime.fromtimestamp(status["modificationTime"] / 1000, UTC)

    def remove(self, path: str) -> None:
        if not self._ask("DELETE", "DELETE", path).json()["boolean"]:
            raise FileNotFoundError(path)

    def _list(self, folder: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._ask("GET", "LISTSTATUS", folder).json()["FileStatuses"]["FileStatus"]
        return found

    def _full(self, path: str) -> str:
        return f"{self.root}/{path}"

    def _ask(self, method: str, operation: str, path: str, follow: bool = False, **parameters: str) -> httpx.Response:
        return self._answer(lambda: self._http.request(
            method, quote(self._full(path), safe="/="), follow_redirects=follow,
            params={"op": operation, "user.name": self.user, **parameters},
        ))  # fmt: skip

    def _answer(self, ask: Any) -> httpx.Response:
        try:
            answer: httpx.Response = ask()
        except httpx.RequestError as error:
            asked = error.request.url
            where = "; WEIR_WEBHDFS_PORT sets another port" if asked.port == self._port else ""
            raise OSError(f"{asked.host}:{asked.port}: {str(error) or type(error).__name__}{where}") from error
        if answer.is_error:
            raise self._refusal(answer)
        return answer

    def _refusal(self, answer: httpx.Response) -> OSError:
        try:
            said = answer.json()["RemoteException"]
            kind, message = str(said["exception"]), str(said["message"]).partition("\n")[0]
        except (ValueError, KeyError):
            where = f"{answer.url.host}:{answer.url.port}"
            return OSError(f"{where}: HTTP {answer.status_code}, no WebHDFS; WEIR_WEBHDFS_PORT sets another port")
        if kind == "FileNotFoundException":
            return FileNotFoundError(message)
        if kind in ("AccessControlException", "SecurityException"):
            return PermissionError(
                f"{message}; HDFS takes us for {self.user!r}: give that user the folder, or set HADOOP_USER_NAME"
            )
        return OSError(f"{kind}: {message}")
