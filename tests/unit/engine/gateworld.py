"""A run before the gate, for tests: real fold, fake log, authorizer and adapters, and ways to make things go wrong."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Iterable, Mapping
from types import SimpleNamespace
from typing import Any

from tests.unit.engine.declared import Declared, model, tool

from fairlead.api.canonical import canonical_json
from fairlead.api.model import Model
from fairlead.api.tool import Tool
from fairlead.api.workflow import Limits
from fairlead.engine.gate import Gate
from fairlead.engine.store.windows import Spent, Windows
from fairlead.flow.calls import Call, CallId, CallIndex, CallKind, Outcome
from fairlead.flow.journal import Draft, Entry, EntryKind, Path, RunUid
from fairlead.flow.spending import Spend, Window
from fairlead.flow.state import apply, new_state
from fairlead.policy.decision import Authorization
from fairlead.policy.permission import Permission
from fairlead.telemetry.metrics import EngineMetrics

UID = RunUid("7f0c3a52-0000-4000-8000-000000000001")
START_MS = 1_000_000
DEADLINE_MS = START_MS + 3_600_000
STEP = Path("answer")
SECRET = "tok-0123456789"

ALLOWED = Authorization("Allowed")
UNAVAILABLE = Authorization("Unavailable")


MODELS_URL = "https://8.8.8.8/v1"
MODELS = {"small": "OpenAIChat", "embedder": "OpenAIEmbeddings"}
FUNCTIONS: list[dict[str, Any]] = [
    {
        "name": "search",
        "effect": "Read",
        "input": {"schema": {"type": "object", "properties": {"query": {"type": "string"}}}},
    },
    {"name": "create", "effect": "Reversible", "idempotency": {"header": "Idempotency-Key"}},
    {"name": "append", "effect": "Reversible"},
]


class Clock:
    def __init__(self) -> None:
        self.ms = START_MS

    def __call__(self) -> int:
        return self.ms

    async def sleep(self, seconds: float) -> None:
        self.ms += int(seconds * 1000)
        await asyncio.sleep(0)


class Log:
    """A RunLog over the real fold: entries in memory, `durable` as the test says."""

    def __init__(self, clock: Clock, limits: Limits | None = None) -> None:
        self.uid, self.namespace, self.name, self.account = UID, "team-a", "run-1", "triage"
        self.plan = SimpleNamespace(limits=limits or Limits())
        self.state = new_state()
        self.entries: list[Entry] = []
        self.windows = Windows({})
        self.commits = 0
        self.too_late: list[Draft] = []
        self.on_durable: Callable[[], Awaitable[None]] | None = None
        self._clock = clock
        accepted = {
            "workflow": "w",
            "namespace": "team-a",
            "name": "run-1",
            "revision": "r",
            "generation": 1,
            "semantics": 1,
            "input": {},
            "account": "triage",
            "createdAt": START_MS,
            "deadline": DEADLINE_MS,
        }
        self.append(
            Draft(EntryKind.RUN_ACCEPTED, data=accepted),
            Draft(EntryKind.STEP_STARTED, STEP, 1),
        )

    def append(self, *drafts: Draft) -> None:
        for draft in drafts:
            canonical_json(draft.data)  # as the store does
            entry = Entry(
                UID, len(self.entries) + 1, self._clock(), draft.kind, draft.path, draft.attempt, dict(draft.data)
            )
            self.entries.append(entry)
            self.state = apply(self.state, entry)

    note = append

    def late(self, draft: Draft) -> None:
        self.too_late.append(draft)

    def spent(self, window: Window) -> Spent:
        return self.windows.of(window)

    def spend(self, windows: Iterable[Window], spend: Spend) -> None:
        for window in windows:
            self.windows.add(window, tokens=spend.tokens, cost=spend.cost)

    async def durable(self) -> None:
        if self.on_durable is not None:
            await self.on_durable()
        self.commits += 1

    def kinds(self) -> list[str]:
        return [entry.kind.value for entry in self.entries[2:]]

    def last(self) -> Mapping[str, Any]:
        return self.entries[-1].data


class World(Declared):
    """Resources, authorizer, adapters and log of one test. `dispatched` is what really left."""

    def __init__(self, *, limits: Limits | None = None, spec: dict[str, Any] | None = None) -> None:
        super().__init__(make_tool(**(spec or {})))
        self.models = {name: model(MODELS_URL, name=name, api=api) for name, api in MODELS.items()}
        self.clock = Clock()
        self.log = Log(self.clock, limits)
        self.authorization: Callable[[], Authorization] = lambda: ALLOWED
        self.asked: list[tuple[Permission, ...]] = []
        self.dispatched: list[Call] = []
        self.arguments: dict[str, Any] = {}
        self.answer: Callable[[], Awaitable[Outcome]] | None = None
        self.metrics = EngineMetrics()
        fakes: Any = self
        tools, sleep = self._Tools(fakes), self.clock.sleep
        self.gate = Gate(fakes, fakes, fakes, tools, self.clock, self.metrics, creator=fakes, sleep=sleep)

    async def authorize(self, account: str, any_of: tuple[Permission, ...]) -> Authorization:
        self.asked.append(any_of)
        return self.authorization()

    async def call(self, name: str, model: Model, call: Call, timeout_seconds: float) -> Outcome:
        return await self.dispatch(call, timeout_seconds=timeout_seconds)

    async def dispatch(self, call: Call, **arguments: Any) -> Outcome:
        self.dispatched.append(call)
        self.arguments = arguments
        return await self.answer() if self.answer else Outcome(result={"text": "done"})

    class _Tools:
        def __init__(self, world: World) -> None:
            self.world = world

        async def call(self, name: str, tool: Tool, call: Call, **arguments: Any) -> Outcome:
            return await self.world.dispatch(call, **arguments)

    async def make(self, call: Call) -> None:
        await self.gate.call(self.log, call)  # type: ignore[arg-type]  # a fake of RunLog


def make_tool(**spec: Any) -> Tool:
    return tool("https://8.8.8.8/mcp", name="tickets", **{"functions": FUNCTIONS} | spec)


def tool_call(function: str = "append", *, ordinal: int = 1, **change: Any) -> Call:
    call = Call(
        CallId(STEP, 1, CallIndex(0, ordinal)), CallKind.TOOL, "tickets", function, {"arguments": {"query": "refund"}}
    )
    return dataclasses.replace(call, **change)


def chat_call(**change: Any) -> Call:
    call = Call(
        CallId(STEP, 1, CallIndex()),
        CallKind.CHAT,
        "small",
        request={"messages": [{"role": "user", "content": "Hello"}], "parameters": {}},
    )
    return dataclasses.replace(call, **change)


def close(world: World) -> None:
    world.log.append(Draft(EntryKind.CLOSING, data={"reason": "Cancelled", "message": ""}))


def pass_deadline(world: World) -> None:
    world.clock.ms = DEADLINE_MS


def start_again(world: World) -> None:
    world.log.append(Draft(EntryKind.STEP_STARTED, STEP, 2))


def deny(world: World) -> None:
    world.authorization = lambda: Authorization("Denied", missing=Permission("toolfunctions", "tickets.append"))


def nothing(world: World) -> None:
    pass


def need_secret(world: World) -> None:
    world.tools["tickets"] = make_tool(credential={"secretRef": {"name": "tickets", "key": "token"}})


def secret_for_elsewhere(world: World) -> None:
    need_secret(world)
    world.secrets = {("tickets", "token"): SECRET, ("tickets", "allowed-hosts"): "other.example.com:443\n"}


def point_at(url: str) -> Callable[[World], None]:
    return lambda world: world.addresses.update(tickets=url)
