"""One walk through the open part of a run: which steps start, which go on, which are over.

A `Walk` begins at the Workflow's own list and follows only what is open, down through the blocks. What it finds it
collects as records, calls and the time to look again; it changes nothing.

It stops at the first place that has something to journal. What is journaled together is always one thing - the steps
that start, one step's way forward, one step's end - and half of it is completed by the next walk before anything else.
So a run that stops after any entry goes on exactly as if it had not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

from fairlead.api.reasons import NEVER_RETRIED, RETRIED_BY_DEFAULT, ErrorClass
from fairlead.api.workflow import OnError
from fairlead.errors import StepError
from fairlead.flow import foreach, fork, repeat
from fairlead.flow.approvals import undecided
from fairlead.flow.backoff import backoff_ms, jitter_key
from fairlead.flow.calls import Call, CallError, CallKind
from fairlead.flow.evaluation import PlaceEvaluator
from fairlead.flow.journal import Draft, EntryKind, Path
from fairlead.flow.labels import TRUSTED, Label, endorsed, endorses, written
from fairlead.flow.paths import is_turn
from fairlead.flow.plan import CALLED, Body, Plan, StepPlan
from fairlead.flow.reuse import taken_over
from fairlead.flow.scope import Frame
from fairlead.flow.state import BodyState, CallState, RunState, StepState, first_failure
from fairlead.flow.steps import kinds
from fairlead.flow.steps.attempt import Attempt, Enter, Failed, Fork, ResourceView, Result, Setting, Succeeded, failed
from fairlead.flow.walking import (
    CANCELLED,
    NOTHING,
    BodyResult,
    Drain,
    TooManySteps,
    Unfinished,
    evaluate,
    evaluated,
    expression_failed,
    without_room,
)

ALL_DONE = "AllDone"


@dataclass(slots=True)
class Walk:
    """What one walk looks at, and what it has found. `most_steps` is how many the run may start, None for any number.

    `drain` in its methods: whether to start nothing and ask for nothing new, and only wait for calls that are open.
    """

    plan: Plan
    state: RunState
    now_ms: int
    resources: ResourceView
    most_steps: int | None = None
    records: list[Draft] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    wake_at_ms: int | None = None
    started: int = 0

    def body(self, frame: Frame, *, deadline_ms: int, drain: Drain = Drain.NO) -> BodyResult:
        """Walk a list of steps.

        Raises:
            TooManySteps: a step would have to start and may not.
            Nondeterminism: a recorded call differs from what is asked now.
        """
        here = self.state.bodies.get(frame.prefix, NOTHING)
        if len(here.settled) == len(frame.body.steps) and not here.failed:
            return self._output(frame)
        if not drain:
            self._start_ready(frame, here)
        for name in here.open:
            if self.records:
                break
            plan = frame.body.steps[name]
            stop = max(drain, Drain.WAIT) if here.failed and plan.join != ALL_DONE else drain
            self._step(frame, plan, deadline_ms=deadline_ms, drain=stop)
        if here.open or self.records:
            return Unfinished.PENDING
        if here.failed:
            return Failed(first_failure(self.state, frame.prefix) or CANCELLED)
        return Unfinished.DRAINED if drain else failed(ErrorClass.INTERNAL, "no step can start", reason="Stuck")

    def _output(self, frame: Frame) -> BodyResult:
        if frame.body.output is None:
            last = self.state.steps[frame.path(frame.body.sequence[-1].name)]
            return Succeeded(last.output, last.label)
        at = f"block {frame.body.name}: output" if frame.body.name else "spec.output"
        value = evaluate(PlaceEvaluator(self.state, frame), lambda evaluator: evaluator.render(frame.body.output, at))
        return Failed(value.error) if value.error else Succeeded(value.value, value.label)

    # Steps that start.

    def _start_ready(self, frame: Frame, here: BodyState) -> None:
        """Start all that is ready. Anything else than a start is a record of its own."""
        latest = frame.body.steps[next(reversed(here.open))] if here.open else None
        if latest is not None and (not here.failed or latest.join == ALL_DONE):
            self.complete_start(frame, latest, frame.path(latest.name))
        for plan in _ready(frame, here, self.state):
            if not self._begin(frame, plan):
                break

    def complete_start(self, frame: Frame, plan: StepPlan, path: Path) -> None:
        """Evaluate the inputs of a step whose start was the last that was journaled before a stop."""
        step = self.state.steps[path]
        holds = plan.loops and not is_turn(path)
        if step.phase == "Running" and step.inputs is None and not step.handling and not holds:
            self._inputs(frame, plan, path, attempt=step.attempt)

    def _begin(self, frame: Frame, plan: StepPlan) -> bool:
        """Look at a step's `when`; return whether the step starts."""
        path = frame.path(plan.name)
        if plan.spec.when is not None:
            when = self.state.whens.get(path)
            if when is None:
                expression, evaluator = plan.spec.when, PlaceEvaluator(self.state, frame)
                when = evaluate(evaluator, lambda evaluator: evaluator.holds(expression, "when"))
                self.record(EntryKind.EVALUATED, path, 0, evaluated("When", when))
            if when.error is not None:
                self.fail(path, 0, when.error, then=plan.spec.on_error)
                return False
            if not when.value:
                self.record(EntryKind.STEP_SKIPPED, path, 0, {"reason": "When"})
                return False
        self.start(frame, plan, path)
        return True

    def start(self, frame: Frame, plan: StepPlan, path: Path) -> None:
        """Start a step, or one iteration or item of it.

        Raises:
            TooManySteps: it may not.
        """
        # A repeat and its first iteration are one step; `apply` counts the same way.
        if not path.endswith("#1"):
            if self.most_steps is not None and self.state.usage.steps + self.started >= self.most_steps:
                raise TooManySteps
            self.started += 1
        self._attempt_starts(plan, path, 1)
        if is_turn(path) or not plan.loops:
            self._inputs(frame, plan, path, attempt=1)

    def _attempt_starts(self, plan: StepPlan, path: Path, attempt: int) -> None:
        timeout_seconds = plan.timeout_seconds if is_turn(path) or not plan.loops else 0
        data = {"deadline": self.now_ms + timeout_seconds * 1000} if timeout_seconds else {}
        self.record(EntryKind.STEP_STARTED, path, attempt, data)

    def _inputs(self, frame: Frame, plan: StepPlan, path: Path, *, attempt: int) -> None:
        kind = kinds.of(plan)
        setting = Setting(self.plan.defaults.model or "", self.resources)
        evaluator = PlaceEvaluator(self.state, frame)
        value = evaluate(evaluator, lambda evaluator: kind.inputs(plan.definition, evaluator, setting))
        self.record(EntryKind.EVALUATED, path, attempt, evaluated("Inputs", value))

    # Steps that go on.

    def _step(self, frame: Frame, plan: StepPlan, *, deadline_ms: int, drain: Drain) -> None:
        path = frame.path(plan.name)
        step = self.state.steps[path]
        if step.handling and step.error is not None and plan.spec.on_error and plan.spec.on_error.block:
            inner = frame.handle(self.plan.blocks[plan.spec.on_error.block], path, step.error)
            self._settle_body(step, self.body(inner, deadline_ms=deadline_ms, drain=drain))
        elif plan.spec.repeat is not None and step.phase == "Running":
            repeat.go_on(self, frame, plan, step, deadline_ms=deadline_ms, drain=drain)
        elif plan.spec.for_each is not None and step.phase == "Running":
            foreach.go_on(self, frame, plan, step, deadline_ms=deadline_ms, drain=drain)
        else:
            self.attempt(frame, plan, step, deadline_ms=deadline_ms, drain=drain)

    def _settle_body(self, step: StepState, result: BodyResult) -> None:
        match result:
            case Succeeded(output, label):
                self.succeed(step, output, label=step.context.join(label or TRUSTED))
            case Failed(error):
                self.fail(step.path, step.attempt, error)
            case Unfinished.DRAINED:
                self.fail(step.path, step.attempt, CANCELLED)
            case _:
                pass

    def attempt(self, frame: Frame, plan: StepPlan, step: StepState, *, deadline_ms: int, drain: Drain) -> None:
        """Go on with an attempt of a step or of one iteration: evaluate its inputs, follow its calls, or end it."""
        if step.phase == "BackingOff":
            self._back_off(plan, step, drain=drain)
        elif step.inputs is None:
            if drain:
                self.fail(step.path, step.attempt, CANCELLED)
            else:
                self._inputs(frame, plan, step.path, attempt=step.attempt)
        elif step.inputs.error is not None:
            self._attempt_failed(plan, step, step.inputs.error, drain=drain)
        else:
            self._advance(frame, plan, step, deadline_ms=_earliest(step.deadline, deadline_ms), drain=drain)

    def _advance(self, frame: Frame, plan: StepPlan, step: StepState, *, deadline_ms: int, drain: Drain) -> None:
        evaluator = PlaceEvaluator(self.state, frame)
        attempt = Attempt(step, step.path, deadline_ms, evaluator, self.now_ms, self.state)
        known: Draft | None = None
        result: Result | None = None
        try:
            known = taken_over(self.plan, plan, step, evaluator) if not drain else None
            result = kinds.of(plan).advance(plan.definition, attempt) if known is None else None
        except StepError as error:
            result = Failed(expression_failed(error))
        read = step.context.join(evaluator.reads.label)
        if read != step.context:  # what rules have read is told before anything follows from them
            self.record(EntryKind.EVALUATED, step.path, step.attempt, {"purpose": "Reads", **written(read)})
            return
        if known is not None:
            self.records.append(known)
            return
        if isinstance(result, Enter | Fork):
            result = self._enter(frame, plan, step, result, attempt, drain=drain)
        elif result is None:
            result = self._wait(step, attempt, drain=drain)
        if isinstance(result, Succeeded):
            label = result.label or _label_of(plan, step, result.output)
            self.succeed(step, result.output, label=label, then=None if drain else _handler(plan))
        elif isinstance(result, Failed):
            self._attempt_failed(plan, step, result.error, drain=drain)

    def _wait(self, step: StepState, attempt: Attempt, *, drain: Drain) -> Result | None:
        """Ask for the attempt's calls, or only for those that are open when nothing new may begin."""
        opened = [call for call in attempt.wanted if attempt.recorded(call.id.index)]
        if drain:
            opened = [call for call in opened if drain < Drain.CUT or not attempt.reads(call.id.index)]
            self.calls += opened
            return None if opened else Failed(CANCELLED)
        if self._overdue(step) and step.calls and not opened:
            return _timed_out()
        if attempt.waits:
            self._wake(step.deadline)
        self.records += attempt.records
        self.calls += attempt.wanted
        self._wake(attempt.wake_at_ms or 0)
        return None

    def _enter(
        self, frame: Frame, plan: StepPlan, step: StepState, way: Enter | Fork, attempt: Attempt, *, drain: Drain
    ) -> Result | None:
        overdue = self._overdue(step)
        if not (drain or overdue):
            self.records += attempt.records
            if attempt.records:
                return None
            self._wake(step.deadline)
        drain = max(drain, Drain.WAIT) if overdue else drain
        if isinstance(way, Fork):
            result = fork.go_on(self, frame, plan, step, way, deadline_ms=attempt.deadline_ms, drain=drain)
        else:
            inner = frame.enter(self.plan.blocks[way.block], step.path, error=way.error)
            result = self.body(inner, deadline_ms=attempt.deadline_ms, drain=drain)
        match result:
            case Succeeded(output, label):
                return Succeeded(
                    way.wrap(output) if isinstance(way, Enter) else output, step.context.join(label or TRUSTED)
                )
            case Failed(error) as failure:
                # What failed because of the deadline was cancelled; what failed before it, or while it passed, says so.
                return _timed_out() if overdue and error.error_class == ErrorClass.CANCELLED else failure
            case Unfinished.DRAINED:
                return _timed_out() if overdue else Failed(CANCELLED)
            case _:
                return None

    # Steps that end.

    def succeed(
        self,
        step: StepState,
        output: Any,
        *,
        partial: str = "",
        label: Label | None = None,
        then: OnError | None = None,
    ) -> None:
        """Propose the end of a step that succeeded; `partial` says why its output is not whole.

        One for whose output there is no room has failed; `then` is what handles that.
        """
        error = without_room(self.state, output)
        if error is not None:
            self.fail(step.path, step.attempt, error, then=then)
            return
        data = {"output": output} | ({"partial": partial} if partial else {}) | written(label or step.context)
        self.record(EntryKind.STEP_SUCCEEDED, step.path, step.attempt, data)

    def _attempt_failed(self, plan: StepPlan, step: StepState, error: CallError, *, drain: Drain) -> None:
        error = _for_good(plan, step, error)
        if not drain and _may_retry(plan, step, error):
            data = {"error": error.as_data(), "final": False}
            self.record(EntryKind.STEP_FAILED, step.path, step.attempt, data)
            return
        self.fail(step.path, step.attempt, error, then=None if drain else _handler(plan))

    def fail(self, path: Path, attempt: int, error: CallError, *, then: OnError | None = None) -> None:
        """Propose the end of a step that failed for good; `then` is what handles it, None when nothing does."""
        data: dict[str, Any] = {"error": error.as_data(), "final": True}
        if then is not None and then.action == "Continue":
            data["onError"] = "Continue"
        elif then is not None and then.block is not None:
            data |= {"onError": "Block", "final": False}
        self.record(EntryKind.STEP_FAILED, path, attempt, data)

    def _back_off(self, plan: StepPlan, step: StepState, *, drain: Drain) -> None:
        if drain:
            self.fail(step.path, step.attempt, CANCELLED)
        elif step.wake_at is None:
            wait_ms = backoff_ms(
                plan.retry,
                tries=step.tries,
                key=jitter_key(self.state.run_uid, step.path, step.attempt),
                retry_after_ms=step.error.retry_after_ms if step.error else 0,
            )
            data = {"wakeAt": self.now_ms + wait_ms, "purpose": "BackOff"}
            self.record(EntryKind.TIMER_SET, step.path, step.attempt, data)
        elif self.now_ms < step.wake_at:
            self._wake(step.wake_at)
        else:
            self._attempt_starts(plan, step.path, step.attempt + 1)

    def _overdue(self, step: StepState) -> bool:
        return bool(step.deadline) and self.now_ms >= step.deadline and not undecided(step.approvals.values())

    def _wake(self, at_ms: int) -> None:
        self.wake_at_ms = _earliest(at_ms, self.wake_at_ms or 0) or None

    def record(self, kind: EntryKind, path: Path, attempt: int, data: Mapping[str, Any]) -> None:
        """Propose one entry."""
        self.records.append(Draft(kind, path, attempt, data))


