"""Group commit: what is appended while a commit runs shares the next one, and all of the database is in one thread.

`durable()` hands the batch to the thread at once. What nobody waits for is committed after FLUSH_SECONDS at the latest.

A write that fails is the end: every waiter gets a StoreError, every later call too, and the process exits. No record,
no action.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from sqlalchemy.exc import SQLAlchemyError

from fairlead.engine.store.backend import Backend
from fairlead.engine.store.database import Database
from fairlead.engine.store.rows import Batch
from fairlead.errors import StoreError
from fairlead.flow.journal import Entry

FLUSH_SECONDS = 0.005
"""How long an append waits for somebody to need it durable."""

T = TypeVar("T")
Committed = Callable[[Sequence[Entry]], None]

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Gathering:
    """The batch that is being filled, and the future of its commit."""

    done: asyncio.Future[None]
    batch: Batch = field(default_factory=Batch)
    empty: bool = True


class Commits:
    """The one writer of a database.

    Attributes:
        failed: set once a write has failed; the process must end.
        subscribers: called on the event loop after every commit, with its entries in order.
    """

    def __init__(self, backend: Backend, *, sync_delay_seconds: float, on_seconds: Callable[[float], None]) -> None:
        self.failed = asyncio.Event()
        self.subscribers: list[Committed] = []
        self.database = Database(backend, sync_delay_seconds=sync_delay_seconds)
        self._backend = backend
        self._on_seconds = on_seconds
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._loop = asyncio.get_running_loop()
        self._gathering = self._gather()
        self._committing: _Gathering | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._renewal: asyncio.TimerHandle | None = None
        self._error: StoreError | None = None
        self._closed = False

    async def own(self, on_waiting: Callable[[StoreError], None]) -> str:
        """Become the owner of the database and return the store's id.

        Where others may own it, or it may be away for a while, this waits; `on_waiting` is told why.

        Raises:
            StoreLocked: another process owns it, and shall not be waited for.
            StoreError: it cannot be opened.
        """
        while True:
            try:
                store_id = await self.in_thread(self.database.open)
            except StoreError as error:
                if self._backend.retry_seconds is None:
                    raise
                on_waiting(error)
                await asyncio.sleep(self._backend.retry_seconds)
            else:
                self._renew()
                return store_id

    def batch(self) -> Batch:
        """Return what the next commit writes, to be added to.

        Raises:
            StoreError: an earlier write failed.
        """
        self.check()
        if self._gathering.empty:
            self._gathering.empty = False
            self._timer = self._loop.call_later(FLUSH_SECONDS, self._flush)
        return self._gathering.batch

    async def durable(self) -> None:
        """Return when everything that was added so far is committed.

        Raises:
            StoreError: it is not, and nothing will be any more.
        """
        self.check()
        if not self._gathering.empty:
            waiting_for = self._gathering
            self._flush()
        elif self._committing is not None:
            waiting_for = self._committing
        else:
            return
        await asyncio.shield(waiting_for.done)

    async def in_thread(self, work: Callable[..., T], *arguments: object) -> T:
        """Read in the database's thread."""
        try:
            return await self._loop.run_in_executor(self._thread, work, *arguments)
        except SQLAlchemyError as error:
            raise StoreError(f"the store cannot be read: {_plain(error)}") from error

    def check(self) -> None:
        """Raise the StoreError of the write that failed, if one did."""
        if self._error is not None:
            raise self._error

    async def close(self) -> None:
        """Commit what was added, and give up the database; once."""
        if self._closed:
            return
        self._closed = True
        try:
            if self._error is None:
                await self.durable()
        finally:
            for timer in (self._timer, self._renewal):
                if timer is not None:
                    timer.cancel()
            await self._loop.run_in_executor(self._thread, self.database.close)
            self._thread.shutdown()
            self._error = self._error or StoreError("the store is closed")

    def _renew(self) -> None:
        """Commit something from time to time, be it nothing, where an owner has to say that it lives."""
        if self._backend.renew_seconds is not None and self._error is None:
            self.batch()
            self._renewal = self._loop.call_later(self._backend.renew_seconds, self._renew)

    def _gather(self) -> _Gathering:
        done: asyncio.Future[None] = self._loop.create_future()
        done.add_done_callback(lambda future: future.exception())  # a failure that nobody waits for is no warning
        return _Gathering(done)

    def _flush(self) -> None:
        if self._committing is not None or self._gathering.empty or self._error is not None:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._committing, self._gathering = self._gathering, self._gather()
        commit = self._loop.run_in_executor(self._thread, self.database.commit, self._committing.batch)
        commit.add_done_callback(self._on_committed)

    def _on_committed(self, commit: asyncio.Future[float]) -> None:
        written, self._committing = self._committing, None
        assert written is not None
        error = commit.exception()
        if error is not None:
            self._fail(error, written)
            return
        self._on_seconds(commit.result())
        written.done.set_result(None)
        self._flush()
        for subscriber in self.subscribers:
            subscriber(written.batch.entries)

    def _fail(self, error: BaseException, written: _Gathering) -> None:
        log.critical("the journal cannot be written; the engine ends", exc_info=error)
        self._error = StoreError(f"the journal cannot be written: {_plain(error)}")
        self.failed.set()
        for waiting in (written, self._gathering):
            waiting.done.set_exception(self._error)


def _plain(error: BaseException) -> str:
    """Return the database's words without the statement and its parameters, which hold content."""
    if isinstance(error, StoreError):
        return str(error)
    return str(getattr(error, "orig", None) or type(error).__name__)
