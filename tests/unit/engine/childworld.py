"""A world for parents and children: the real gate, and a cluster that makes runs and tells the engine of them."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.unit.engine.fakes import FakeAuthorizer, tool_step, workflow
from tests.unit.engine.runworld import World, killed, open_engine, run_object, uid_of

from fairlead.api.model import Model
from fairlead.api.tool import Tool
from fairlead.engine.engine import WorkflowEngine
from fairlead.engine.gate import Gate
from fairlead.flow.calls import Call, Outcome
from fairlead.flow.journal import Entry, EntryKind, RunUid
from fairlead.policy.decision import Authorization
from fairlead.policy.permission import Permission, workflow_permission

INVOKE = workflow_permission("c")[0]
MODEL = Model.model_validate(
    {
        "metadata": {"name": "m", "namespace": "team"},
        "spec": {
            "endpoint": {"api": "OpenAIChat", "url": "https://8.8.8.8/v1", "model": "m"},
            "capabilities": ["Tools"],
        },
    }
)

Answer = Callable[[Call], Awaitable[Outcome]]


async def at_once(call: Call) -> Outcome:
    return Outcome(result={"text": call.function})


class ChildCluster:
    """The WorkflowRuns of a cluster. `on_create` may fail, or hang before or after the object is there."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.observe: Callable[[Mapping[str, Any]], None] = lambda raw: None
        self.made: list[str] = []
        self.on_create: Callable[[str], Awaitable[None]] | None = None
        self.on_created: Callable[[str], Awaitable[None]] | None = None

    async def create_run(self, run: Mapping[str, Any]) -> Mapping[str, Any]:
        name, spec = run["metadata"]["name"], run["spec"]
        if self.on_create is not None:
            await self.on_create(name)
        if name not in self.objects:
            metadata = {"name": name, "namespace": "team", "uid": str(uuid.uuid4()), "generation": 1}
            self.objects[name] = {"metadata": metadata, "spec": dict(spec)}
            self.made.append(name)
            asyncio.get_running_loop().call_soon(self.observe, self.objects[name])
        if self.on_created is not None:
            await self.on_created(name)
        return self.objects[name]


class Grants(FakeAuthorizer):
    """Allows everything but what is `denied`."""

    def __init__(self) -> None:
        super().__init__()
        self.denied: set[Permission] = set()

    async def authorize(self, account: str, any_of: tuple[Permission, ...]) -> Authorization:
        self.asked.append((account, any_of))
        return Authorization("Denied", missing=any_of[0]) if set(any_of) <= self.denied else Authorization("Allowed")


class Servers:
    """Tools and Models: what they were asked, and what they answer."""

    def __init__(self) -> None:
        self.asked: list[Call] = []
        self.answer: Answer = at_once

    async def call(self, name: str, target: Tool | Model, call: Call, *_: Any, **__: Any) -> Outcome:
        self.asked.append(call)
        return await self.answer(call)

    def functions(self) -> list[str]:
        return [f"{call.id.path}:{call.function}" for call in self.asked]


class ChildWorld(World):
    """A parent `w` that runs `c` as its child."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, workflow(child_step("ask")), workflow(tool_step("a", "send"), name="c"))
        self.resources.workflows["c"] = workflow(tool_step("a", "send"), name="c", serviceAccountName="aide")
        self.resources.models["m"] = MODEL
        self.grants = self.authorizer = Grants()
        self.kube, self.servers = ChildCluster(), Servers()
        self.gate = Gate(
            self.resources,
            self.grants,
            self.servers,  # type: ignore[arg-type]  # a fake of the adapters
            self.servers,  # type: ignore[arg-type]
            self.clock,
            creator=self.kube,
            sleep=lambda seconds: asyncio.sleep(seconds / 10),
        )

    def declare(self, *steps: dict[str, Any], name: str = "w", **spec: Any) -> None:
        self.resources.workflows[name] = workflow(*steps, name=name, **spec)

    @asynccontextmanager
    async def serving(self, *raws: dict[str, Any]) -> AsyncIterator[WorkflowEngine]:
        """Serve these runs and all children that the cluster has."""
        objects = [*raws, *self.kube.objects.values()]
        async with self.engine(objects=objects) as engine:
            self.kube.observe = engine.runs.observe
            yield engine

    async def crash(self, begun: asyncio.Event, raw: dict[str, Any]) -> None:
        """Run until something has begun, then vanish as a killed process does."""
        engine = await open_engine(self)
        self.kube.observe = engine.runs.observe
        async with killed(engine, begun, raw):
            self.kube.observe = lambda raw: None

    @property
    def child(self) -> dict[str, Any]:
        (only,) = self.kube.objects.values()
        return only


def child_step(name: str, workflow: str = "c", **more: Any) -> dict[str, Any]:
    return {"name": name, "workflow": {"workflow": workflow}, **more}


def hang_once() -> tuple[asyncio.Event, Callable[..., Awaitable[Any]]]:
    """Return an event and what sets it and then hangs."""
    begun = asyncio.Event()

    async def hang(*_: Any) -> Any:
        begun.set()
        await asyncio.Event().wait()

    return begun, hang


def held() -> tuple[asyncio.Event, asyncio.Event, Answer]:
    """Return what says that a call has begun, what lets it go on, and the answer that does both."""
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def answer(call: Call) -> Outcome:
        begun.set()
        await go_on.wait()
        return Outcome(result={"text": call.function})

    return begun, go_on, answer


async def entries(engine: WorkflowEngine, raw: Mapping[str, Any], kind: EntryKind) -> list[Entry]:
    loaded = await engine.store.load(RunUid(raw["metadata"]["uid"]))
    return [entry for entry in loaded if entry.kind is kind]


__all__ = ["INVOKE", "ChildWorld", "child_step", "entries", "hang_once", "held", "run_object", "uid_of"]
