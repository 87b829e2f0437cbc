"""One walk through the open part of a run: which steps start, which go on, which are over.

A `Walk` begins at the Workflow's own list and follows only what is open, down through the blocks. What it finds it
collects as records, calls and the time to look again; it changes nothing.

It stops at the first place that has something to journal. What is journaled together is always one thing - the steps
that start, one step's way forward, one step's end - and half of it is completed by the next walk before anything else.
So a run that stops after any entry goes on exactly as if it had not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from fairlead.api.reasons import NEVER_RETRIED, RETRIED_BY_DEFAULT, ErrorClass
from fairlead.errors import FairleadError, StepError
from fairlead.flow.backoff import backoff_ms, jitter_key
from fairlead.flow.calls import Call, CallError
from fairlead.flow.evaluation import PlaceEvaluator
from fairlead.flow.journal import Draft, EntryKind, Path
from fairlead.flow.plan import Body, Plan, StepPlan
from fairlead.flow.scope import Frame
from fairlead.flow.state import BodyState, Evaluation, RunState, StepState
from fairlead.flow.steps import kinds
from fairlead.flow.steps.attempt import Attempt, Enter, Failed, ResourceView, Result, Setting, Succeeded, failed

_NOTHING = BodyState()
_CANCELLED = CallError(ErrorClass.CANCELLED.value, ErrorClass.CANCELLED.value, "the steps around it have ended")


class Unfinished(Enum):
    """A body without a result."""

    PENDING = "something is open in it"
    DRAINED = "nothing is open in it any more, and nothing new was started"


BodyResult = Succeeded | Failed | Unfinished


class TooManySteps(FairleadError):
    """The run has started as many steps as `limits.steps` allows."""

    reason = "BudgetExceeded"


@dataclass(slots=True)
class Walk:
    """What one walk looks at, and what it has found. `most_steps` is how many the run may start, None for any number.

    `drain` in its methods: start nothing and ask for nothing new, only wait for the calls that are open.
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

    def body(self, frame: Frame, *, deadline_ms: int, drain: bool = False) -> BodyResult:
        """Walk a list of steps.

        Raises:
            TooManySteps: a step would have to start and may not.
            Nondeterminism: a recorded call differs from what is asked now.
        """
        here = self.state.bodies.get(frame.prefix, _NOTHING)
        if len(here.settled) == len(frame.body.steps) and not here.failed:
            return self._output(frame)
        stop = drain or bool(here.failed)
        if not stop:
            self._start_ready(frame, here)
        for name in here.open:
            if self.records:
                break
            self._step(frame, frame.body.steps[name], deadline_ms=deadline_ms, drain=stop)
        if here.open or self.records:
            return Unfinished.PENDING
        if here.failed:
            return self._failure(frame, here)
        return Unfinished.DRAINED if drain else failed(ErrorClass.INTERNAL, "no step can start", reason="Stuck")

    def _output(self, frame: Frame) -> BodyResult:
        if frame.body.output is None:
            return Succeeded(self.state.steps[frame.path(frame.body.sequence[-1].name)].output)
        value = _evaluate(lambda: PlaceEvaluator(self.state, frame).render(frame.body.output))
        return Failed(value.error) if value.error else Succeeded(value.value)

    def _failure(self, frame: Frame, here: BodyState) -> Failed:
        first = self.state.steps[frame.path(next(iter(here.failed)))]
        return Failed(first.error or _CANCELLED)

    # Steps that start.

    def _start_ready(self, frame: Frame, here: BodyState) -> None:
        """Start all that is ready. Anything else than a start is a record of its own."""
        latest = next(reversed(here.open), None)
        if latest is not None:
            self._complete_start(frame, frame.body.steps[latest])
        for plan in _ready(frame, here, self.state):
            if not self._begin(frame, plan):
                break

    def _complete_start(self, frame: Frame, plan: StepPlan) -> None:
        """Evaluate the inputs of a step whose start was the last that was journaled before a stop."""
        step = self.state.steps[frame.path(plan.name)]
        if step.phase == "Running" and step.inputs is None and not step.handling and plan.spec.repeat is None:
            self._inputs(frame, plan, step.path, attempt=step.attempt)

    def _begin(self, frame: Frame, plan: StepPlan) -> bool:
        """Look at a step's `when`; return whether the step starts."""
        path = frame.path(plan.name)
        if plan.spec.when is not None:
            when = self.state.whens.get(path)
            if when is None:
                expression = plan.spec.when
                when = _evaluate(lambda: PlaceEvaluator(self.state, frame).holds(expression))
                self._record(EntryKind.EVALUATED, path, 0, _evaluated("When", when))
            if when.error is not None:
                self._fail(path, 0, when.error, then=plan.spec.on_error)
                return False
            if not when.value:
                self._record(EntryKind.STEP_SKIPPED, path, 0, {"reason": "When"})
                return False
        self._start(frame, plan, path)
        return True

    def _start(self, frame: Frame, plan: StepPlan, path: Path, *, looped: bool = False) -> None:
        """Start a step or, `looped`, one iteration of it."""
        # A repeat and its first iteration are one step; `apply` counts the same way.
        if not (looped and path.endswith("#1")):
            if self.most_steps is not None and self.state.steps_started + self.started >= self.most_steps:
                raise TooManySteps
            self.started += 1
        container = plan.spec.repeat is not None and not looped
        self._attempt_starts(path, 1, 0 if container else plan.timeout_seconds)
        if not container:
            self._inputs(frame, plan, path, attempt=1)

    def _attempt_starts(self, path: Path, attempt: int, timeout_seconds: int) -> None:
        data = {"deadline": self.now_ms + timeout_seconds * 1000} if timeout_seconds else {}
        self._record(EntryKind.STEP_STARTED, path, attempt, data)

    def _inputs(self, frame: Frame, plan: StepPlan, path: Path, *, attempt: int) -> None:
        kind = kinds.of(plan)
        setting = Setting(self.plan.defaults.model or "", self.resources)
        evaluator = PlaceEvaluator(self.state, frame)
        value = _evaluate(lambda: kind.inputs(plan.definition, evaluator, setting))
        self._record(EntryKind.EVALUATED, path, attempt, _evaluated("Inputs", value))

    # Steps that go on.

    def _step(self, frame: Frame, plan: StepPlan, *, deadline_ms: int, drain: bool) -> None:
        path = frame.path(plan.name)
        step = self.state.steps[path]
        if step.handling and step.error is not None and plan.spec.on_error and plan.spec.on_error.block:
            inner = frame.handle(self.plan.blocks[plan.spec.on_error.block], path, step.error)
            self._settle_body(step, self.body(inner, deadline_ms=deadline_ms, drain=drain))
        elif plan.spec.repeat is not None and step.phase == "Running":
            self._repeat(frame, plan, step, deadline_ms=deadline_ms, drain=drain)
        else:
            self._attempt(frame, plan, step, deadline_ms=deadline_ms, drain=drain)

    def _settle_body(self, step: StepState, result: BodyResult) -> None:
        match result:
            case Succeeded(output):
                self._succeed(step, output)
            case Failed(error):
                self._fail(step.path, step.attempt, error)
            case Unfinished.DRAINED:
                self._fail(step.path, step.attempt, _CANCELLED)
            case _:
                pass

    def _repeat(self, frame: Frame, plan: StepPlan, step: StepState, *, deadline_ms: int, drain: bool) -> None:
        number = step.iteration
        last = self.state.steps.get(frame.path(plan.name, number)) if number else None
        before = self.state.steps.get(frame.path(plan.name, number - 1)) if number > 1 else None
        inner = frame.looped(number, before.output if before else None)
        if last is not None and last.phase in ("Running", "BackingOff", "Waiting"):
            self._attempt(inner, plan, last, deadline_ms=deadline_ms, drain=drain)
        elif last is not None and last.phase == "Failed":
            self._fail(step.path, step.attempt, last.error or _CANCELLED, then=None if drain else plan.spec.on_error)
        elif last is not None and not self._until(inner, plan, last):
            self._after_iteration(frame, plan, step, last, drain=drain)
        elif last is None and drain:
            self._fail(step.path, step.attempt, _CANCELLED)
        elif last is None:
            self._start(frame.looped(1, None), plan, frame.path(plan.name, 1), looped=True)

    def _until(self, frame: Frame, plan: StepPlan, last: StepState) -> bool:
        """Evaluate `until` once; True while that is only just being journaled."""
        if last.until is not None or plan.spec.repeat is None:
            return False
        expression = plan.spec.repeat.until
        until = _evaluate(lambda: PlaceEvaluator(self.state, frame, output=last.output).holds(expression))
        self._record(EntryKind.EVALUATED, last.path, last.attempt, _evaluated("Until", until))
        return True

    def _after_iteration(self, frame: Frame, plan: StepPlan, step: StepState, last: StepState, *, drain: bool) -> None:
        repeat, until = plan.spec.repeat, last.until
        if repeat is None or until is None:
            return
        then = None if drain else plan.spec.on_error
        if until.error is not None:
            self._fail(step.path, step.attempt, until.error, then=then)
        elif until.value or (step.iteration >= repeat.max_iterations and repeat.on_exhausted == "Continue"):
            self._succeed(step, last.output)
        elif step.iteration >= repeat.max_iterations:
            message = f"`until` did not hold after {step.iteration} iterations"
            self._fail(
                step.path, step.attempt, failed(ErrorClass.INVALID, message, reason="RepeatExhausted").error, then=then
            )
        elif drain:
            self._fail(step.path, step.attempt, _CANCELLED)
        else:
            following = step.iteration + 1
            inner = frame.looped(following, last.output)
            self._start(inner, plan, frame.path(plan.name, following), looped=True)

    def _attempt(self, frame: Frame, plan: StepPlan, step: StepState, *, deadline_ms: int, drain: bool) -> None:
        if step.phase == "BackingOff":
            self._back_off(plan, step, drain=drain)
        elif step.inputs is None:
            if drain:
                self._fail(step.path, step.attempt, _CANCELLED)
            else:
                self._inputs(frame, plan, step.path, attempt=step.attempt)
        elif step.inputs.error is not None:
            self._attempt_failed(plan, step, step.inputs.error, drain=drain)
        else:
            self._advance(frame, plan, step, deadline_ms=_earliest(step.deadline, deadline_ms), drain=drain)

    def _advance(self, frame: Frame, plan: StepPlan, step: StepState, *, deadline_ms: int, drain: bool) -> None:
        evaluator = PlaceEvaluator(self.state, frame)
        attempt = Attempt(step, step.path, deadline_ms, evaluator, self.now_ms, self.state.signals)
        try:
            result = kinds.of(plan).advance(plan.definition, attempt)
        except StepError as error:
            result = Failed(_expression_failed(error))
        if isinstance(result, Enter):
            result = self._enter(frame, step, result, attempt, drain=drain)
        elif result is None:
            result = self._wait(step, attempt, drain=drain)
        if isinstance(result, Succeeded):
            self._succeed(step, result.output)
        elif isinstance(result, Failed):
            self._attempt_failed(plan, step, result.error, drain=drain)

    def _wait(self, step: StepState, attempt: Attempt, *, drain: bool) -> Result | None:
        """Ask for the attempt's calls, or only for those that are open when nothing new may begin."""
        opened = [call for call in attempt.wanted if attempt.recorded(call.id.index)]
        if drain:
            self.calls += opened
            return None if opened else Failed(_CANCELLED)
        if self._overdue(step) and step.calls and not opened:
            return _timed_out()
        self.records += attempt.records
        self.calls += attempt.wanted
        self._wake(attempt.wake_at_ms or 0)
        return None

    def _enter(self, frame: Frame, step: StepState, enter: Enter, attempt: Attempt, *, drain: bool) -> Result | None:
        overdue = self._overdue(step)
        if not (drain or overdue):
            self.records += attempt.records
            if attempt.records:
                return None
            self._wake(step.deadline)
        inner = frame.enter(self.plan.blocks[enter.block], step.path, error=enter.error)
        match self.body(inner, deadline_ms=attempt.deadline_ms, drain=drain or overdue):
            case Succeeded(output):
                return Succeeded(enter.wrap(output))
            case Failed(error) as failure:
                # What failed because of the deadline was cancelled; what failed before it, or while it passed, says so.
                return _timed_out() if overdue and error.error_class == ErrorClass.CANCELLED else failure
            case Unfinished.DRAINED:
                return _timed_out() if overdue else Failed(_CANCELLED)
            case _:
                return None

    # Steps that end.

    def _succeed(self, step: StepState, output: Any) -> None:
        self._record(EntryKind.STEP_SUCCEEDED, step.path, step.attempt, {"output": output})

    def _attempt_failed(self, plan: StepPlan, step: StepState, error: CallError, *, drain: bool) -> None:
        if not drain and _may_retry(plan, step, error):
            data = {"error": error.as_data(), "final": False}
            self._record(EntryKind.STEP_FAILED, step.path, step.attempt, data)
            return
        # An iteration's failure is its step's to handle.
        looped = plan.spec.repeat is not None
        self._fail(step.path, step.attempt, error, then=None if drain or looped else plan.spec.on_error)

    def _fail(self, path: Path, attempt: int, error: CallError, *, then: Any = None) -> None:
        data: dict[str, Any] = {"error": error.as_data(), "final": True}
        if then is not None and then.action == "Continue":
            data["onError"] = "Continue"
        elif then is not None and then.block is not None:
            data |= {"onError": "Block", "final": False}
        self._record(EntryKind.STEP_FAILED, path, attempt, data)

    def _back_off(self, plan: StepPlan, step: StepState, *, drain: bool) -> None:
        if drain:
            self._fail(step.path, step.attempt, _CANCELLED)
        elif step.wake_at is None:
            wait_ms = backoff_ms(
                plan.retry,
                tries=step.tries,
                key=jitter_key(self.state.run_uid, step.path, step.attempt),
                retry_after_ms=step.error.retry_after_ms if step.error else 0,
            )
            data = {"wakeAt": self.now_ms + wait_ms, "purpose": "BackOff"}
            self._record(EntryKind.TIMER_SET, step.path, step.attempt, data)
        elif self.now_ms < step.wake_at:
            self._wake(step.wake_at)
        else:
            container = plan.spec.repeat is not None and "#" not in step.path.rpartition("/")[2]
            self._attempt_starts(step.path, step.attempt + 1, 0 if container else plan.timeout_seconds)

    def _overdue(self, step: StepState) -> bool:
        return bool(step.deadline) and self.now_ms >= step.deadline

    def _wake(self, at_ms: int) -> None:
        self.wake_at_ms = _earliest(at_ms, self.wake_at_ms or 0) or None

    def _record(self, kind: EntryKind, path: Path, attempt: int, data: Mapping[str, Any]) -> None:
        self.records.append(Draft(kind, path, attempt, data))


