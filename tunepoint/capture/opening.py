"""Opens a capture store by its path or URL, and brings its schema up to date."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from tunepoint.capture import schema
from tunepoint.capture.store import Store, database_reason
from tunepoint.errors import MissingExtra, StoreError
from tunepoint.files.private import create_private

if TYPE_CHECKING:
    from alembic.config import Config

EXAMPLE_URL = "postgresql://USER@HOST/DATABASE"
MIGRATION_ATTEMPTS = 5
"""Where another process migrates the same SQLite file at this moment."""
POSTGRES_LIMITS = {
    "connect_timeout": 5,
    "tcp_user_timeout": 10_000,
    "keepalives_idle": 10,
    "options": "-c lock_timeout=4000 -c statement_timeout=15000",
}
"""Seconds to connect; milliseconds that a server may leave sent data unanswered; seconds until an idle
connection is probed; milliseconds that a statement may wait for a lock, and take. Without them, a machine
that vanishes or a table that is locked holds a connection for many minutes, and captures wait in memory."""
WITHOUT_LIMITS = ("set local lock_timeout = 0", "set local statement_timeout = 0")
"""For a migration, which may wait for others and rewrite tables."""
POSTGRES_LOCK = 7305801412
"""Number of the advisory lock under which one process migrates and the others wait; chosen at random."""
COMPATIBILITY = "schema"
"""State with the `oldest` schema whose gateways can use the store. A migration that only adds leaves it; one
that takes away waits until no gateway of before is left, and raises it."""
_ALEMBIC_LOCK = threading.Lock()
"""Alembic keeps its context in a global variable, so one thread migrates at a time."""


def open_store(address: str | Path, *, create: bool = True) -> Store:
    """Open a store, and bring its schema up to date.

    Args:
        address: a path (SQLite), or a URL as in `postgresql://user@host/database`.
        create: False rejects a store that does not exist yet.

    Raises:
        MissingExtra: the driver of PostgreSQL is not installed.
        StoreError: it cannot be opened, is another program's database, or is of a later version.

    """
    url, label = parse_address(str(address))
    if url.get_backend_name() == "sqlite" and url.database not in (None, "", ":memory:"):
        path = Path(str(url.database))
        if path.is_dir():
            raise StoreError(f"{path}: is a folder, expected a file; name the file in it")
        if not create and not path.exists():
            raise StoreError(f"{path}: no such capture store; `tunepoint serve` writes one")
        if not str(path).startswith("file:"):
            _create_file(path)
    store = Store(_engine(url, label), label)
    try:
        _check_owner(store, create=create)
        _migrate(store)
    except BaseException:
        store.close()
        raise
    return store


def _create_file(path: Path) -> None:
    """Create the file of a store and the folders above it; what it holds is for its owner's eyes."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        create_private(path)
    except OSError as error:
        raise StoreError(
            f"{path}: cannot be created ({error.strerror}); choose another path, or correct its permissions"
        ) from None


def parse_address(address: str) -> tuple[sa.URL, str]:
    """Parse the address of a store.

    Returns:
        The URL; and a label that may be shown: path, or host and database, without user and password.

    Raises:
        StoreError: it is no path or URL of a store. URLs are not quoted: they may hold a password.

    """
    if not address or address == ":memory:":
        raise StoreError(f"{address!r} cannot keep anything: give a path, or {EXAMPLE_URL}")
    if "://" not in address:
        return sa.URL.create("sqlite", database=address), address
    scheme = address.partition("://")[0]
    if scheme.partition("+")[0] not in ("sqlite", "postgresql", "postgres"):
        raise StoreError(f"{scheme}://...: a store is a SQLite file or a PostgreSQL database")
    try:
        url = sa.make_url(address)
    except (SQLAlchemyError, ValueError):
        raise StoreError(f"{scheme}://...: not a valid URL; give a path, or {EXAMPLE_URL}") from None
    if not scheme.startswith("postgres"):
        return url, str(url.database)
    url = url.set(drivername="postgresql+psycopg")
    if "@" in (url.host or ""):
        raise StoreError(f"{scheme}://...: write @ in a password as %40")
    return url, f"postgresql://{url.host or 'local'}/{url.database or ''}"


