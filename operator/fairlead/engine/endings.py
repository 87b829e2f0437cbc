"""How runs end: by themselves, by one entry from outside, or because their object says that they have.

`runs.py` decides when; here the end is recorded, told to whoever waits for it, and the run leaves the roster.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from fairlead.engine.reading import ReadBack, folded
from fairlead.engine.reporter import Reporter
from fairlead.engine.roster import Roster, Run
from fairlead.engine.runner import Runner
from fairlead.engine.store import Store
from fairlead.flow.journal import Draft, Entry, RunUid
from fairlead.flow.plan import Plan
from fairlead.flow.state import RunState
from fairlead.telemetry.ids import trace_id

_log = logging.getLogger(__name__)


class Endings:
    """Ends runs, once each."""

    def __init__(
        self,
        store: Store,
        *,
        runner: Runner,
        roster: Roster,
        reporter: Reporter,
        on_end: Callable[[Run, RunState], None],
    ) -> None:
        """Take the seams; `on_end` is called after a run has left the roster."""
        self._store = store
        self._runner = runner
        self._roster = roster
        self._reporter = reporter
        self._on_end = on_end
        self._waiters: dict[RunUid, asyncio.Future[RunState]] = {}

    def of(self, uid: RunUid) -> asyncio.Future[RunState]:
        """Return the future of an open run's last state."""
        waiter = self._waiters.get(uid)
        if waiter is None:
            waiter = self._waiters[uid] = asyncio.get_running_loop().create_future()
        return waiter

    async def end(self, run: Run, draft: Draft, *, silent: bool = False) -> None:
        """End a run by one entry, whatever it was doing, and say so unless its object says it already."""
        if self._roster.get(run.uid) is not run:
            return
        known = await self._read(run, await self._runner.end(run, draft))
        self.finish(run, known.state, known.plan, silent=silent)

    async def publish(self, run: Run) -> None:
        """The run ended before, but its status was not written: say it again, execute nothing."""
        known = await self._read(run, ())
        if known.state.terminal is not None:
            self._reporter.ended(run, known.state, known.plan)

    def finish(self, run: Run, state: RunState, plan: Plan | None, *, silent: bool = False) -> None:
        """Let a run go whose end is recorded."""
        if self._roster.get(run.uid) is not run:
            return
        self._roster.remove(run, state.terminal.kind if state.terminal is not None else None)
        self._reporter.ended(run, state, plan, silent=silent)
        waiter = self._waiters.pop(run.uid, None)
        if waiter is not None and not waiter.done():
            waiter.set_result(state)
        self._on_end(run, state)

    async def _read(self, run: Run, ending: Sequence[Entry]) -> ReadBack:
        """Read an ended run back; of a journal that cannot be understood take only its end."""
        try:
            return await self._runner.read(run)
        except Exception:
            if self._store.failed.is_set():
                raise
            _log.exception("a journal cannot be read back", extra={"run": run.uid, "trace": trace_id(run.uid)})
            return ReadBack(ending, folded(ending), None)
