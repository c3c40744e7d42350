"""What an administrator does to the database server: logins, databases, the TimescaleDB extension. All repeatable."""

from collections.abc import Mapping
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

from fleet.errors import ConfigurationError, Unavailable


def libpq_url(url: str) -> str:
    """A SQLAlchemy URL as psycopg2 takes it."""
    scheme, _, rest = url.partition("://")
    return f"{scheme.partition('+')[0]}://{rest}"


def connect(url: str, database: str | None = None, seconds: int = 5) -> Any:
    """An autocommitting connection. Raises Unavailable with the server's words (never with the password)."""
    import psycopg2

    options = {"dbname": database} if database else {}
    try:
        connection = psycopg2.connect(libpq_url(url), connect_timeout=seconds, **options)
    except psycopg2.OperationalError as error:
        parts = urlsplit(url)
        raise Unavailable(
            f"database {parts.hostname}:{parts.port} as {parts.username!r}: {str(error).strip()}"
        ) from None
    connection.autocommit = True
    return connection


def ensure_logins(admin_url: str, passwords: Mapping[str, str]) -> None:
    """Make each login, or set its password again. Only the password's SCRAM verifier goes to the server."""
    import psycopg2.errors
    from psycopg2 import sql
    from psycopg2.extensions import encrypt_password

    with closing(connect(admin_url)) as connection, connection.cursor() as cursor:
        cursor.execute("select rolname from pg_roles")
        there = {row[0] for row in cursor.fetchall()}
        for login, password in passwords.items():
            verb = "alter" if login in there else "create"
            hashed = encrypt_password(password, login, connection, "scram-sha-256")
            try:
                cursor.execute(
                    sql.SQL(verb + " role {} login password {}").format(sql.Identifier(login), sql.Literal(hashed))
                )
            except psycopg2.errors.InsufficientPrivilege as error:
                raise ConfigurationError(
                    f"the database user of WEIR_DB_URL may not {verb} the login {login!r} ({str(error).strip()}):"
                    " give it CREATEROLE and CREATEDB"
                ) from None


def ensure_database(admin_url: str, name: str, owner: str, connect_too: tuple[str, ...] = ()) -> None:
    """Make a database that nobody but its owner and `connect_too` may connect to."""
    from psycopg2 import sql

    with closing(connect(admin_url)) as connection, connection.cursor() as cursor:
        cursor.execute("select 1 from pg_database where datname = %s", (name,))
        if cursor.fetchone() is None:
            # Since PostgreSQL 16 the maker of a login may grant it to itself, and has to before giving it things.
            cursor.execute("select current_user <> %s and not pg_has_role(current_user, %s, 'SET')", (owner, owner))
            if cursor.fetchone()[0]:
                cursor.execute(sql.SQL("grant {} to current_user").format(sql.Identifier(owner)))
            cursor.execute(sql.SQL("create database {} owner {}").format(sql.Identifier(name), sql.Identifier(owner)))
        cursor.execute(sql.SQL("revoke all on database {} from public").format(sql.Identifier(name)))
        for login in connect_too:
            cursor.execute(
                sql.SQL("grant connect on database {} to {}").format(sql.Identifier(name), sql.Identifier(login))
            )


LICENCE_JOB = """\
update _timescaledb_config.bgw_job set scheduled = false
 where proc_name = 'policy_job_stat_history_retention' and scheduled
   and current_setting('timescaledb.license') = 'apache'"""
"""The Apache edition ships a job that only its other edition can run, and logs an error for it as soon as the extension
is there, and at each start."""


def ensure_timescaledb(admin_url: str, database: str | None = None, own_server: bool = False) -> str:
    """The extension's version, made where this user may, who is a superuser of a server of our own. Raises
    ConfigurationError where it is not to be had."""
    import psycopg2

    with closing(connect(admin_url, database)) as connection, connection.cursor() as cursor:
        cursor.execute("set client_min_messages = warning")
        try:
            # One text is one transaction: the job is off before the extension's scheduler sees it.
            quiet = f"; {LICENCE_JOB}" if own_server else ""
            cursor.execute(f"create extension if not exists timescaledb{quiet}")
        except psycopg2.Error as error:
            raise ConfigurationError(
                f"the database has no TimescaleDB ({str(error).strip().splitlines()[0]}): install it on that server and"
                " run `create extension timescaledb` there as a superuser, or leave WEIR_DB_URL unset"
            ) from None
        cursor.execute("select extversion from pg_extension where extname = 'timescaledb'")
        (version,) = cursor.fetchone()
        return str(version)
