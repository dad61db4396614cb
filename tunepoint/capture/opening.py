"""Where a store is: a path, or a URL; and what may be shown of it."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from tunepoint.capture import schema
from tunepoint.capture.store import Store, database_reason
from tunepoint.errors import MissingExtra, StoreError


def address_of(where: str) -> tuple[sa.URL, str]:
    """The URL, and what may be shown of it: host and database, never a name or a password."""
    if not where or where == ":memory:":
        raise StoreError(f"{where!r} is no store that lasts: give a path, or postgresql://USER@HOST/DATABASE")
    if "://" not in where:
        return sa.URL.create("sqlite", database=where), where
    scheme = where.partition("://")[0]
    if scheme.partition("+")[0] not in ("sqlite", "postgresql", "postgres"):
        raise StoreError(f"{scheme}: only sqlite and postgresql stores are known")
    try:
        url = sa.make_url(where)
    except (SQLAlchemyError, ValueError):
        raise StoreError(
            f"{scheme}://...: not a URL that can be read; give a path, or postgresql://USER@HOST/DATABASE"
        ) from None
    if scheme.startswith("postgres"):
        url = url.set(drivername="postgresql+psycopg")
        if "@" in (url.host or ""):
            raise StoreError(f"{scheme}://...: a password with @ in it is written with %40 in its place")
        return url, f"postgresql://{url.host or 'local'}/{url.database or ''}"
    return url, str(url.database)


TRIES = 5
"""Of bringing the schema up to date, where another process does the same at once."""


def open_store(where: str | Path, *, create: bool = True) -> Store:
    """Open a store, and bring its schema up to date.

    Args:
        where: a path (SQLite), or a URL as in `postgresql://user@host/database`.
        create: False refuses a file that is not there.

    Raises:
        MissingExtra: the driver of PostgreSQL is not installed.
        StoreError: it cannot be opened, is no such store, or is of a later version than this program.

    """
    url, shown = address_of(str(where))
    if url.get_backend_name() == "sqlite" and url.database not in (None, "", ":memory:"):
        path = Path(str(url.database))
        if path.is_dir():
            raise StoreError(f"{path}: is a folder, a file is expected; name the file in it")
        if not create and not path.exists():
            raise StoreError(f"{path}: no such capture store; `tunepoint serve` writes one")
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        engine = sa.create_engine(url, pool_pre_ping=True)
    except ModuleNotFoundError as error:
        raise MissingExtra(f"{shown} needs {error.name}", "postgres") from None
    except SQLAlchemyError as error:
        raise StoreError(f"{shown}: cannot be opened ({error})") from None
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", _settings)
        sa.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("begin"))
    store = Store(engine, shown)
    try:
        _see_whose(store, create=create)
        _migrate(store)
    except BaseException:
        store.close()
        raise
    return store


def _settings(connection: Any, record: Any) -> None:
    """Readers never wait for the writer, and what was acknowledged survives a loss of power.

    Transactions are begun by us: the driver's own would leave a change of the schema outside of them.
    """
    connection.isolation_level = None
    cursor = connection.cursor()
    for setting in ("journal_mode = wal", "synchronous = full", "busy_timeout = 10000"):
        cursor.execute(f"pragma {setting}")
    cursor.close()


def _see_whose(store: Store, *, create: bool) -> None:
    """Refuse a database that is another program's, and one without a store where none shall be made."""
    try:
        tables = set(sa.inspect(store.engine).get_table_names())
    except SQLAlchemyError as error:
        raise StoreError(f"{store.shown}: cannot be opened ({database_reason(error)})") from None
    if schema.VERSION in tables:
        return
    strangers = tables if store.engine.dialect.name == "sqlite" else tables & set(schema.metadata.tables)
    if strangers:
        names = ", ".join(sorted(strangers)[:5])
        raise StoreError(f"{store.shown}: is another program's database (it has {names}); name another one")
    if not create:
        raise StoreError(f"{store.shown}: no capture store in it; `tunepoint serve` writes one")


_ALEMBIC = threading.Lock()
"""Alembic keeps what it works on in a global place."""


def _migrate(store: Store) -> None:
    """Run the steps that the store lacks; one of several processes does, the others wait."""
    from alembic import command
    from alembic.config import Config
    from alembic.util.exc import CommandError

    config = Config()
    config.set_main_option("script_location", "tunepoint.capture:migrations")
    for attempt in range(TRIES):
        try:
            with _ALEMBIC, store.engine.begin() as connection:
                if connection.dialect.name == "postgresql":
                    connection.execute(sa.text("select pg_advisory_xact_lock(7305801412)"))
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
            return
        except CommandError as error:
            raise StoreError(
                f"{store.shown}: was written by another version of tunepoint ({error}); upgrade this one"
            ) from None
        except DBAPIError as error:
            if attempt == TRIES - 1 or not _momentary(error):
                raise StoreError(f"{store.shown}: cannot be opened ({database_reason(error)})") from None
            time.sleep(0.1 * 2**attempt)


def _momentary(error: DBAPIError) -> bool:
    """Whether another process is bringing the same SQLite file up to date."""
    return any(words in str(error.orig) for words in ("locked", "already exists"))
