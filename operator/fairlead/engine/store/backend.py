"""What a database has to give to be a store: one owner at a time, and commits that last. SQLite or PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import Connection, Table


class Backend(Protocol):
    """Where the journal is. Every method may block; all are called from the store's own thread.

    Attributes:
        insert: makes an INSERT that knows conflicts.
        renew_seconds: how often something must be committed, so that the owner stays it; None: it stays without.
        retry_seconds: after how long to try again to become the owner; None: not at all, another one is a mistake.
    """

    insert: Callable[[Table], Any]
    renew_seconds: float | None
    retry_seconds: float | None

    def open(self) -> Connection:
        """Become the owner and connect.

        Raises:
            StoreLocked: another process is the owner.
            StoreError: the database cannot be used.
        """
        ...

    def renew(self, connection: Connection) -> None:
        """Begin a transaction's work: still the owner, until it is committed.

        Raises:
            StoreLocked: another process is the owner by now.
        """
        ...

    def close(self) -> None:
        """Disconnect, and let another process become the owner."""
        ...


Place = Path | Backend
"""A file is a SQLite database."""
