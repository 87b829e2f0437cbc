"""A world for the engine's tests: a clock that stands still, resources from dicts, a gate that does as it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fairlead.api.engine import EngineSpec
from fairlead.api.model import Model
from fairlead.api.policy import Policy
from fairlead.api.tool import Tool
from fairlead.api.workflow import Workflow
from fairlead.engine.log import RunLog
from fairlead.flow.calls import Call, CallKind
from fairlead.flow.journal import Draft, EntryKind
from fairlead.policy.decision import Authorization
from fairlead.policy.permission import Permission

T0 = 1_700_000_000_000
READY = {
    "type": "Ready",
    "status": "True",
    "reason": "Ready",
    "lastTransitionTime": "2026-01-01T00:00:00Z",
    "observedGeneration": 1,
}


class FakeClock:
    """Unix ms that pass only when told."""

    def __init__(self) -> None:
        self.now = T0

    def __call__(self) -> int:
        return self.now


def tool_step(name: str, function: str = "read", **more: Any) -> dict[str, Any]:
    return {"name": name, "tool": {"tool": "desk", "function": function}, **more}


def workflow(*steps: dict[str, Any], name: str = "w", status: Mapping[str, Any] | None = None, **spec: Any) -> Workflow:
    return Workflow.model_validate(
        {
            "metadata": {"name": name, "namespace": "team", "uid": f"uid-{name}", "generation": 1},
            "spec": {"serviceAccountName": "clerk", "steps": list(steps), **spec},
            "status": {"conditions": [READY]} if status is None else status,
        }
    )


DESK = Tool.model_validate(
    {
        "metadata": {"name": "desk", "namespace": "team"},
        "spec": {
            "mcp": {"url": "http://desk.example/mcp"},
            "functions": [
                {"name": "read", "effect": "Read"},
                {"name": "send", "effect": "Irreversible"},
                {"name": "put", "effect": "Reversible", "idempotency": {"header": "Idempotency-Key"}},
            ],
        },
    }
)


class FakeResources:
    """What is declared, as plain attributes."""

    def __init__(self, *workflows: Workflow) -> None:
        self.namespace = "team"
        self.workflows: dict[str, Workflow] = {item.metadata.name: item for item in workflows}
        self.tools: dict[str, Tool] = {"desk": DESK}
        self.models: dict[str, Model] = {}
        self.policies: dict[str, Policy] = {}
        self.policies_known = True
        self.isolation_broken = ""
        self.engine = EngineSpec()

    def address(self, kind: str, name: str) -> str:
        return f"http://{name}.example"

    def own(self, kind: str, name: str) -> bool:
        return False

    def credential(self, secret: str, key: str) -> str | None:
        return None


class FakeAuthorizer:
    """Allows everything until told otherwise."""

    def __init__(self) -> None:
        self.verdict = Authorization("Allowed")
        self.asked: list[tuple[str, tuple[Permission, ...]]] = []

    async def authorize(self, account: str, any_of: tuple[Permission, ...]) -> Authorization:
        self.asked.append((account, any_of))
        if self.verdict.verdict == "Denied":
            return Authorization("Denied", missing=any_of[0])
        return self.verdict


class FakeSink:
    """Remembers every status that was written, by name."""

    def __init__(self) -> None:
        self.written: list[tuple[str, str, dict[str, Any]]] = []
        self.errors: list[Exception] = []

    async def turn(self) -> None:
        pass

    async def write(self, kind: str, name: str, uid: str, status: Mapping[str, Any]) -> None:
        if self.errors:
            raise self.errors.pop(0)
        self.written.append((kind, name, dict(status)))

    def of(self, name: str, kind: str = "WorkflowRun") -> list[dict[str, Any]]:
        return [status for its_kind, its_name, status in self.written if (its_kind, its_name) == (kind, name)]


EFFECTS = {"read": "Read", "send": "Irreversible", "put": "Reversible", "": "Read"}  # a container has no function
Answer = Callable[[Call], Awaitable[dict[str, Any]]]


async def at_once(call: Call) -> dict[str, Any]:
    return {"result": {"text": call.function}}


class FakeGate:
    """Lets every call through: intent, the given answer, outcome. `dispatched` is what the world outside saw."""

    def __init__(self, answer: Answer = at_once) -> None:
        self.answer = answer
        self.dispatched: list[str] = []

    async def call(self, log: RunLog, call: Call) -> None:
        path, attempt, index = call.id.path, call.id.attempt, str(call.id.index)
        step = log.state.steps[path]
        if index not in step.calls:
            data = {"index": index, "kind": CallKind(call.kind).value, "target": call.target, "digest": call.digest}
            data |= {"function": call.function, "effect": EFFECTS[call.function]}
            if call.function == "put":
                data["key"] = call.idempotency_key(log.uid)
            log.note(Draft(EntryKind.CALL_INTENT, path, attempt, data))
        await log.durable()
        self.dispatched.append(f"{path}:{call.function}")
        try:
            answer = await self.answer(call)
        except asyncio.CancelledError:
            if EFFECTS[call.function] == "Read":
                error = {"class": "Cancelled", "reason": "Cancelled", "message": "the call was cancelled"}
                failed = {"index": index, "status": "Failed", "error": error, "durationMs": 0}
                log.append(Draft(EntryKind.CALL_OUTCOME, path, attempt, failed))
            raise
        status = "Failed" if "error" in answer else "Succeeded"
        log.append(
            Draft(EntryKind.CALL_OUTCOME, path, attempt, {"index": index, "status": status, "durationMs": 1, **answer})
        )
