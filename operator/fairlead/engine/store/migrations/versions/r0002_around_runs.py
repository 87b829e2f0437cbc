"""What surrounds a run: its turn, its end, and when its journal was forgotten."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add what concurrency, retention and schedules go by; earlier runs ended with their last entry."""
    op.add_column("runs", sa.Column("deadline_at", sa.BigInteger))
    op.add_column("runs", sa.Column("concurrency_key", sa.Text))
    op.add_column("runs", sa.Column("ended_at", sa.BigInteger))
    op.add_column("runs", sa.Column("forgotten_at", sa.BigInteger))
    last = "SELECT max(at) FROM entries WHERE run_uid = runs.uid"
    op.execute(f"UPDATE runs SET ended_at = coalesce(({last}), accepted_at) WHERE state <> 'Open'")
    op.create_table(
        "schedules",
        sa.Column("workflow_uid", sa.String(64), primary_key=True),
        sa.Column("name", sa.String(63), primary_key=True),
        sa.Column("definition", sa.Text, nullable=False),
        sa.Column("decided_at", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
