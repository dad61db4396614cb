"""Where a store is: a path, or a URL; and what may be shown of it."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from tunepoint.errors import StoreError


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