def _engine(url: sa.URL, label: str) -> sa.Engine:
    try:
        limits = POSTGRES_LIMITS if url.get_backend_name() == "postgresql" else {}
        engine = sa.create_engine(url, pool_pre_ping=True, connect_args=limits)
    except ModuleNotFoundError as error:
        raise MissingExtra(f"{label} needs {error.name}", "postgres") from None
    except SQLAlchemyError as error:
        raise StoreError(f"{label}: cannot be opened ({error})") from None
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", _configure_sqlite)
        sa.event.listen(engine, "begin", _begin_sqlite)
    return engine


def _begin_sqlite(connection: sa.Connection) -> None:
    """Begin a transaction; one that reads before it writes has to take the lock at once (`immediate`).

    SQLite refuses to turn a reader into a writer, without waiting, if another one has written since.
    """
    immediate = connection.get_execution_options().get("immediate", False)
    connection.exec_driver_sql("begin immediate" if immediate else "begin")


def _configure_sqlite(connection: Any, record: Any) -> None:
    """Set up a new connection: readers never wait for the writer, and a commit survives a power loss.

    Transactions are begun by us, since the driver's own would leave schema changes outside of them.
    """
    connection.isolation_level = None
    cursor = connection.cursor()
    # The timeout first: the change of the journal needs a lock that another process may hold.
    for setting in ("busy_timeout = 10000", "journal_mode = wal", "synchronous = full"):
        cursor.execute(f"pragma {setting}")
    cursor.close()


def _check_owner(store: Store, *, create: bool) -> None:
    """Reject foreign databases, and missing stores unless `create`."""
    try:
        tables = set(sa.inspect(store.engine).get_table_names())
    except SQLAlchemyError as error:
        raise StoreError(f"{store.label}: cannot be opened ({database_reason(error)})") from None
    if schema.VERSION in tables:
        return
    # A PostgreSQL database may be shared, as long as no table of ours is taken.
    foreign = tables if store.engine.dialect.name == "sqlite" else tables & set(schema.metadata.tables)
    if foreign:
        names = ", ".join(sorted(foreign)[:5])
        raise StoreError(f"{store.label}: another program's database (it has {names}); name another one")
    if not create:
        raise StoreError(f"{store.label}: no capture store in it; `tunepoint serve` writes one")


def _migrate(store: Store) -> None:
    """Run the missing migrations; one of several processes does, the others wait."""
    try:
        if _is_current(store):
            return
    except DBAPIError as error:
        raise StoreError(f"{store.label}: cannot be opened ({database_reason(error)})") from None
    from alembic.config import Config
    from alembic.util.exc import CommandError

    config = Config()
    config.set_main_option("script_location", "tunepoint.capture:migrations")
    for attempt in range(MIGRATION_ATTEMPTS):
        try:
            if not _is_current(store):
                _upgrade(store, config)
            return
        except CommandError as error:
            if _serves_older_versions(store):
                return
            raise StoreError(
                f"{store.label}: written by another version of tunepoint ({error}); upgrade this one"
            ) from None
        except DBAPIError as error:
            if attempt == MIGRATION_ATTEMPTS - 1 or not _is_migrating(error):
                raise StoreError(f"{store.label}: cannot be opened ({database_reason(error)})") from None
            time.sleep(0.1 * 2**attempt)


def _is_current(store: Store) -> bool:
    """Whether no migration is missing: then opening a store waits for nobody who writes to it."""
    version = sa.table(schema.VERSION, sa.column("version_num"))
    if not sa.inspect(store.engine).has_table(schema.VERSION):
        return False
    with store.engine.begin() as connection:
        stored = connection.scalars(sa.select(version.c.version_num)).all()
    return list(stored) == [schema.HEAD]


def _serves_older_versions(store: Store) -> bool:
    """Whether a store of a later version may be used too, as while gateways are upgraded one by one."""
    try:
        state = store.state(COMPATIBILITY)
    except StoreError:
        return False
    return state is not None and str(state["oldest"]) <= schema.HEAD


def _upgrade(store: Store, config: Config) -> None:
    from alembic import command

    with _ALEMBIC_LOCK, store.engine.execution_options(immediate=True).begin() as connection:
        if connection.dialect.name == "postgresql":
            for setting in WITHOUT_LIMITS:
                connection.execute(sa.text(setting))
            connection.execute(sa.text(f"select pg_advisory_xact_lock({POSTGRES_LOCK})"))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _is_migrating(error: DBAPIError) -> bool:
    """Whether another process is migrating the same SQLite file."""
    return any(words in str(error.orig) for words in ("locked", "already exists"))
