"""`weir`: every command, one module per group. Heavy libraries are imported inside the commands."""

import sys
from importlib import import_module
from pkgutil import iter_modules

import typer

import weir
from fleet.errors import WeirError


def build() -> typer.Typer:
    """Every module here but this one and those with a leading _ has `register(app)`, which adds its commands."""
    app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

    @app.callback()
    def about() -> None:
        """Batch ETL and streaming alerts for sensor fleets."""

    for module in iter_modules(weir.__path__):
        if module.name != "main" and not module.name.startswith("_"):
            import_module(f"weir.{module.name}").register(app)
    return app


def main() -> None:
    """An error that a person can do something about is a line, not a traceback; `python -X dev` shows that."""
    try:
        build()()
    except WeirError as error:
        if sys.flags.dev_mode:
            raise
        print(f"weir: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
