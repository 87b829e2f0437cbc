"""The order in which runs began: SQLite's rowid told it, other databases have none."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Number the runs that there are. Only SQLite has any: other databases begin with this version."""
    op.add_column("runs", sa.Column("number", sa.BigInteger))
    if op.get_bind().dialect.name == "sqlite":
        op.execute("UPDATE runs SET number = rowid")
