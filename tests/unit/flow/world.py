"""A small deterministic world for the functional core: it answers calls, keeps a journal, and can stop anywhere.

It stands in for engine and gate: decisions are reduced to `offered`, loops and a table; a call's answer is a function
of the call alone; time passes only when nothing else can happen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from fairlead.api.model import Model
from fairlead.api.reasons import DecidedReason
from fairlead.api.tool import Tool
from fairlead.api.workflow import Workflow, WorkflowSpec
from fairlead.flow.approvals import Verdict, decided, undecided
from fairlead.flow.calls import Call, CallError, CallId, CallIndex, CallKind, FromPod, Outcome
from fairlead.flow.children import child_name, child_outcome, child_spec
from fairlead.flow.journal import SEMANTICS, Draft, Entry, EntryKind, Path, RunUid
from fairlead.flow.labels import TRUSTED, Label, returned, written
from fairlead.flow.next import what_next
from fairlead.flow.plan import Plan, compile_plan
from fairlead.flow.recover import open_calls, recover
from fairlead.flow.runstate import ApprovalState, Terminal, Usage
from fairlead.flow.state import RunState, StepState, apply, new_state, repeats_of

UID = RunUid("5b0c7f5e-0000-4000-8000-000000000001")
START_MS = 1_000_000

Answer = Callable[[Call], Any]


class Stopped(Exception):
    """The process died after the entry that it was told to die after."""


@dataclass
class Journal:
    """What survives a stop: the entries, and the time."""

    entries: list[Entry] = field(default_factory=list)
    now_ms: int = START_MS

    def append(self, draft: Draft) -> Entry:
        entry = Entry(UID, len(self.entries) + 1, self.now_ms, draft.kind, draft.path, draft.attempt, draft.data)
        self.entries.append(entry)
        return entry

    def fold(self) -> RunState:
        state = new_state()
        for entry in self.entries:
            state = apply(state, entry)
        return state

    def of(self, kind: EntryKind, path: str | None = None) -> list[Entry]:
        return [entry for entry in self.entries if entry.kind is kind and path in (None, entry.path)]


@dataclass
class World:
    """What there is and how it answers.

    `answer` returns the result of a call, or a CallError. `denied` names the functions that are not granted. `children`
    are the runs that were made, by name, with what they come to. `people` decide approvals, or leave them to expire.
    """

    answer: Answer = lambda call: {"text": "ok"}
    models: Mapping[str, Model] = field(default_factory=dict)
    tools: Mapping[str, Tool] = field(default_factory=dict)
    workflows: Mapping[str, Workflow] = field(default_factory=dict)
    denied: Mapping[str, str] = field(default_factory=dict)
    people: Callable[[ApprovalState], DecidedReason | None] = lambda approval: None
    call_ms: int = 10
    performed: list[Call] = field(default_factory=list)
    children: dict[str, Outcome] = field(default_factory=dict)

    def decide(self, state: RunState, call: Call) -> str | None:
        """Return why a call is denied."""
        if not call.offered:
            return "Invalid"
        if repeats_of(state, call) >= 2:
            return "LoopDetected"
        return self.denied.get(f"{call.target}.{call.function}" if call.function else call.target)

    def perform(self, call: Call) -> Outcome:
        self.performed.append(call)
        answer = self.answer(call)
        if isinstance(answer, CallError):
            return Outcome(error=answer, duration_ms=self.call_ms)
        tokens = 0 if call.kind is CallKind.TOOL else 7
        return Outcome(result=answer, input_tokens=tokens, output_tokens=tokens, duration_ms=self.call_ms)

    def start(self, name: str, call: Call) -> None:
        """Make a child run, unless it is there."""
        if name not in self.children:
            self.children[name] = self.perform(call)

    def effect(self, call: Call) -> tuple[str, bool]:
        if call.kind is CallKind.WORKFLOW:
            return "Irreversible", True
        if call.kind is not CallKind.TOOL:
            return "Read", False
        functions = self.tools[call.target].spec.functions if call.target in self.tools else []
        function = next((function for function in functions if function.name == call.function), None)
        return (function.effect, function.idempotency is not None) if function else ("Irreversible", False)

    def brings(self, call: Call) -> Label:
        """Return the label of what a call brings; a world without contracts has none."""
        if call.kind is not CallKind.TOOL or call.target not in self.tools:
            return TRUSTED
        functions = self.tools[call.target].spec.functions
        function = next((function for function in functions if function.name == call.function), None)
        return returned(function) if function is not None and function.returns is not None else TRUSTED

    def effects(self) -> list[tuple[str, str, str]]:
        """Return the calls that were performed and do more than read: path, index, function."""
        return sorted(
            (call.id.path, f"{call.id.attempt}/{call.id.index}", f"{call.target}.{call.function}")
            for call in self.performed
            if self.effect(call)[0] != "Read"
        )


@dataclass
class Driver:
    """The loop around `what_next`: one process's life.

    It dies when the journal has `stop_after` entries, or `late`: when it is about to write the one after them, so that
    a call may have been made whose outcome is lost.
    """

    plan: Plan
    world: World
    journal: Journal
    stop_after: int | None = None
    late: bool = False
    asked: int = 0

    def __post_init__(self) -> None:
        self.state = self.journal.fold()

    def append(self, draft: Draft) -> None:
        if self.late and self._full():
            raise Stopped
        self.state = apply(self.state, self.journal.append(draft))
        if not self.late and self._full():
            raise Stopped

    def _full(self) -> bool:
        return self.stop_after is not None and len(self.journal.entries) >= self.stop_after

    def run(self, *, until_ms: int | None = None) -> RunState:
        for draft in recover(self.state):
            self.append(draft)
        while self.state.terminal is None:
            following = what_next(self.plan, self.state, self.journal.now_ms, self.world)
            self.asked += 1
            for draft in following.records:
                self.append(draft)
            if following.records:
                continue
            if following.calls:
                self.call(following.calls)
            elif self._a_child_ends() or self._people_decide():
                pass
            elif following.wake_at_ms is None or (until_ms is not None and following.wake_at_ms > until_ms):
                return self.state
            else:
                self.journal.now_ms = max(self.journal.now_ms, following.wake_at_ms)
        return self.state

    def call(self, calls: tuple[Call, ...]) -> None:
        """Pass the gate with every call that has not; else let the first one answer."""
        undecided = [call for call in calls if self.open(call) is None]
        for call in undecided:
            self._decide(call)
        call = next((call for call in calls if self.open(call) == "open"), None)
        if undecided or call is None:
            return
        if call.kind is CallKind.WORKFLOW:
            name = child_name(UID, call)
            self.world.start(name, call)
            data = {"index": str(call.id.index), "name": name, "uid": f"uid-of-{name}"}
            self.append(Draft(EntryKind.CHILD_STARTED, call.id.path, call.id.attempt, data))
            return
        if call.kind is CallKind.CONTAINER:
            asked = self._asks(call)
            if asked is not None and self.open(asked) is None:
                self._decide(asked)
                return
            heard = [one.result for one in self.state.steps[call.id.path].calls.values() if one.settled]
            call = asked or (replace(call, request={**call.request, "heard": heard}) if heard else call)
        outcome = self.world.perform(call)
        label = self.world.brings(call)
        late = call.deadline_ms and self.journal.now_ms + self.world.call_ms > call.deadline_ms
        self.journal.now_ms += self.world.call_ms
        outcome = Outcome(error=CallError("Timeout", "Timeout", "too late")) if late else outcome
        self.append(outcome_of(call, outcome, label))

    def _asks(self, own: Call) -> Call | None:
        """Return what a container asks for that has no outcome: every function that its step names, one by one.

        What it says in it is made of what it has heard so far.
        """
        step = self.state.steps[own.id.path]
        names = [(one["tool"], name) for one in own.request.get("tools", ()) for name in one["functions"]]
        for number, (target, function) in enumerate(names, start=1):
            index = CallIndex(number)
            heard = [step.calls[f"{before}.0.0"].result for before in range(1, number)]
            asked = Call(
                CallId(own.id.path, own.id.attempt, index),
                CallKind.TOOL,
                target,
                function,
                {"arguments": {"q": number, "heard": heard}},
                deadline_ms=own.deadline_ms,
                label=step.context,
                nth=0,
                pod=FromPod(len(names)),
            )
            if self.open(asked) != "settled":
                return asked
        return None

    def _a_child_ends(self) -> bool:
        """Let the first child run that is waited for end, if there is any."""
        for path, call in open_calls(self.state):
            if call.child is not None and call.child.name in self.world.children:
                ended = run_of(self.world.children[call.child.name])
                self.journal.now_ms += self.world.call_ms
                self.append(child_outcome(path, self.state.steps[path].attempt, call, ended))
                return True
        return False

    def _people_decide(self) -> bool:
        """Let people decide the first approval about which they have an opinion."""
        for approval in undecided(self.state.approvals.values()):
            decision = self.world.people(approval)
            if decision is not None:
                self.append(decided(approval, Verdict(decision, ["bob"], "so be it")))
                return True
        return False

    def open(self, call: Call) -> str | None:
        step = self.state.steps[call.id.path]
        known = step.calls.get(str(call.id.index))
        return None if known is None else "settled" if known.settled else "open"

    def _decide(self, call: Call) -> None:
        reason = self.world.decide(self.state, call)
        named = {
            "index": str(call.id.index),
            "kind": call.kind.value,
            "target": call.target,
            "function": call.function,
            "digest": call.digest,
        }
        if reason is not None:
            data = named | {"reason": reason, "stage": "5", "message": "no"}
            self.append(Draft(EntryKind.CALL_DENIED, call.id.path, call.id.attempt, data))
            return
        effect, keyed = self.world.effect(call)
        data = named | {"effect": effect} | ({"key": call.idempotency_key(UID)} if keyed else {})
        if call.kind is CallKind.WORKFLOW:
            spec = child_spec(self.plan.limits, self.state, call, now_ms=self.journal.now_ms)
            data["child"] = {"name": child_name(UID, call), "spec": spec}
        self.append(Draft(EntryKind.CALL_INTENT, call.id.path, call.id.attempt, data))


def run_of(outcome: Outcome) -> RunState:
    """Return the state of a child run that came to this."""
    state = new_state()
    state.usage = Usage(steps=3, model_calls=1, tool_calls=2, input_tokens=7, output_tokens=7)
    error = outcome.error
    kind = EntryKind.RUN_FAILED if error else EntryKind.RUN_SUCCEEDED
    reason = error.error_class if error else "Completed"
    state.terminal = Terminal(kind, reason, error.message if error else "", output=outcome.result)
    return state


def outcome_of(call: Call, outcome: Outcome, label: Label = TRUSTED) -> Draft:
    data: dict[str, Any] = written(label) | {
        "index": str(call.id.index),
        "status": "Failed" if outcome.error else "Succeeded",
        "durationMs": outcome.duration_ms,
        "usage": {"inputTokens": outcome.input_tokens, "outputTokens": outcome.output_tokens},
    }
    data |= {"error": outcome.error.as_data()} if outcome.error else {"result": outcome.result}
    return Draft(EntryKind.CALL_OUTCOME, call.id.path, call.id.attempt, data)


def plan_of(steps: list[dict[str, Any]], **spec: Any) -> Plan:
    return compile_plan("flow", "sha256:" + "0" * 64, WorkflowSpec.model_validate({"steps": steps, **spec}))


def accepted(plan: Plan, given: Any = None, *, timeout_seconds: int = 86_400, **more: Any) -> Journal:
    journal = Journal()
    data = {
        "workflow": plan.name,
        "namespace": "team",
        "name": "run",
        "revision": plan.revision,
        "generation": 1,
        "semantics": SEMANTICS,
        "input": given,
        "account": "robot",
        "createdAt": START_MS,
        "deadline": START_MS + timeout_seconds * 1000,
        **more,
    }
    journal.append(Draft(EntryKind.RUN_ACCEPTED, data=data))
    return journal


def drive(plan: Plan, world: World, given: Any = None, *, timeout_seconds: int = 86_400) -> Driver:
    """Run to the end."""
    driver = Driver(plan, world, accepted(plan, given, timeout_seconds=timeout_seconds))
    driver.run()
    return driver


def run_steps(steps: list[dict[str, Any]], answer: Answer | None = None, given: Any = None, **spec: Any) -> Driver:
    """Run a workflow of these steps to the end."""
    return drive(plan_of(steps, **spec), World(answer=answer) if answer else World(), given)


def step(state: RunState, path: str) -> StepState:
    return state.steps[Path(path)]


def model(*capabilities: str, api: str = "OpenAIChat") -> Model:
    endpoint = {"api": api, "url": "http://models.example", "model": "m"}
    spec = {"endpoint": endpoint, "capabilities": list(capabilities)}
    return Model.model_validate({"metadata": {"name": "m"}, "spec": spec})


def tool(*functions: dict[str, Any]) -> Tool:
    spec = {"mcp": {"url": "http://tools.example/mcp"}, "functions": list(functions)}
    return Tool.model_validate({"metadata": {"name": "t"}, "spec": spec})


def workflow_named(name: str, **spec: Any) -> Workflow:
    spec = {"description": f"The {name}.", "steps": [{"name": "a", "transform": {"value": 1}}]} | spec
    return Workflow.model_validate({"metadata": {"name": name}, "spec": spec})


def chat(content: str = "", *calls: tuple[str, str]) -> dict[str, Any]:
    """Return a model's answer: text, or calls as (name, arguments)."""
    asked = [{"id": f"c{n}", "name": name, "arguments": arguments} for n, (name, arguments) in enumerate(calls)]
    return {"content": content, "toolCalls": asked}


def error(error_class: str, reason: str = "", *, retry_after_ms: int = 0) -> CallError:
    return CallError(error_class, reason or error_class, "it went wrong", retry_after_ms)
