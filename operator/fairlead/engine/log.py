"""A run as the engine holds it while it is active: its plan, its state, and the way into its journal.

The driver and the gate both write here. Every append folds at once, so that the next look at the state knows of it;
what must not be lost before going on waits for `durable`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from fairlead.engine.store import Store
from fairlead.engine.store.windows import Spent
from fairlead.flow.journal import Draft, Path, RunUid
from fairlead.flow.plan import Plan
from fairlead.flow.spending import Spend, Window
from fairlead.flow.state import RunState, apply


class RunLog:
    """One run's journal, open for appending.

    Attributes:
        uid: the WorkflowRun's UID.
        namespace: where it runs.
        name: the WorkflowRun's name.
        account: the ServiceAccount that it acts as.
        plan: the frozen revision.
        state: the fold of everything that was appended.
        told: of steps that cannot begin what they do yet, why; as this process sees it, and nowhere in the journal.
        draining: the engine is about to end, or the run to be loaded again: what is recorded may finish, nothing new
            begins.
    """

    def __init__(
        self,
        store: Store,
        *,
        uid: RunUid,
        namespace: str,
        name: str,
        account: str,
        plan: Plan,
        state: RunState,
        on_told: Callable[[], None] = lambda: None,
    ) -> None:
        self.uid = uid
        self.namespace = namespace
        self.name = name
        self.account = account
        self.plan = plan
        self.state = state
        self.told: dict[Path, str] = {}
        self.draining = False
        self._store = store
        self._on_told = on_told
        self._woken = asyncio.Event()
        self._sealed = False

    def append(self, *drafts: Draft) -> None:
        """Stamp, fold, and wake the driver. Does nothing once the log is sealed or the run has ended.

        Raises:
            StoreError: the journal cannot be written.
        """
        self.note(*drafts)
        self.wake()

    def note(self, *drafts: Draft) -> None:
        """Append what the driver needs not look at, because it changes nothing about what is next: it sleeps on."""
        if self._sealed:
            return
        for entry in self._store.append(self.uid, drafts):
            self.state = apply(self.state, entry)

    def tell(self, path: Path, why: str) -> None:
        """Let the run's status say why a step cannot begin yet; "" when it can."""
        if why == self.told.get(path, ""):
            return
        if why:
            self.told[path] = why
        else:
            del self.told[path]
        if not self._sealed and self.state.terminal is None:
            self._on_told()

    def late(self, draft: Draft) -> None:
        """Record an answer that came when its call was settled already: it changes nothing but the audit.

        Raises:
            StoreError: the audit cannot be written.
        """
        self._store.late(self.uid, draft)

    def spent(self, window: Window) -> Spent:
        """Return what all runs used in a window of a Policy's budget."""
        return self._store.spent(window)

    def spend(self, windows: Iterable[Window], spend: Spend) -> None:
        """Count in windows, in the same commit as what was appended last; negative gives back.

        Raises:
            StoreError: the store cannot be written.
        """
        for window in windows:
            self._store.spend(window, tokens=spend.tokens, cost=spend.cost)

    async def durable(self) -> None:
        """Return when everything appended so far is committed.

        Raises:
            StoreError: it is not.
        """
        await self._store.durable()

    def drain(self) -> None:
        """Let nothing new begin."""
        self.draining = True
        self.wake()

    def seal(self) -> None:
        """Let nothing more in: what is cancelled from here on stays as it stands, for recovery to judge."""
        self._sealed = True

    def abandon(self) -> None:
        """Leave the run as it stands, calls under way included: whoever loads its journal next goes on with them.

        One that is sealed already has ended: nobody goes on with that.
        """
        self.draining = self.draining or not self._sealed
        self._sealed = True

    def wake(self) -> None:
        """Let the driver look again."""
        self._woken.set()

    @property
    def stirred(self) -> bool:
        """Tell whether something was appended since the last look."""
        return self._woken.is_set()

    def look(self) -> RunState:
        """Return the state; only what is appended from here on wakes the driver again."""
        self._woken.clear()
        return self.state

    async def woken(self, timeout_seconds: float | None) -> None:
        """Wait until something was appended since the last look, or the time is over."""
        loop = asyncio.get_running_loop()
        timer = loop.call_later(timeout_seconds, self.wake) if timeout_seconds is not None else None
        try:
            await self._woken.wait()
        finally:
            if timer is not None:
                timer.cancel()
