"""Approvals that open runs wait for: their objects are made, people's decisions find their way into the journal.

The journal says what is asked and what was decided; the Approval object is how people see the one and say the other. So
an object that is missing is made again, and a decision counts once it is journaled. Nobody's approval counts unless the
cluster refuses a forged one: without the admission policy anybody could write anybody's name.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from fairlead.api.approval import ApprovalRun, ApprovalStatus
from fairlead.api.conditions import only_condition, timestamp
from fairlead.api.reasons import DecidedReason
from fairlead.engine.owned import owned
from fairlead.engine.roster import Roster, Run, Standing
from fairlead.engine.seams import ApprovalDesk
from fairlead.engine.status import StatusWriter
from fairlead.errors import KubeError
from fairlead.flow.approvals import Verdict, decided, people_of, undecided, verdict_of
from fairlead.flow.journal import Draft, Entry, EntryKind, RunUid
from fairlead.flow.runstate import ApprovalState, RunState

if TYPE_CHECKING:
    from fairlead.engine.log import RunLog

RETRY_SECONDS = 5.0
UNGUARDED = "the cluster does not refuse forged decisions; install the chart's admission policies"

_ENDS = {
    DecidedReason.APPROVED: "approved by {by}",
    DecidedReason.DENIED: "denied by {by}",
    DecidedReason.EXPIRED: "nobody decided in time",
    DecidedReason.WITHDRAWN: "the run does not wait for it any more",
}

_NOT_UNDERSTOOD = (KeyError, TypeError, AttributeError, ValidationError)

_log = logging.getLogger(__name__)


class Approvals:
    """What is known of the approvals of open runs. `attach` says what lets a parked run go on."""

    def __init__(
        self,
        roster: Roster,
        desk: ApprovalDesk,
        statuses: StatusWriter,
        *,
        namespace: str,
        clock: Callable[[], int],
    ) -> None:
        """Take where Approvals are made and seen, and who writes their statuses; `clock` gives Unix ms."""
        self._roster = roster
        self._desk = desk
        self._statuses = statuses
        self._namespace = namespace
        self._clock = clock
        self._start: Callable[[Run], None] = lambda run: None
        self._open: dict[str, tuple[RunUid, ApprovalState]] = {}
        self._of_run: dict[RunUid, set[str]] = defaultdict(set)
        self._verdicts: dict[str, Draft] = {}
        self._inbox: dict[str, None] = {}
        self._woken = asyncio.Event()

    def attach(self, *, start: Callable[[Run], None]) -> None:
        """Take what lets a parked run go on."""
        self._start = start

    # What the journal says

    def committed(self, entries: Sequence[Entry]) -> None:
        """Take note of what was asked, and of what nobody waits for any more."""
        for entry in entries:
            run = self._roster.get(entry.run_uid)
            if run is None or run.log is None:
                continue
            if entry.kind is EntryKind.APPROVAL_REQUESTED:
                self._expect(entry.run_uid, run.log.state.approvals.get(entry.data["name"]))
            self._compare(entry.run_uid, run.log.state)

    def ended(self, run: Run, state: RunState) -> None:
        """Take note of the end of a run: it waits for nothing."""
        self._compare(run.uid, state)

    def settle(self, log: RunLog) -> None:
        """Record what was decided while the run was not in memory, and look at the rest again."""
        for approval in list(log.state.approvals.values()):
            verdict = self._verdicts.pop(approval.name, None)
            if verdict is not None:
                log.append(verdict)
            if approval.decision:
                self._close(log.uid, approval)
            else:
                self._expect(log.uid, approval)

    def overlooked(self, state: RunState) -> bool:
        """Tell whether something was decided that the run, which is parked now, does not know."""
        return any(approval.name in self._verdicts for approval in undecided(state.approvals.values()))

    def _expect(self, uid: RunUid, approval: ApprovalState | None) -> None:
        if approval is not None and not approval.decision:
            self._open[approval.name] = (uid, approval)
            self._of_run[uid].add(approval.name)
            self._look_at(approval.name)

    def _compare(self, uid: RunUid, state: RunState) -> None:
        for name in list(self._of_run.get(uid, ())):
            approval = state.approvals.get(name)
            if approval is None:  # of a journal that could not be read back
                self._open.pop(name, None)
                self._of_run[uid].discard(name)
            elif approval.decision:
                self._close(uid, approval)

    def _close(self, uid: RunUid, approval: ApprovalState) -> None:
        self._open.pop(approval.name, None)
        self._verdicts.pop(approval.name, None)
        self._of_run[uid].discard(approval.name)
        if not self._of_run[uid]:
            del self._of_run[uid]
        obj = self._desk.approval(approval.name)
        if obj is not None and not _is_told(obj):
            because = f": {approval.reason}" if approval.reason and approval.by else ""
            self._tell_end(obj, DecidedReason(approval.decision), because, by=approval.by)

    # What the cluster says

    def observe(self, name: str) -> None:
        """Take note that an Approval changed or is gone. One that is not understood is left as it is."""
        obj = self._desk.approval(name)
        if name in self._open:
            self._look_at(name)
        elif obj is not None and not _is_told(obj):
            try:
                uid = ApprovalRun.model_validate(obj["spec"]["run"]).uid
            except _NOT_UNDERSTOOD as error:
                _log.error("approval %s is not understood: %s", name, type(error).__name__)
                return
            run = self._roster.get(RunUid(uid))
            if run is None:
                self._tell_end(obj, DecidedReason.WITHDRAWN, "")
            elif run.log is not None and name in run.log.state.approvals:
                self._close(run.uid, run.log.state.approvals[name])

    def _look_at(self, name: str) -> None:
        self._inbox[name] = None
        self._woken.set()

    async def run(self) -> None:
        """Make what is missing and read what was decided, until cancelled."""
        while True:
            self._woken.clear()
            again = []
            while self._inbox:
                name = next(iter(self._inbox))
                del self._inbox[name]
                if not await self._see_to(name):
                    again.append(name)
            if again:
                asyncio.get_running_loop().call_later(RETRY_SECONDS, self._look_at_all, again)
            await self._woken.wait()

    def _look_at_all(self, names: Sequence[str]) -> None:
        for name in names:
            self._look_at(name)

    async def _see_to(self, name: str) -> bool:
        """Look at one approval; return whether it need not be tried again."""
        known = self._open.get(name)
        if known is None:
            return True
        uid, approval = known
        spec = approval.spec
        asked = owned(name, spec, run=spec["run"])
        try:
            obj = self._desk.approval(name) or await self._desk.create_approval(asked)
            said = obj["spec"]
            if said["digest"] != spec["digest"]:
                _log.error("an Approval %s exists that the engine did not make", name, extra={"run": uid})
                return False
            # Who must approve says the journal: of the object only what people said counts.
            verdict = verdict_of({**spec, "decisions": said.get("decisions")}, self._namespace)
            guarded = await self._desk.refuses_forgery(asked)
        except KubeError as error:
            _log.warning("approval %s: %s", name, error, extra={"run": uid})
            return False
        except _NOT_UNDERSTOOD as error:  # and so decides nothing
            _log.error("approval %s is not understood: %s", name, type(error).__name__, extra={"run": uid})
            return False
        if verdict is None and guarded:
            self._tell(obj, None, DecidedReason.PENDING, f"waits for {people_of(approval)} until {spec['expiresAt']}")
        elif verdict is None:
            self._tell(obj, None, DecidedReason.GUARDRAILS_MISSING, UNGUARDED)
        else:
            approved = verdict.decision is DecidedReason.APPROVED
            forged = Verdict(DecidedReason.DENIED, (), UNGUARDED) if approved and not guarded else None
            self._take(uid, approval, forged or verdict)
        return guarded

    def _take(self, uid: RunUid, approval: ApprovalState, verdict: Verdict) -> None:
        """Bring a verdict into the journal: now, or when the run goes on. One that comes too late is none."""
        run = self._roster.get(uid)
        if run is None or self._clock() >= approval.expires_at:
            return
        if run.log is not None:
            run.log.append(decided(approval, verdict))
            return
        self._verdicts[approval.name] = decided(approval, verdict)
        if run.standing is Standing.PARKED:
            self._start(run)

    def _tell_end(self, obj: Mapping[str, Any], decision: DecidedReason, because: str, by: Sequence[str] = ()) -> None:
        self._tell(obj, True, decision, _ENDS[decision].format(by=", ".join(by)) + because, final=True)

    def _tell(
        self, obj: Mapping[str, Any], status: bool | None, reason: DecidedReason, message: str, *, final: bool = False
    ) -> None:
        """Write the one condition of an Approval."""
        now, metadata = timestamp(self._clock()), obj["metadata"]

        def compose(published: Mapping[str, Any]) -> dict[str, Any]:
            conditions = only_condition(
                published,
                "Decided",
                status,
                reason=reason.value,
                message=message,
                now=now,
                observed_generation=metadata.get("generation", 0),
            )
            return {"conditions": conditions}

        self._statuses.mark(metadata["uid"], metadata["name"], compose, published=_published(obj), final=final)


def _is_told(obj: Mapping[str, Any]) -> bool:
    """Tell whether its status says how it ended."""
    conditions = _published(obj).get("conditions", ())
    return any(condition["type"] == "Decided" and condition["status"] != "Unknown" for condition in conditions)


def _published(obj: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the status of an Approval; one that is not understood says nothing, and is written anew."""
    status: Mapping[str, Any] = obj.get("status") or {}
    try:
        ApprovalStatus.model_validate(status)
    except ValidationError:
        return {}
    return status
