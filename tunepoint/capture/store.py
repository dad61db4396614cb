"""The capture store: SQLite in a file by default, PostgreSQL by URL; one schema, brought up to date."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import (
    DataError,
    DBAPIError,
    IntegrityError,
    InterfaceError,
    ProgrammingError,
    SQLAlchemyError,
    StatementError,
)

from tunepoint.capture import schema
from tunepoint.capture.addresses import address_of
from tunepoint.capture.records import Captured, Feedback
from tunepoint.errors import RefusedRow, StoreError

TRIES = 5
"""Of bringing the schema up to date, where another process does the same at once."""
PAGE = 1_000
"""Rows that are read at once."""


@dataclass(frozen=True)
class Served:
    """What one arm answered over a time, in sums: means and their errors follow."""

    arm: str
    role: str
    requests: int
    failed: int
    """Replies with an HTTP status of 400 and more."""
    formatted: int
    """Answers that could be read."""
    unreadable: int
    priced: int
    """Requests with a price; the sums of money are over them."""
    cost_nanousd: int
    cost_squares: float
    """Of the billionths of a dollar, summed: the spread follows."""
    timed: int
    """Requests with processor time of this machine."""
    core_seconds: float
    core_squares: float
    counted: int
    """Requests whose server counted tokens; the sums of tokens are over them."""
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    clocked: int
    """Answered requests with seconds."""
    seconds: float
    first: float
    last: float
    """Seconds since 1970 of the first and the last request."""


class Store:
    """Requests, feedback, states and the audit log of one installation.

    Safe for several threads and several processes.
    """

    def __init__(self, engine: sa.Engine, shown: str) -> None:
        self.engine = engine
        self.shown = shown
        """Where it is, without a password: what errors may say."""

    # -- writing -----------------------------------------------------------------------------------

    def add(self, requests: Sequence[Captured] = (), feedback: Sequence[Feedback] = ()) -> None:
        """Write both in one transaction; a request that is there already stays as it is.

        Raises:
            StoreError: the disk is full, the server is gone: nothing of it was written.

        """
        with self._guarded("written") as connection:
            if requests:
                new = self._insert(schema.requests).on_conflict_do_nothing(index_elements=["id"])
                connection.execute(new, [_row(one) for one in requests])
            if feedback:
                connection.execute(sa.insert(schema.feedback), [asdict(one) for one in feedback])

    def set_state(
        self, name: str, content: Mapping[str, Any], *, noted: Mapping[str, Any] | None = None
    ) -> None:
        """Keep a state under its name, over what was there; with a line of the audit log, or neither.

        Args:
            noted: `task`, `who`, `what` and `detail` of that line.

        """
        insert = self._insert(schema.states).values(name=name, content=dict(content), at=time.time())
        new = {"content": insert.excluded.content, "at": insert.excluded.at}
        with self._guarded("written") as connection:
            connection.execute(insert.on_conflict_do_update(index_elements=["name"], set_=new))
            if noted is not None:
                connection.execute(sa.insert(schema.audit), [{"at": time.time(), **noted}])

    def note(
        self,
        task: str,
        who: str,
        what: str,
        detail: Mapping[str, Any] | None = None,
        *,
        at: float | None = None,
    ) -> None:
        """Add a line to the audit log."""
        row = {"task": task, "who": who, "what": what, "detail": None if detail is None else dict(detail)}
        with self._guarded("written") as connection:
            connection.execute(sa.insert(schema.audit), [{"at": time.time() if at is None else at, **row}])

    def purge(self, before: float) -> int:
        """Delete requests that came before a moment, and feedback on them or on none; how many requests."""
        old = sa.select(schema.requests.c.id).where(schema.requests.c.at < before)
        with self._guarded("written") as connection:
            said = schema.feedback.c
            connection.execute(sa.delete(schema.feedback).where(said.request.in_(old)))
            known = sa.select(schema.requests.c.id)
            strays = (said.at < before) & said.request.not_in(known)
            connection.execute(sa.delete(schema.feedback).where(strays))
            gone = connection.execute(sa.delete(schema.requests).where(schema.requests.c.at < before))
            return int(gone.rowcount)

    # -- reading -----------------------------------------------------------------------------------

    def requests(
        self, task: str | None = None, *, since: float = 0.0, until: float = math.inf
    ) -> Iterator[Captured]:
        """Requests of a task, or of all, in the order in which they came."""
        table = schema.requests.c
        wanted = sa.select(schema.requests).where(table.at >= since).order_by(table.at, table.id)
        if math.isfinite(until):
            wanted = wanted.where(table.at < until)
        if task is not None:
            wanted = wanted.where(table.task == task)
        last: tuple[float, str] | None = None
        while True:
            page = wanted if last is None else wanted.where(sa.tuple_(table.at, table.id) > sa.tuple_(*last))
            with self._guarded("read") as connection:
                rows = connection.execute(page.limit(PAGE)).mappings().all()
            yield from (_captured(row) for row in rows)
            if len(rows) < PAGE:
                return
            last = (rows[-1]["at"], rows[-1]["id"])

    def find(self, request: str) -> Captured | None:
        """The request of that id; None if it is not there."""
        wanted = sa.select(schema.requests).where(schema.requests.c.id == request)
        with self._guarded("read") as connection:
            row = connection.execute(wanted).mappings().first()
        return None if row is None else _captured(row)

    def feedback(self, requests: Sequence[str]) -> dict[str, list[Feedback]]:
        """Feedback by the id of its request, in the order in which it came."""
        found: dict[str, list[Feedback]] = {}
        names = [one.name for one in fields(Feedback)]
        with self._guarded("read") as connection:
            for start in range(0, len(requests), PAGE):
                some = schema.feedback.c.request.in_(requests[start : start + PAGE])
                wanted = sa.select(schema.feedback).where(some).order_by(schema.feedback.c.number)
                for row in connection.execute(wanted).mappings():
                    one = Feedback(**{name: row[name] for name in names})
                    found.setdefault(one.request, []).append(one)
        return found

    def served(self, task: str, *, since: float = 0.0, until: float = math.inf) -> list[Served]:
        """What each arm answered, by role."""
        t = schema.requests.c

        def count(condition: sa.ColumnElement[bool]) -> Any:
            return total(sa.case((condition, 1), else_=0))

        def total(value: Any) -> Any:
            return sa.func.coalesce(sa.func.sum(value), 0)

        wanted = sa.select(
            t.arm,
            t.role,
            sa.func.count(),
            count(t.status >= 400),
            count(t.format_ok.is_(True)),
            count(t.format_ok.is_(False)),
            sa.func.count(t.cost_nanousd),
            total(t.cost_nanousd),
            total(sa.cast(t.cost_nanousd, sa.Double) * t.cost_nanousd),
            sa.func.count(t.core_seconds),
            total(t.core_seconds),
            total(t.core_seconds * t.core_seconds),
            sa.func.count(t.input_tokens),
            total(t.input_tokens),
            total(t.cached_tokens),
            total(t.output_tokens),
            count(t.seconds.is_not(None) & (t.status < 400)),
            total(sa.case((t.status < 400, t.seconds), else_=0.0)),
            sa.func.min(t.at),
            sa.func.max(t.at),
        ).where(t.task == task, t.at >= since)
        if math.isfinite(until):
            wanted = wanted.where(t.at < until)
        with self._guarded("read") as connection:
            rows = connection.execute(wanted.group_by(t.arm, t.role).order_by(t.arm, t.role)).all()
        kinds = [Served.__annotations__[one.name] for one in fields(Served)]
        make = {"str": str, "int": int, "float": float}
        return [Served(*(make[kind](value) for kind, value in zip(kinds, row, strict=True))) for row in rows]

    def state(self, name: str) -> dict[str, Any] | None:
        """The state of that name; None if there is none."""
        with self._guarded("read") as connection:
            found = connection.scalar(sa.select(schema.states.c.content).where(schema.states.c.name == name))
        return None if found is None else dict(found)

    def log(self, task: str | None = None) -> list[dict[str, Any]]:
        """The audit log of a task, or all of it, oldest first."""
        wanted = sa.select(schema.audit).order_by(schema.audit.c.number)
        if task is not None:
            wanted = wanted.where(schema.audit.c.task == task)
        with self._guarded("read") as connection:
            return [dict(row) for row in connection.execute(wanted).mappings()]

    # -- the rest ----------------------------------------------------------------------------------

    def _insert(self, table: sa.Table) -> Any:
        """An insert that may say what happens where the row is there already."""
        from sqlalchemy.dialects import postgresql, sqlite

        return (postgresql if self.engine.dialect.name == "postgresql" else sqlite).insert(table)

    @contextmanager
    def _guarded(self, what: str) -> Iterator[sa.Connection]:
        try:
            with self.engine.begin() as connection:
                yield connection
        except (SQLAlchemyError, OverflowError, UnicodeError) as error:
            if _of_a_row(error, self.engine.dialect.name):
                raise RefusedRow(f"{self.shown}: a row cannot be {what} ({_said(error)})") from None
            raise StoreError(f"{self.shown}: cannot be {what} ({_said(error)})") from None

    def close(self) -> None:
        """Give its connections back."""
        self.engine.dispose()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def open_store(where: str | Path, *, create: bool = True) -> Store:
    """Open a store, and bring its schema up to date.

    Args:
        where: a path (SQLite), or a URL as in `postgresql://user@host/database`.
        create: False refuses a file that is not there.

    Raises:
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
    except (SQLAlchemyError, ModuleNotFoundError) as error:
        why = (
            f"{error}; pip install 'tunepoint[postgres]'" if isinstance(error, ModuleNotFoundError) else error
        )
        raise StoreError(f"{shown}: cannot be opened ({why})") from None
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
        raise StoreError(f"{store.shown}: cannot be opened ({_said(error)})") from None
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
                raise StoreError(f"{store.shown}: cannot be opened ({_said(error)})") from None
            time.sleep(0.1 * 2**attempt)


