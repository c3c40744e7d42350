"""Where a stack keeps its things: one home folder (`var/`, or a test's own), nothing outside it."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from fleet.errors import ConfigurationError

MARK = ".weir"
"""The file by which a home is known as Weir's own."""
MADE_ELSEWHERE = (
    "prefix", "prefix.lock", "cache", "test", "test.lock", "lake", "data-docs", "validations", "demo", "demo.json",
    "spark", "inbox", "stream", "mqtt", "reports", "matplotlib",
)  # fmt: skip
"""What else of Weir lies in a home: native parts, downloads without a cache folder, tests, what the jobs write."""


@dataclass(frozen=True)
class Layout:
    home: Path

    @property
    def env(self) -> Path:
        """Secrets and the settings of each role, 0700."""
        return self.home / "env"

    @property
    def config(self) -> Path:
        """Rendered configuration of the servers, 0700: it holds passwords."""
        return self.home / "config"

    @property
    def data(self) -> Path:
        return self.home / "data"

    @property
    def postgres(self) -> Path:
        """Apart from `data` and `config`, as PostgreSQL may have to run as another user."""
        return self.home / "postgres"

    @property
    def logs(self) -> Path:
        return self.home / "logs"

    @property
    def run(self) -> Path:
        return self.home / "run"

    @property
    def tmp(self) -> Path:
        return self.home / "tmp"

    @property
    def user_home(self) -> Path:
        """HOME of the servers, so that nothing lands in the user's own."""
        return self.home / "home"

    @property
    def airflow(self) -> Path:
        return self.home / "airflow"

    def env_file(self, role: str) -> Path:
        return self.env / f"{role}.env"

    def log(self, program: str) -> Path:
        return self.logs / f"{program}.log"

    @property
    def folders(self) -> tuple[Path, ...]:
        return (self.logs, self.postgres, *self._private)

    @property
    def _private(self) -> tuple[Path, ...]:
        return (self.env, self.config, self.data, self.run, self.tmp, self.user_home, self.airflow)

    def is_weirs(self) -> bool:
        return (self.home / MARK).is_file() or self.env_file("secrets").is_file()

    def make(self) -> None:
        """Raises ConfigurationError where the home has something in it that is not Weir's."""
        if self.home.is_dir() and not self.is_weirs():
            foreign = sorted({path.name for path in self.home.iterdir()} - set(MADE_ELSEWHERE))
            if foreign:
                told = f"WEIR_HOME: {self.home} is not empty (it has {', '.join(foreign[:3])})"
                raise ConfigurationError(f"{told} and no home of Weir's; name a new or an empty folder")
        self.home.mkdir(parents=True, exist_ok=True)
        (self.home / MARK).touch()
        for folder in self.folders:
            folder.mkdir(parents=True, exist_ok=True)
        for folder in self._private:
            folder.chmod(0o700)

    def delete(self) -> list[str]:
        """Delete all that is Weir's in the home, and the home when nothing is left; returns the names of what stays.

        Raises ConfigurationError for a folder that is not a home of Weir's."""
        if not self.home.is_dir():
            return []
        if not self.is_weirs():
            raise ConfigurationError(
                f"{self.home} is no home of Weir's (it has no file {MARK}), so nothing in it was deleted"
            )
        for path in (*self.folders, *(self.home / name for name in MADE_ELSEWHERE)):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        left = sorted(path.name for path in self.home.iterdir() if path.name != MARK)
        (self.home / MARK).unlink(missing_ok=True)
        if not left:
            self.home.rmdir()
        return left
