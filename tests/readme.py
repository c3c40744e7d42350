"""The commands that the README shows, one a line, without comments."""

import re
from collections.abc import Iterator

from fleet.settings import CHECKOUT

BLOCK = re.compile(r"```sh\n(.*?)```", re.DOTALL)


def commands() -> Iterator[str]:
    for block in BLOCK.findall((CHECKOUT / "README.md").read_text(encoding="utf-8")):
        for line in block.replace("\\\n", " ").splitlines():
            command = re.sub(r"\s+#.*", "", line).strip()
            if command:
                yield command


def by_program(*programs: str, about: str = "") -> list[str]:
    return [command for command in commands() if command.startswith(programs) and about in command]
