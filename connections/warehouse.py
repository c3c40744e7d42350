"""The warehouse: TimescaleDB through SQLAlchemy, bulk loads by COPY, and the migrations in `sql/`.

Errors say whether trying again can help: the server is away, restarting or full → Unavailable; it said no → Refused;
the data breaks a constraint → DataError.
"""

import hashlib
import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import psycopg2
from sqlalchemy import Connection, Engine, create_engine, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.pool import NullPool

from fleet.errors import ConfigurationError, DataError, Refused, Unavailable, WeirError
from fleet.settings import CHECKOUT, Settings

MIGRATIONS = CHECKOUT / "sql"
ROLES = (
    "weir_live", "weir_history", "weir_dispatcher", "weir_commander", "weir_batch", "weir_registry", "weir_stream",
    "weir_operator", "weir_reader",
)  # fmt: skip
CONNECT_TIMEOUT_SECONDS = 5
MIGRATION_LOCK = 0x57656972
"""Advisory lock key ("Weir"): two `weir migrate` at once take turns."""


class Reader(Protocol):
    def rows(self, sql: str, **parameters: object) -> list[dict[str, Any]]: ...


class _Snapshot:
    def __init__(self, connection: Connection):
        self._connection = connection

    def rows(self, sql: str, **parameters: object) -> list[dict[str, Any]]:
        return [dict(row) for row in self._connection.execute(text(sql), parameters).mappings()]


