"""Jars through the Ivy that pyspark ships: listed one by one, nothing transitive, each checked against its sha256."""

import os
import shutil
import subprocess
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import urlsplit
from xml.sax.saxutils import quoteattr

from fleet.errors import ConfigurationError, Unavailable
from stack.cache import CHECKOUT, home_folder, sha256_of, store, stored
from stack.pins import Jar


def maven_mirror(settings: str) -> str | None:
    """The URL that Maven's settings.xml gives for the central repository, if it names a mirror of it."""
    root = ET.fromstring(settings)  # noqa: S314  the user's own file
    for mirror in root.iter():
        if mirror.tag.rpartition("}")[2] != "mirror":
            continue
        fields = {child.tag.rpartition("}")[2]: (child.text or "").strip() for child in mirror}
        if {"*", "central", "external:*"} & set(fields.get("mirrorOf", "").split(",")):
            return fields.get("url")
    return None


def machine_mirror(environ: Mapping[str, str] = os.environ) -> str | None:
    """From the user's Maven settings, else the installation's; None means Ivy's built-in default."""
    places = [home_folder() / ".m2" / "settings.xml"]
    for name in ("MAVEN_HOME", "M2_HOME"):
        if environ.get(name):
            places.append(Path(environ[name]) / "conf" / "settings.xml")
    places.append(Path("/etc/maven/settings.xml"))
    for place in places:
        try:
            found = maven_mirror(place.read_text(encoding="utf-8"))
        except (OSError, ET.ParseError):
            continue
        if found:
            return found
    return None


def proxy_options(environ: Mapping[str, str] = os.environ) -> list[str]:
    """What Java has to be told about the proxy that every other tool takes from the environment."""
    options = []
    for scheme in ("http", "https"):
        proxy = environ.get(f"{scheme}_proxy") or environ.get(f"{scheme.upper()}_PROXY")
        if proxy:
            parts = urlsplit(proxy if "//" in proxy else f"//{proxy}")
            options += [f"-D{scheme}.proxyHost={parts.hostname}", f"-D{scheme}.proxyPort={parts.port or 80}"]
    return options + [word for word in environ.get("MAVEN_OPTS", "").split() if word.startswith("-D")]


def ivy_module(jars: Iterable[Jar]) -> str:
    return (
        '<ivy-module version="2.0" xmlns:m="http://ant.apache.org/ivy/extra">\n'
        ' <info organisation="weir" module="native"/>\n'
        ' <configurations><conf name="default"/></configurations>\n <dependencies>\n'
        + "\n".join(map(_dependency, jars)) + "\n </dependencies>\n</ivy-module>\n"
    )  # fmt: skip


def _dependency(jar: Jar) -> str:
    named = f"  <dependency org={quoteattr(jar.group)} name={quoteattr(jar.artifact)} rev={quoteattr(jar.version)}"
    named += ' transitive="false" conf="default->default"'
    if not jar.classifier:
        return f"{named}/>"
    artifact = f'<artifact name={quoteattr(jar.artifact)} type="jar" m:classifier={quoteattr(jar.classifier)}/>'
    return f"{named}>{artifact}</dependency>"


def ivy_settings(mirror: str | None) -> str:
    root = f" root={quoteattr(mirror)}" if mirror else ""
    # Nothing transitive is wanted, so no POM has to be read: 15 s instead of 55 s.
    return (
        '<ivysettings>\n <settings defaultResolver="central"/>\n'
        f' <resolvers><ibiblio name="central" m2compatible="true" usepoms="false" useMavenMetadata="false"{root}/>'
        "</resolvers>\n</ivysettings>\n"
    )


def ivy_jar() -> Path:
    import pyspark

    found = sorted((Path(pyspark.__file__).parent / "jars").glob("ivy-*.jar"))
    if not found:
        raise ConfigurationError("pyspark has no ivy jar: run `make setup` again")
    return found[-1]


def resolve(jars: Iterable[Jar], java_home: Path) -> dict[Jar, Path]:
    """Download jars of one set (unchecked) into a scratch folder under var/. Raises Unavailable with Ivy's own words.

    Of one set: in one call, Ivy keeps a single version of each artifact.
    """
    jars = list(jars)
    work = CHECKOUT / "var" / "tmp"
    work.mkdir(parents=True, exist_ok=True)
    java = java_home / "bin" / "java"
    scratch = Path(tempfile.mkdtemp(prefix="ivy-", dir=work))
    (scratch / "ivy.xml").write_text(ivy_module(jars))
    (scratch / "ivysettings.xml").write_text(ivy_settings(machine_mirror()))
    command: list[str | Path] = [
        java, "-XX:-UsePerfData", "-XX:TieredStopAtLevel=1", f"-Duser.home={scratch}", *proxy_options(),
        "-cp", ivy_jar(), "org.apache.ivy.Main", "-settings", scratch / "ivysettings.xml", "-cache", scratch / "cache",
        "-ivy", scratch / "ivy.xml", "-retrieve", f"{scratch}/jars/[artifact]-[revision](-[classifier]).[ext]",
        "-types", "jar", "bundle",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, cwd=scratch)
    found = {jar: scratch / "jars" / jar.file_name for jar in jars}
    missing = [jar.file_name for jar, path in found.items() if not path.is_file()]
    if missing:
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        raise Unavailable(f"these jars could not be fetched: {', '.join(missing)}\n{tail}")
    return found


def fetch(jars: Iterable[Jar], java_home: Path) -> dict[Jar, Path]:
    """Every jar as a checked file: from the cache, else through Ivy."""
    jars = list(jars)
    found = {jar: path for jar in jars if (path := stored(jar.sha256))}
    missing = [jar for jar in jars if jar not in found]
    for name in {jar.set for jar in missing}:
        downloads = resolve([jar for jar in missing if jar.set == name], java_home)
        for jar, path in downloads.items():
            if (digest := sha256_of(path)) != jar.sha256:
                raise ConfigurationError(f"{jar.file_name}: sha256 {digest} is not the locked {jar.sha256}")
            found[jar] = store(path, jar.sha256)
            scratch = path.parent.parent
        shutil.rmtree(scratch)
    return found
