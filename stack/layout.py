"""Where a stack keeps its things: one home folder (`var/`, or a test's own), nothing outside it."""

from dataclasses import dataclass
from pathlib import Path


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

    def make(self) -> None:
        private = (self.env, self.config, self.data, self.run, self.tmp, self.user_home, self.airflow)
        for folder in (self.home, self.logs, self.postgres, *private):
            folder.mkdir(parents=True, exist_ok=True)
        for folder in private:
            folder.chmod(0o700)
