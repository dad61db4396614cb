"""The capture store: requests, feedback, states and the audit log; the same on SQLite and PostgreSQL."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
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
from tunepoint.capture.canary_values import add_values
from tunepoint.capture.partitions import drop_months
from tunepoint.capture.records import CapturedRequest, Feedback
from tunepoint.capture.spending import settle
from tunepoint.capture.totals import ServedTotals, read_totals, totals_query
from tunepoint.errors import RefusedRow, StateConflict, StoreError

PAGE_ROWS = 1_000
"""Rows that are read at once."""
GATEWAY = "gateway"
"""Origin of what a gateway has captured."""
PURGED_ROWS = 2_000
"""Rows that are deleted in one transaction."""
OUTCOMES = "outcomes"
"""The field that has a table of its own."""
REQUEST_FIELDS = [field.name for field in fields(CapturedRequest) if field.name != OUTCOMES]
REQUEST_COLUMNS = [schema.requests.c[name] for name in REQUEST_FIELDS]
PARAMETERS = REQUEST_FIELDS.index("parameters")
FEEDBACK_FIELDS = [field.name for field in fields(Feedback) if field.name != OUTCOMES]
ANY_VERSION = -1


class Store:
    """Requests, feedback, states and the audit log of one installation.

    Safe for several threads and several processes.

    Args:
        label: where the store is, without a password: what errors may say.

    """

    def __init__(self, engine: sa.Engine, label: str) -> None:
        self.engine = engine
        self.label = label

    # -- writing -----------------------------------------------------------------------------------

    def add(self, requests: Sequence[CapturedRequest] = (), feedback: Sequence[Feedback] = ()) -> None:
        """Write both in one transaction; a request with a known id leaves the stored one as it is.

        What the answers cost counts against their keys in the same transaction, so that a killed process
        never leaves one without the other.

        Raises:
            RefusedRow: the database rejects a value; nothing was written.
            StoreError: the disk is full, or the server is away; nothing was written.

        """
        with self.transaction("written") as connection:
            if requests:
                self._add_requests(connection, requests)
            if feedback:
                rows = [{name: getattr(entry, name) for name in FEEDBACK_FIELDS} for entry in feedback]
                connection.execute(sa.insert(schema.feedback), rows)
            outcomes = [value for request in requests for value in request.outcomes]
            outcomes += [value for entry in feedback for value in entry.outcomes]
            if outcomes:
                add_values(self, connection, outcomes)

    def _add_requests(self, connection: sa.Connection, requests: Sequence[CapturedRequest]) -> None:
        # The writer may send a batch again whose acknowledgement was lost.
        # No index is named: by month, the key has the time in it, which such a request has too.
        insert = self.insert(schema.requests).on_conflict_do_nothing()
        if any(request.origin != GATEWAY for request in requests):
            # Imported from a log that names no times, a request may come again at another one.
            ids = [request.id for request in requests]
            known = set(
                connection.scalars(sa.select(schema.requests.c.id).where(schema.requests.c.id.in_(ids)))
            )
            requests = [request for request in requests if request.id not in known]
        if not requests:
            return
        rows = [_row(request) for request in requests]
        if not any(request.key for request in requests):
            connection.execute(insert, rows)
            return
        new = set(connection.scalars(insert.returning(schema.requests.c.id), rows))
        settle(self, connection, [request for request in requests if request.id in new])

    def set_state(
        self,
        name: str,
        content: Mapping[str, Any],
        *,
        audit: Mapping[str, Any] | None = None,
        read: int | None = ANY_VERSION,
    ) -> None:
        """Replace the state of that name.

        Args:
            content: JSON.
            audit: `task`, `who`, `what` and `detail` of an audit entry, written in the same transaction.
            read: version that was read, as `versioned_state` returns it; None if there was no such state.
                Without it, the state is replaced whatever it is.

        Raises:
            StateConflict: somebody has changed it since; nothing was written.

        """
        table = schema.states
        insert = self.insert(table).values(name=name, content=dict(content), at=time.time(), version=1)
        update = {name: insert.excluded[name] for name in ("content", "at")}
        update["version"] = table.c.version + 1
        where = None if read == ANY_VERSION else table.c.version == read
        step = insert.on_conflict_do_update(index_elements=["name"], set_=update, where=where)
        if read is None:
            step = insert.on_conflict_do_nothing(index_elements=["name"])
        with self.transaction("written") as connection:
            if connection.execute(step.returning(table.c.name)).first() is None:
                raise StateConflict(f"{self.label}: another process has just changed {name}; try again")
            if audit is not None:
                connection.execute(sa.insert(schema.audit), [{"at": time.time(), **audit}])

    def add_audit(
        self,
        task: str,
        who: str,
        what: str,
        detail: Mapping[str, Any] | None = None,
        *,
        at: float | None = None,
    ) -> None:
        """Add an entry to the audit log."""
        row = {
            "at": time.time() if at is None else at,
            "task": task,
            "who": who,
            "what": what,
            "detail": None if detail is None else dict(detail),
        }
        with self.transaction("written") as connection:
            connection.execute(sa.insert(schema.audit), [row])

    def purge(self, before: float) -> int:
        """Delete requests from before a time with their feedback, and feedback without a request.

        Months that are over go as whole tables, where the store has such; the rest goes page by page, so that
        nobody waits for it.

        Returns:
            How many requests were deleted one by one.

        """
        drop_months(self, before)
        requests, feedback = schema.requests.c, schema.feedback.c
        page = sa.select(requests.id).where(requests.at < before).order_by(requests.at).limit(PURGED_ROWS)
        deleted = 0
        while True:
            with self.transaction("written") as connection:
                ids = connection.scalars(page).all()
                connection.execute(sa.delete(schema.feedback).where(feedback.request.in_(ids)))
                old = requests.id.in_(ids) & (requests.at < before)
                connection.execute(sa.delete(schema.requests).where(old))
            deleted += len(ids)
            if len(ids) < PURGED_ROWS:
                break
        # Feedback may come before its request, so only old feedback without one is an orphan.
        known = sa.select(requests.id).where(requests.id == feedback.request).exists()
        with self.transaction("written") as connection:
            connection.execute(sa.delete(schema.feedback).where(feedback.at < before, ~known))
        return deleted

    # -- reading -----------------------------------------------------------------------------------

    def requests(
        self, task: str | None = None, *, since: float = 0.0, until: float = math.inf
    ) -> Iterator[CapturedRequest]:
        """Requests of a task, or of all, in [since, until), in the order in which they came."""
        columns = schema.requests.c
        query = sa.select(*REQUEST_COLUMNS).where(columns.at >= since).order_by(columns.at, columns.id)
        if math.isfinite(until):
            query = query.where(columns.at < until)
        if task is not None:
            query = query.where(columns.task == task)
        # Page by page, each from the last row on: no transaction stays open while the caller works.
        last: tuple[float, str] | None = None
        while True:
            page = (
                query if last is None else query.where(sa.tuple_(columns.at, columns.id) > sa.tuple_(*last))
            )
            with self.transaction("read") as connection:
                rows = connection.execute(page.limit(PAGE_ROWS)).all()
            yield from map(_captured, rows)
            if len(rows) < PAGE_ROWS:
                return
            last = (rows[-1].at, rows[-1].id)

    def latest(self, task: str, count: int, *, since: float = 0.0) -> list[CapturedRequest]:
        """The latest requests of a task, at most `count`, in the order in which they came."""
        columns = schema.requests.c
        query = sa.select(*REQUEST_COLUMNS).where(columns.task == task, columns.at >= since)
        query = query.order_by(columns.at.desc(), columns.id.desc()).limit(count)
        with self.transaction("read") as connection:
            rows = connection.execute(query).all()
        return list(map(_captured, reversed(rows)))

    def find(self, request_id: str) -> CapturedRequest | None:
        """The request of that id; None if it is not stored."""
        query = sa.select(*REQUEST_COLUMNS).where(schema.requests.c.id == request_id)
        with self.transaction("read") as connection:
            row = connection.execute(query).first()
        return None if row is None else _captured(row)

    def feedback(self, request_ids: Sequence[str]) -> dict[str, list[Feedback]]:
        """Feedback by the id of its request, in the order in which it came."""
        by_request: dict[str, list[Feedback]] = {}
        columns = schema.feedback.c
        with self.transaction("read") as connection:
            # In pages: databases limit the parameters of a statement.
            for start in range(0, len(request_ids), PAGE_ROWS):
                page = columns.request.in_(request_ids[start : start + PAGE_ROWS])
                query = sa.select(schema.feedback).where(page).order_by(columns.number)
                for row in connection.execute(query).mappings():
                    entry = Feedback(**{name: row[name] for name in FEEDBACK_FIELDS})
                    by_request.setdefault(entry.request, []).append(entry)
        return by_request

    def feedback_since(self, task: str, since: float) -> dict[str, list[Feedback]]:
        """Feedback on a task's requests from a time on, as `feedback` returns it."""
        columns = [schema.feedback.c[name] for name in FEEDBACK_FIELDS]
        requests = schema.requests.c
        query = sa.select(*columns).join(schema.requests, requests.id == schema.feedback.c.request)
        query = query.where(requests.task == task, requests.at >= since).order_by(schema.feedback.c.number)
        by_request: dict[str, list[Feedback]] = {}
        with self.transaction("read") as connection:
            for row in connection.execute(query):
                by_request.setdefault(row.request, []).append(Feedback(*row))
        return by_request

    def copies(self, request_ids: Sequence[str]) -> dict[str, list[CapturedRequest]]:
        """What else answered some requests, by the id of the request, in the order in which it came."""
        by_request: dict[str, list[CapturedRequest]] = {}
        columns = schema.requests.c
        query = sa.select(*REQUEST_COLUMNS).order_by(columns.at, columns.id)
        with self.transaction("read") as connection:
            for start in range(0, len(request_ids), PAGE_ROWS):
                page = columns.copy_of.in_(request_ids[start : start + PAGE_ROWS])
                for row in connection.execute(query.where(page)):
                    by_request.setdefault(row.copy_of, []).append(_captured(row))
        return by_request

    def totals(self, task: str, *, since: float = 0.0, until: float = math.inf) -> list[ServedTotals]:
        """Sums over a task's answers, by arm and role."""
        with self.transaction("read") as connection:
            return [read_totals(row) for row in connection.execute(totals_query(task, since, until))]

    def state(self, name: str) -> dict[str, Any] | None:
        """The state of that name; None if there is none."""
        query = sa.select(schema.states.c.content).where(schema.states.c.name == name)
        with self.transaction("read") as connection:
            content = connection.scalar(query)
        return None if content is None else dict(content)

    def versioned_state(self, name: str) -> tuple[dict[str, Any], int] | None:
        """The state of that name and its version; None if there is none."""
        columns = schema.states.c
        query = sa.select(columns.content, columns.version).where(columns.name == name)
        with self.transaction("read") as connection:
            row = connection.execute(query).first()
        return None if row is None else (dict(row.content), int(row.version))

    def audit_log(self, task: str | None = None) -> list[dict[str, Any]]:
        """The audit log of a task, or all of it, oldest first."""
        query = sa.select(schema.audit).order_by(schema.audit.c.number)
        if task is not None:
            query = query.where(schema.audit.c.task == task)
        with self.transaction("read") as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    # -- the database ------------------------------------------------------------------------------

    def insert(self, table: sa.Table) -> Any:
        """An insert of the database's own dialect, which knows `on conflict`."""
        from sqlalchemy.dialects import postgresql, sqlite

        return (postgresql if self.engine.dialect.name == "postgresql" else sqlite).insert(table)

    @contextmanager
    def transaction(self, done: str) -> Iterator[sa.Connection]:
        """A transaction whose errors are ours; `done` is "read" or "written", for their text."""
        try:
            with self.engine.begin() as connection:
                yield connection
        except (SQLAlchemyError, OverflowError, UnicodeError) as error:
            reason = database_reason(error)
            if _is_value_error(error, self.engine.dialect.name):
                raise RefusedRow(f"{self.label}: a row cannot be {done} ({reason})") from None
            raise StoreError(f"{self.label}: cannot be {done} ({reason})") from None

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _is_value_error(error: Exception, dialect: str) -> bool:
    """Whether a value is at fault, and not the database."""
    if not isinstance(error, DBAPIError):
        return not isinstance(error, SQLAlchemyError) or isinstance(error, StatementError)
    # SQLite's driver reports values that it cannot bind by these two.
    binding = (InterfaceError, ProgrammingError) if dialect == "sqlite" else ()
    return isinstance(error, (DataError, IntegrityError, *binding))


def database_reason(error: Exception) -> str:
    """What the database says, without the statement and its values, which hold users' texts."""
    cause = error.orig if isinstance(error, StatementError) else None
    return str(type(error).__name__ if cause is None else cause).strip().splitlines()[0]


def _row(request: CapturedRequest) -> dict[str, Any]:
    row = {name: getattr(request, name) for name in REQUEST_FIELDS}
    row["parameters"] = dict(request.parameters) or None
    row["messages"] = None if request.messages is None else [dict(message) for message in request.messages]
    return row


def _captured(row: Sequence[Any]) -> CapturedRequest:
    """Return the request of a row of `REQUEST_COLUMNS`; by position, for a view reads many."""
    values = list(row)
    values[PARAMETERS] = values[PARAMETERS] or {}
    return CapturedRequest(*values)
