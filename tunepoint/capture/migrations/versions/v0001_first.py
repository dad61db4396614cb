"""Requests, feedback, states and the audit log."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    _requests()
    _others()


def _requests() -> None:
    op.create_table(
        "requests",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("task", sa.String(200), nullable=False),
        sa.Column("arm", sa.String(300), nullable=False),
        sa.Column("role", sa.String(20), nullable=False),
        sa.Column("model", sa.String(300), nullable=False),
        sa.Column("input", sa.Text, nullable=False),
        sa.Column("output", sa.Text, nullable=False),
        sa.Column("answer", sa.Text),
        sa.Column("format_ok", sa.Boolean),
        sa.Column("status", sa.Integer, nullable=False),
        sa.Column("error", sa.Text),
        sa.Column("messages", sa.JSON),
        sa.Column("parameters", sa.JSON),
        sa.Column("streamed", sa.Boolean, nullable=False),
        sa.Column("input_tokens", sa.Integer),
        sa.Column("cached_tokens", sa.Integer),
        sa.Column("output_tokens", sa.Integer),
        sa.Column("seconds", sa.Double),
        sa.Column("first_token_seconds", sa.Double),
        sa.Column("core_seconds", sa.Double),
        sa.Column("cost_nanousd", sa.BigInteger),
        sa.Column("confidence", sa.Double),
        sa.Column("slice", sa.String(300)),
        sa.Column("user", sa.String(64)),
        sa.Column("key", sa.String(100)),
        sa.Column("copy_of", sa.String(64)),
        sa.Column("origin", sa.String(40), nullable=False),
        sa.Column("licence", sa.String(100)),
    )
    op.create_index("requests_by_task", "requests", ["task", "at"])
    op.create_index("requests_by_copy", "requests", ["copy_of"])


def _others() -> None:
    op.create_table(
        "feedback",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("request", sa.String(64), nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("score", sa.Double),
        sa.Column("thumbs", sa.Boolean),
        sa.Column("correction", sa.Text),
        sa.Column("comment", sa.Text),
        sa.Column("key", sa.String(100)),
    )
    op.create_index("ix_feedback_request", "feedback", ["request"])
    op.create_table(
        "states",
        sa.Column("name", sa.String(200), primary_key=True),
        sa.Column("content", sa.JSON, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
    )
    op.create_table(
        "audit",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("task", sa.String(200), nullable=False),
        sa.Column("who", sa.String(100), nullable=False),
        sa.Column("what", sa.Text, nullable=False),
        sa.Column("detail", sa.JSON),
    )
    op.create_index("ix_audit_task", "audit", ["task"])


def downgrade() -> None:
    """Drop them."""
    for name in ("audit", "states", "feedback", "requests"):
        op.drop_table(name)
