"""The devices' part of the MQTT broker's files: passwords and rights. docker/mosquitto/start.sh puts them behind those
of the services and has the broker read them again; see docs/decisions/0042.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from fleet.credential import Credential

PASSWORDS, RIGHTS = "devices.passwd", "devices.acl"


def write(folder: Path, logins: Iterable[tuple[Credential, str]]) -> bool:
    """(credential, its lines of rights) of all that may log in. Whether that is another set than the files have."""
    logins = list(logins)
    passwords = "".join(f"{credential.user}:{credential.mqtt_hash}\n" for credential, _ in logins)
    # The rights first: who is let in has some, whenever the broker looks.
    changed = [_replace(folder / RIGHTS, "".join(rights for _, rights in logins))]
    return any([*changed, _replace(folder / PASSWORDS, passwords)])


def _replace(path: Path, text: str) -> bool:
    """Readable by others: the broker may be another user. There is nothing in it to guess a token by."""
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return False
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), "w", encoding="utf-8") as stream:
        os.fchmod(stream.fileno(), 0o644)
        stream.write(text)
    scratch.replace(path)
    return True
