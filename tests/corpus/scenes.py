"""The runs of the corpus, in a world that is the same when they are recorded and when they go on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_DNS, uuid5

from tests.unit.engine.approvalworld import Desk
from tests.unit.engine.childworld import ChildWorld, child_step
from tests.unit.engine.fakes import tool_step
from tests.unit.engine.runworld import killed, open_engine, run_object
from tests.unit.examples.test_patterns import RUNS, SIGNALS
from tests.unit.examples.test_patterns import workflow as pattern

from fairlead.engine.engine import WorkflowEngine
from fairlead.engine.plans import Plans
from fairlead.engine.reading import read_back
from fairlead.engine.store import Store
from fairlead.flow.calls import Call, CallError, CallKind, Outcome
from fairlead.flow.state import RunState
from fairlead.policy.permission import function_permission

Step = dict[str, Any]

SCHEMA = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}
SIGN = {"message": "Go on?", "from": {"users": ["alice"]}, "requester": "Allowed"}
SPEAK = {
    "model": "m",
    "prompt": "say",
    "output": {"schema": SCHEMA, "rules": [{"expression": "output.n > 1", "message": "more"}], "revisions": 2},
}
CHOICES = [{"name": "long", "description": "long", "block": "pair"}, {"name": "short", "description": "short"}]
KITCHEN: list[Step] = [
    tool_step("read"),
    tool_step("keyed", "put", retry={"limit": 2, "errorClasses": ["Unavailable"]}),
    {"name": "speak", "generate": SPEAK},
    {
        "name": "act",
        "agent": {"model": "m", "prompt": "act", "tools": [{"tool": "desk", "functions": ["read", "send"]}]},
    },
    {"name": "way", "route": {"value": "x", "choices": CHOICES, "model": "m", "otherwise": "short"}},
    {"name": "check", "validate": {"value": {"n": 1}, "schema": SCHEMA}},
    {"name": "each", "forEach": {"items": [1, 2, 3], "maxParallel": 2, "onItemFailure": "Continue"}, "block": "pair"},
    {"name": "again", "repeat": {"until": "iteration == 2", "maxIterations": 3}, **tool_step("again", "put")},
    {"name": "both", "parallel": {"blocks": ["pair", "single"]}},
    child_step("child"),
    {"name": "sign", "approval": SIGN},
    {"name": "never", "when": "false", "transform": {"value": 1}},
    {"name": "nap", "wait": {"seconds": 1}},
    tool_step("broken", "send", onError={"block": "single"}),
]
BLOCKS = [
    {"name": "pair", "steps": [tool_step("one"), tool_step("two", "put")]},
    {"name": "single", "steps": [{"name": "value", "transform": {"value": "$( input.n )"}}]},
]
SIGNAL = {"name": "go", "data": {"n": 4}, "by": "alice"}
LATER: dict[str, list[Step]] = {
    "signalled": [tool_step("first", "send"), {"name": "ask", "wait": {"signal": {"name": "go", "schema": SCHEMA}}}],
    "asked": [tool_step("first", "send"), {"name": "sign", "approval": SIGN}, tool_step("last", "send")],
    "asleep": [tool_step("first", "send"), {"name": "nap", "wait": {"seconds": 3600}}, tool_step("last", "send")],
    "paused": [{"name": "ask", "wait": {"signal": {"name": "go"}}}, tool_step("last", "send")],
    "reading": [tool_step("first", "send"), tool_step("slow", "read"), tool_step("last", "send")],
    "sending": [tool_step("slow", "send"), tool_step("last", "send")],
}
"""The Workflows of the runs that are open at the end of the record, and what they do."""


class Scene(ChildWorld):
    """Everything around the engine: tools and models answer by the call alone, alice approves what she is asked."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.declare(*KITCHEN, name="kitchen", blocks=BLOCKS, **{"finally": "single"})
        self.declare(tool_step("a"), tool_step("b", "send"), name="denied")
        self.declare(tool_step("a"), name="strict", input={"schema": SCHEMA})
        for name, steps in LATER.items():
            self.declare(*steps, name=name)
        self.resources.workflows |= {name: pattern(name, name) for name in {name for name, *_ in RUNS}}
        self.desk = self.people = Desk()
        self.slow: list[str] | None = None
        self.all_slow = asyncio.Event()
        self.servers.answer = self.answers

    def object(self, name: str, workflow: str, **spec: Any) -> dict[str, Any]:
        """Return a run of this name; its UID follows from the name."""
        made = run_object(workflow=workflow, **spec)
        return made | {"metadata": made["metadata"] | {"name": name, "uid": str(uuid5(NAMESPACE_DNS, name))}}

    async def pass_time(self, engine: WorkflowEngine, true: Callable[[], bool]) -> None:
        """Let the clock run until something holds."""
        async with asyncio.timeout(20):
            while not true():
                self.clock.now += 100
                engine.runs.wake()
                await asyncio.sleep(0.005)

    async def stands(self, name: str, reason: str) -> None:
        """Wait until a run says what it is doing."""
        await self.until(lambda: (self.succeeded(name) or ("", ""))[1] == reason)

    async def answers(self, call: Call) -> Outcome:
        """Answer a call: some are slow, some fail."""
        if call.id.path == "slow" and self.slow is not None:
            self.slow.append(call.function)
            if len(self.slow) == len(HANGING):
                self.all_slow.set()
            await asyncio.Event().wait()
        if call.id.path == "broken" or call.id.path == "each[1]/one":
            return Outcome(error=CallError("ToolError", "ToolError", "it went wrong"))
        if call.id.path == "keyed" and call.id.attempt == 1:
            return Outcome(error=CallError("Unavailable", "Unavailable", "not now"))
        if call.kind is CallKind.CHAT:
            return Outcome(result=_said(call), input_tokens=11, output_tokens=7)
        return Outcome(result={"text": call.function})


