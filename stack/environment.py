"""The locked Python packages into `.venv`: pip brings the locked uv, uv brings the rest. Standard library only."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from stack.cache import CHECKOUT, cache_folder, sha256_of
from stack.clock import say
from stack.prerequisites import missing

VENV = CHECKOUT / ".venv"
UNFINISHED = VENV / "weir.unfinished"
STAMP = VENV / "weir.stamp"


def main() -> None:
    problems = missing(os.environ, with_ports="--ports" in sys.argv)
    if problems:
        sys.exit("weir: this machine lacks something, nothing was downloaded:\n" + "\n".join(problems))
    try:
        ensure()
    except subprocess.CalledProcessError as error:
        sys.exit(f"weir: {' '.join(str(word) for word in error.cmd[:6])} … failed; see above")


def lock_file(version: "tuple[int, int]" = sys.version_info[:2]) -> Path:
    return CHECKOUT / "requirements" / f"py{version[0]}{version[1]}.txt"


def fingerprint(lock: Path) -> str:
    """Changes with the lock, the project's own metadata, the Python and the place (scripts hold absolute paths)."""
    parts = [
        lock.read_bytes(),
        (CHECKOUT / "pyproject.toml").read_bytes(),
        sys.version.encode(),
        str(CHECKOUT).encode(),
    ]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def ensure() -> None:
    lock = lock_file()
    wanted = fingerprint(lock)
    if STAMP.is_file() and STAMP.read_text() == wanted and not UNFINISHED.exists():
        return
    say(f"Python {sys.version.split()[0]} ({sys.executable}); downloads are kept in {cache_folder()}")
    make_venv()
    UNFINISHED.touch()
    text = lock.read_text(encoding="utf-8")
    environment = uv_environment(os.environ, pip_settings())
    # uv leaves its locks behind; nothing is to be left in /tmp.
    environment["TMPDIR"] = str(cache_folder() / "tmp")
    Path(environment["TMPDIR"]).mkdir(parents=True, exist_ok=True)
    if not (VENV / "bin" / "uv").exists():
        install_uv(text, environment)
    say(f"{len(re.findall('^[a-z0-9]', text, re.MULTILINE))} packages from {lock.relative_to(CHECKOUT)}")
    install_packages(lock, text, environment)
    say("Weir itself, from this checkout")
    subprocess.run([VENV / "bin/uv", "pip", "install", "-q", "--offline", "--python", VENV / "bin/python", "--no-deps",
                    "--no-build-isolation", "-e", CHECKOUT], check=True, env=environment)  # fmt: skip
    STAMP.write_text(wanted)
    UNFINISHED.unlink()
    say("environment ready")


def make_venv() -> None:
    """A fresh `.venv`, unless a whole one for this very Python is there."""
    base = Path(sys.base_prefix) / "bin" / f"python{sys.version_info[0]}.{sys.version_info[1]}"
    python = str(base) if base.exists() else getattr(sys, "_base_executable", sys.executable)
    if VENV.exists():
        if not UNFINISHED.exists() and version_of(VENV / "bin/python") == sys.version:
            return
        shutil.rmtree(VENV)
    # Without pip: Debian's Python has no ensurepip unless python3-venv is installed, and pip is needed once.
    subprocess.run([python, "-m", "venv", "--without-pip", VENV], check=True)


def version_of(python: Path) -> "str | None":
    try:
        told = subprocess.run([python, "-c", "import sys; print(sys.version, end='')"], capture_output=True, text=True)
    except OSError:
        return None
    return told.stdout if told.returncode == 0 else None


def pip_command() -> "list[str]":
    """A pip to run: the one that comes with Python, else the machine's, else Debian's wheel, unpacked."""
    try:
        import ensurepip

        bundled = sorted((Path(ensurepip.__file__).parent / "_bundled").glob("pip-*.whl"))
    except ImportError:
        bundled = []
    wheels = bundled or sorted(Path("/usr/share/python-wheels").glob("pip-*.whl"))
    folder = cache_folder() / "pip"
    wheels = wheels or sorted(folder.glob("usr/share/python-wheels/pip-*.whl"))
    if not wheels:
        say("pip, from Debian's python3-pip-whl (this Python has none)")
        with tempfile.TemporaryDirectory() as scratch:
            subprocess.run(["apt-get", "download", "-q", "python3-pip-whl"], check=True, cwd=scratch)
            subprocess.run(["dpkg-deb", "-x", next(Path(scratch).glob("*.deb")), folder], check=True)
        wheels = sorted(folder.glob("usr/share/python-wheels/pip-*.whl"))
    return [str(VENV / "bin/python"), f"{wheels[-1]}/pip"]


