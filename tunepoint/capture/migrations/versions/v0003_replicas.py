"""What several processes share: versions of states, a canary's outcomes, leases and rates.

Only adds: gateways of the version before serve on beside those of this one.
"""

from __future__ import annotations

import time

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None
STATES = sa.table(
    "states", sa.column("name"), sa.column("content", sa.JSON), sa.column("at"), sa.column("version")
)


def upgrade() -> None:
    """Add the column and the tables."""
    op.add_column("states", sa.Column("version", sa.Integer, nullable=False, server_default="0"))
    row = {"name": "schema", "content": {"oldest": "0002"}, "at": time.time(), "version": 1}
    op.get_bind().execute(sa.insert(STATES), [row])
    op.create_table(
        "canary_values",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("task", sa.String(200), nullable=False),
        sa.Column("since", sa.Double, nullable=False),
        sa.Column("side", sa.String(20), nullable=False),
        sa.Column("measure", sa.String(20), nullable=False),
        sa.Column("unit", sa.String(80), nullable=False),
        sa.Column("value", sa.Double, nullable=False),
    )
    unit = ["task", "since", "side", "measure", "unit"]
    op.create_index("canary_values_by_unit", "canary_values", unit, unique=True)
    op.create_table(
        "leases",
        sa.Column("name", sa.String(200), primary_key=True),
        sa.Column("holder", sa.String(80), nullable=False),
        sa.Column("until", sa.Double, nullable=False),
    )
    op.create_table(
        "rate_buckets",
        sa.Column("name", sa.String(200), primary_key=True),
        sa.Column("tokens", sa.Double, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
    )


def downgrade() -> None:
    """Drop them: a canary that runs begins to count anew."""
    for table in ("rate_buckets", "leases", "canary_values"):
        op.drop_table(table)
    op.execute("delete from states where name = 'schema'")
    op.drop_column("states", "version")
