"""API keys in the store: one row each, so that changes at the same time never undo each other."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from tunepoint.capture import schema
from tunepoint.capture.store import Store
from tunepoint.errors import RefusedRow, StoreError

WHO = "command line"
"""Who changes keys, in the audit log."""


@dataclass(frozen=True)
class StoredKey:
    """One key: what it may do, under the SHA-256 of the key itself."""

    digest: str
    name: str
    roles: tuple[str, ...]
    usd_a_month: float | None = None
    requests_a_minute: int | None = None


def add_key(store: Store, key: StoredKey) -> None:
    """Add a key, with its entry in the audit log.

    Raises:
        StoreError: the name is taken by a key that is not revoked, or the store cannot be written.

    """
    row = {
        "digest": key.digest,
        "name": key.name,
        "roles": list(key.roles),
        "usd_a_month": key.usd_a_month,
        "requests_a_minute": key.requests_a_minute,
        "made_at": time.time(),
    }
    try:
        with store.transaction("written") as connection:
            # The database compares the names, in the same step in which it writes: two processes that
            # add keys at the same time keep both, and of two with one name it takes the first.
            connection.execute(sa.insert(schema.gateway_keys), [row])
            _note(connection, f"made key {key.name!r} ({', '.join(key.roles)})")
    except RefusedRow:
        if all(other.name != key.name for other in active_keys(store)):
            raise
        raise StoreError(
            f"there is already a key named {key.name!r}: revoke it first, or choose another name"
        ) from None


def revoke_key(store: Store, name: str) -> None:
    """Revoke the key of that name, with an entry in the audit log.

    Raises:
        StoreError: no key has this name, or the store cannot be written.

    """
    columns = schema.gateway_keys.c
    revoke = (
        sa.update(schema.gateway_keys)
        .where(columns.name == name, columns.revoked_at.is_(None))
        .values(revoked_at=time.time())
    )
    with store.transaction("written") as connection:
        revoked = connection.execute(revoke).rowcount
        if revoked:
            _note(connection, f"revoked key {name!r}")
    if not revoked:
        names = ", ".join(key.name for key in active_keys(store)) or "none"
        raise StoreError(f"there is no key named {name!r}; the keys are: {names}")


def active_keys(store: Store) -> Sequence[StoredKey]:
    """Return all keys that are not revoked, by name."""
    columns = schema.gateway_keys.c
    query = sa.select(schema.gateway_keys).where(columns.revoked_at.is_(None)).order_by(columns.name)
    with store.transaction("read") as connection:
        return [
            StoredKey(
                row["digest"], row["name"], tuple(row["roles"]), row["usd_a_month"], row["requests_a_minute"]
            )
            for row in connection.execute(query).mappings()
        ]


def any_key_ever(store: Store) -> bool:
    """Whether there has ever been a key, revoked ones counted."""
    with store.transaction("read") as connection:
        return connection.execute(sa.select(schema.gateway_keys.c.digest).limit(1)).first() is not None


def _note(connection: sa.Connection, what: str) -> None:
    """Write an audit entry in the transaction of the change."""
    entry = {"at": time.time(), "task": "", "who": WHO, "what": what, "detail": None}
    connection.execute(sa.insert(schema.audit), [entry])