def _said(call: Call) -> dict[str, Any]:
    if call.id.path == "act" and call.id.index.turn == 0:
        asked = [{"id": f"c{n}", "name": f"desk__{name}", "arguments": "{}"} for n, name in enumerate(("read", "send"))]
        return {"content": "", "toolCalls": asked}
    words = {"speak": {"n": 1 + call.id.index.turn + call.id.index.repair}, "way": {"choice": "long"}}.get(call.id.path)
    return {"content": json.dumps(words) if words else "done", "toolCalls": []}


async def record(scene: Scene) -> None:
    """Run everything to where the corpus has it: most to an end, some to a wait, two to a crash in a call."""
    async with scene.serving() as engine:
        scene.people.observe = engine.approvals.observe
        for number, (name, given, _) in enumerate(RUNS):
            await _ends(engine, scene.object(f"{name}-{number}", name, input=given, signals=SIGNALS.get(name, [])))
        kitchen = engine.submit(scene.object("kitchen", "kitchen", input={"n": 1}, requestedBy="carol"))
        await scene.pass_time(engine, lambda: len(scene.people.made) == 1)
        scene.people.decide(scene.people.made[0])
        await scene.pass_time(engine, kitchen.done)
        scene.grants.denied = set(function_permission("desk", "send"))
        await _ends(engine, scene.object("denied", "denied"))
        scene.grants.denied = set()
        for name, reason in WAITS.items():
            engine.submit(scene.object(name, name, requestedBy="carol"))
            await scene.stands(name, reason)
        await _ends(engine, scene.object("rejected", "strict"))
        cancelled = engine.submit(scene.object("cancelled", "signalled"))
        await scene.stands("cancelled", "WaitingForSignal")
        for name, workflow, state, reason in STEERED:
            engine.runs.observe(scene.object(name, workflow, desiredState=state))
            await scene.stands(name, reason)
        await asyncio.wait_for(cancelled, 20)
    scene.slow = []
    waiting = [scene.object(name, name, requestedBy="carol") for name in WAITS]
    hanging = [scene.object(name, name) for name in HANGING]
    async with killed(await open_engine(scene), scene.all_slow, *hanging, open_runs=waiting):
        pass


STEERED = [
    ("cancelled", "signalled", "Paused", "Paused"),
    ("cancelled", "signalled", "Running", "WaitingForSignal"),
    ("cancelled", "signalled", "Cancelled", "Cancelled"),
    ("paused", "paused", "Paused", "Paused"),
]
HANGING = ("reading", "sending")
WAITS = {
    "signalled": "WaitingForSignal",
    "asked": "WaitingForApproval",
    "asleep": "Sleeping",
    "paused": "WaitingForSignal",
}


async def go_on(scene: Scene) -> dict[str, str]:
    """Take the open runs over, give each what it waits for, and return how they ended, by name."""
    objects = [scene.object(name, name, requestedBy="carol") for name in LATER]
    async with scene.serving(*objects) as engine:
        scene.people.observe = engine.approvals.observe
        await scene.until(lambda: len(scene.people.objects) > 0)
        for name in scene.people.objects:
            scene.people.decide(name)
        await scene.stands("asked", "Completed")
        for name in ("signalled", "paused"):
            told = scene.object(name, name, requestedBy="carol", signals=[SIGNAL], desiredState="Running")
            engine.runs.observe(told)
        scene.clock.now += 7_200_000
        engine.runs.wake()
        await scene.until(lambda: all((scene.succeeded(name) or ("Unknown",))[0] != "Unknown" for name in LATER))
    return {name: (scene.succeeded(name) or ("", ""))[1] for name in LATER}


async def _ends(engine: WorkflowEngine, raw: dict[str, Any]) -> None:
    await asyncio.wait_for(engine.submit(raw), 20)


async def summaries(path: Path) -> dict[str, Any]:
    """Return what each run of a store has come to, by name."""
    store = await Store.open(path, clock=lambda: 0)
    try:
        plans = Plans(store)
        return {row.name: summary((await read_back(store, plans, row.uid)).state) for row in await store.runs()}
    finally:
        await store.close()


def summary(state: RunState) -> dict[str, Any]:
    """Return what a run came to, as JSON."""
    end = state.terminal
    return {
        "sequence": state.seq,
        "end": [end.kind.value, end.reason, end.message, end.output] if end else None,
        "steps": {path: [step.phase, step.attempt, step.output] for path, step in state.steps.items()},
        "signals": [[signal.name, signal.taken] for signal in state.signals],
        "approvals": [approval.decision for approval in state.approvals.values()],
        "calls": [state.usage.model_calls, state.usage.tool_calls, state.denials],
    }
