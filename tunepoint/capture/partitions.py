"""The requests of a PostgreSQL store by month (UTC): tables made ahead, and dropped when they are old."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import sqlalchemy as sa

from tunepoint.errors import StoreError

if TYPE_CHECKING:
    from tunepoint.capture.store import Store

log = logging.getLogger(__name__)
MONTHS_AHEAD = 2
"""Made before they begin; what comes at another time goes into the table for all others."""
_MONTH = re.compile(r"requests_(\d{4})_(\d{2})")


def make_months(store: Store, first: float, last: float) -> None:
    """Make the tables of all months from one time to another, and of the months ahead of that.

    Args:
        store: any; nothing is done where its requests are in one table.
        first: seconds since 1970.
        last: seconds since 1970.

    Raises:
        StoreError: the store cannot be changed.

    """
    with store.transaction("read") as connection:
        if not _is_partitioned(connection):
            return
        known = set(_months(connection))
    for month in _months_between(first, last):
        if month in known:
            continue
        try:
            with store.transaction("written") as connection:
                connection.exec_driver_sql(_creation(month))
        except StoreError as error:  # the table for all others has requests of that month, and keeps them
            log.warning("requests of %04d-%02d have no table of their own: %s", *month, error)


def drop_months(store: Store, before: float) -> int:
    """Drop the tables of the months that ended before a time.

    Args:
        store: any; nothing is done where its requests are in one table.
        before: seconds since 1970.

    Returns:
        how many tables were dropped.

    """
    with store.transaction("read") as connection:
        if not _is_partitioned(connection):
            return 0
        old = [month for month in _months(connection) if _start(_after(month)) <= before]
    for month in old:
        with store.transaction("written") as connection:
            connection.exec_driver_sql(f"drop table {_name(month)}")
    return len(old)


Month = tuple[int, int]
"""Year and number of the month."""


def _is_partitioned(connection: sa.Connection) -> bool:
    if connection.dialect.name != "postgresql":
        return False
    query = "select count(*) from pg_partitioned_table where partrelid = to_regclass('requests')"
    return bool(connection.scalar(sa.text(query)))


def _months(connection: sa.Connection) -> Iterator[Month]:
    query = (
        "select relname from pg_inherits join pg_class on pg_class.oid = inhrelid "
        "where inhparent = to_regclass('requests')"
    )
    for name in connection.scalars(sa.text(query)):
        month = _MONTH.fullmatch(name)
        if month:
            yield int(month[1]), int(month[2])


def _months_between(first: float, last: float) -> Iterator[Month]:
    begin, end = (datetime.fromtimestamp(at, UTC) for at in (first, last))
    month, until = (begin.year, begin.month), (end.year, end.month)
    for _ in range(MONTHS_AHEAD):
        until = _after(until)
    while month <= until:
        yield month
        month = _after(month)


def _after(month: Month) -> Month:
    year, number = month
    return (year, number + 1) if number < 12 else (year + 1, 1)


def _start(month: Month) -> float:
    return datetime(*month, 1, tzinfo=UTC).timestamp()


def _name(month: Month) -> str:
    return f"requests_{month[0]:04d}_{month[1]:02d}"


def _creation(month: Month) -> str:
    values = f"from ({_start(month):.0f}) to ({_start(_after(month)):.0f})"
    return f"create table if not exists {_name(month)} partition of requests for values {values}"
