"""What a step kind works with: one attempt of one step, as far as it has come, and the ways it can go on.

A kind is two pure functions in a module of its own. `inputs` evaluates everything the step needs, once. `advance`
looks at what was recorded of the attempt and says what is next: it either returns a result, or None after it has
asked for calls whose outcomes it waits for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from fairlead.api.approval import ApprovalTerms
from fairlead.api.model import Model
from fairlead.api.reasons import ErrorClass
from fairlead.api.tool import Tool
from fairlead.api.workflow import OutputRule, Workflow
from fairlead.errors import FairleadError
from fairlead.flow.approvals import expired, lacks_requester, request, undecided
from fairlead.flow.calls import Call, CallError, CallId, CallIndex, CallKind
from fairlead.flow.journal import Draft, EntryKind, Path
from fairlead.flow.labels import Label, written
from fairlead.flow.runstate import ApprovalState, CallState, RunState, SignalState, StepState
from fairlead.flow.scope import Reads


class ResourceView(Protocol):
    """The declared resources that planning looks at: what a model can do, what a Tool or Workflow offers."""

    @property
    def models(self) -> Mapping[str, Model]:
        """Return the namespace's Models by name."""
        ...

    @property
    def tools(self) -> Mapping[str, Tool]:
        """Return the namespace's Tools by name."""
        ...

    @property
    def workflows(self) -> Mapping[str, Workflow]:
        """Return the namespace's Workflows by name."""
        ...


class Nondeterminism(FairleadError):
    """What is asked now differs from what was recorded under the same call id: the run cannot be continued."""

    reason = "Nondeterminism"


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The attempt, or a list of steps, is done; `label` is what its output is known to have, None for the context's."""

    output: Any
    label: Label | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """The attempt has failed."""

    error: CallError


@dataclass(frozen=True, slots=True)
class Enter:
    """Run a block; `wrap` makes the step's output of the block's, `error` is what the block sees as `error`."""

    block: str
    wrap: Callable[[Any], Any]
    error: CallError | None = None


@dataclass(frozen=True, slots=True)
class Fork:
    """Run the branches of a parallel until so many have succeeded, or cannot any more."""

    needed: int


Result = Succeeded | Failed | Enter | Fork


class Evaluator(Protocol):
    """Evaluates what a step says at its place in the run. All of it raises ExpressionError.

    `at` is the field of the step where something stands, for errors.
    """

    @property
    def reads(self) -> Reads:
        """Return what has the label of all that was read."""
        ...

    def render(self, value: Any, at: str, /, **more: Any) -> Any:
        """Return a JSON value with its `$( )` segments evaluated; None stays None. `more` is in scope too."""
        ...

    def text(self, template: str, at: str) -> str:
        """Return a text with its `$( )` segments filled in."""
        ...

    def holds(self, expression: str, at: str) -> bool:
        """Return whether a bare expression is true."""
        ...

    def broken_rules(self, rules: list[OutputRule], output: Any) -> list[str]:
        """Return the messages of the rules that do not hold for this output."""
        ...


@dataclass(frozen=True, slots=True)
class Setting:
    """What a step's inputs depend on beside its own definition; read once, when the inputs are evaluated."""

    default_model: str
    resources: ResourceView

    def model(self, name: str | None) -> str:
        """Return the Model to call; the empty string when neither step nor Workflow names one: the gate denies it."""
        return name or self.default_model