def _ready(frame: Frame, here: BodyState, state: RunState) -> Iterator[StepPlan]:
    """Yield the steps of a list that may start now."""
    body: Body = frame.body
    if body.order == "Sequence":
        if not here.open:
            yield body.sequence[len(here.settled)]
        return
    for plan in body.sequence:
        if plan.name in here.open or plan.name in here.settled:
            continue
        done = sum(need in here.settled for need in plan.needs)
        if done == len(plan.needs) or (plan.join == "Any" and done and _one_succeeded(frame, plan, state)):
            yield plan


def _one_succeeded(frame: Frame, plan: StepPlan, state: RunState) -> bool:
    steps = (state.steps.get(frame.path(need)) for need in plan.needs)
    return any(step is not None and step.phase == "Succeeded" for step in steps)


def _may_retry(plan: StepPlan, step: StepState, error: CallError) -> bool:
    allowed = plan.retry.error_classes if plan.retry.error_classes is not None else RETRIED_BY_DEFAULT
    return step.tries <= plan.retry.limit and error.error_class in allowed and error.error_class not in NEVER_RETRIED


def _evaluate(evaluate: Callable[[], Any]) -> Evaluation:
    try:
        return Evaluation(evaluate())
    except StepError as error:
        return Evaluation(error=_expression_failed(error))


def _expression_failed(error: StepError) -> CallError:
    return CallError(ErrorClass.INVALID.value, "ExpressionFailed", error.message)


def _evaluated(purpose: str, value: Evaluation) -> dict[str, Any]:
    data = {"purpose": purpose, "value": value.value}
    return data | ({"error": value.error.as_data()} if value.error else {})


def _timed_out() -> Failed:
    return failed(ErrorClass.TIMEOUT, "the step did not finish within its timeoutSeconds")


def _earliest(one_ms: int, other_ms: int) -> int:
    """Return the earlier of two times; 0 stands for never."""
    return min(one_ms, other_ms) if one_ms and other_ms else one_ms or other_ms
