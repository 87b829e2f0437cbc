"""The gate: the one way out. Every model and tool call, and every child run, of every run passes here, by stages.

     0 authenticate   calls of our own steps are born authenticated
     1 fence          the run is open and before its deadline, the attempt is the current one
     2 parse          the request is plain JSON of a sane size
     3 replay         a call that is settled is done; another request under a known index is Nondeterminism
  4-10 decide         contract, RBAC, rules, data flow, limits, budget, approval (policy/decide.py, pure)
    11 INTENT         recorded and durable before anything leaves
    12 dispatch       once, with credential, timeout and result cap
    13 OUTCOME        scrubbed and recorded

Stages 1 to 11 run without a pause between them, on one view of the world; whatever has to wait starts again at 1.
Fail closed: an exception before the dispatch denies, and no answer of the authorizer is never an allow.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from fairlead.api.canonical import canonical_json
from fairlead.api.model import Model, ModelLimits
from fairlead.api.reasons import DecisionReason, ErrorClass, Stage
from fairlead.api.tool import Tool, ToolLimits
from fairlead.api.workflow import Workflow
from fairlead.engine.children import make
from fairlead.engine.counts import Counts
from fairlead.engine.credentials import known_secrets, scrub
from fairlead.engine.entries import denied, intended
from fairlead.engine.fence import ends_ms, fence, parse, replay
from fairlead.engine.metering import charged
from fairlead.engine.pods import PodRunner
from fairlead.engine.policies import Did
from fairlead.engine.recent import Noted, RecentCalls
from fairlead.engine.seams import Authorizer, Resources, RunCreator
from fairlead.engine.slots import Slots
from fairlead.engine.snapshots import Snapshots, Target, effect_and_key, recorded_call
from fairlead.flow.calls import Call, CallError, Outcome
from fairlead.flow.children import child_spec
from fairlead.flow.journal import Draft, EntryKind
from fairlead.flow.labels import written
from fairlead.flow.recover import outcome_unknown
from fairlead.flow.runstate import CallState
from fairlead.flow.spending import NOTHING
from fairlead.policy.decide import decide, required_permissions, would_deny
from fairlead.policy.decision import Authorization, Decision, Definitions
from fairlead.policy.images import Image
from fairlead.telemetry.ids import trace_id, traceparent

if TYPE_CHECKING:
    from fairlead.engine.log import RunLog
    from fairlead.engine.models import ModelCaller
    from fairlead.engine.tools import ToolCaller
    from fairlead.telemetry.metrics import EngineMetrics

SHOWN_BYTES = 32_768
"""People approve what they have seen: larger arguments are denied where they would have to."""

NOTICE_SECONDS = 30.0
"""A step whose people have decided waits so long for what still tells them of it."""

LONGEST_WAIT_MS = 300_000
FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 2.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Admitted:
    """A call whose intent is recorded: what it goes to, what its effect is, and how long it may take."""

    target: Target
    effect: str
    key: str | None
    waited_ms: int
    noted: Noted | None

    @property
    def repeatable(self) -> bool:
        """Tell whether doing it twice is the same as once."""
        return self.effect == "Read" or self.key is not None


class Gate:
    """Decides, records and dispatches calls."""

    def __init__(
        self,
        resources: Resources,
        authorizer: Authorizer,
        models: ModelCaller,
        tools: ToolCaller,
        clock: Callable[[], int],
        metrics: EngineMetrics | None = None,
        *,
        creator: RunCreator,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        recent: RecentCalls | None = None,
        on_rule: Callable[[str, Did], None] = lambda policy, did: None,
        pods: PodRunner | None = None,
    ) -> None:
        """Take the seams; without `pods` no containers run.

        `clock` gives Unix ms, `recent` knows the calls of an earlier process, `on_rule` is told what the rules of
        Policies did.
        """
        self._resources = resources
        self._authorizer = authorizer
        self._models = models
        self._tools = tools
        self._clock = clock
        self._counts = Counts(metrics, on_rule)
        self._creator = creator
        self._sleep = sleep
        self._on_rule = on_rule
        self._recent = recent or RecentCalls(clock)
        self._pods = pods
        self._snapshots = Snapshots(resources, tools, self._recent, clock, has_pods=pods is not None)
        self._slots = Slots()

    async def call(self, log: RunLog, call: Call) -> None:
        """Take one call through all stages; what came of it stands in the run's journal.

        Appends CallDenied, or CallIntent (unless the call is resumed) and later CallOutcome; of a child run
        ChildStarted, because its outcome is its end. A call that is settled already is left alone.

        Raises:
            StoreError: the intent could not be recorded; nothing was dispatched.
            CancelledError: the call was cancelled. A Read, or a call that had not been sent, has its outcome.
        """
        async with AsyncExitStack() as held:
            admitted = await self._admit(log, call, held)
            if admitted is not None:
                await self._perform(log, call, admitted)

    # Stages 1 to 11

    async def _admit(self, log: RunLog, call: Call, held: AsyncExitStack) -> _Admitted | None:
        """Decide until it is decided. Return None when there is nothing to dispatch."""
        began = self._clock()
        pause, waited_ms, has_slot = FIRST_PAUSE_SECONDS, 0, False
        while True:
            before = self._clock()
            decision = await self._decide(log, call)
            # No await from the decision to the intent, but for those that start again at stage 1.
            if decision is None:
                return None
            if decision.reason is DecisionReason.APPROVAL_PENDING:
                self._ask(log, call, decision)
                return None
            if decision.verdict == "Wait" and self._clock() - began < LONGEST_WAIT_MS:
                await self._sleep(pause)
                waited_ms += self._clock() - before
                pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
                continue
            if decision.verdict != "Allow":
                self._deny(log, call, decision)
                return None
            slot = None if has_slot else self._slot(call)
            if slot is not None:
                if slot.locked() and self._left_ms(log, call, waited_ms) > 0:
                    has_slot = await self._wait_for(slot, held, self._left_ms(log, call, waited_ms) / 1000)
                    continue
                if not slot.locked():
                    await slot.acquire()  # free, so that this does not wait
                    held.callback(slot.release)
            return self._intend(log, call, decision, held, waited_ms)

    async def _decide(self, log: RunLog, call: Call) -> Decision | None:
        """Run stages 1 to 10. Return None when the call is settled.

        A pinned function's server is asked how it defines it only when stages 1 to 6 let the call pass.
        """
        try:
            decision = await self._judge(log, call)
            if decision is not None and decision.reason is DecisionReason.DEFINITION_UNKNOWN:
                decision = await self._judge(log, call, await self._definitions(call))
            return decision
        except Exception:  # the boundary that fails closed: without a decision nothing is allowed
            _log.exception("decision failed", extra=_context(log))
            return Decision("Deny", Stage.CONTRACT, DecisionReason.DECISION_FAILED, "the decision failed; see the log")

    async def _judge(self, log: RunLog, call: Call, definitions: Definitions | None = None) -> Decision | None:
        started = time.perf_counter()
        needed = required_permissions(call)
        authorization = await self._authorizer.authorize(log.account, needed) if needed else Authorization("Allowed")
        self._counts.observe("Authorize", started)
        started = time.perf_counter()
        recorded = recorded_call(log, call)
        if recorded is not None and recorded.settled and (not recorded.digest or recorded.digest == call.digest):
            return None
        decision = fence(log, call, self._clock()) or parse(call) or replay(recorded, call)
        if decision is None:
            snapshot = self._snapshots.of(log, call, authorization, definitions)
            decision = decide(call, snapshot)
            if snapshot.policies and decision.verdict == "Allow":
                decision = replace(decision, audited=tuple(would_deny(call, snapshot)))
        self._counts.observe("Decide", started)
        return decision

    async def _definitions(self, call: Call) -> Definitions:
        tool, started = self._snapshots.target(call), time.perf_counter()
        definitions = await self._tools.definitions(call.target, tool) if isinstance(tool, Tool) else Definitions()
        self._counts.observe("Definitions", started)
        return definitions

    async def _wait_for(self, slot: asyncio.Semaphore, held: AsyncExitStack, timeout_seconds: float) -> bool:
        """Wait for a free slot, at most as long as the call has; tell whether there is one."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await slot.acquire()
        except TimeoutError:
            return False
        held.callback(slot.release)
        return True

    def _deny(self, log: RunLog, call: Call, decision: Decision) -> None:
        self._counts.decided(decision)
        if log.state.terminal is not None:
            return  # nothing is added to what has ended
        if decision.policy:
            self._on_rule(decision.policy, Did.DENIED)
        recorded = recorded_call(log, call)
        if recorded is not None and recorded.digest == call.digest and _may_have_happened(recorded):
            log.append(outcome_unknown(call.id.path, call.id.attempt, recorded, why=decision.message))
            return
        broke = decision.reason is DecisionReason.DECISION_FAILED  # and so may what looks up the target
        data = denied(call, decision, None if broke else self._snapshots.target(call))
        log.append(Draft(EntryKind.CALL_DENIED, call.id.path, call.id.attempt, data))

    def _ask(self, log: RunLog, call: Call, decision: Decision) -> None:
        """Let people decide: record what is asked of them. The core asks for the call again when they have."""
        self._counts.decided(decision)
        drafts = self._snapshots.questions(log, call, decision.needs, now_ms=self._clock())
        if isinstance(drafts, Decision):
            return self._deny(log, call, drafts)
        size = max((len(canonical_json(draft.data["spec"]["call"]["arguments"])) for draft in drafts), default=0)
        if size > SHOWN_BYTES:
            message = f"{decision.message}; nobody can be shown {size} bytes, at most {SHOWN_BYTES}"
            self._deny(log, call, Decision("Deny", Stage.APPROVAL, DecisionReason.INVALID, message))
        elif log.state.terminal is None:
            log.append(*drafts)
            for needed in decision.needs:
                self._on_rule(needed.policy, Did.ASKED)

    def _intend(
        self, log: RunLog, call: Call, decision: Decision, held: AsyncExitStack, waited_ms: int
    ) -> _Admitted | None:
        """Stage 11, the record: append the intent, unless this call is resumed and has it.

        A model that is asked again may have been paid for the first time: what a call holds is then held once more.
        """
        self._counts.decided(Decision("Allow", Stage.INTENT))
        self._counts.audited(decision.audited)
        target = self._snapshots.target(call)
        if target is None:
            return None
        effect, key = effect_and_key(target, log, call)
        recorded, before = recorded_call(log, call), log.state.seq
        resent = recorded is not None
        if recorded is not None and effect != "Read" and key is None:  # it was repeatable when it was begun
            log.append(outcome_unknown(call.id.path, call.id.attempt, recorded, why="its contract has changed since"))
            return None
        noted = self._recent.note(call, decision.holds.tokens) if decision.holds or not resent else None
        admitted = _Admitted(target=target, effect=effect, key=key, waited_ms=waited_ms, noted=noted)
        data = intended(call, decision, target, effect)
        if resent and decision.holds:
            log.append(Draft(EntryKind.CALL_RESENT, call.id.path, call.id.attempt, data))
        elif not resent:
            data |= written(call.label)
            data |= {"key": key} if key is not None else {}
            data |= {"wouldDeny": [str(breach) for breach in decision.audited]} if decision.audited else {}
            if isinstance(target, Workflow):
                limits = self._snapshots.limits(log)
                data["child"] = {"name": key, "spec": child_spec(limits, log.state, call, now_ms=self._clock())}
            log.note(Draft(EntryKind.CALL_INTENT, call.id.path, call.id.attempt, data))
        if log.state.seq == before and (decision.holds or not resent):
            return None  # a log that takes nothing more (the engine ends) leaves no record: no record, no action
        log.spend(decision.windows, decision.holds)
        self._snapshots.under_way(decision.windows, decision.holds)
        held.callback(self._snapshots.landed, decision.windows, decision.holds)
        return admitted

    # Stages 11 to 13

    async def _perform(self, log: RunLog, call: Call, admitted: _Admitted) -> None:
        sent = False
        try:
            started = time.perf_counter()
            await log.durable()
            self._counts.observe("Intent", started)
            left_ms = self._left_ms(log, call, admitted.waited_ms)
            if left_ms <= 0:
                outcome = _failed(ErrorClass.TIMEOUT, "no time was left to send the request")
            elif isinstance(admitted.target, Workflow):
                sent = True
                await self._start_child(log, call, admitted, left_ms / 1000)
                return
            elif isinstance(admitted.target, Image):
                sent = True
                await self._run_pod(log, call, admitted, left_ms / 1000)
                return
            else:
                sent = True
                outcome = await self._dispatch(log, call, admitted, left_ms / 1000)
        except asyncio.CancelledError:
            if not sent or admitted.effect == "Read":
                cancelled = replace(_failed(ErrorClass.CANCELLED, "the call was cancelled"), metered=not sent)
                self._record(log, call, admitted, cancelled, answered=False)
            raise
        self._record(log, call, admitted, outcome)

    async def _dispatch(self, log: RunLog, call: Call, admitted: _Admitted, left_seconds: float) -> Outcome:
        """Stage 12: send it once. Failures are outcomes."""
        target = admitted.target
        try:
            if isinstance(target, Model):
                bound = (target.spec.limits or ModelLimits()).timeout_seconds
                return await self._models.call(call.target, target, call, min(bound, left_seconds))
            assert isinstance(target, Tool)
            bound = (target.spec.limits or ToolLimits()).timeout_seconds
            return await self._tools.call(
                call.target,
                target,
                call,
                timeout_seconds=min(bound, left_seconds, NOTICE_SECONDS if call.tells else bound),
                idempotency_key=admitted.key,
                trace_parent=traceparent(log.uid, call.id.path, call.id.attempt, str(call.id.index)),
            )
        except Exception:  # the boundary to the adapters: a call that was begun always gets an outcome
            _log.exception("dispatch failed", extra=_context(log))
            if admitted.repeatable:
                return _failed(ErrorClass.INTERNAL, "the dispatch failed; see the log")
            return _failed(ErrorClass.OUTCOME_UNKNOWN, "the dispatch failed; it may have taken effect")

    async def _start_child(self, log: RunLog, call: Call, admitted: _Admitted, left_seconds: float) -> None:
        """Stage 12 of a child run: make it exist, as the intent says. Its own end is the outcome."""
        recorded = recorded_call(log, call)
        if recorded is None or recorded.child is None:
            return
        made = await make(self._creator, recorded.child, timeout_seconds=left_seconds, sleep=self._sleep)
        if isinstance(made, Outcome):
            self._record(log, call, admitted, made)
        elif log.state.terminal is None and not recorded.settled:
            data = {"index": recorded.index, "name": recorded.child.name, "uid": made}
            log.append(Draft(EntryKind.CHILD_STARTED, call.id.path, call.id.attempt, data))

    async def _run_pod(self, log: RunLog, call: Call, admitted: _Admitted, left_seconds: float) -> None:
        """Stage 12 of a container: run its pod; it is deleted when what came of it is durable."""
        recorded = recorded_call(log, call)
        if recorded is None or self._pods is None:
            return

        def started(name: str, uid: str) -> None:
            data = {"index": str(call.id.index), "name": name, "uid": uid}
            log.append(Draft(EntryKind.POD_STARTED, call.id.path, call.id.attempt, data))

        outcome = await self._pods.run(log, call, recorded.pod, started, seconds=left_seconds)
        if outcome is not None:
            self._record(log, call, admitted, outcome)
            self._pods.forget(log, call, recorded.pod)

    def _record(self, log: RunLog, call: Call, admitted: _Admitted, outcome: Outcome, *, answered: bool = True) -> None:
        """Stage 13: append the outcome; of a call or run that the core has settled meanwhile, to the audit alone."""
        recorded = recorded_call(log, call)
        late = log.state.terminal is not None or recorded is None or recorded.settled
        if late and not answered and recorded is not None and recorded.settled:
            return  # of a call that nobody waits for any more the audit says that it was cut off
        data: dict[str, Any] = {
            "index": str(call.id.index),
            "status": "Failed" if outcome.error else "Succeeded",
            "durationMs": outcome.duration_ms,
        }
        if outcome.result is not None:
            data["result"] = scrub(outcome.result, known_secrets(self._resources))
        if outcome.error is not None:
            data["error"] = scrub(outcome.error.as_data(), known_secrets(self._resources))
        data |= written(self._snapshots.brought(log, call))
        held, windows = (recorded.held, recorded.windows) if recorded is not None else (NOTHING, ())
        used = held
        if isinstance(admitted.target, Model) and outcome.metered:
            used = charged(outcome, held, admitted.target)
            data["usage"] = used.as_data()
        self._counts.spent(call, used)
        if admitted.noted is not None:
            self._recent.settle(call, admitted.noted, used.tokens)
        draft = Draft(EntryKind.CALL_OUTCOME, call.id.path, call.id.attempt, data)
        record = log.late if late else log.append
        try:
            record(draft)
        except TypeError:  # no adapter lets through what cannot be written; if one does, its call fails and no run
            record(replace(draft, data=_unwritten(data, admitted)))
        if not late:
            log.spend(windows, used - held)
            for window in windows:
                self._on_rule(window.policy, Did.SPENT)

    # What the stages look at

    def _slot(self, call: Call) -> asyncio.Semaphore | None:
        target = self._snapshots.target(call)
        if target is None or isinstance(target, Workflow | Image) or target.spec.limits is None:
            return None
        return self._slots.of(type(target).__name__, call.target, target.spec.limits.concurrency)

    def _left_ms(self, log: RunLog, call: Call, waited_ms: int) -> int:
        """Return the time to the call's deadline, moved by what it had to wait, or the run's if that is sooner.

        There is none once the run closes, but for `finally`.
        """
        now, run_ends = self._clock(), ends_ms(log, call)
        ends = [run_ends if run_ends is not None else now]
        if call.deadline_ms:
            ends.append(call.deadline_ms + waited_ms)
        return min(ends) - now


def _may_have_happened(recorded: CallState) -> bool:
    """Tell whether a call that was begun before a restart may have had an effect. What a child did, its run tells."""
    return recorded.child is None and recorded.effect not in ("", "Read")


def _unwritten(data: Mapping[str, Any], admitted: _Admitted) -> dict[str, Any]:
    """Return the outcome of a call whose answer cannot be written."""
    error_class = (ErrorClass.INTERNAL if admitted.repeatable else ErrorClass.OUTCOME_UNKNOWN).value
    error = CallError(error_class, error_class, "its answer is no JSON")
    return {key: value for key, value in data.items() if key != "result"} | {
        "status": "Failed",
        "error": error.as_data(),
    }


def _failed(error_class: ErrorClass, message: str) -> Outcome:
    return Outcome(error=CallError(error_class.value, error_class.value, message))


def _context(log: RunLog) -> dict[str, str]:
    return {"run": log.uid, "trace": trace_id(log.uid)}
