"""Parents and their child runs: makes children, keeps those that nobody waits for from going on, tells parents of ends.

The gate calls `make` after the intent. From then on the parent waits as a row; `runs.py` tells it of the child's end,
and `settle` finds out what ended while nobody looked: before a run that was parked, or that a process left, goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from fairlead.api.reasons import ErrorClass, RunReason
from fairlead.api.run import WorkflowRunSpec
from fairlead.engine.outcomes import failed
from fairlead.engine.owned import owned
from fairlead.engine.reading import folded
from fairlead.engine.roster import Roster, Run, Standing
from fairlead.engine.seams import RunCreator
from fairlead.engine.store import Store
from fairlead.errors import KubeError
from fairlead.flow.calls import Outcome
from fairlead.flow.children import awaited, child_outcome, is_child_of
from fairlead.flow.journal import TERMINAL, Draft, Entry, EntryKind, RunUid
from fairlead.flow.paths import FINALLY
from fairlead.flow.recover import open_calls
from fairlead.flow.runstate import Child, RunState

if TYPE_CHECKING:
    from fairlead.engine.log import RunLog

FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 5.0
REFUSED = "ChildRefused"
"""The reason of a call whose child the API server does not take."""

_LETS_GO = TERMINAL | {EntryKind.CLOSING, EntryKind.STEP_FAILED, EntryKind.CALL_OUTCOME, EntryKind.CALL_DENIED}
"""After these a run may wait for fewer children than before."""


async def make(
    creator: RunCreator, child: Child, *, timeout_seconds: float, sleep: Callable[[float], Awaitable[None]]
) -> str | Outcome:
    """Make a child run exist, and return its UID, or why it does not.

    Making it twice is the same as once: the name is the call's own. A run of that name that does not answer this very
    call is somebody else's and is left alone.
    """
    pause = FIRST_PAUSE_SECONDS
    try:
        async with asyncio.timeout(timeout_seconds):
            while True:
                try:
                    made = await creator.create_run(owned(child.name, child.spec, run=child.spec["parent"]))
                    break
                except KubeError as error:
                    if not error.retryable:
                        error_class = ErrorClass.DENIED if error.status == 403 else ErrorClass.INVALID
                        return failed(error_class, f"run {child.name}: {error.message}", reason=REFUSED)
                    await sleep(error.retry_after_seconds or pause)
                    pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
    except TimeoutError:
        return failed(ErrorClass.UNAVAILABLE, f"run {child.name} could not be made in time")
    if not is_child_of(made["spec"], child.spec):
        message = f"a run of the name {child.name} exists and is not the child of this step"
        return failed(ErrorClass.INVALID, message, reason=RunReason.CHILD_NAME_CONFLICT)
    return str(made["metadata"]["uid"])


class Children:
    """What is known of open runs as parents and children. `attach` says what can be done about them."""

    def __init__(self, store: Store, roster: Roster) -> None:
        self._store = store
        self._roster = roster
        self._cancel: Callable[[Run, str], None] = _nothing
        self._start: Callable[[Run], None] = _nothing

    def attach(self, *, cancel: Callable[[Run, str], None], start: Callable[[Run], None]) -> None:
        """Take what ends a run, saying why, and what lets a parked one go on."""
        self._cancel, self._start = cancel, start

    # A parent learns of ends

    def ended(self, child: Run, state: RunState) -> None:
        """Tell the parent of a run that has ended; a parked one reads it from the store."""
        frozen = state.accepted.parent if state.accepted is not None else None
        parent = self._roster.get(RunUid(frozen["uid"]) if frozen else child.parent)
        if parent is not None and parent.log is not None:
            log = parent.log
            for path, call in open_calls(log.state):
                if call.child is not None and call.child.name == child.name:
                    log.append(child_outcome(path, log.state.steps[path].attempt, call, state))
        elif parent is not None and parent.standing is Standing.PARKED:
            self._start(parent)

    async def settle(self, log: RunLog) -> None:
        """Record what became of the children of a run that nobody told it.

        Raises:
            StoreError: the store cannot be read.
            ValueError: a child's journal holds what this version does not know.
        """
        for path, call in open_calls(log.state):
            if call.child is None or not call.child.uid:
                continue  # it is asked for again
            uid, attempt = RunUid(call.child.uid), log.state.steps[path].attempt
            if self._store.ended(uid):
                outcome = child_outcome(path, attempt, call, folded(await self._store.load(uid)))
                if not call.settled:
                    log.append(outcome)
            elif not self._store.knows(uid) and self._roster.get(uid) is None:
                log.append(Draft(EntryKind.CHILD_LOST, path, attempt, {"index": call.index}))

    def overlooked(self, state: RunState) -> bool:
        """Tell whether a run waits for a child that had ended before the run knew that it exists."""
        children = (call.child for _, call in open_calls(state))
        return any(child is not None and self._store.ended(RunUid(child.uid)) for child in children)

    # A child pauses with its parent

    def asked_of(self, run: Run) -> WorkflowRunSpec | None:
        """Return what is asked of a run: what its object says, and a pause while its parent pauses or is cancelled.

        What `finally` runs is not paused: a parent that has come so far does not pause itself any more.
        """
        spec = run.obj.spec if run.obj is not None else None
        if spec is None or spec.parent is None or spec.parent.path.startswith(FINALLY):
            return spec
        parent = self._roster.get(run.parent)
        above = self.asked_of(parent) if parent is not None else None
        if above is None or above.desired_state in (None, "Running") or spec.desired_state == "Cancelled":
            return spec
        return spec.model_copy(update={"desired_state": "Paused"})

    # A child does not outlive the interest in it

    def unwanted(self, child: Run) -> str:
        """Return why a child run must not go on; "" when its parent waits for it, or when it has none."""
        if not child.parent:
            return ""
        parent = self._roster.get(child.parent)
        if parent is None:
            return "its parent run has ended"
        waits_for = awaited(parent.log.state) if parent.log is not None else parent.awaits
        return "" if waits_for is None or child.name in waits_for else "its parent run does not wait for it"

    def committed(self, entries: Sequence[Entry]) -> None:
        """End the children that lost their parent's interest in a commit."""
        for uid in {entry.run_uid for entry in entries if entry.kind in _LETS_GO}:
            self._end_unwanted(self._roster.children_of(uid))

    def recovered(self) -> None:
        """End the children whose parent lost interest while nobody looked."""
        self._end_unwanted(self._roster.all())

    def _end_unwanted(self, runs: Iterable[Run]) -> None:
        for run in runs:
            why = self.unwanted(run)
            if why:
                self._cancel(run, why)


def _nothing(*_: object) -> None:
    """There is nobody yet who could."""
