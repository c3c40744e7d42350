"""`weir …` in the test's own process, which has its libraries loaded: of a start's 2 s of CPU most are imports. The
end-to-end tests start it as a person does."""

import os
from collections.abc import Callable
from subprocess import CompletedProcess
from unittest.mock import patch

from typer.testing import CliRunner

from fleet.errors import WeirError
from weir.main import build

Weir = Callable[..., CompletedProcess[str]]


def command(**settings: object) -> Weir:
    """With these settings, and none of the environment's; fails the test unless it exits with `code`."""

    def run(*arguments: str, code: int = 0) -> CompletedProcess[str]:
        environ = {k: v for k, v in os.environ.items() if not k.startswith("WEIR_")}
        with patch.dict(os.environ, environ | {k: str(v) for k, v in settings.items()}, clear=True):
            result = CliRunner().invoke(build(), arguments)
        error = result.stderr
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            if not isinstance(result.exception, WeirError):
                raise result.exception
            error += f"weir: {result.exception}\n"
        assert result.exit_code == code, f"{arguments}\n{result.stdout}\n{error}"
        return CompletedProcess(arguments, code, result.stdout, error)

    return run
