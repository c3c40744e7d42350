"""The file of receivers as it is in force: read again when it changes, kept as it was while it is wrong."""

import logging
import os
from collections.abc import Mapping

from fleet.errors import ConfigurationError, SpecError
from fleet.receivers import ReceiversFile
from fleet.receivers_file import load_receivers
from fleet.settings import Settings, read_env_file
from streaming.senders import sender_of

log = logging.getLogger("weir.receivers")


def known_secrets(settings: Settings, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What `${NAME}` may refer to: the environment, and what the service's env file says."""
    path = settings.env_file
    return {**(read_env_file(path) if path and path.is_file() else {}), **environ}


def read_receivers(settings: Settings) -> ReceiversFile:
    """Raises SpecError or ConfigurationError with file and line."""
    file = settings.receivers_file
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise SpecError(f"{file}:1: not UTF-8 at byte {error.start}; save it as UTF-8") from None
    except OSError as error:
        raise ConfigurationError(f"{file}: {error.strerror}; WEIR_RECEIVERS_FILE names the file of receivers") from None
    return load_receivers(text, str(file), known_secrets(settings))


def checked_receivers(settings: Settings) -> ReceiversFile:
    """Receivers that can be opened, too. Raises as `read_receivers`."""
    policy = read_receivers(settings)
    for name, options in policy.receivers.items():
        try:
            sender_of(options, settings).close()
        except ConfigurationError as error:
            raise ConfigurationError(f"{settings.receivers_file}: receivers.{name}: {error}") from None
    return policy


class PolicyFile:
    def __init__(self, settings: Settings):
        self.settings = settings
        self.problems: list[str] = []
        """What is wrong with the file now, a line each."""
        self._stamp: object = None
        self._taken: object = None

    def look(self) -> ReceiversFile | None:
        """A policy that is to be in force from now on; None: nothing new, or nothing good. A change is taken when two
        looks see the same: an editor that is still writing may leave half a file that is a good one."""
        before, self._stamp = self._stamp, self._now()
        if self._stamp == self._taken or (self._taken is not None and self._stamp != before):
            return None
        self._taken = self._stamp
        try:
            policy = checked_receivers(self.settings)
        except (SpecError, ConfigurationError) as error:
            self.problems = str(error).splitlines()
            for problem in self.problems:
                log.error("%s", problem)
            return None
        self.problems = []
        log.info(
            "%s: receivers=%s routes=%d", self.settings.receivers_file, ",".join(policy.receivers) or "none",
            len(policy.routes),
        )  # fmt: skip
        return policy

    def _now(self) -> object:
        def content(path: object) -> object:
            try:
                return path.read_bytes()  # type: ignore[attr-defined]
            except (OSError, AttributeError) as error:
                return type(error).__name__

        return content(self.settings.receivers_file), content(self.settings.env_file)
