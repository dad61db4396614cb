"""What the processes of one installation share: leases, and the rates of keys."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

import sqlalchemy as sa

from tunepoint.capture import schema

if TYPE_CHECKING:
    from tunepoint.capture.store import Store


SLACK_SECONDS = 5.0
"""That a process may wait between a look at the clock and what it writes: for a lock, say."""
FORGET_SECONDS = 86_400.0
"""After which a lease that has run out is deleted."""


def hold_lease(store: Store, name: str, holder: str, seconds: float) -> bool:
    """Take a lease, or renew one's own; whether the holder has it now.

    Time is that of the database's machine. If its clock was set back, leases that end much later than any
    taken now are free too, so what a lease guards must stay right, if wasteful, when two believe to have it
    for a moment.

    Raises:
        StoreError: the store cannot be written.

    """
    table = schema.leases
    with store.transaction("written") as connection:
        now = _now(connection)
        insert = store.insert(table).values(name=name, holder=holder, until=now + seconds)
        free = (table.c.until < now) | (table.c.until > _latest(now, seconds))
        taken = insert.on_conflict_do_update(
            index_elements=["name"],
            set_={"holder": insert.excluded.holder, "until": insert.excluded.until},
            where=(table.c.holder == holder) | free,
        )
        # not by the number of rows, which drivers do not tell of an insert
        return connection.execute(taken.returning(table.c.name)).first() is not None


def _latest(now: float, seconds: float) -> float:
    """When a lease may end that was taken by a clock like this one.

    Later than one taken now, for others may have taken theirs since this process has looked at the clock.
    """
    return now + 2 * seconds + SLACK_SECONDS


def is_present(store: Store, group: str, seconds: float, besides: str = "") -> bool:
    """Whether a process of a group has held its own lease, named `GROUP/HOLDER`, within `seconds`.

    Args:
        store: of the leases.
        group: of processes.
        seconds: for which they take their leases.
        besides: holder that does not count.

    Raises:
        StoreError: the store cannot be read.

    """
    columns = schema.leases.c
    with store.transaction("read") as connection:
        now = _now(connection)
        query = (
            sa.select(sa.func.count())
            .select_from(schema.leases)
            .where(
                columns.name.startswith(f"{group}/", autoescape=True),
                columns.holder != besides,
                columns.until >= now,
                columns.until <= _latest(now, seconds),
            )
        )
        return bool(connection.scalar(query))


def give_lease_back(store: Store, name: str, holder: str) -> None:
    """End one's own lease, so that another process need not wait until it runs out."""
    columns = schema.leases.c
    with store.transaction("written") as connection:
        connection.execute(sa.delete(schema.leases).where(columns.name == name, columns.holder == holder))


def forget_leases(store: Store) -> None:
    """Delete leases that ran out long ago: each process that is killed leaves its own."""
    with store.transaction("written") as connection:
        old = schema.leases.c.until < _now(connection) - FORGET_SECONDS
        connection.execute(sa.delete(schema.leases).where(old))


def take_tokens(store: Store, wanted: Mapping[str, tuple[int, float]]) -> dict[str, float]:
    """Take requests from token buckets, in one transaction.

    A bucket holds a minute's requests and refills evenly.

    Args:
        store: of the buckets.
        wanted: name of a bucket -> (requests to take, requests a minute).

    Returns:
        Name of a bucket -> how many it gave, whole ones and no more than wanted; with fewer than wanted it
        is what was left, and below 1 the missing part is what has to refill.

    Raises:
        StoreError: the store cannot be written; nothing is taken.

    """
    given = {}
    with store.transaction("written") as connection:
        # In a fixed order: two gateways that lock the same buckets must not wait for each other.
        for name in sorted(wanted):
            given[name] = _take(store, connection, name, *wanted[name])
    return given


def _take(store: Store, connection: sa.Connection, name: str, count: int, per_minute: float) -> float:
    table = schema.rate_buckets
    insert = store.insert(table).values(name=name, tokens=per_minute, at=0.0)
    # Written before it is read: from here on no other process changes it.
    touch = insert.on_conflict_do_update(index_elements=["name"], set_={"at": table.c.at})
    connection.execute(touch)
    row = connection.execute(sa.select(table.c.tokens, table.c.at).where(table.c.name == name)).one()
    now = _now(connection)
    # a clock that was set back refills nothing for once, and from then on as before
    left = min(per_minute, row.tokens + max(0.0, now - row.at) * per_minute / 60)
    given = float(min(count, int(left))) if left >= 1 else left
    remaining = left - given if given >= 1 else left
    update = sa.update(table).where(table.c.name == name).values(tokens=remaining, at=now)
    connection.execute(update)
    return given


def _now(connection: sa.Connection) -> float:
    """Return the time of the database's machine, which all of its clients share."""
    if connection.dialect.name == "postgresql":
        return float(connection.scalar(sa.text("select extract(epoch from clock_timestamp())")) or 0.0)
    return time.time()
