"""Which port each server listens on, and who is in the way when one is taken."""

import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from fleet.errors import ConfigurationError
from fleet.settings import Settings

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Ports:
    """Field `mqtt` is the variable `WEIR_PORT_MQTT`."""

    mqtt: int
    kafka: int
    kafka_controller: int
    postgres: int
    airflow: int
    spark: int

    @classmethod
    def from_base(cls, base: int) -> "Ports":
        return cls(*(base + place for place in range(len(fields(cls)))))

    @classmethod
    def from_settings(cls, settings: Settings, environ: Mapping[str, str]) -> "Ports":
        """A port named in the environment wins over WEIR_PORT_BASE, which wins over what an earlier set-up chose."""
        chosen = {f.name: getattr(settings, f"port_{f.name}") for f in fields(cls)}
        if environ.get("WEIR_PORT_BASE"):
            based = asdict(cls.from_base(settings.port_base or 0))
            chosen = {name: chosen[name] if environ.get(variable(name)) else based[name] for name in chosen}
        wrong = [f"{variable(n)}={p}" for n, p in chosen.items() if not 1 <= p <= 65535]
        if wrong:
            raise ConfigurationError(f"not a port: {', '.join(wrong)}; use 1024 to 65535")
        twice = {p for p in chosen.values() if list(chosen.values()).count(p) > 1}
        if twice:
            raise ConfigurationError(f"port {min(twice)} is given to two servers; set WEIR_PORT_BASE or WEIR_PORT_<SERVER>")
        return cls(**chosen)

    @classmethod
    def free(cls) -> "Ports":
        """Ports that nobody listens on now, for tests."""
        held = [socket.socket() for _ in fields(cls)]
        try:
            for each in held:
                each.bind((LOOPBACK, 0))
            return cls(*(each.getsockname()[1] for each in held))
        finally:
            for each in held:
                each.close()


def variable(name: str) -> str:
    return f"WEIR_PORT_{name.upper()}"


def taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return True
    return False


def holder(port: int, proc: Path = Path("/proc")) -> str | None:
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


def conflict_message(conflicts: Mapping[str, tuple[int, str | None]]) -> str:
    """One line a server: which port, who holds it, what to do."""
    lines = [
        f"{name}: port {port} is taken by {who or 'another process (of another user, or hidden)'};"
        f" stop it or set {variable(name)}"
        for name, (port, who) in conflicts.items()
    ]
    return "\n".join([*lines, "WEIR_PORT_BASE=NUMBER moves all of Weir's servers to NUMBER and the ports after it"])


def check_free(wanted: Mapping[str, int]) -> None:
    """Raises ConfigurationError naming every port that is taken and its holder."""
    conflicts = {name: (port, holder(port)) for name, port in wanted.items() if taken(port)}
    if conflicts:
        raise ConfigurationError(conflict_message(conflicts))
