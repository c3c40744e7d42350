"""Who is in the way when a port is taken. Standard library only: it is asked before anything is downloaded."""

import socket
from collections.abc import Mapping
from pathlib import Path

from fleet.default_ports import DEFAULT_PORTS

LOOPBACK = "127.0.0.1"


def variable(name: str) -> str:
    return f"WEIR_PORT_{name.upper()}"


def chosen(known: Mapping[str, int], environ: Mapping[str, str]) -> dict[str, int]:
    """Server → port. A port named in the environment wins over WEIR_PORT_BASE, which wins over `known`.

    `known` is what an earlier set-up chose, or nothing. Raises ValueError telling what is wrong.
    """
    ports = DEFAULT_PORTS | dict(known)
    base = environ.get("WEIR_PORT_BASE")
    for place, name in enumerate(ports):
        told = environ.get(variable(name)) or (str(int(base) + place) if base and base.isdigit() else base)
        if told:
            if not told.isdigit():
                raise ValueError(f"{variable(name)}: {told!r} is not a port; use 1024 to 65535")
            ports[name] = int(told)
    wrong = [f"{variable(name)}={port}" for name, port in ports.items() if not 1 <= port <= 65535]
    if wrong:
        raise ValueError(f"not a port: {', '.join(wrong)}; use 1024 to 65535")
    twice = {port for port in ports.values() if list(ports.values()).count(port) > 1}
    if twice:
        raise ValueError(f"port {min(twice)} is given to two servers; set WEIR_PORT_BASE or WEIR_PORT_<SERVER>")
    return ports


def taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return True
    return False


def holder(port: int, proc: Path = Path("/proc")) -> "str | None":
    """`name (pid 123)` of the process that listens on the port, as far as /proc shows it to this user."""
    inodes = set()
    for table in ("net/tcp", "net/tcp6"):
        try:
            lines = (proc / table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            words = line.split()
            if words[3] == "0A" and int(words[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{words[9]}]")
    for process in proc.iterdir():
        if not process.name.isdigit():
            continue
        try:
            if any(str(handle.readlink()) in inodes for handle in (process / "fd").iterdir()):
                return f"{(process / 'comm').read_text().strip()} (pid {process.name})"
        except OSError:
            continue
    return None


def conflict_message(conflicts: "Mapping[str, tuple[int, str | None]]") -> str:
    """One line a server: which port, who holds it, what to do."""
    lines = [
        f"{name}: port {port} is taken by {who or 'another process (of another user, or hidden)'};"
        f" stop it or set {variable(name)}"
        for name, (port, who) in conflicts.items()
    ]
    return "\n".join([*lines, "WEIR_PORT_BASE=NUMBER moves all of Weir's servers to NUMBER and the ports after it"])


def conflicts_of(ports: Mapping[str, int]) -> "dict[str, tuple[int, str | None]]":
    return {name: (port, holder(port)) for name, port in ports.items() if taken(port)}
