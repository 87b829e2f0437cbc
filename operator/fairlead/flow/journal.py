"""The journal's vocabulary: what happened to a run, as append-only entries.

`next.py` proposes drafts, the store stamps them (sequence and time), `state.py` folds them. `path` names a point
of the execution: `answer`, `draft#2/score` (`#n` iteration of a repeat, from 1), `summaries[3]` (`[i]` item of a
forEach, from 0), `topic/ask` (a step of the block that `topic` runs), `both/logs/fetch` (a step of the block `logs`, a
branch of the parallel `both`), `reply!/notify` (a step of reply's onError block), `!/close` (a step of the Workflow's
`finally` block).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NewType

RunUid = NewType("RunUid", str)
Path = NewType("Path", str)

SEMANTICS = 1
"""The version of the fold and of what-next. Frozen into RunAccepted; a change of meaning raises it."""


class EntryKind(StrEnum):
    """What happened. The data of each kind stands beside it; `?` marks what may be absent."""

    RUN_ACCEPTED = "RunAccepted"  # workflow, namespace, name, revision, generation, semantics, input, account,
    #                               createdAt (ms), deadline (ms), requestedBy?, concurrencyKey?,
    #                               scheduledAt? (ms), parent? (of a child, as in its spec),
    #                               retryFrom? {run, uid, step?}, inputLabel,
    #                               wouldDeny?: [what rules of Policies in Audit mode found]
    #                               (label? of an Evaluated, an outcome, an output: Trust/Sensitivity, see labels.py)
    STEP_STARTED = "StepStarted"  # (attempt 1, 2, ...) deadline? (ms)
    EVALUATED = "Evaluated"  # purpose: When | Inputs | Items (of a forEach) | Until | Choice (of a route);
    #                          value, error?
    #                          purpose Findings: index (of the answer or signal that was checked), value: [message]
    #                          purpose Reads: no value, but the label of what was read since, as by rules of an output
    #                          purpose Signal: value: the index of the signal that a wait takes
    CALL_INTENT = "CallIntent"  # index, kind, target, function?, digest, effect, key?  (before the effect)
    #                               wouldDeny?: [what rules of Policies in Audit mode found]
    #                               child? {name, spec}: of a Workflow call, the WorkflowRun to make
    #                               pin?, reach? (of a function's contract), rbac? (what the authorizer said),
    #                               approvals? [{policy, rule, name}]: that it was made by, pod?: the UID of the step's
    #                               pod that asks for it
    #                               holds? {inputTokens, outputTokens, cost?}: the most that a model call can come to;
    #                               windows? [[policy, period (ms), start (ms)]]: whose budgets it counts in
    CALL_RESENT = "CallResent"  # index, target, kind, digest, holds, windows?; rbac?, approvals?, pod? as in an intent:
    #                             a model call that was open at a restart is sent again; what was held for it is taken
    #                             as used, and the same is held again
    CALL_OUTCOME = "CallOutcome"  # index, status: Succeeded | Failed; result? error? {class, reason, message},
    #                               usage? {inputTokens, outputTokens, cost? (10⁻¹² US dollars)}, durationMs; an error
    #                               may carry retryAfterMs; without usage a model call used all that was held for it;
    #                               of a child run the usage has modelCalls, toolCalls and steps too
    CALL_DENIED = "CallDenied"  # index, kind, target, function?, digest?, reason, stage, message; policy?, rule? (that
    #                             stands in the way), effect?, pin?, reach?, rbac?, approvals?, pod?, label?: what was
    #                             known of the call
    CHILD_STARTED = "ChildStarted"  # index, name, uid: the child run exists; the call is open until it has ended
    POD_STARTED = "PodStarted"  # index, name, uid: the pod of a container call exists; its end is the outcome
    CHILD_LOST = "ChildLost"  # index: nobody knows of the child after a restart; it is asked for again
    APPROVAL_REQUESTED = "ApprovalRequested"  # index (of the call that needs it; "" for an approval step), name, spec
    #                                           (of the Approval to make), expiresAt (ms), notice?: the arguments of
    #                                           the call that tells people, and its label; tells? {tool, function}:
    #                                           of that call, where a rule asks
    APPROVAL_DECIDED = "ApprovalDecided"  # name, decision: Approved | Denied | Expired, by: [user], reason
    STEP_SUCCEEDED = "StepSucceeded"  # output; partial?: why a forEach left items out; reusedFrom?: the run that did it
    STEP_FAILED = "StepFailed"  # error {class, reason, message}; final: the step is over; onError? Continue (final) or
    #                             Block (not final: its block runs now); neither: another attempt follows
    STEP_SKIPPED = "StepSkipped"  # reason
    TIMER_SET = "TimerSet"  # wakeAt? (ms; absent: no time of its own), purpose: BackOff | Wait | Finally (no path: when
    #                         `finally` must be over), signal? (that a Wait waits for)
    SIGNAL = "Signal"  # index (in the run's spec.signals), name, data?, by, ignored? (why no wait can take it)
    PAUSED = "Paused"  # nothing new is started and no timer fires from here on
    RESUMED = "Resumed"
    CLOSING = "Closing"  # reason (a RunReason), message, output? or error?: no new intents from here on, unless they
    #                      are those of `finally`
    RUN_SUCCEEDED = "RunSucceeded"  # output
    RUN_FAILED = "RunFailed"  # reason, message, error?
    RUN_CANCELLED = "RunCancelled"  # message
    RUN_REJECTED = "RunRejected"  # reason, message: ended before it was accepted


TERMINAL = frozenset({EntryKind.RUN_SUCCEEDED, EntryKind.RUN_FAILED, EntryKind.RUN_CANCELLED, EntryKind.RUN_REJECTED})


@dataclass(frozen=True, slots=True)
class Draft:
    """An entry that is proposed: everything but what only the store assigns."""

    kind: EntryKind
    path: Path = Path("")
    attempt: int = 0
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry as it stands in the journal. `seq` counts from 1 per run; `at` is Unix ms and never decreases."""

    run_uid: RunUid
    seq: int
    at: int
    kind: EntryKind
    path: Path
    attempt: int
    data: Mapping[str, Any]
