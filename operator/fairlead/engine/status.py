"""When a status is written: the first at once, the last at once, and between them one every five seconds.

Each run that has something to say has one task here. When it is its turn it asks for a fresh projection, waits until
what the projection says is durable, and tries again - from a fresh projection - when the server does not take it. So in
a crowd, where a turn takes a while, a short run is told of once: when it has ended.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from fairlead.engine.seams import StatusSink
from fairlead.errors import KubeError, NotFound

INTERVAL_SECONDS = 5.0
FIRST_RETRY_SECONDS = 0.2
LONGEST_RETRY_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Written:
    """One status that was written: over which one, and whether anything follows."""

    uid: str
    name: str
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    turn: Literal["first", "interim", "last"]


Compose = Callable[[Mapping[str, Any]], dict[str, Any]]
"""Returns the status as of now; given the one that was written before, whose transition times it keeps."""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Subject:
    """One object whose status is ours."""

    name: str
    published: Mapping[str, Any]
    compose: Compose
    final: bool = False
    stale: bool = True
    not_before: float = 0.0
    hurry: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None


class StatusWriter:
    """Writes the statuses of one kind's objects, by UID."""

    def __init__(
        self,
        kind: str,
        sink: StatusSink,
        *,
        durable: Callable[[], Awaitable[None]],
        on_write: Callable[[Written], None] = lambda written: None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Take the kind that is written, where to, and what makes the journal durable.

        `on_write` is told of every write; `clock` gives monotonic seconds.
        """
        self._kind = kind
        self._sink = sink
        self._durable = durable
        self._on_write = on_write
        self._clock = clock
        self._sleep = sleep
        self._subjects: dict[str, _Subject] = {}
        self._group: asyncio.TaskGroup | None = None

    def mark(self, uid: str, name: str, compose: Compose, *, published: Mapping[str, Any], final: bool = False) -> None:
        """Say that an object's status is out of date.

        Args:
            uid: the object's UID.
            name: its name.
            compose: makes the status.
            published: the status as the cluster has it; used when nothing was written here yet.
            final: nothing will follow; written at once.
        """
        subject = self._subjects.get(uid)
        if subject is None:
            subject = self._subjects[uid] = _Subject(name, published, compose)
        subject.compose, subject.final, subject.stale = compose, subject.final or final, True
        if subject.final:
            subject.hurry.set()
        self._start(uid, subject)

    def forget(self, uid: str) -> None:
        """Write nothing more of an object."""
        subject = self._subjects.pop(uid, None)
        if subject is not None and subject.task is not None:
            subject.task.cancel()

    async def run(self) -> None:
        """Write until cancelled.

        Raises:
            ExceptionGroup: of a StoreError, when the journal cannot be made durable.
        """
        async with asyncio.TaskGroup() as group:
            self._group = group
            try:
                for uid, subject in self._subjects.items():
                    self._start(uid, subject)
                await asyncio.Event().wait()
            finally:
                self._group = None  # what is marked from here on is left to the next process

    async def settle(self, timeout_seconds: float) -> None:
        """Wait until everything that is stale now is written, at most this long."""
        for subject in self._subjects.values():
            subject.hurry.set()
        tasks = [subject.task for subject in self._subjects.values() if subject.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=timeout_seconds)

    def _start(self, uid: str, subject: _Subject) -> None:
        if self._group is not None and subject.task is None:
            subject.task = self._group.create_task(self._deliver(uid, subject))

    async def _deliver(self, uid: str, subject: _Subject) -> None:
        retry_seconds = FIRST_RETRY_SECONDS
        while subject.stale:
            await self._hold_back(subject)
            await self._sink.turn()
            subject.stale = False
            try:
                status = subject.compose(subject.published)
            except Exception:  # the boundary around one object: the others are told whatever is wrong with this one
                _log.exception("%s %s cannot be told its status", self._kind, subject.name, extra={"run": uid})
                if subject.final:  # nothing else will have it composed again
                    subject.stale = True
                    retry_seconds = await self._pause(retry_seconds)
                continue
            if status == subject.published:
                continue
            try:
                await self._durable()
                await self._sink.write(self._kind, subject.name, uid, status)
            except NotFound:
                subject.final = True  # deleted, or another object has its name now: nobody is left to be told
                break
            except KubeError as error:
                if not error.retryable:
                    _log.error("status refused: %s", error, extra={"run": uid})
                if not error.retryable and not subject.final:
                    continue
                subject.stale = True
                retry_seconds = await self._pause(retry_seconds, error.retry_after_seconds)
                continue
            turn: Literal["first", "interim", "last"]
            turn = "last" if subject.final else "interim" if subject.not_before else "first"
            self._on_write(Written(uid, subject.name, subject.published, status, turn))
            retry_seconds = FIRST_RETRY_SECONDS
            subject.published, subject.not_before = status, self._clock() + INTERVAL_SECONDS
        subject.task, subject.compose = None, dict  # what composed may hold on to a whole run
        if subject.final:
            self._subjects.pop(uid, None)

    async def _pause(self, seconds: float, asked: float | None = None) -> float:
        """Wait before another try, as long as the server asked for; return how long to wait the next time."""
        await self._sleep((asked or seconds) * random.uniform(1.0, 1.5))
        return min(seconds * 2, LONGEST_RETRY_SECONDS)

    async def _hold_back(self, subject: _Subject) -> None:
        seconds = subject.not_before - self._clock()
        if seconds > 0 and not subject.hurry.is_set():
            timer = asyncio.get_running_loop().call_later(seconds, subject.hurry.set)
            await subject.hurry.wait()
            timer.cancel()
        if not subject.final:
            subject.hurry.clear()
