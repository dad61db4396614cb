"""Requests by month on PostgreSQL, so that old ones go by dropping a table; an index by time.

A store that has requests already keeps its table, and is partitioned by copying it (`tunepoint backup`) into
a new database. Gateways of the version before cannot write to a partitioned table, whose key has the time in
it.
"""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None
PARTITIONED = """
create table requests_by_month (like requests including defaults) partition by range (at);
drop table requests;
alter table requests_by_month rename to requests;
alter table requests add primary key (id, at);
create index requests_by_task on requests (task, at);
create index requests_by_copy on requests (copy_of);
create table requests_default partition of requests default
"""


def upgrade() -> None:
    """Partition an empty table; index any."""
    connection = op.get_bind()
    empty = connection.scalar(sa.text("select count(*) from (select 1 from requests limit 1) first")) == 0
    if connection.dialect.name == "postgresql" and empty:
        for statement in PARTITIONED.split(";"):
            op.execute(statement)
        oldest = json.dumps({"oldest": "0004"})
        op.execute(
            sa.text("update states set content = cast(:content as json) where name = 'schema'").bindparams(
                content=oldest
            )
        )
    op.create_index("requests_by_time", "requests", ["at"])


def downgrade() -> None:
    """Drop the index; a partitioned table stays so."""
    op.drop_index("requests_by_time", "requests")
