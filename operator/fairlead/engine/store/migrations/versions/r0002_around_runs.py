"""What surrounds a run: its turn, its end, and when its journal was forgotten."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add what concurrency and retention go by; earlier runs ended with their last entry."""
    op.add_column("runs", sa.Column("deadline_at", sa.BigInteger))
    op.add_column("runs", sa.Column("concurrency_key", sa.Text))
    op.add_column("runs", sa.Column("ended_at", sa.BigInteger))
    op.add_column("runs", sa.Column("forgotten_at", sa.BigInteger))
    last = "SELECT max(at) FROM entries WHERE run_uid = runs.uid"
    op.execute(f"UPDATE runs SET ended_at = coalesce(({last}), accepted_at) WHERE state <> 'Open'")