def _ready(frame: Frame, here: BodyState, state: RunState) -> Iterator[StepPlan]:
    """Yield the steps of a list that may start now: once one has failed, those alone whose join is AllDone."""
    body: Body = frame.body
    if body.order == "Sequence":
        if not here.open and not here.failed:
            yield body.sequence[len(here.settled)]
        return
    for plan in body.sequence:
        if plan.name in here.open or plan.name in here.settled:
            continue
        over = [need in here.settled or (bool(here.failed) and _never(body.steps[need], here)) for need in plan.needs]
        if here.failed and plan.join != ALL_DONE:
            continue
        if all(over) or (plan.join == "Any" and any(over) and _one_succeeded(frame, plan, state)):
            yield plan


def _never(plan: StepPlan, here: BodyState) -> bool:
    """Tell whether a step will not start any more, where another one has failed."""
    return plan.join != ALL_DONE and plan.name not in here.open


def _one_succeeded(frame: Frame, plan: StepPlan, state: RunState) -> bool:
    steps = (state.steps.get(frame.path(need)) for need in plan.needs)
    return any(step is not None and step.phase == "Succeeded" for step in steps)


def _handler(plan: StepPlan) -> OnError | None:
    """Return what handles a failed attempt: of an iteration or an item, the step that holds it."""
    if plan.spec.for_each is not None and plan.spec.for_each.on_item_failure == "Continue":
        return OnError(action="Continue")
    return None if plan.loops else plan.spec.on_error


