"""API keys, their spending and their reservations as rows; until now each was one document."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

KEYS_DOCUMENT, SPENT_DOCUMENT = "keys", "spent/"
"""Names of the states that held all keys, and what each had spent in a month (`spent/2026-05`)."""
KEY_FIELDS = ("name", "roles", "usd_a_month", "requests_a_minute")
"""Of a key in the document, under its digest."""
STATES = sa.table("states", sa.column("name", sa.String), sa.column("content", sa.JSON), sa.column("at"))
KEYS = sa.table(
    "gateway_keys",
    sa.column("digest"),
    sa.column("name"),
    sa.column("roles", sa.JSON),
    sa.column("usd_a_month"),
    sa.column("requests_a_minute"),
    sa.column("made_at"),
    sa.column("revoked_at"),
)
SPENDING = sa.table("key_spending", sa.column("key"), sa.column("month"), sa.column("cost_nanousd"))


def upgrade() -> None:
    """Create the tables, and move the documents' content into them."""
    _create_keys()
    _create_spending()
    documents = list(_documents(KEYS_DOCUMENT))
    keys = [_key_row(digest, key) for _, content in documents for digest, key in content.items()]
    if documents and not keys:
        keys = [_last_key_revoked()]  # or a gateway that had keys would need none from now on
    spending = [
        {"key": name, "month": state.removeprefix(SPENT_DOCUMENT), "cost_nanousd": int(nanousd)}
        for state, content in _documents(SPENT_DOCUMENT)
        for name, nanousd in content.items()
    ]
    bind = op.get_bind()
    if keys:
        bind.execute(sa.insert(KEYS), keys)
    if spending:
        bind.execute(sa.insert(SPENDING), spending)
    bind.execute(sa.delete(STATES).where(_is_moved()))


def _create_keys() -> None:
    op.create_table(
        "gateway_keys",
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("roles", sa.JSON, nullable=False),
        sa.Column("usd_a_month", sa.Double),
        sa.Column("requests_a_minute", sa.Integer),
        sa.Column("made_at", sa.Double, nullable=False),
        sa.Column("revoked_at", sa.Double),
    )
    active = sa.text("revoked_at is null")
    op.create_index(
        "gateway_keys_by_name",
        "gateway_keys",
        ["name"],
        unique=True,
        sqlite_where=active,
        postgresql_where=active,
    )


def _create_spending() -> None:
    op.create_table(
        "key_spending",
        sa.Column("key", sa.String(100), primary_key=True),
        sa.Column("month", sa.String(7), primary_key=True),
        sa.Column("cost_nanousd", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "key_reservations",
        sa.Column("attempt", sa.String(80), primary_key=True),
        sa.Column("key", sa.String(100), nullable=False),
        sa.Column("month", sa.String(7), nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("cost_nanousd", sa.BigInteger, nullable=False),
    )
    op.create_index("key_reservations_by_key", "key_reservations", ["key", "month"])


def _is_moved() -> sa.ColumnElement[bool]:
    """Whether a state is one of those whose content is now in rows."""
    return (STATES.c.name == KEYS_DOCUMENT) | STATES.c.name.startswith(SPENT_DOCUMENT)


def _documents(start: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the names and contents of the states to move whose name begins so."""
    for name, content in op.get_bind().execute(sa.select(STATES.c.name, STATES.c.content).where(_is_moved())):
        if name.startswith(start):
            yield name, content


def _key_row(digest: str, key: dict[str, Any]) -> dict[str, Any]:
    facts = {name: key[name] for name in KEY_FIELDS}
    return {"digest": digest, **facts, "made_at": time.time(), "revoked_at": None}


def _last_key_revoked() -> dict[str, Any]:
    """A row for the keys that were revoked before there were rows."""
    facts: dict[str, Any] = {
        "name": "revoked before the upgrade",
        "roles": [],
        "usd_a_month": None,
        "requests_a_minute": None,
    }
    now = time.time()
    return {"digest": "revoked", **facts, "made_at": now, "revoked_at": now}


def downgrade() -> None:
    """Write the documents again, without revoked keys, and drop the tables."""
    bind = op.get_bind()
    active = sa.select(KEYS).where(KEYS.c.revoked_at.is_(None))
    documents: dict[str, dict[str, Any]] = {KEYS_DOCUMENT: {}}
    for row in bind.execute(active).mappings():
        documents[KEYS_DOCUMENT][row["digest"]] = {name: row[name] for name in KEY_FIELDS}
    for key, month, nanousd in bind.execute(sa.select(SPENDING)):
        documents.setdefault(f"{SPENT_DOCUMENT}{month}", {})[key] = nanousd
    rows = [{"name": name, "content": content, "at": time.time()} for name, content in documents.items()]
    bind.execute(sa.insert(STATES), rows)
    for table in ("key_reservations", "key_spending", "gateway_keys"):
        op.drop_table(table)