def pip_settings() -> "dict[str, str]":
    """What the machine's pip is configured to (files and environment): key → value, as `index-url`."""
    told = subprocess.run([*pip_command(), "config", "list"], capture_output=True, text=True)
    found = re.findall(r"^(?:global|install|download|:env:)\.([\w-]+)=(['\"])(.*)\2$", told.stdout, re.MULTILINE)
    return {key: value.replace("\\n", " ").strip() for key, _, value in found}


def uv_environment(environ: Mapping[str, str], pip: Mapping[str, str]) -> "dict[str, str]":
    """The environment for uv and pip: pip's mirrors and authorities, unless uv's own are set; our cache."""
    derived = {
        "UV_CACHE_DIR": str(cache_folder() / "uv"),
        "UV_DEFAULT_INDEX": pip.get("index-url", ""),
        "UV_INDEX": pip.get("extra-index-url", ""),
        "UV_FIND_LINKS": pip.get("find-links", "").replace(" ", ","),
        "UV_INSECURE_HOST": pip.get("trusted-host", ""),
        "UV_HTTP_TIMEOUT": pip.get("default-timeout", pip.get("timeout", "")),
        "SSL_CERT_FILE": pip.get("cert", ""),
        "UV_NO_CONFIG": "",
    }
    chosen = {**{key: value for key, value in derived.items() if value}, **environ}
    # pip asks rustc for its version, for the user agent; where that is rustup's, it would write into the user's home.
    chosen["RUSTUP_HOME"] = str(cache_folder() / "tmp" / "rustup")
    if not chosen.get("SSL_CERT_FILE"):
        chosen["UV_SYSTEM_CERTS"] = "1"
    for name in ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME", "UV_PYTHON"):
        chosen.pop(name, None)
    if not chosen.get("HOME"):
        chosen["HOME"] = str(cache_folder())
    return chosen


def requirement(lock: str, name: str) -> str:
    """One package's lines of the lock, hashes and all."""
    found = re.search(rf"^{re.escape(name)}==.*?(?=^\S|\Z)", lock, re.MULTILINE | re.DOTALL)
    if not found:
        raise SystemExit(f"weir: {name} is not in the lock")
    return found[0]


def install_uv(lock: str, environment: Mapping[str, str]) -> None:
    """From the cache when it is there, else by pip, with the locked hashes either way."""
    folder = cache_folder() / "bootstrap"
    folder.mkdir(parents=True, exist_ok=True)
    wanted = requirement(lock, "uv")
    hashes = set(re.findall(r"sha256:(\w+)", wanted))
    with tempfile.TemporaryDirectory() as scratch:
        listed = Path(scratch) / "uv.txt"
        listed.write_text(wanted)
        pip = pip_command()
        cached = [path for path in folder.glob("uv-*.whl") if sha256_of(path) in hashes]
        if not cached:
            say("uv, the package installer")
            fetch = [*pip, "download", "-q", "--no-cache-dir", "--no-deps", "--only-binary=:all:", "--require-hashes"]
            subprocess.run([*fetch, "-r", listed, "-d", folder], check=True, env=dict(environment))
        subprocess.run([*pip, "install", "-q", "--no-index", "--no-deps", "--no-cache-dir", "--find-links", folder,
                        "--require-hashes", "-r", listed], check=True,
                       env={**environment, "PIP_DISABLE_PIP_VERSION_CHECK": "1"})  # fmt: skip


def install_packages(lock: Path, text: str, environment: Mapping[str, str]) -> None:
    """Exactly the lock. When this lock was installed before, from the cache alone."""
    done = cache_folder() / "locks" / sha256_of(lock)
    with tempfile.TemporaryDirectory() as scratch:
        constraints = Path(scratch) / "build.txt"
        constraints.write_text(requirement(text, "setuptools"))  # what pyspark's source package is built with
        command = [str(VENV / "bin/uv"), "pip", "install", "--python", str(VENV / "bin/python"), "--no-deps",
                   "--require-hashes", "--build-constraint", str(constraints), "-r", str(lock)]  # fmt: skip
        if done.exists():
            offline = subprocess.run([*command, "--offline", "-q"], env=dict(environment), capture_output=True)
            if offline.returncode == 0:
                return
        subprocess.run([*command, *([] if sys.stderr.isatty() else ["-q"])], check=True, env=dict(environment))
    done.parent.mkdir(parents=True, exist_ok=True)
    done.touch()
