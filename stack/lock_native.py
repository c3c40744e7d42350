"""`make lock-native`: pin anew what the native parts are made of.

Debian packages by name (their newest signed version in the release), jars by coordinates.
"""

from pathlib import Path

from stack import java
from stack.cache import sha256_of, store
from stack.debian import PrivateApt
from stack.jars import resolve
from stack.pins import LOCK, Deb, Jar, Pins, render
from stack.prefix import PREFIX

ARCHITECTURES = ("amd64", "arm64")

# The servers and every library that their programs link to (`ld.so --list` shows none outside the prefix). LLVM is
# left out: PostgreSQL runs with jit=off.
DEBS = [
    "mosquitto",
    "libmosquitto1",
    "libcjson1",
    "libdlt2",
    "libwebsockets19t64",
    "libwrap0",
    "libcap2",
    "postgresql-17",
    "postgresql-client-17",
    "postgresql-17-timescaledb",
    "libpq5",
    "libc6",
    "libgcc-s1",
    "libstdc++6",
    "libssl3t64",
    "libicu76",
    "libxml2",
    "liblzma5",
    "zlib1g",
    "libzstd1",
    "liblz4-1",
    "libxxhash0",
    "libldap2",
    "libsasl2-2",
    "libgssapi-krb5-2",
    "libkrb5-3",
    "libk5crypto3",
    "libkrb5support0",
    "libcom-err2",
    "libkeyutils1",
    "libsystemd0",
    "libreadline8t64",
    "libtinfo6",
    "libpam0g",
    "libaudit1",
    "libcap-ng0",
    "prometheus-alertmanager",
]

KAFKA = "4.2.1"
LOG4J = "2.25.4"
# Each jar by itself, nothing transitive: the broker ran on exactly these with SASL, TLS, lz4, zstd and transactions.
KAFKA_JARS = f"""
org.apache.kafka:kafka_2.13:{KAFKA} org.apache.kafka:kafka-clients:{KAFKA} org.apache.kafka:kafka-server:{KAFKA}
org.apache.kafka:kafka-server-common:{KAFKA} org.apache.kafka:kafka-storage:{KAFKA}
org.apache.kafka:kafka-storage-api:{KAFKA} org.apache.kafka:kafka-raft:{KAFKA} org.apache.kafka:kafka-metadata:{KAFKA}
org.apache.kafka:kafka-coordinator-common:{KAFKA} org.apache.kafka:kafka-group-coordinator:{KAFKA}
org.apache.kafka:kafka-group-coordinator-api:{KAFKA} org.apache.kafka:kafka-transaction-coordinator:{KAFKA}
org.apache.kafka:kafka-share-coordinator:{KAFKA}
net.sourceforge.argparse4j:argparse4j:0.7.0 net.sf.jopt-simple:jopt-simple:5.0.4
com.fasterxml.jackson.core:jackson-core:2.21.2 com.fasterxml.jackson.core:jackson-databind:2.21.2
com.fasterxml.jackson.core:jackson-annotations:2.21 com.yammer.metrics:metrics-core:2.2.0
org.hdrhistogram:HdrHistogram:2.2.2 com.github.ben-manes.caffeine:caffeine:3.2.0
com.dynatrace.hash4j:hash4j:0.22.0 commons-validator:commons-validator:1.10.1 org.pcollections:pcollections:4.0.2
com.google.re2j:re2j:1.8 org.scala-lang:scala-library:2.13.18
com.typesafe.scala-logging:scala-logging_2.13:3.9.6 org.slf4j:slf4j-api:1.7.36
org.apache.logging.log4j:log4j-api:{LOG4J} org.apache.logging.log4j:log4j-core:{LOG4J}
org.apache.logging.log4j:log4j-slf4j-impl:{LOG4J} at.yawk.lz4:lz4-java:1.10.2 com.github.luben:zstd-jni:1.5.6-10
""".split()
# The connector above 4.2.0 and the token provider but 4.0.0 are not in the repository; these work together.
SPARK_JARS = [
    "org.apache.spark:spark-sql-kafka-0-10_2.13:4.2.0",
    "org.apache.spark:spark-token-provider-kafka-0-10_2.13:4.0.0",
    "org.apache.kafka:kafka-clients:3.9.1",
    "org.apache.commons:commons-pool2:2.12.1",
    "org.postgresql:postgresql:42.7.14",
]


def lock_jars(name: str, coordinates: list[str], java_home: Path) -> list[Jar]:
    unlocked = []
    for coordinate in coordinates:
        group, artifact, version = coordinate.split(":")
        unlocked.append(Jar(name, group, artifact, version, sha256=""))
    locked = []
    for jar, path in resolve(unlocked, java_home).items():
        digest = sha256_of(path)
        store(path, digest)
        locked.append(Jar(jar.set, jar.group, jar.artifact, jar.version, digest))
    return locked


def main() -> None:
    debs: list[Deb] = []
    for architecture in ARCHITECTURES:
        apt = PrivateApt(architecture)
        apt.update()
        offered = apt.offered(DEBS)
        debs += [offered[name][0] for name in DEBS]
    java_home = java.ensure(PREFIX.with_name("tmp") / "java")
    jars = lock_jars("kafka", KAFKA_JARS, java_home) + lock_jars("spark", SPARK_JARS, java_home)
    LOCK.write_text(render(Pins(tuple(debs), tuple(jars))), encoding="utf-8")


if __name__ == "__main__":
    main()
