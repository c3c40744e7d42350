"""Pins, mirrors, jars, Java: what is decided before anything is fetched."""

import re
import subprocess

import pytest

from fleet.errors import ConfigurationError
from stack import pins
from stack.cache import store, stored
from stack.debian import mirrors
from stack.jars import ivy_module, ivy_settings, maven_mirror, proxy_options
from stack.java import WRAPPER
from stack.lock_native import ARCHITECTURES, DEBS, KAFKA_JARS, SPARK_JARS
from stack.prefix import TEMPLATES, find_templates_here


def test_the_lock_pins_everything_that_is_asked_for():
    locked = pins.read()
    for architecture in ARCHITECTURES:
        assert [deb.name for deb in locked.debs_for(architecture)] == DEBS
    for name, asked in (("kafka", KAFKA_JARS), ("spark", SPARK_JARS)):
        assert [f"{j.group}:{j.artifact}:{j.version}" for j in locked.jars_in(name)] == asked
    assert all(re.fullmatch(r"[0-9a-f]{64}", pin.sha256) for pin in (*locked.debs, *locked.jars))


def test_the_lock_names_no_host():
    assert "//" not in pins.LOCK.read_text()


def test_a_lock_survives_writing_and_reading():
    assert pins.parse(pins.render(pins.read())) == pins.read()


@pytest.mark.parametrize("line", ["deb amd64 mosquitto", "jar kafka a:b x", "tar x y z"])
def test_a_bad_pin_is_named_with_its_line(line):
    with pytest.raises(ValueError, match="lock:2: not a pin"):
        pins.parse(f"# first\n{line}\n", "lock")


PRINTED = """'http://mirror.example/debian/dists/bookworm/InRelease' mirror_bookworm 0
'http://mirror.example/debian/dists/bookworm-updates/InRelease' mirror_updates 0
'https://other.example/nodes/dists/nodistro/InRelease' other 0
'http://security.example/debian-security/dists/bookworm-security/InRelease' sec 0
"""


def test_the_mirrors_are_the_hosts_own():
    assert mirrors(PRINTED) == ("http://mirror.example/debian", "http://security.example/debian-security")
    assert mirrors(PRINTED.splitlines()[0]) == ("http://mirror.example/debian", None)


def test_a_host_without_a_debian_mirror():
    with pytest.raises(ConfigurationError, match="no Debian mirror"):
        mirrors("'http://archive.example/ubuntu/dists/noble/InRelease' x 0")


def test_alertmanagers_path_is_changed_in_place(tmp_path):
    program = tmp_path / "alertmanager"
    program.write_bytes(b"\x00" + TEMPLATES + b"/ui/\x00" + TEMPLATES + b"\x00")
    find_templates_here(program)
    changed = b"usr//share/prometheus/alertmanager"
    assert len(changed) == len(TEMPLATES)
    assert program.read_bytes() == b"\x00" + changed + b"/ui/\x00" + changed + b"\x00"
    with pytest.raises(ConfigurationError, match="another build"):
        find_templates_here(program)


URL = "https://m.example/repo"
MAVEN = """<settings xmlns="http://maven.apache.org/SETTINGS/1.0.0"><mirrors>
<mirror><id>a</id><mirrorOf>{of}</mirrorOf><url>https://m.example/repo</url></mirror></mirrors></settings>"""


@pytest.mark.parametrize(
    ("of", "url"),
    [
        ("central", "https://m.example/repo"),
        ("*", "https://m.example/repo"),
        ("*,!x", "https://m.example/repo"),
        ("x", None),
    ],
)
def test_mavens_mirror_is_used(of, url):
    assert maven_mirror(MAVEN.format(of=of)) == url


def test_ivy_asks_one_repository_and_nothing_transitive():
    jar = pins.Jar("kafka", "g", "a", "1", "0")
    assert 'org="g" name="a" rev="1" transitive="false"' in ivy_module([jar])
    assert "root=" not in ivy_settings(None)
    assert 'root="https://m.example/r?a&amp;b"' in ivy_settings("https://m.example/r?a&b")


def test_java_is_told_of_the_proxy():
    assert proxy_options({"https_proxy": "http://p.example:3128", "MAVEN_OPTS": "-Xmx1g -Da=b"}) == [
        "-Dhttps.proxyHost=p.example",
        "-Dhttps.proxyPort=3128",
        "-Da=b",
    ]


def test_the_java_wrapper_drops_one_option_and_keeps_the_rest(tmp_path):
    wrapper = tmp_path / "java"
    wrapper.write_text(WRAPPER.format(java="/usr/bin/printf", options="'%s\\n' "))
    told = subprocess.run(
        ["sh", wrapper, "-Xa b", "--add-modules=jdk.incubator.vector", "$x", ""],
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout == "-Xa b\n$x\n\n"


def test_a_damaged_download_is_dropped(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    download = tmp_path / "download"
    download.write_bytes(b"good")
    digest = "770e607624d689265ca6c44884d0807d9b054d23c473c106c72be9de08b7376c"
    path = store(download, digest)
    assert stored(digest) == path
    path.write_bytes(b"bad")
    assert stored(digest) is None
    assert not path.exists()
