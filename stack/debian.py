"""Debian packages into a private prefix, by apt itself: own lists, own (empty) package status, no root.

apt checks Debian's signature on what it lists; the lock adds the sha256 of each package. The mirror, the proxy and the
TLS settings are the host's own.
"""

import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from fleet.errors import ConfigurationError, Unavailable
from stack.cache import cache_folder, sha256_of, store, stored
from stack.pins import RELEASE, Deb

KEYRINGS = ("/usr/share/keyrings/debian-archive-keyring.gpg", "/usr/share/keyrings/debian-archive-keyring.pgp")
OTHER_DATABASE = "or give WEIR_DB_URL and run the servers yourself"
_RELEASE_FILE = re.compile(
    r"^'(?P<base>\S+?)/dists/(?P<suite>[^/']+)(?:/updates)?/(?:InRelease|Release)'", re.MULTILINE
)
_DEBIAN_SUITES = {
    "bullseye",
    "bookworm",
    "trixie",
    "forky",
    "duke",
    "sid",
    "stable",
    "testing",
    "oldstable",
    "unstable",
}


def keyring() -> Path:
    for name in KEYRINGS:
        if Path(name).is_file():
            return Path(name)
    raise ConfigurationError(f"Debian's archive keyring is not here ({KEYRINGS[0]}): install debian-archive-keyring")


def mirrors(print_uris: str) -> tuple[str, str | None]:
    """The main and the security mirror out of `apt-get --print-uris update`; (main, None) when there is no other."""
    main = security = None
    for match in _RELEASE_FILE.finditer(print_uris):
        suite, base = match["suite"], match["base"]
        codename, _, pocket = suite.partition("-")
        if codename not in _DEBIAN_SUITES:
            continue
        if pocket == "security":
            security = security or base
        elif not pocket:
            main = main or base
    if main is None:
        raise ConfigurationError("apt has no Debian mirror here (its sources name none): use a Debian host")
    return main, security


