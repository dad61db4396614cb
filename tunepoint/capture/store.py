"""The capture store: requests, feedback, states and the audit log; the same on SQLite and PostgreSQL."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
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
from tunepoint.capture.records import CapturedRequest, Feedback
from tunepoint.errors import RefusedRow, StoreError

PAGE = 1_000
"""Rows that are read at once."""


@dataclass(frozen=True)
class ServedTotals:
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

    def add(self, requests: Sequence[CapturedRequest] = (), feedback: Sequence[Feedback] = ()) -> None:
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
    ) -> Iterator[CapturedRequest]:
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

    def latest(self, task: str, most: int, *, since: float = 0.0) -> list[CapturedRequest]:
        """The last so many requests of a task, in the order in which they came."""
        table = schema.requests.c
        wanted = sa.select(schema.requests).where(table.task == task, table.at >= since)
        with self._guarded("read") as connection:
            last = wanted.order_by(table.at.desc(), table.id.desc()).limit(most)
            rows = connection.execute(last).mappings().all()
        return [_captured(row) for row in reversed(rows)]

    def find(self, request: str) -> CapturedRequest | None:
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

    def served(self, task: str, *, since: float = 0.0, until: float = math.inf) -> list[ServedTotals]:
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
        kinds = [ServedTotals.__annotations__[one.name] for one in fields(ServedTotals)]
        make = {"str": str, "int": int, "float": float}
        return [
            ServedTotals(*(make[kind](value) for kind, value in zip(kinds, row, strict=True))) for row in rows
        ]

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
                raise RefusedRow(f"{self.shown}: a row cannot be {what} ({database_reason(error)})") from None
            raise StoreError(f"{self.shown}: cannot be {what} ({database_reason(error)})") from None

    def close(self) -> None:
        """Give its connections back."""
        self.engine.dispose()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _of_a_row(error: Exception, dialect: str) -> bool:
    """Whether a value is at fault, and not the store."""
    if not isinstance(error, DBAPIError):
        return not isinstance(error, SQLAlchemyError) or isinstance(error, StatementError)
    binding = (InterfaceError, ProgrammingError) if dialect == "sqlite" else ()
    return isinstance(error, (DataError, IntegrityError, *binding))


def database_reason(error: Exception) -> str:
    """What the database says, without the statement and its values: they hold what users asked."""
    cause = getattr(error, "orig", None)
    return str(cause if cause is not None else type(error).__name__).strip().splitlines()[0]


def _row(request: CapturedRequest) -> dict[str, Any]:
    row = {name: getattr(request, name) for name in _NAMES}
    row["parameters"] = dict(request.parameters) or None
    row["messages"] = None if request.messages is None else [dict(message) for message in request.messages]
    return row


_NAMES = [one.name for one in fields(CapturedRequest)]


def _captured(row: Mapping[Any, Any]) -> CapturedRequest:
    return CapturedRequest(**{**{name: row[name] for name in _NAMES}, "parameters": row["parameters"] or {}})