def _of_a_row(error: Exception, dialect: str) -> bool:
    """Whether a value is at fault, and not the store."""
    if not isinstance(error, DBAPIError):
        return not isinstance(error, SQLAlchemyError) or isinstance(error, StatementError)
    binding = (InterfaceError, ProgrammingError) if dialect == "sqlite" else ()
    return isinstance(error, (DataError, IntegrityError, *binding))


def _momentary(error: DBAPIError) -> bool:
    """Whether another process is bringing the same SQLite file up to date."""
    return any(words in str(error.orig) for words in ("locked", "already exists"))


def _said(error: Exception) -> str:
    """What the database says, without the statement and its values: they hold what users asked."""
    cause = getattr(error, "orig", None)
    return str(cause if cause is not None else type(error).__name__).strip().splitlines()[0]


def _row(one: Captured) -> dict[str, Any]:
    row = {name: getattr(one, name) for name in _NAMES}
    row["parameters"] = dict(one.parameters) or None
    row["messages"] = None if one.messages is None else [dict(message) for message in one.messages]
    return row


_NAMES = [one.name for one in fields(Captured)]


def _captured(row: Mapping[Any, Any]) -> Captured:
    return Captured(**{**{name: row[name] for name in _NAMES}, "parameters": row["parameters"] or {}})