@dataclass(slots=True)
class Attempt:
    """One attempt of one step.

    Attributes:
        state: what was recorded of it.
        path: where it stands.
        deadline_ms: the calls' deadline: the earliest of its own and all enclosing ones.
        evaluator: for the rules that look at an output.
        now_ms: Unix ms.
        run: the whole run, for what it was told and who requested it.
        wanted: the calls that should be in flight.
        records: what is to be journaled before it goes on.
        waits: a child run exists that has not ended, or people have not decided.
        wake_at_ms: when to look again, Unix ms; None for no such time.
    """

    state: StepState
    path: Path
    deadline_ms: int
    evaluator: Evaluator
    now_ms: int
    run: RunState
    wanted: list[Call] = field(default_factory=list)
    records: list[Draft] = field(default_factory=list)
    waits: bool = False
    wake_at_ms: int | None = None

    @property
    def inputs(self) -> Any:
        """Return what `inputs` evaluated."""
        return self.state.inputs.value if self.state.inputs else None

    def recorded(self, index: CallIndex) -> CallState | None:
        """Return a call that has an intent, an outcome or a denial already."""
        return self.state.calls.get(str(index))

    def reads(self, index: CallIndex) -> bool:
        """Tell whether a recorded call does no more than read; of a container, whether nothing that it called does."""
        known = self.recorded(index)
        if known is not None and known.kind is CallKind.CONTAINER:
            return all(call.effect in ("", "Read") or call.is_notice for call in self.state.calls.values())
        return known is not None and known.effect == "Read"

    def replayed(self, index: CallIndex) -> CallState | None:
        """Return a settled call that a later one was built upon: the later one's digest covers it."""
        known = self.recorded(index)
        if known is None or not known.settled:
            return None
        last = CallIndex.parse(next(reversed(self.state.calls)))
        return known if (last.turn, last.repair) > (index.turn, index.repair) else None

    def ask(
        self,
        kind: CallKind,
        target: str,
        request: Mapping[str, Any],
        *,
        index: CallIndex | None = None,
        function: str = "",
        offered: bool = True,
        label: Label | None = None,
        tells: ApprovalState | None = None,
        nth: int | None = None,
    ) -> CallState | None:
        """Return the settled call, or None after asking for it. `label` is what led to it, if not all of the step.

        What `tells` people of an approval has the time until that expires: the step's own stands still meanwhile.

        Raises:
            Nondeterminism: something else was recorded under this index.
        """
        index = index or CallIndex()
        call = Call(
            id=CallId(self.path, self.state.attempt, index),
            kind=kind,
            target=target,
            function=function,
            request=request,
            offered=offered,
            deadline_ms=tells.expires_at if tells is not None else self.deadline_ms,
            label=label if label is not None else self.state.context,
            tells=tells is not None,
            nth=nth,
        )
        known = self.recorded(index)
        if known is not None and known.digest and known.digest != call.digest:
            raise Nondeterminism(f"{self.path}: call {index} differs from the recorded one")
        if known is not None and known.settled:
            return known
        if known is not None and known.child is not None and known.child.uid:
            self.waits = True  # a row, not a call in flight: whoever sees the child's end records the outcome
        elif not self._telling(index) and not self.held(str(index)):
            self.wanted.append(call)
        return None

    @property
    def given(self) -> Label:
        """Return the label of what the step was begun with.

        That is all that leads to the call of a step that makes one: it is the same in every attempt, and that another
        attempt follows tells no more than that a call failed.
        """
        inputs = self.state.inputs
        return self.state.control.join(inputs.label) if inputs is not None else self.state.control

    def ask_people(self, terms: ApprovalTerms, message: str, *, notice: Mapping[str, Any] | None) -> bool:
        """Ask for the approval of the step itself; return False where nobody could give it.

        `notice` are the arguments, not evaluated yet, of the call that tells people of it.
        """
        accepted = self.run.accepted
        if lacks_requester(terms, accepted.requested_by if accepted else None):
            return False
        at = CallId(self.path, self.state.attempt, CallIndex())
        asked = request(self.run, at, terms, index="", message=message, now_ms=self.now_ms)
        if notice is not None:
            told = self.evaluator.render(notice, "approval.notify.arguments", approval={"name": asked.data["name"]})
            led = self.given.join(self.evaluator.reads.label)
            asked = replace(asked, data={**asked.data, "notice": told, **written(led)})
        self.records.append(asked)
        return True

    def tell(self, approval: ApprovalState, tool: str, function: str, *, index: CallIndex) -> bool:
        """Tell people once, while they have not decided; return whether that call has begun and not ended.

        How it ends is in the status and the audit. It changes nothing: who was not told can still decide.
        """
        begun = self.recorded(index) is not None
        if approval.notice is None or (approval.decision and not begun):
            return False
        request, label = {"arguments": approval.notice.value}, approval.notice.label
        call = self.ask(CallKind.TOOL, tool, request, index=index, function=function, label=label, tells=approval)
        return call is None and begun

    def _telling(self, index: CallIndex) -> bool:
        """Tell people of the approvals that a call waits for; return whether such a call has begun and not ended."""
        asked = [approval for approval in self.state.approvals.values() if approval.index == str(index)]
        under_way = [
            self.tell(approval, *approval.tells, index=replace(index, notice=nth))
            for nth, approval in enumerate(asked, start=1)
            if approval.tells is not None
        ]
        return any(under_way)

    def held(self, index: str) -> bool:
        """Tell whether people were asked about this call (or, with "", the step) and have not decided."""
        waiting = [approval for approval in undecided(self.state.approvals.values()) if approval.index == index]
        for approval in waiting:
            self.waits = True
            if self.now_ms >= approval.expires_at:
                self.records.append(expired(approval))
            else:
                self.wake_at_ms = min(self.wake_at_ms or approval.expires_at, approval.expires_at)
        return bool(waiting)

    def denied_because(self, index: CallIndex) -> str:
        """Return the reason of a person who did not approve a call, "" if none gave one."""
        asked = (approval for approval in self.state.approvals.values() if approval.index == str(index))
        return next((approval.reason for approval in asked if approval.decision == "Denied"), "")

    def findings(self, index: CallIndex, check: Callable[[], list[str]], *, again: bool = True) -> list[str]:
        """Return what is wrong with the answer of a call. It is checked once; what was found is journaled.

        Without `again`, that nothing is wrong is not journaled: the step then ends with this answer anyway.
        """
        found = self.state.findings.get(str(index))
        if found is None:
            found = check()
            if found or again:
                self.record("Findings", found, index=str(index))
        return found

    def take(self, name: str, check: Callable[[Any], list[str]]) -> SignalState | None:
        """Return the signal that the attempt has taken; None after it has taken one, or when there is none to take.

        A signal is taken by one step. What `check` finds wrong with another is journaled: this attempt ignores it.
        """
        if self.state.signal is not None:
            return self.run.signals[self.state.signal]
        for index, signal in enumerate(self.run.signals):
            if signal.taken or signal.ignored or signal.name != name or str(index) in self.state.findings:
                continue
            found = check(signal.data)
            if not found:
                self.record("Signal", index)
                return None
            self.record("Findings", found, index=str(index))
        return None

    def wait(self, wake_at_ms: int | None, *, signal: str) -> None:
        """Journal until when the step waits (None: no time of its own), and for which signal if for any."""
        data: dict[str, Any] = {"purpose": "Wait"} | ({"signal": signal} if signal else {})
        data |= {"wakeAt": wake_at_ms} if wake_at_ms is not None else {}
        self.records.append(Draft(EntryKind.TIMER_SET, self.path, self.state.attempt, data))

    def record(self, purpose: str, value: Any, **data: Any) -> None:
        """Journal a value that later steps of the attempt read."""
        data = {"purpose": purpose, "value": value, **data}
        self.records.append(Draft(EntryKind.EVALUATED, self.path, self.state.attempt, data))


def failed(error_class: ErrorClass, message: str, *, reason: str = "") -> Failed:
    """Return a failure; the reason is the class unless it says more."""
    return Failed(CallError(error_class.value, reason or error_class.value, message))
