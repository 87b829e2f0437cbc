"""The tables of the store, as SQLAlchemy Core. `migrations/` brings a database here; a test compares the two.

Everything that has structure is JSON in bytes; no pickles. `entries.payloads` says which keys of `data` were put
aside ({key: digest}), so that no value of a user can be mistaken for a reference.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, MetaData, String, Table, Text

metadata = MetaData()

meta = Table(
    "meta",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("value", Text, nullable=False),
)

runs = Table(
    "runs",
    metadata,
    Column("uid", String(64), primary_key=True),
    Column("namespace", String(63), nullable=False),
    Column("name", String(253), nullable=False),
    Column("workflow", String(63), nullable=False),
    Column("state", String(16), nullable=False),
    Column("accepted_at", BigInteger, nullable=False),
    Column("wake_at", BigInteger),
    Column("deadline_at", BigInteger),
    Column("concurrency_key", Text),
    Column("ended_at", BigInteger),
    Column("forgotten_at", BigInteger),
    Column("number", BigInteger),
    Index("runs_by_state", "state", "accepted_at"),
)

entries = Table(
    "entries",
    metadata,
    Column("run_uid", String(64), primary_key=True),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("at", BigInteger, nullable=False),
    Column("kind", String(32), nullable=False),
    Column("path", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("data", LargeBinary, nullable=False),
    Column("payloads", LargeBinary),
    sqlite_with_rowid=False,
)

payloads = Table(
    "payloads",
    metadata,
    Column("digest", String(71), primary_key=True),
    Column("bytes", Integer, nullable=False),
    Column("data", LargeBinary, nullable=False),
)

payload_refs = Table(
    "payload_refs",
    metadata,
    Column("run_uid", String(64), primary_key=True),
    Column("digest", String(71), primary_key=True),
    Index("payload_refs_by_digest", "digest"),
    sqlite_with_rowid=False,
)

revisions = Table(
    "revisions",
    metadata,
    Column("digest", String(71), primary_key=True),
    Column("spec", LargeBinary, nullable=False),
)

schedules = Table(
    "schedules",
    metadata,
    Column("workflow_uid", String(64), primary_key=True),
    Column("name", String(63), primary_key=True),
    Column("definition", Text, nullable=False),
    Column("decided_at", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

audit = Table(
    "audit",
    metadata,
    Column("run_uid", String(64), primary_key=True),
    Column("n", Integer, primary_key=True, autoincrement=False),
    Column("at", BigInteger, nullable=False),
    Column("record", LargeBinary, nullable=False),
    Index("audit_by_time", "at"),
    sqlite_with_rowid=False,
)

anchors = Table(
    "anchors",
    metadata,
    Column("n", Integer, primary_key=True, autoincrement=False),
    Column("run_uid", String(64), nullable=False),
    Column("anchor", LargeBinary, nullable=False),
)

windows = Table(
    "windows",
    metadata,
    Column("policy", String(253), primary_key=True),
    Column("period", BigInteger, primary_key=True, autoincrement=False),
    Column("start", BigInteger, primary_key=True, autoincrement=False),
    Column("tokens", BigInteger, nullable=False),
    Column("cost", BigInteger, nullable=False),
    Column("runs", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
