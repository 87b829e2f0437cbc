"""The journal, its payloads and revisions."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the first tables."""
    op.create_table(
        "meta",
        sa.Column("key", sa.String(64), primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
    )
    op.create_table(
        "runs",
        sa.Column("uid", sa.String(64), primary_key=True),
        sa.Column("namespace", sa.String(63), nullable=False),
        sa.Column("name", sa.String(253), nullable=False),
        sa.Column("workflow", sa.String(63), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("accepted_at", sa.BigInteger, nullable=False),
        sa.Column("wake_at", sa.BigInteger),
    )
    op.create_index("runs_by_state", "runs", ["state", "accepted_at"])
    op.create_table(
        "entries",
        sa.Column("run_uid", sa.String(64), primary_key=True),
        sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
        sa.Column("payloads", sa.LargeBinary),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "payloads",
        sa.Column("digest", sa.String(71), primary_key=True),
        sa.Column("bytes", sa.Integer, nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "payload_refs",
        sa.Column("run_uid", sa.String(64), primary_key=True),
        sa.Column("digest", sa.String(71), primary_key=True),
        sqlite_with_rowid=False,
    )
    op.create_index("payload_refs_by_digest", "payload_refs", ["digest"])
    op.create_table(
        "revisions",
        sa.Column("digest", sa.String(71), primary_key=True),
        sa.Column("spec", sa.LargeBinary, nullable=False),
    )