class PrivateApt:
    """apt with lists of its own for the locked release, under the cache folder."""

    def __init__(self, architecture: str, folder: Path | None = None) -> None:
        self.architecture = architecture
        self.folder = folder or cache_folder() / "apt" / f"{RELEASE}-{architecture}"

    def _options(self) -> list[str]:
        f = self.folder
        pairs = {
            "Dir::Etc::sourcelist": f"{f}/sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::Etc::preferences": "/dev/null",
            "Dir::Etc::preferencesparts": "/dev/null",
            "Dir::State": str(f),
            "Dir::State::lists": f"{f}/lists",
            "Dir::State::status": f"{f}/status",
            "Dir::Cache": str(f),
            "Dir::Cache::archives": f"{f}/archives",
            "Dir::Cache::pkgcache": "pkgcache.bin",  # some container images switch it off; each call is 2 s without
            "Dir::Cache::srcpkgcache": "srcpkgcache.bin",
            "APT::Architecture": self.architecture,
            "APT::Sandbox::User": "",
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled": "false",
            "Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled": "false",
        }
        return [word for key, value in pairs.items() for word in ("-o", f"{key}={value}")] + [
            "-o",
            f"APT::Architectures::={self.architecture}",
        ]

    def _run(self, *words: str, cwd: Path | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [words[0], *self._options(), *words[1:]],
            capture_output=True,
            text=True,
            cwd=cwd,
            env={**os.environ, "LC_ALL": "C"},
        )
        if check and done.returncode:
            tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-6:])
            raise Unavailable(
                f"{' '.join(words[:2])} failed:\n{tail}\nCheck the network and apt's sources, {OTHER_DATABASE}"
            )
        return done

    def update(self) -> None:
        """Fetch and check the release's package lists. A stale security mirror is left out."""
        for name in ("lists/partial", "archives/partial"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        (self.folder / "status").touch()
        with tempfile.TemporaryDirectory() as empty:
            asked = subprocess.run(
                ["apt-get", "-o", f"Dir::State::lists={empty}", "--print-uris", "update"],
                capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"},
            )  # fmt: skip
        main, security = mirrors(asked.stdout)
        key = keyring()
        lines = [f"deb [signed-by={key}] {main} {RELEASE} main"]
        if security:
            lines.append(f"deb [signed-by={key}] {security} {RELEASE}-security main")
        sources = self.folder / "sources.list"
        sources.write_text("\n".join(lines) + "\n")
        done = self._run("apt-get", "update", check=False)
        problem = done.returncode or re.search(r"^[EW]: .*(Failed|expired|not valid)", done.stdout + done.stderr, re.M)
        if problem and security:
            sources.write_text(lines[0] + "\n")
            self._run("apt-get", "update")
        elif problem:
            self._run("apt-get", "update")

    def offered(self, names: Iterable[str]) -> dict[str, list[Deb]]:
        """What the mirror has of each package, newest first, with the sha256 from Debian's signed list."""
        names = list(names)
        shown = self._run("apt-cache", "show", *(f"{name}:{self.architecture}" for name in names)).stdout
        found: dict[str, list[Deb]] = {name: [] for name in names}
        for paragraph in shown.split("\n\n"):
            fields = dict(line.split(": ", 1) for line in paragraph.splitlines() if re.match(r"[\w-]+: ", line))
            if fields.get("Package") in found:
                name = fields["Package"]
                found[name].append(Deb(self.architecture, name, fields["Version"], fields["SHA256"]))
        return found

    def download(self, debs: Iterable[Deb]) -> dict[Deb, Path]:
        """Fetch packages into the cache; each is checked against its sha256."""
        debs = list(debs)
        with tempfile.TemporaryDirectory(dir=self.folder) as scratch:
            folder = Path(scratch)
            self._run("apt-get", "download", *(f"{d.name}:{d.architecture}={d.version}" for d in debs), cwd=folder)
            by_sum = {sha256_of(path): path for path in folder.glob("*.deb")}
            kept = {}
            for deb in debs:
                path = by_sum.get(deb.sha256)
                if path is None:
                    raise ConfigurationError(
                        f"{deb.name} {deb.version}: the download does not have the locked sha256 {deb.sha256}"
                    )
                kept[deb] = store(path, deb.sha256)
        return kept


def fetch(debs: Iterable[Deb], locked_only: bool = False, say: Callable[[str], None] = print) -> dict[Deb, Path]:
    """Every package as a file: from the cache, else through apt.

    A Debian mirror keeps only a release's newest versions. A pin that is gone from it is replaced by the version of the
    same release that Debian signed since (and said so), unless `locked_only`: then it is an error.
    """
    debs = list(debs)
    found = {deb: path for deb in debs if (path := stored(deb.sha256))}
    missing = [deb for deb in debs if deb not in found]
    if not missing:
        return found
    apt = PrivateApt(missing[0].architecture)
    apt.update()
    offered = apt.offered(deb.name for deb in missing)
    wanted = []
    for deb in missing:
        if deb in offered[deb.name]:
            wanted.append(deb)
            continue
        if not offered[deb.name]:
            raise ConfigurationError(f"{deb.name} is not in Debian {RELEASE} any more; {OTHER_DATABASE}")
        now = offered[deb.name][0]
        if locked_only:
            raise ConfigurationError(
                f"{deb.name} {deb.version} is locked but the mirror has {now.version} now: `make lock-native` pins that"
            )
        say(
            f"{deb.name} {deb.version} is gone from the mirror;"
            f" taking Debian's signed {now.version} (`make lock-native` pins it)"
        )
        path = stored(now.sha256)
        if path:
            found[now] = path
        else:
            wanted.append(now)
    return found | (apt.download(wanted) if wanted else {})


def unpack(deb: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["dpkg-deb", "-x", str(deb), str(folder)], check=True)
