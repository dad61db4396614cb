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
    text,
)

metadata = MetaData()
HEAD = "0004"
"""The latest migration; here, so that opening a store that is up to date loads no Alembic."""
VERSION = "tunepoint_version"
"""Table of the migrations that were run; Alembic's usual name could be another program's."""

# partitioned by month on PostgreSQL, where `at` is part of the primary key; see partitions.py
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
    Index("requests_by_time", "at"),
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
    Column("version", Integer, nullable=False, server_default="0"),
)
"""What survives a restart: routes, canaries, the loop's step. Who replaces a state names the version that was
read, so that of two changes at the same time neither is lost."""

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

gateway_keys = Table(
    "gateway_keys",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("name", String(100), nullable=False),
    Column("roles", JSON, nullable=False),
    Column("usd_a_month", Double),
    Column("requests_a_minute", Integer),
    Column("made_at", Double, nullable=False),
    Column("revoked_at", Double),
)
"""API keys by the SHA-256 of the key. Revoked ones stay: once a key has existed, one is always needed."""
Index(
    "gateway_keys_by_name",
    gateway_keys.c.name,
    unique=True,
    sqlite_where=text("revoked_at is null"),
    postgresql_where=text("revoked_at is null"),
)

key_spending = Table(
    "key_spending",
    metadata,
    Column("key", String(100), primary_key=True),
    Column("month", String(7), primary_key=True),
    Column("cost_nanousd", BigInteger, nullable=False),
)
"""What the answers to a key have cost, by month (UTC): written with the answers, and kept when they go."""

key_reservations = Table(
    "key_reservations",
    metadata,
    Column("attempt", String(80), primary_key=True),
    Column("key", String(100), nullable=False),
    Column("month", String(7), nullable=False),
    Column("at", Double, nullable=False),
    Column("cost_nanousd", BigInteger, nullable=False),
    Index("key_reservations_by_key", "key", "month"),
)
"""What calls on their way may cost; a killed process leaves its rows, and they count as spent."""

canary_values = Table(
    "canary_values",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("task", String(200), nullable=False),
    Column("since", Double, nullable=False),
    Column("side", String(20), nullable=False),
    Column("measure", String(20), nullable=False),
    Column("unit", String(80), nullable=False),
    Column("value", Double, nullable=False),
)
"""Outcomes of a canary that began at `since`, from all processes; a unit (a user, or a request without one)
counts once on each measure, with its first value."""
Index(
    "canary_values_by_unit",
    canary_values.c.task,
    canary_values.c.since,
    canary_values.c.side,
    canary_values.c.measure,
    canary_values.c.unit,
    unique=True,
)

leases = Table(
    "leases",
    metadata,
    Column("name", String(200), primary_key=True),
    Column("holder", String(80), nullable=False),
    Column("until", Double, nullable=False),
)
"""Who does what only one process may do, and until when."""

rate_buckets = Table(
    "rate_buckets",
    metadata,
    Column("name", String(200), primary_key=True),
    Column("tokens", Double, nullable=False),
    Column("at", Double, nullable=False),
)
"""Requests that a key has left, as of a time: token buckets that all processes take from."""
