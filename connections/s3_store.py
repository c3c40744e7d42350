"""A lake in S3, or in a store that speaks it. A PUT is one step: an object is there whole or not at all.

Keys, profile, region and endpoint are the AWS SDK's own settings, such as AWS_ACCESS_KEY_ID and AWS_ENDPOINT_URL_S3.
"""

import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

from connections.store import TEMPORARY

SIGNED_SECONDS = 3600
CONFIG = Config(
    signature_version="s3v4",
    connect_timeout=10,
    read_timeout=60,
    retries={"mode": "standard", "total_max_attempts": 4},
    max_pool_connections=16,
)
ABSENT = ("NoSuchKey", "404", "NotFound")
KEYS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or AWS_PROFILE)"
WRONG_KEYS = f"{KEYS} to keys that the store knows"
CONDITIONS = (
    "the store does not keep two writers apart (PUT with If-None-Match), without which readings could be lost; take one"
    " that does"
)
HINTS = {
    "NoSuchBucket": "make the bucket, or name another in WEIR_LAKE_URI",
    "AccessDenied": f"give the user of these keys s3:ListBucket on the bucket, s3:GetObject, s3:PutObject and"
    f" s3:DeleteObject on what is in it, or {KEYS} to others",
    "403": WRONG_KEYS,
    "InvalidAccessKeyId": WRONG_KEYS,
    "SignatureDoesNotMatch": WRONG_KEYS,
    "ExpiredToken": "the session's keys are too old: get new ones",
    "NotImplemented": CONDITIONS,
}
"""Error code → what to do."""
CONFLICTS = 10
"""Times that a store may say that another writer is at it just now."""


class S3Store:
    def __init__(self, bucket: str, root: str):
        self._bucket, self._root = bucket, root.strip("/")
        self._s3: Any = boto3.session.Session().client("s3", config=CONFIG)
        self._keeps_apart = False
        """Whether the store has shown that it knows conditions."""
        self._trying = threading.Lock()

    def write(self, path: str, data: bytes | memoryview) -> None:
        with self._told():
            self._s3.put_object(Bucket=self._bucket, Key=self._key(path), Body=bytes(data))

    def put_if_absent(self, path: str, data: bytes) -> bool:
        with self._trying:
            if not self._keeps_apart:
                self._try_conditions()
                self._keeps_apart = True
        return self._put(path, data)

    def _try_conditions(self) -> None:
        """There are stores that know none, and pass over them without a word."""
        path = f"{TEMPORARY}{uuid.uuid4().hex}"
        if self._put(path, b""):
            taken_again = self._put(path, b"")
            self.remove(path)
            if taken_again:
                raise OSError(CONDITIONS)

    def _put(self, path: str, data: bytes) -> bool:
        for _ in range(CONFLICTS):
            try:
                with self._told("PreconditionFailed", "412", "ConditionalRequestConflict", "409"):
                    self._s3.put_object(Bucket=self._bucket, Key=self._key(path), Body=data, IfNoneMatch="*")
            except ClientError as error:
                if _code(error) in ("PreconditionFailed", "412"):
                    return False
            else:
                return True
        raise OSError(f"other writers are at {path} all the time")

    def read(self, path: str) -> bytes:
        with self._told():
            data: bytes = self._s3.get_object(Bucket=self._bucket, Key=self._key(path))["Body"].read()
            return data

    def signed_address(self, path: str) -> str:
        asked = {"Bucket": self._bucket, "Key": self._key(path)}
        with self._told():
            return str(self._s3.generate_presigned_url("get_object", Params=asked, ExpiresIn=SIGNED_SECONDS))

    def names(self, folder: str) -> Iterator[str]:
        start = self._key(folder).rstrip("/") + "/"
        for page in self._pages(start, Delimiter="/"):
            yield from (found["Prefix"].removeprefix(start).rstrip("/") for found in page.get("CommonPrefixes", ()))
            yield from (found["Key"].removeprefix(start) for found in page.get("Contents", ()))

    def files(self, folder: str) -> Iterator[str]:
        lake = self._key("")
        for page in self._pages(self._key(folder).rstrip("/") + "/"):
            yield from (found["Key"].removeprefix(lake) for found in page.get("Contents", ()))

    def _pages(self, start: str, **more: str) -> Iterator[dict[str, Any]]:
        with self._told():
            yield from self._s3.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=start.lstrip("/"), **more
            )

    def modified(self, path: str) -> datetime:
        # Not by HEAD: its 404 does not say whether it is the bucket that is missing. Of what begins alike the name
        # itself comes first.
        key = self._key(path)
        with self._told():
            listed = self._s3.list_objects_v2(Bucket=self._bucket, Prefix=key, MaxKeys=1).get("Contents", ())
        for found in listed:
            if found["Key"] == key:
                moment: datetime = found["LastModified"]
                return moment
        raise FileNotFoundError(path)

    def remove(self, path: str) -> None:
        """Says nothing of an object that is not there: S3 does not tell."""
        with self._told():
            self._s3.delete_object(Bucket=self._bucket, Key=self._key(path))

    def _key(self, path: str) -> str:
        return f"{self._root}/{path}" if self._root else path

    @contextmanager
    def _told(self, *expected: str) -> Iterator[None]:
        """Errors of the SDK as those of a Store, but for these codes."""
        try:
            yield
        except ClientError as error:
            code, message = _code(error), error.response["Error"].get("Message", "")
            if code in expected:
                raise
            if code in ABSENT:
                raise FileNotFoundError(message) from error
            hint = f"; {HINTS[code]}" if code in HINTS else ""
            raise OSError(f"{code}: {message}{hint}") from error
        except NoCredentialsError as error:
            raise OSError(f"S3 wants keys, and there are none; {KEYS}") from error
        except BotoCoreError as error:
            raise OSError(str(error)) from error


def _code(error: ClientError) -> str:
    return str(error.response["Error"].get("Code", ""))
