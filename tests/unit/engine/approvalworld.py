"""A world in which people are asked: approvals of runs that an engine drives, with the real gate."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.unit.engine.childworld import MODEL
from tests.unit.engine.fakes import FakeAuthorizer, workflow
from tests.unit.engine.runworld import World, run_object, uid_of

from fairlead.api.policy import Policy
from fairlead.engine.engine import WorkflowEngine
from fairlead.engine.gate import Gate
from fairlead.engine.roster import Standing
from fairlead.flow.calls import Call, Outcome
from fairlead.flow.state import RunState

SIGN = {"name": "sign", "approval": {"message": "Go on?", "from": {"users": ["alice"], "groups": ["oncall"]}}}
RULE = {
    "name": "oncall",
    "when": "call.effect == 'Irreversible'",
    "then": "RequireApproval",
    "message": "is it meant?",
    "approval": {"from": {"users": ["alice"]}},
}


class Desk:
    """The Approvals of a cluster. `observe` is told of changes, as an informer would."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.observe: Callable[[str], None] = lambda name: None
        self.made: list[str] = []
        self.guarded = True
        self.errors: list[Exception] = []

    def approval(self, name: str) -> Mapping[str, Any] | None:
        return self.objects.get(name)

    async def create_approval(self, approval: Mapping[str, Any]) -> Mapping[str, Any]:
        if self.errors:
            raise self.errors.pop()
        name = approval["metadata"]["name"]
        if name not in self.objects:
            self.made.append(name)
            self.objects[name] = {"metadata": {**approval["metadata"], "uid": f"uid-{name}"}, "spec": approval["spec"]}
            asyncio.get_running_loop().call_soon(self.observe, name)
        return self.objects[name]

    async def refuses_forgery(self, approval: Mapping[str, Any]) -> bool:
        return self.guarded

    def decide(self, name: str, decision: str = "Approve", by: str = "alice", reason: str = "fine") -> None:
        obj = self.objects[name]
        said = [*obj["spec"].get("decisions", ()), {"by": by, "decision": decision, "reason": reason}]
        self.objects[name] = {**obj, "spec": {**obj["spec"], "decisions": said}}
        self.observe(name)


class Asked(World):
    """A world whose people are at a desk; the gate is the real one."""

    def __init__(self, path: Path, *steps: dict[str, Any]) -> None:
        super().__init__(path, workflow(*steps))
        self.desk = self.people = Desk()
        self.sent: list[Call] = []
        self.begun: list[str] = []
        self.held: dict[str, asyncio.Event] = {}
        """By path: calls that are answered when this is set."""
        self.answers: Callable[[Call, float], Outcome] = lambda call, seconds: Outcome(result={"text": call.function})
        self.gate = Gate(
            self.resources,
            FakeAuthorizer(),
            self,  # type: ignore[arg-type]  # a fake of the adapters
            self,  # type: ignore[arg-type]
            self.clock,
            creator=self,  # type: ignore[arg-type]
        )

    async def call(
        self, name: str, target: Any, call: Call, *_: Any, timeout_seconds: float = 0.0, **__: Any
    ) -> Outcome:
        self.begun.append(call.id.path)
        if held := self.held.get(call.id.path):
            await held.wait()
        self.sent.append(call)
        return self.answers(call, timeout_seconds)

    def asks_for(self, *arguments: str) -> list[str]:
        """Have an agent call `send` with each of these in one turn; what it hears is in the list, once it has ended."""
        heard: list[str] = []
        asks = [{"id": str(n), "name": "desk__send", "arguments": one} for n, one in enumerate(arguments)]

        def answer(call: Call, seconds: float) -> Outcome:
            if call.function:
                return Outcome(result={"text": call.function})
            heard[:] = [message["content"] for message in call.request["messages"] if message["role"] == "tool"]
            return Outcome(result={"content": "done", "toolCalls": [] if heard else asks})

        self.answers = answer
        self.resources.models["m"] = MODEL
        agent = {"name": "after", "agent": {"model": "m", "prompt": "Send it.", "tools": [{"tool": "desk"}]}}
        self.resources.workflows["w"] = workflow(agent)
        return heard

    async def asks(self, engine: WorkflowEngine, many: int = 1) -> list[str]:
        """Wait until so many approvals were made; from then on the engine hears of decisions."""
        self.people.observe = engine.approvals.observe
        await self.until(lambda: len(self.people.made) >= many)
        return self.people.made

    def told(self, name: str) -> tuple[str, str] | None:
        statuses = self.sink.of(name, "Approval")
        return (lambda c: (c["status"], c["reason"]))(statuses[-1]["conditions"][0]) if statuses else None


def requested(**spec: Any) -> dict[str, Any]:
    return run_object(requestedBy="carol", **spec)


def parked(engine: WorkflowEngine, raw: dict[str, Any]) -> bool:
    run = engine.runs.roster.get(uid_of(raw))
    return run is not None and run.standing is Standing.PARKED


def reason_of(state: RunState) -> str:
    assert state.terminal is not None
    return state.terminal.reason


def ruled(*calls: dict[str, Any], mode: str = "Enforce", **rules: Any) -> dict[str, Policy]:
    """Return the Policy `p` with these rules about calls, and others."""
    spec = {"mode": mode, "rules": {"calls": list(calls), **rules}}
    return {"p": Policy.model_validate({"metadata": {"name": "p"}, "spec": spec})}
