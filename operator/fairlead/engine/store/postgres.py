"""PostgreSQL, the store of several replicas: one owns it at a time, for an epoch, and the database itself says which.

    standby  --take, every second-->  owner: epoch n  --no commit for LEASE_SECONDS-->  another one's epoch n + 1

The row `owner` is locked and renewed by the first statement of every commit, under the epoch that this process was
given. A process that was replaced - it hung, it was cut off, its pod was thought dead - finds another epoch there and
writes nothing more: what it has not recorded it may not do, and what it had recorded its successor has judged. Times
are the database's, so that no two clocks are compared.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Table, create_engine, event, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.pool import StaticPool

from fairlead.errors import StoreError, StoreLocked

LEASE_SECONDS = 10.0
"""How long an owner may commit nothing before another replica takes over."""

RENEW_SECONDS = 2.0
RETRY_SECONDS = 1.0

_SESSION = (
    "SET synchronous_commit = on",  # a commit that returned is on disk, whatever the database's default says
    "SET idle_in_transaction_session_timeout = '5s'",  # a hung owner must not hold the row that others wait for
)
_IMPATIENT = text("SET LOCAL lock_timeout = '2s'")
"""For who stands by. An owner waits: it would end for nothing."""
_CONNECT = {"connect_timeout": 5, "keepalives_idle": 5, "keepalives_interval": 2, "tcp_user_timeout": 8_000}
ALLOWED_USE = "allowed-use"
_DRIVER = "postgresql+psycopg"
_CREATE_LOCK = 7_245_901_337
"""Any number: of two replicas that come first, one makes the table."""


@dataclass(frozen=True, slots=True)
class Address:
    """Which database, and as whom.

    Attributes:
        url: gives `postgresql://user:password@host:port/database`, with libpq's parameters; never shown. Asked whenever
            a connection is made, because it may be rotated.
        holder: this replica. Two processes of one name are never meant to live at a time: the later one takes over.
        namespace: whose store it is; a database serves one Engine.
    """

    url: Callable[[], str]
    holder: str
    namespace: str


class Postgres:
    """A `Backend` that replicas share."""

    insert: Callable[[Table], Any] = staticmethod(insert)
    renew_seconds: float | None = RENEW_SECONDS
    retry_seconds: float | None = RETRY_SECONDS

    def __init__(self, address: Address, *, lease_seconds: float = LEASE_SECONDS) -> None:
        self._address = address
        self._lease_seconds = lease_seconds
        self._engine: Engine | None = None
        self._connection: Connection | None = None
        self._epoch = 0

    @property
    def epoch(self) -> int:
        """Return the number of this ownership; 0 before there is one."""
        return self._epoch

    def open(self) -> Connection:
        """Connect, and become the owner if there is none, or none that lives.

        Raises:
            StoreLocked: another replica lives.
            StoreError: the URL is none, the database is another namespace's, or cannot be reached.
        """
        self._engine = create_engine(_parsed(self._address.url()), poolclass=StaticPool, connect_args=dict(_CONNECT))
        event.listen(self._engine, "connect", _configure)
        try:
            self._connection = self._engine.connect()
            with self._connection.begin():
                self._connection.execute(_IMPATIENT)
                _create(self._connection, self._address.namespace)
            with self._connection.begin():
                self._connection.execute(_IMPATIENT)
                self._epoch = self._take(self._connection)
        except SQLAlchemyError as error:
            self._disconnect()
            if "lock timeout" in str(getattr(error, "orig", "")):
                raise StoreLocked("another replica is about to commit") from None
            raise StoreError(f"the database cannot be used: {_plain(error)}") from None
        except StoreError:
            self._disconnect()
            raise
        return self._connection

    def renew(self, connection: Connection) -> None:
        """Lock the owner's row until the commit, and say that this one lives.

        Raises:
            StoreLocked: another replica has taken over.
        """
        if connection.execute(_RENEW, {"epoch": self._epoch}).rowcount != 1:
            raise StoreLocked(f"another replica has taken over from epoch {self._epoch}")

    def close(self) -> None:
        """Say that there is no owner any more, so that the next one need not wait, and disconnect."""
        if self._connection is not None and not self._connection.closed:
            try:
                with self._connection.begin():
                    self._connection.execute(_RELEASE, {"epoch": self._epoch})
            except SQLAlchemyError:
                pass  # it cannot be reached, or was taken over: the lease runs out by itself
        self._disconnect()

    def _take(self, connection: Connection) -> int:
        """Look first, without a lock that the owner would have to wait for; then again, with it."""
        self._judge(connection.execute(_LOOK, {"lease": self._lease_seconds}).one())
        self._judge(connection.execute(_LOCK, {"lease": self._lease_seconds}).one())
        return int(connection.execute(_TAKE, {"holder": self._address.holder}).scalar_one())

    def _judge(self, found: Any) -> None:
        if found.namespace != self._address.namespace:
            raise StoreError(f"the database holds the journal of namespace {found.namespace}; every Engine has its own")
        if found.lives and found.holder != self._address.holder:
            raise StoreLocked(f"{found.holder} owns the store")

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
        if self._engine is not None:
            self._engine.dispose()
        self._connection = self._engine = None


def database_url(file: Path) -> str:
    """Read the URL from a mounted Secret's key; the Secret must say that it is for this.

    Raises:
        StoreError: it is not there (yet), or is a Secret for something else.
    """
    try:
        uses = (file.parent / ALLOWED_USE).read_text(encoding="utf-8").split()
        url = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        said = f"the keys {file.name} and {ALLOWED_USE} of Secret {file.parent.name} cannot be read (yet)"
        raise StoreError(said) from None
    if "database" not in uses:
        raise StoreError(f"the key {ALLOWED_USE} of Secret {file.parent.name} must be database")
    return url


_RENEW = text("UPDATE owner SET renewed_at = clock_timestamp() WHERE epoch = :epoch")
_RELEASE = text("UPDATE owner SET renewed_at = '-infinity' WHERE epoch = :epoch")
_SELECT = "SELECT namespace, holder, renewed_at > clock_timestamp() - make_interval(secs => :lease) AS lives FROM owner"
_LOOK, _LOCK = text(_SELECT), text(f"{_SELECT} FOR UPDATE")
_TAKE = text("UPDATE owner SET holder = :holder, epoch = epoch + 1, renewed_at = clock_timestamp() RETURNING epoch")


def _create(connection: Connection, namespace: str) -> None:
    """Make the owner's row if there is none, before any other table: migrations are the owner's."""
    if connection.execute(text("SELECT to_regclass('owner')")).scalar_one() is not None:
        return
    connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _CREATE_LOCK})
    connection.execute(
        text(
            "CREATE TABLE IF NOT EXISTS owner (one boolean PRIMARY KEY CHECK (one), namespace text NOT NULL, "
            "holder text NOT NULL, epoch bigint NOT NULL, renewed_at timestamptz NOT NULL)"
        )
    )
    row = "INSERT INTO owner VALUES (true, :namespace, '', 0, '-infinity') ON CONFLICT DO NOTHING"
    connection.execute(text(row), {"namespace": namespace})


def _parsed(url: str) -> Any:
    try:
        parsed = make_url(url.strip())
        if parsed.drivername not in ("postgresql", "postgres") or not parsed.host or not parsed.database:
            raise ArgumentError
        return parsed.set(drivername=_DRIVER)
    except (ArgumentError, ValueError):
        raise StoreError("the database's URL must be postgresql://user:password@host:port/database") from None


def _configure(connection: Any, _record: Any) -> None:
    with connection.cursor() as cursor:
        for setting in _SESSION:
            cursor.execute(setting)
    connection.commit()


def _plain(error: SQLAlchemyError) -> str:
    """Return the driver's words without the statement; of a connection that failed they name host and port only."""
    return str(getattr(error, "orig", None) or type(error).__name__).strip().splitlines()[0]
