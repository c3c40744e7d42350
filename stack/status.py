"""A stack's programs as a table: state, port, uptime, memory."""

from collections.abc import Iterable
from pathlib import Path

from stack.programs import PORT_OF
from stack.stack import Stack


def rows(stack: Stack) -> list[tuple[str, ...]]:
    """Program, state, pid, port, uptime and memory, as text; the last row is all of them together."""
    lines: list[tuple[str, ...]] = []
    total = 0
    for name, info in stack.supervisor.programs().items():
        port = ", ".join(str(getattr(stack.ports, port)) for port in PORT_OF.get(name, ()))
        running = info["statename"] == "RUNNING"
        uptime = duration(info["now"] - info["start"]) if running else ""
        used = memory_bytes(tree(info["pid"])) if running else 0
        total += used
        memory = f"{used / 2**20:.0f} MiB" if running else ""
        state = "up" if running else f"{info['statename'].lower()} ({info['spawnerr'] or info['description']})"
        lines.append((name, state, str(info["pid"] or ""), port, uptime, memory))
    return [*lines, ("together", "", "", "", "", f"{total / 2**20:,.0f} MiB")] if lines else []


def duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes:02}m" if hours else f"{minutes}m {rest:02}s" if minutes else f"{rest}s"


def tree(pid: int, proc: Path = Path("/proc")) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for process in found:
        try:
            found += [
                int(child) for child in (proc / str(process) / "task" / str(process) / "children").read_text().split()
            ]
        except OSError:
            continue
    return found


def memory_bytes(pids: Iterable[int], proc: Path = Path("/proc")) -> int:
    """Proportional set size: pages that processes share are counted once between them."""
    total = 0
    for pid in pids:
        try:
            told = (proc / str(pid) / "smaps_rollup").read_text()
        except OSError:
            continue
        total += next((int(line.split()[1]) for line in told.splitlines() if line.startswith("Pss:")), 0) * 1024
    return total
