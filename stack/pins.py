"""`native.lock`: what the prefix is made of, one line each, with its sha256.

    deb <architecture> <package> <version> <sha256>
    jar <set> <group>:<artifact>:<version>[:<classifier>] <sha256>

Debian packages are of one release (`RELEASE`) whatever the host's is: they run on their own C library.
"""

from dataclasses import dataclass
from pathlib import Path

LOCK = Path(__file__).with_name("native.lock")
RELEASE = "trixie"


@dataclass(frozen=True)
class Deb:
    architecture: str
    name: str
    version: str
    sha256: str


@dataclass(frozen=True)
class Jar:
    set: str
    """`kafka` (the broker), `spark` (what Spark sessions add) or `log` (what the broker's logging needs)."""
    group: str
    artifact: str
    version: str
    sha256: str
    classifier: str = ""

    @property
    def file_name(self) -> str:
        return f"{self.artifact}-{self.version}{self.classifier and '-' + self.classifier}.jar"


@dataclass(frozen=True)
class Pins:
    debs: tuple[Deb, ...]
    jars: tuple[Jar, ...]

    def debs_for(self, architecture: str) -> tuple[Deb, ...]:
        return tuple(deb for deb in self.debs if deb.architecture == architecture)

    def jars_in(self, name: str) -> tuple[Jar, ...]:
        return tuple(jar for jar in self.jars if jar.set == name)


def parse(text: str, source: str = "native.lock") -> Pins:
    """Raises ValueError naming the line that is not a pin."""
    debs, jars = [], []
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split("#")[0].split()
        if not words:
            continue
        try:
            if words[0] == "deb":
                debs.append(Deb(*words[1:]))
            elif words[0] == "jar":
                group, artifact, version, *classifier = words[2].split(":")
                jars.append(Jar(words[1], group, artifact, version, words[3], *classifier))
            else:
                raise ValueError(words[0])
        except (TypeError, ValueError, IndexError):
            raise ValueError(f"{source}:{number}: not a pin: {line[:80]!r}") from None
    return Pins(tuple(debs), tuple(jars))


def read(path: Path = LOCK) -> Pins:
    return parse(path.read_text(encoding="utf-8"), str(path))


def render(pins: Pins) -> str:
    lines = ["# Written by `make lock-native`. What the native parts are made of; the format is told in stack/pins.py."]
    lines += [f"deb {d.architecture} {d.name} {d.version} {d.sha256}" for d in pins.debs]
    for j in pins.jars:
        coordinates = ":".join(filter(None, (j.group, j.artifact, j.version, j.classifier)))
        lines.append(f"jar {j.set} {coordinates} {j.sha256}")
    return "\n".join(lines) + "\n"