class Warehouse:
    """One database. Connections are made when needed and kept for reuse by this process."""

    def __init__(self, url: str, application: str = "weir", pooled: bool = True, said_in: object = "WEIR_DB_URL"):
        """`said_in`: where the URL is from, for messages. Raises ConfigurationError where it is no URL of a PostgreSQL
        database."""
        try:
            parsed = make_url(url)
        except ArgumentError:
            parsed = None
        if parsed is None or parsed.get_backend_name() != "postgresql":
            raise ConfigurationError(
                "WEIR_DB_URL must be postgresql+psycopg2://user:password@host:port/database;"
                f" it is {'not set' if not url else 'something else'} (`make setup` writes it into var/env/)"
            )
        self.place = f"{parsed.host}:{parsed.port or 5432}/{parsed.database}"
        self.user = parsed.username
        self._said_in = said_in
        self._engine: Engine = create_engine(
            parsed,
            pool_pre_ping=True,
            poolclass=None if pooled else NullPool,
            connect_args={
                "connect_timeout": CONNECT_TIMEOUT_SECONDS,
                "application_name": application,
                "options": "-c timezone=UTC",
            },
        )
        self._single = self._engine.execution_options(isolation_level="AUTOCOMMIT")

    @classmethod
    def of(cls, settings: Settings) -> "Warehouse":
        return cls(
            settings.db_url.get_secret_value(), f"weir-{settings.role}", said_in=settings.env_file or "WEIR_DB_URL"
        )

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Committed when the block ends, rolled back when it raises. Server errors come out as WeirErrors."""
        with self._as_weir_errors(), self._engine.begin() as connection:
            yield connection

    def rows(self, sql: str, **parameters: object) -> list[dict[str, Any]]:
        """Every row of a query as a dict; parameters stand as `:name`. One statement, which needs no transaction."""
        with self._as_weir_errors(), self._single.connect() as connection:
            return [dict(row) for row in connection.execute(text(sql), parameters).mappings()]

    @contextmanager
    def snapshot(self) -> Iterator["Reader"]:
        """For queries that must fit together: all see one moment, whatever others commit meanwhile."""
        engine = self._engine.execution_options(isolation_level="REPEATABLE READ")
        with self._as_weir_errors(), engine.begin() as connection:
            yield _Snapshot(connection)

    @contextmanager
    def _as_weir_errors(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            self._raise(error.orig, error.connection_invalidated)
            raise
        except psycopg2.Error as error:  # from a cursor of our own: COPY, migrations
            self._raise(error, False)
            raise

    def close(self) -> None:
        self._engine.dispose()

    def _raise(self, error: BaseException | None, disconnected: bool) -> None:
        first_line = next(iter(str(error).strip().splitlines()), type(error).__name__)
        kind = error_of(getattr(error, "pgcode", None), first_line, disconnected)
        if kind is not None:
            hint = ""
            if kind is Refused and "password" in first_line:
                hint = f". Check user and password in {self._said_in}"
            elif kind is Unavailable and "refused" in first_line:
                hint = ". Is it running (`weir status`)?"
            raise kind(f"the warehouse at {self.place} (as {self.user}): {first_line}{hint}") from error


def error_of(code: str | None, message: str, disconnected: bool) -> type[WeirError] | None:
    """Which error an SQLSTATE is; None: a mistake in our own SQL, which keeps its traceback."""
    if code is None:
        # libpq gives no SQLSTATE while connecting, only these texts tell a refusal from a server that is away.
        refused = ("authentication failed", "no pg_hba.conf entry", "does not exist", "no password supplied")
        if not disconnected and any(part in message for part in refused):
            return Refused
        return Unavailable
    if disconnected or code[:2] in ("08", "53", "57") or code in ("40001", "40P01", "55P03"):
        return Unavailable
    if code[:2] == "28" or code in ("42501", "3D000"):
        return Refused
    if code[:2] in ("22", "23"):
        return DataError
    return None


class _RowText(io.TextIOBase):
    """Rows as COPY reads them, made while it reads."""

    def __init__(self, rows: Iterable[Sequence[object]]):
        self.count = 0
        self.error: Exception | None = None
        self._rows = iter(rows)

    def read(self, size: int | None = -1, /) -> str:
        parts, length = [], 0
        try:
            while size is None or size < 0 or length < size:
                parts.append("\t".join(map(_copy_text, next(self._rows))) + "\n")
                length += len(parts[-1])
                self.count += 1
        except StopIteration:
            pass
        except Exception as error:
            self.error = error
            raise
        return "".join(parts)


def copy_rows(connection: Connection, table: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> int:
    """COPY of rows (numbers, texts, aware times, bytes; None is null) into a table, which are made one by one as the
    server takes them. Returns how many."""
    stream = _RowText(rows)
    with _cursor(connection) as cursor:
        try:
            cursor.copy_expert(f"COPY {table} ({', '.join(columns)}) FROM STDIN", stream)
        except psycopg2.Error:
            if stream.error is not None:  # what made the rows failed, not the server
                raise stream.error from None
            raise
    return stream.count


ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


def _copy_text(value: object) -> str:
    if value is None:
        return "\\N"
    if isinstance(value, bytes):
        return "\\\\x" + value.hex()
    # A zero byte, which JSON may carry, is the one character that PostgreSQL's text cannot hold.
    return str(value).replace("\0", "\ufffd").translate(ESCAPES)


def copy_csv(connection: Connection, table: str, columns: Sequence[str], csv: Any) -> None:
    """COPY from a readable file of CSV without a header, where an empty unquoted field is null."""
    with _cursor(connection) as cursor:
        cursor.copy_expert(f"COPY {table} ({', '.join(columns)}) FROM STDIN (FORMAT csv)", csv)


def _cursor(connection: Connection) -> Any:
    """psycopg2's own cursor within SQLAlchemy's transaction."""
    return connection.connection.cursor()


def migrate(settings: Settings, folder: Path = MIGRATIONS) -> list[str]:
    """Bring the schema up to date as its owner; returns the names that were applied now.

    Each `NNNN_name.sql` runs once, in one transaction with its record; the files of `always/` run each time. Raises
    ConfigurationError where a file that was applied has changed or is gone, or a role is missing.
    """
    warehouse = Warehouse(settings.db_url.get_secret_value(), "weir-migrate", pooled=False)
    files = sorted(folder.glob("[0-9][0-9][0-9][0-9]_*.sql"))
    if not files:
        raise ConfigurationError(f"no migrations in {folder}")
    _prepare(warehouse)
    applied = []
    for path in files:
        with warehouse.transaction() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
            known = {r.name: r.sha256 for r in connection.execute(text("SELECT name, sha256 FROM weir_migrations"))}
            problem = drift(known, {f.name: _sha256(f) for f in files})
            if problem:
                raise ConfigurationError(f"{warehouse.place}: {problem}")
            if path.name in known:
                continue
            _run(connection, path)
            connection.execute(
                text("INSERT INTO weir_migrations (name, sha256) VALUES (:name, :sha256)"),
                {"name": path.name, "sha256": _sha256(path)},
            )
            applied.append(path.name)
    with warehouse.transaction() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
        for path in sorted((folder / "always").glob("*.sql")):
            _run(connection, path)
    warehouse.close()
    return applied


def drift(applied: dict[str, str], files: dict[str, str]) -> str:
    """What is wrong between what was applied and what is in the folder (name → sha256); empty when nothing is."""
    for name, sha256 in sorted(applied.items()):
        if name not in files:
            return f"migration {name} was applied and is not in this checkout: the database is newer, update it"
        if files[name] != sha256:
            return f"migration {name} was changed after it was applied; undo that and write the change as a new file"
    pending = sorted(set(files) - set(applied))
    if pending and applied and pending[0] < max(applied):
        return f"migration {pending[0]} comes before {max(applied)}, which is applied; give it the next number"
    return ""


def _prepare(warehouse: Warehouse) -> None:
    with warehouse.transaction() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
        found = {r.rolname for r in connection.execute(text("SELECT rolname FROM pg_roles"))}
        missing = [role for role in ROLES if role not in found]
        if missing:
            raise ConfigurationError(
                f"{warehouse.place}: no role {', '.join(missing)}; as a superuser: "
                + " ".join(f"CREATE ROLE {role} LOGIN PASSWORD '…';" for role in missing)
            )
        available = connection.execute(text("SELECT 1 FROM pg_available_extensions WHERE name = 'timescaledb'"))
        if not available.first():
            raise ConfigurationError(f"{warehouse.place}: the server has no TimescaleDB; install the extension there")
        connection.execute(text("CREATE EXTENSION IF NOT EXISTS timescaledb"))
        connection.execute(
            text(
                "CREATE TABLE IF NOT EXISTS weir_migrations (name text PRIMARY KEY, sha256 text NOT NULL,"
                " applied_at timestamptz NOT NULL DEFAULT now())"
            )
        )


def _run(connection: Connection, path: Path) -> None:
    with _cursor(connection) as cursor:
        cursor.execute(path.read_text(encoding="utf-8"))


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
