"""Alembic's entry: runs the steps on the connection that the store hands over."""

from __future__ import annotations

from alembic import context

from tunepoint.capture.schema import VERSION, metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