def _may_retry(plan: StepPlan, step: StepState, error: CallError) -> bool:
    allowed = plan.retry.error_classes if plan.retry.error_classes is not None else RETRIED_BY_DEFAULT
    return step.tries <= plan.retry.limit and error.error_class in allowed and error.error_class not in NEVER_RETRIED


def _for_good(plan: StepPlan, step: StepState, error: CallError) -> CallError:
    """Return what an attempt failed with: if an agent or a container has done what may not be repeated, for good.

    Neither the step itself nor a block around it is tried again: nobody knows what it would do the next time.
    """
    done = [f"{call.target}.{call.function}".rstrip(".") for call in step.calls.values() if not _again(call)]
    if plan.kind not in ("agent", "container") or not done or error.error_class in NEVER_RETRIED:
        return error
    message = f"{error.message}; it is not tried again, because {', '.join(dict.fromkeys(done))} may not be repeated"
    return CallError(ErrorClass.OUTCOME_UNKNOWN.value, error.reason, message)


def _again(call: CallState) -> bool:
    """Tell whether another attempt may do the same again. A child run of another attempt is another run."""
    made_another = call.kind is CallKind.WORKFLOW and call.denied is None
    return call.is_notice or (call.repeatable and not made_another)


def _label_of(plan: StepPlan, step: StepState, output: Any) -> Label:
    """Return the label of a step's output: of a call, what it brought, whatever was asked; of others their context.

    What has passed a `validate` that lets no text through is endorsed.
    """
    if plan.kind in CALLED:
        return reduce(Label.join, (call.label for call in step.calls.values() if not call.is_notice), step.control)
    if plan.spec.validate_ is not None and output["passed"] and endorses(plan.spec.validate_):
        return endorsed(step.control, step.context)
    return step.context


def _timed_out() -> Failed:
    return failed(ErrorClass.TIMEOUT, "the step did not finish within its timeoutSeconds")


def _earliest(one_ms: int, other_ms: int) -> int:
    """Return the earlier of two times; 0 stands for never."""
    return min(one_ms, other_ms) if one_ms and other_ms else one_ms or other_ms
