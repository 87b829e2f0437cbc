"""SQLite, the store of one process: the kernel's lock beside the file says whose, a full sync makes a commit last."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Table, create_engine, event
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.pool import StaticPool

from fairlead.engine.store.lock import StoreLock, refuse_network_file_system


class Sqlite:
    """A `Backend` on a file. `mountinfo` is the text of /proc/self/mountinfo, "" to not look at the file system."""

    insert: Callable[[Table], Any] = staticmethod(insert)
    renew_seconds: float | None = None
    retry_seconds: float | None = None

    def __init__(self, path: Path, mountinfo: str = "") -> None:
        self._path = path
        self._mountinfo = mountinfo
        self._lock = StoreLock(path)
        self._engine: Engine | None = None
        self._connection: Connection | None = None

    def open(self) -> Connection:
        """Take the lock and connect, exclusively for the life of the process.

        Raises:
            StoreLocked: another process holds it.
            StoreError: it is on a network file system.
        """
        refuse_network_file_system(self._path.parent, self._mountinfo)
        self._lock.take()
        self._engine = create_engine(
            f"sqlite:///{self._path}",
            poolclass=StaticPool,
            connect_args={"isolation_level": None, "check_same_thread": False},
        )
        event.listen(self._engine, "connect", _configure)
        event.listen(self._engine, "begin", _begin)
        self._connection = self._engine.connect()
        return self._connection

    def renew(self, connection: Connection) -> None:
        """Nobody takes a lock away."""

    def close(self) -> None:
        """Close the connection, at which SQLite checkpoints its log, and release the lock."""
        if self._connection is not None:
            self._connection.close()
        if self._engine is not None:
            self._engine.dispose()
        self._connection = self._engine = None
        self._lock.release()


def _configure(connection: Any, _record: Any) -> None:
    for pragma in ("locking_mode=EXCLUSIVE", "journal_mode=WAL", "synchronous=FULL"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
