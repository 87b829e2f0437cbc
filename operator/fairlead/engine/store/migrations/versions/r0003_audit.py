"""The audit: a chain of records per run, and the anchors over their heads."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add both chains. Runs that are open have records from their next entry on."""
    op.create_table(
        "audit",
        sa.Column("run_uid", sa.String(64), primary_key=True),
        sa.Column("n", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("record", sa.LargeBinary, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("audit_by_time", "audit", ["at"])
    op.create_table(
        "anchors",
        sa.Column("n", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("run_uid", sa.String(64), nullable=False),
        sa.Column("anchor", sa.LargeBinary, nullable=False),
    )
