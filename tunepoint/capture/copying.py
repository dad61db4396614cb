"""Copies a capture store into an empty one: a backup, its restoration, or a move to PostgreSQL."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from tunepoint.capture import schema
from tunepoint.capture.partitions import make_months
from tunepoint.capture.store import Store
from tunepoint.errors import StoreError

PAGE_ROWS = 1_000
"""Rows that are in memory at once."""
MAX_YEARS = 10
"""Of which the requests get tables by month; older ones share one."""
PASSING = (schema.leases.name, schema.rate_buckets.name)
"""Tables that mean nothing to another installation."""


@dataclass(frozen=True)
class Copied:
    """What a copy holds."""

    rows: dict[str, int]
    """Table -> rows."""

    def __str__(self) -> str:
        counts = (f"{rows:,} {table.replace('_', ' ')}" for table, rows in self.rows.items() if rows)
        return ", ".join(counts) or "nothing"


def copy_store(source: Store, target: Store) -> Copied:
    """Copy everything that a store keeps, as it is at one moment; gateways may write to it meanwhile.

    Args:
        source: to be copied.
        target: an empty store, on SQLite or PostgreSQL.

    Raises:
        StoreError: the target holds something already, or one of them cannot be used; the target is then as
            it was before.

    """
    rows: dict[str, int] = {}
    _make_months(source, target)
    with source.transaction("read") as reading, target.transaction("written") as writing:
        if reading.dialect.name == "postgresql":
            reading.exec_driver_sql("set transaction isolation level repeatable read, read only")
        for table in schema.metadata.sorted_tables:
            if table.name in PASSING:
                continue
            if table.name == schema.states.name:  # what a new store says of its own schema
                writing.execute(sa.delete(table))
            elif writing.execute(sa.select(sa.literal(1)).select_from(table).limit(1)).first():
                what = table.name.replace("_", " ")
                raise StoreError(f"{target.label}: holds {what} already; name an empty store to copy to")
            rows[table.name] = 0
            found = reading.execution_options(yield_per=PAGE_ROWS).execute(sa.select(table)).mappings()
            for page in found.partitions(PAGE_ROWS):
                writing.execute(sa.insert(table), [dict(row) for row in page])
                rows[table.name] += len(page)
            _continue_numbers(writing, table)
    return Copied(rows)


def _make_months(source: Store, target: Store) -> None:
    """Make tables for the months whose requests are copied, where the target has requests by month."""
    at = schema.requests.c.at
    with source.transaction("read") as reading:
        first, last = reading.execute(sa.select(sa.func.min(at), sa.func.max(at))).one()
    if first is not None:
        make_months(target, max(first, last - MAX_YEARS * 366 * 86_400), last)


def _continue_numbers(writing: sa.Connection, table: sa.Table) -> None:
    """Let a table that numbers its rows go on behind the copied ones."""
    if writing.dialect.name != "postgresql" or "number" not in table.c:
        return
    writing.exec_driver_sql(
        f"select setval(pg_get_serial_sequence('{table.name}', 'number'), "
        f"greatest((select coalesce(max(number), 0) from {table.name}), 1))"
    )
