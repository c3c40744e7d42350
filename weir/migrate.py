"""`weir migrate`: the warehouse's schema, brought up to date."""

import typer


def register(app: typer.Typer) -> None:
    app.command()(migrate)


def migrate() -> None:
    """Apply what is new in sql/. WEIR_DB_URL must be the owner's; `make setup` and `make up` do this by themselves."""
    from connections.warehouse import migrate as apply
    from fleet.settings import Settings

    applied = apply(Settings.load())
    typer.echo("\n".join(f"applied {name}" for name in applied) or "the schema is up to date")
