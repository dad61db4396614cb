"""Tables of the capture store, the same on SQLite and PostgreSQL; `migrations` brings a store up to them."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Double,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)

metadata = MetaData()
VERSION = "tunepoint_version"
"""Table of the migrations that were run; Alembic's usual name could be another program's."""

requests = Table(
    "requests",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("at", Double, nullable=False),
    Column("task", String(200), nullable=False),
    Column("arm", String(300), nullable=False),
    Column("role", String(20), nullable=False),
    Column("model", String(300), nullable=False),
    Column("input", Text, nullable=False),
    Column("output", Text, nullable=False),
    Column("answer", Text),
    Column("format_ok", Boolean),
    Column("status", Integer, nullable=False),
    Column("error", Text),
    Column("messages", JSON(none_as_null=True)),
    Column("parameters", JSON(none_as_null=True)),
    Column("streamed", Boolean, nullable=False),
    Column("input_tokens", Integer),
    Column("cached_tokens", Integer),
    Column("output_tokens", Integer),
    Column("seconds", Double),
    Column("first_token_seconds", Double),
    Column("core_seconds", Double),
    Column("cost_nanousd", BigInteger),
    Column("confidence", Double),
    Column("slice", String(300)),
    Column("user", String(64)),
    Column("key", String(100)),
    Column("copy_of", String(64)),
    Column("origin", String(40), nullable=False),
    Column("licence", String(100)),
    Index("requests_by_task", "task", "at"),
    Index("requests_by_copy", "copy_of"),
)

feedback = Table(
    "feedback",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("request", String(64), nullable=False, index=True),
    Column("at", Double, nullable=False),
    Column("score", Double),
    Column("thumbs", Boolean),
    Column("correction", Text),
    Column("comment", Text),
    Column("key", String(100)),
)
"""No foreign key: requests are written in batches, so feedback may come before its request."""

states = Table(
    "states",
    metadata,
    Column("name", String(200), primary_key=True),
    Column("content", JSON, nullable=False),
    Column("at", Double, nullable=False),
)
"""What survives a restart: routes, canaries, budgets, the loop's step."""

audit = Table(
    "audit",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("at", Double, nullable=False),
    Column("task", String(200), nullable=False, index=True),
    Column("who", String(100), nullable=False),
    Column("what", Text, nullable=False),
    Column("detail", JSON(none_as_null=True)),
)
"""Every change of what serves; rows are only added."""
