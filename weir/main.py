"""`weir`: every command, one module per group. Heavy libraries are imported inside the commands."""

import os
import sys
from importlib import import_module

import typer

from fleet.errors import WeirError

GROUPS = ("stack", "types", "generate", "simulate", "replay", "tail", "services", "etl", "ledger", "demo")
"""Modules of this package; each has `register(app)`, which adds its commands."""

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)


def build() -> typer.Typer:
    for name in GROUPS:
        import_module(f"weir.{name}").register(app)
    return app


def main() -> None:
    """Errors that a person can do something about are a line, not a traceback. `--traceback`-like detail: PYTHONDEVMODE=1."""
    try:
        build()()
    except WeirError as error:
        if os.environ.get("PYTHONDEVMODE"):
            raise
        print(f"weir: {error}", file=sys.stderr)
        sys.exit(1)
