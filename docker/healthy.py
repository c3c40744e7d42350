"""Is the program in this container well? `healthy.py URL [PART]`: the URL answers (and its JSON calls PART healthy), or
`tcp://HOST:PORT` is listened on. Standard library alone: it is started every ten seconds."""

import json
import socket
import sys
import urllib.request


def main(url: str, part: str = "") -> None:
    if url.startswith("tcp://"):
        host, _, port = url.removeprefix("tcp://").partition(":")
        socket.create_connection((host, int(port)), timeout=5).close()
        return
    with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310
        told = json.load(answer)[part]["status"] if part else "healthy"
    if told != "healthy":
        sys.exit(f"{part} is {told}")


if __name__ == "__main__":
    main(*sys.argv[1:])
