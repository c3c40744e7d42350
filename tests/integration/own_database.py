"""A database of a test's own on the tests' server, with Weir's tables."""

from connections import warehouse, warehouse_admin
from fleet.settings import Settings
from stack.credentials import admin_url, login_url
from stack.stack import Stack


def own_database(stack: Stack, name: str, *logins: str) -> str:
    """The owner's URL; `logins` may connect, too."""
    admin = admin_url(stack.secrets, stack.ports)
    warehouse_admin.ensure_database(admin, name, "weir", logins)
    warehouse_admin.ensure_timescaledb(admin, name, own_server=True)
    owner = login_url("weir", stack.secrets, stack.ports, name)
    warehouse.migrate(Settings.from_values({"WEIR_DB_URL": owner, "WEIR_ROLE": "owner"}))
    return owner
