"""The gate: what it refuses, what it records before anything leaves, and what it waits for."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from fairlead.api.engine import EngineSpec
from fairlead.api.model import Model
from fairlead.api.tool import Tool
from fairlead.api.workflow import Limits
from fairlead.engine.credentials import REDACTED
from fairlead.engine.gate import LONGEST_WAIT_MS, Gate
from fairlead.errors import CredentialPending, StoreError
from fairlead.flow.calls import Call, CallId, CallIndex, CallKind, Outcome
from fairlead.flow.journal import Draft, Entry, EntryKind, Path, RunUid
from fairlead.flow.state import apply, new_state
from fairlead.policy.decision import Authorization
from fairlead.policy.permission import Permission

UID = RunUid("7f0c3a52-0000-4000-8000-000000000001")
START_MS = 1_000_000
DEADLINE_MS = START_MS + 3_600_000
STEP = Path("answer")
SECRET = "tok-0123456789"

ALLOWED = Authorization("Allowed")
UNAVAILABLE = Authorization("Unavailable")


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
        self.commits = 0
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
            entry = Entry(
                UID, len(self.entries) + 1, self._clock(), draft.kind, draft.path, draft.attempt, dict(draft.data)
            )
            self.entries.append(entry)
            self.state = apply(self.state, entry)

    async def durable(self) -> None:
        if self.on_durable is not None:
            await self.on_durable()
        self.commits += 1

    def kinds(self) -> list[str]:
        return [entry.kind.value for entry in self.entries[2:]]

    def last(self) -> Mapping[str, Any]:
        return self.entries[-1].data


class World:
    """Resources, authorizer, adapters and log of one test. `dispatched` is what really left."""

    def __init__(self, *, limits: Limits | None = None, tool: dict[str, Any] | None = None) -> None:
        self.clock = Clock()
        self.log = Log(self.clock, limits)
        self.namespace = "team-a"
        self.tools = {"tickets": make_tool(**(tool or {}))}
        self.models = {"small": make_model("OpenAIChat"), "embedder": make_model("OpenAIEmbeddings")}
        self.workflows: dict[str, Any] = {}
        self.policies: dict[str, Any] = {}
        self.engine = EngineSpec()
        self.urls: dict[str, str] = {}
        self.secrets: dict[tuple[str, str], str] = {}
        self.pending = False
        self.authorization: Callable[[], Authorization] = lambda: ALLOWED
        self.asked: list[tuple[Permission, ...]] = []
        self.dispatched: list[Call] = []
        self.arguments: dict[str, Any] = {}
        self.answer: Callable[[], Awaitable[Outcome]] | None = None
        self.gate = Gate(self, self, self, self._Tools(self), self.clock, sleep=self.clock.sleep)  # type: ignore[arg-type]  # fakes of the seams

    def address(self, kind: str, name: str) -> str:
        return self.urls.get(name, "https://8.8.8.8/mcp")

    def own(self, kind: str, name: str) -> bool:
        return False

    def credential(self, secret: str, key: str) -> str | None:
        if self.pending:
            raise CredentialPending(f"Secret {secret} is not mounted yet")
        return self.secrets.get((secret, key))

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
    functions = [
        {
            "name": "search",
            "effect": "Read",
            "input": {"schema": {"type": "object", "properties": {"query": {"type": "string"}}}},
        },
        {"name": "create", "effect": "Reversible", "idempotency": {"header": "Idempotency-Key"}},
        {"name": "append", "effect": "Reversible"},
    ]
    body = {"mcp": {"url": "https://tickets.example.com/mcp"}, "functions": functions} | spec
    return Tool.model_validate({"metadata": {"name": "tickets"}, "spec": body})


def make_model(api: str) -> Model:
    endpoint = {"api": api, "url": "https://models.example.com/v1", "model": "m"}
    return Model.model_validate({"metadata": {"name": "small"}, "spec": {"endpoint": endpoint}})


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


async def test_an_allowed_call_is_recorded_sent_and_recorded_again() -> None:
    world = World()
    await world.make(tool_call("create"))
    assert world.log.kinds() == ["CallIntent", "CallOutcome"]
    assert world.log.entries[2].data == {
        "index": "0.1.0",
        "kind": "Tool",
        "target": "tickets",
        "function": "create",
        "digest": tool_call("create").digest,
        "effect": "Reversible",
        "key": tool_call().id.idempotency_key(UID),
    }
    assert world.log.last()["status"] == "Succeeded" and world.log.last()["result"] == {"text": "done"}
    assert world.arguments["idempotency_key"] == tool_call().id.idempotency_key(UID)
    assert world.arguments["trace_parent"].startswith("00-7f0c3a52000040008000000000000001-")


@pytest.mark.requirement("G3")
async def test_nothing_leaves_before_its_intent_is_durable() -> None:
    world = World()
    seen: list[tuple[list[str], int]] = []

    async def durable() -> None:
        seen.append((world.log.kinds(), len(world.dispatched)))

    world.log.on_durable = durable
    await world.make(tool_call())
    assert seen == [(["CallIntent"], 0)] and len(world.dispatched) == 1


@pytest.mark.requirement("G3")
async def test_an_intent_that_cannot_be_stored_is_not_carried_out() -> None:
    world = World()

    async def fail() -> None:
        raise StoreError("disk full")

    world.log.on_durable = fail
    with pytest.raises(StoreError):
        await world.make(tool_call())
    assert world.dispatched == [] and world.log.kinds() == ["CallIntent"]


@pytest.mark.requirement("G3")
async def test_a_log_that_takes_nothing_more_lets_nothing_out(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    monkeypatch.setattr(world.log, "append", lambda *drafts: None)
    await world.make(tool_call())
    assert world.dispatched == [] and world.log.kinds() == []


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
    return lambda world: world.urls.update(tickets=url)


def deep(levels: int) -> dict[str, Any]:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return {"arguments": {"query": value}}


REFUSALS = [
    pytest.param(close, tool_call(), 1, "RunNotActive", id="the run is closing"),
    pytest.param(pass_deadline, tool_call(), 1, "RunNotActive", id="the run is past its deadline"),
    pytest.param(start_again, tool_call(), 1, "StaleAttempt", id="another attempt runs"),
    pytest.param(nothing, tool_call(request={"arguments": {"a": float("nan")}}), 2, "Malformed", id="NaN"),
    pytest.param(nothing, tool_call(request={"arguments": {"a": "\ud800"}}), 2, "Malformed", id="lone surrogate"),
    pytest.param(nothing, tool_call(request={"arguments": {"a": 10**30}}), 2, "Malformed", id="too large a number"),
    pytest.param(nothing, tool_call(request={"arguments": {1: 2}}), 2, "Malformed", id="a key that is not text"),
    pytest.param(nothing, tool_call(request={"arguments": {"a": b"x"}}), 2, "Malformed", id="bytes"),
    pytest.param(nothing, tool_call(request={"arguments": {"a": "x" * 2**20}}), 2, "Malformed", id="over 1 MiB"),
    pytest.param(nothing, tool_call(request=deep(64)), 2, "Malformed", id="too deep"),
    pytest.param(nothing, tool_call(request=deep(100_000)), 2, "Malformed", id="far too deep"),
    pytest.param(nothing, tool_call(target="none"), 4, "Invalid", id="no such tool"),
    pytest.param(nothing, tool_call("hidden"), 4, "Invalid", id="not in the contract"),
    pytest.param(nothing, tool_call(offered=False), 4, "Invalid", id="not offered"),
    pytest.param(nothing, tool_call("search", request={"arguments": {"query": 1}}), 4, "Invalid", id="misfit"),
    pytest.param(nothing, chat_call(target="embedder"), 4, "Invalid", id="chat with an embedder"),
    pytest.param(deny, tool_call(), 5, "Forbidden", id="no permission"),
    pytest.param(need_secret, tool_call(), 6, "CredentialMissing", id="no secret"),
    pytest.param(secret_for_elsewhere, tool_call(), 6, "EgressDenied", id="the secret is for another host"),
    pytest.param(point_at("http://169.254.169.254/mcp"), tool_call(), 6, "EgressDenied", id="metadata address"),
    pytest.param(point_at("http://[::1]:80/mcp"), tool_call(), 6, "EgressDenied", id="loopback address"),
    pytest.param(point_at("file:///etc/passwd"), tool_call(), 6, "EgressDenied", id="not http"),
]


@pytest.mark.requirement("P5")
@pytest.mark.parametrize(("arrange", "call", "stage", "reason"), REFUSALS)
async def test_a_refused_call_has_one_reason_and_never_leaves(
    arrange: Callable[[World], None], call: Call, stage: int, reason: str
) -> None:
    world = World()
    arrange(world)
    await world.make(call)
    denial = world.log.last()
    assert (denial["stage"], denial["reason"]) == (stage, reason)
    assert world.log.kinds()[-1] == "CallDenied" and "CallIntent" not in world.log.kinds()
    assert world.dispatched == [] and world.log.state.denials == 1


async def test_earlier_stages_speak_first() -> None:
    """With everything wrong at once, taking away the first objection brings up the next, in the contract's order."""
    world = World(limits=Limits(tool_calls=1))
    for ordinal in (1, 2):
        world.log.state.usage.tool_calls = 0
        await world.make(tool_call(ordinal=ordinal))
    infinite = {"arguments": {"a": float("inf")}}
    recorded = tool_call(ordinal=1, request={"arguments": {"other": 1}})
    unknown, fine = tool_call("hidden", ordinal=4), tool_call(ordinal=5)
    world.log.append(Draft(EntryKind.CLOSING, data={"reason": "Cancelled", "message": ""}))
    world.urls["tickets"] = "http://127.0.0.1/mcp"
    deny(world)

    met = []
    for call, then in (
        (tool_call(ordinal=3, request=infinite), lambda: setattr(world.log.state, "closing", None)),
        (tool_call(ordinal=9, request=infinite), nothing_more),
        (recorded, nothing_more),
        (unknown, nothing_more),
        (fine, lambda: setattr(world, "authorization", lambda: ALLOWED)),
        (tool_call(ordinal=6), world.urls.clear),
        (tool_call(ordinal=7), nothing_more),
        (tool_call(ordinal=8, request={"arguments": {"fresh": 1}}), nothing_more),
    ):
        before = len(world.log.entries)
        await world.make(call)
        met += [entry.data["reason"] for entry in world.log.entries[before:]]
        then()
    assert met == [
        "RunNotActive",
        "Malformed",
        "Nondeterminism",
        "Invalid",
        "Forbidden",
        "EgressDenied",
        "LoopDetected",
        "BudgetExceeded",
    ]


def nothing_more() -> None:
    pass


async def test_a_denial_names_the_permission_and_the_command_that_shows_it() -> None:
    world = World()
    deny(world)
    await world.make(tool_call())
    message = world.log.last()["message"]
    assert "invoke on toolfunctions/tickets.append or invoke on tools/tickets" in message
    assert "kubectl auth can-i invoke toolfunctions.fairlead.dev/tickets.append -n team-a" in message


async def test_a_revoked_grant_stops_the_next_call() -> None:
    world = World()
    await world.make(tool_call(ordinal=1))
    deny(world)
    await world.make(tool_call(ordinal=2, request={"arguments": {"n": 2}}))
    assert len(world.dispatched) == 1 and world.log.last()["reason"] == "Forbidden"


@pytest.mark.requirement("A42")
async def test_the_third_identical_tool_call_of_an_attempt_is_a_loop() -> None:
    world = World()
    for ordinal in (1, 2, 3):
        await world.make(tool_call(ordinal=ordinal))
    assert len(world.dispatched) == 2 and world.log.last()["reason"] == "LoopDetected"


@pytest.mark.parametrize(
    ("limits", "call"),
    [(Limits(tool_calls=0), tool_call()), (Limits(model_calls=0), chat_call()), (Limits(tokens=0), chat_call())],
)
async def test_a_run_without_room_for_one_more_call_does_not_make_it(limits: Limits, call: Call) -> None:
    world = World(limits=limits)
    await world.make(call)
    assert world.dispatched == [] and world.log.last()["reason"] == "BudgetExceeded"
    assert world.log.state.steps[STEP].calls[str(call.id.index)].error.error_class == "BudgetExceeded"  # type: ignore[union-attr]


async def test_parallel_calls_do_not_race_past_a_limit() -> None:
    world = World(limits=Limits(tool_calls=3))
    calls = [tool_call(ordinal=n, request={"arguments": {"n": n}}) for n in range(1, 11)]
    await asyncio.gather(*(world.make(call) for call in calls))
    assert len(world.dispatched) == 3 and world.log.state.denials == 7


@pytest.mark.requirement("F14")
async def test_a_call_waits_while_nobody_can_decide_and_goes_on_when_somebody_can() -> None:
    world = World()
    answers = iter([UNAVAILABLE] * 5 + [ALLOWED])
    world.authorization = lambda: next(answers)
    await world.make(tool_call(deadline_ms=START_MS + 1000))
    assert world.log.kinds() == ["CallIntent", "CallOutcome"] and len(world.asked) == 6
    assert world.clock.ms > START_MS + 1000 and world.log.last()["status"] == "Succeeded", "waiting is not counted"
    assert world.arguments["timeout_seconds"] == 1.0


@pytest.mark.requirement("F14")
async def test_a_call_that_nobody_can_decide_ends_unavailable_and_never_leaves() -> None:
    world = World()
    world.authorization = lambda: UNAVAILABLE
    await world.make(tool_call())
    assert START_MS + LONGEST_WAIT_MS <= world.clock.ms <= START_MS + LONGEST_WAIT_MS + 2000
    assert world.dispatched == [] and "CallIntent" not in world.log.kinds()
    error = world.log.state.steps[STEP].calls["0.1.0"].error
    assert error is not None and (error.error_class, error.reason) == ("Unavailable", "AuthorizerUnavailable")


async def test_after_a_wait_the_stages_start_again() -> None:
    world = World()

    def cancel_meanwhile() -> Authorization:
        if len(world.asked) == 2:
            close(world)
        return UNAVAILABLE if len(world.asked) < 3 else ALLOWED

    world.authorization = cancel_meanwhile
    await world.make(tool_call())
    assert world.dispatched == [] and world.log.last()["reason"] == "RunNotActive"


async def test_a_call_waits_for_a_secret_that_is_not_mounted_yet() -> None:
    world = World()
    need_secret(world)
    world.secrets = {("tickets", "token"): SECRET, ("tickets", "allowed-hosts"): "8.8.8.8:443"}
    world.pending = True

    def mount_later() -> Authorization:
        world.pending = len(world.asked) < 3
        return ALLOWED

    world.authorization = mount_later
    await world.make(tool_call())
    assert world.log.kinds() == ["CallIntent", "CallOutcome"] and len(world.asked) == 3


@pytest.mark.parametrize("function", ["search", "create"])
@pytest.mark.requirement("G2")
async def test_a_resumed_call_is_decided_anew_and_keeps_its_intent(function: str) -> None:
    world = World(limits=Limits(tool_calls=1))

    async def die() -> Outcome:
        raise asyncio.CancelledError

    world.answer = die
    task = asyncio.create_task(world.make(tool_call(function)))
    await asyncio.wait([task])
    world.log.entries = [entry for entry in world.log.entries if entry.kind is not EntryKind.CALL_OUTCOME]
    world.log.state = new_state()
    for entry in world.log.entries:
        world.log.state = apply(world.log.state, entry)

    world.answer = None
    asked = len(world.asked)
    await world.make(tool_call(function))
    assert world.log.kinds() == ["CallIntent", "CallOutcome"]
    assert len(world.dispatched) == 2 and len(world.asked) == asked + 1


async def test_a_resumed_call_whose_grant_is_gone_is_denied() -> None:
    world = World()
    intent = {"index": "0.1.0", "kind": "Tool", "target": "tickets", "function": "search", "effect": "Read"}
    world.log.append(Draft(EntryKind.CALL_INTENT, STEP, 1, intent | {"digest": tool_call("search").digest}))
    deny(world)
    await world.make(tool_call("search"))
    assert world.dispatched == [] and world.log.kinds() == ["CallIntent", "CallDenied"]


async def test_a_settled_call_is_left_alone() -> None:
    world = World()
    await world.make(tool_call())
    deny(world)
    await world.make(tool_call())
    assert world.log.kinds() == ["CallIntent", "CallOutcome"] and len(world.dispatched) == 1


async def test_another_request_under_a_known_index_is_nondeterminism() -> None:
    world = World()
    await world.make(tool_call())
    await world.make(tool_call(request={"arguments": {"query": "other"}}))
    assert world.log.last()["reason"] == "Nondeterminism" and len(world.dispatched) == 1


async def _cancel_open(world: World, call: Call) -> None:
    sent = asyncio.Event()

    async def hang() -> Outcome:
        sent.set()
        await asyncio.Event().wait()
        raise AssertionError

    world.answer = hang
    task = asyncio.create_task(world.make(call))
    await sent.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("call", [tool_call("search"), chat_call()], ids=["function", "model"])
async def test_a_cancelled_read_is_recorded_as_cancelled(call: Call) -> None:
    world = World()
    await _cancel_open(world, call)
    assert world.log.kinds() == ["CallIntent", "CallOutcome"] and world.log.last()["error"]["class"] == "Cancelled"


@pytest.mark.requirement("G3")
@pytest.mark.parametrize("function", ["append", "create"])
async def test_a_cancelled_effect_stays_open(function: str) -> None:
    world = World()
    await _cancel_open(world, tool_call(function))
    assert world.log.kinds() == ["CallIntent"]


async def test_an_effect_that_is_cancelled_before_it_was_sent_is_recorded_as_cancelled() -> None:
    world = World()
    world.log.on_durable = asyncio.Event().wait  # type: ignore[assignment]  # waits for ever
    task = asyncio.create_task(world.make(tool_call()))
    while not world.log.kinds():
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert world.dispatched == [] and world.log.last()["error"]["class"] == "Cancelled"


async def test_an_answer_after_the_end_changes_nothing() -> None:
    world = World()

    async def late() -> Outcome:
        world.log.append(Draft(EntryKind.RUN_CANCELLED, data={"message": ""}))
        return Outcome(result={"text": "late"})

    world.answer = late
    await world.make(tool_call())
    assert world.log.kinds() == ["CallIntent", "RunCancelled"]


async def test_no_more_calls_are_in_flight_than_the_tool_allows() -> None:
    world = World(tool={"limits": {"concurrency": 2}})
    flying, most = 0, 0

    async def answer() -> Outcome:
        nonlocal flying, most
        flying += 1
        most = max(most, flying)
        for _ in range(5):
            await asyncio.sleep(0)
        flying -= 1
        return Outcome(result={})

    world.answer = answer
    await asyncio.gather(*(world.make(tool_call(ordinal=n, request={"arguments": {"n": n}})) for n in range(1, 8)))
    assert most == 2 and len(world.dispatched) == 7


async def test_a_grant_that_is_revoked_while_a_call_waits_for_its_turn_stops_it() -> None:
    world = World(tool={"limits": {"concurrency": 1}})
    go = asyncio.Event()

    async def answer() -> Outcome:
        await go.wait()
        return Outcome(result={})

    world.answer = answer
    first = asyncio.create_task(world.make(tool_call(ordinal=1)))
    second = asyncio.create_task(world.make(tool_call(ordinal=2, request={"arguments": {"n": 2}})))
    while len(world.asked) < 2:
        await asyncio.sleep(0)
    assert world.log.kinds() == ["CallIntent"], "a call that waits for its turn has no intent yet"
    deny(world)
    go.set()
    await asyncio.gather(first, second)
    assert len(world.dispatched) == 1 and world.log.kinds() == ["CallIntent", "CallOutcome", "CallDenied"]


@pytest.mark.parametrize(("function", "expected"), [("append", "OutcomeUnknown"), ("search", "Internal")])
async def test_an_adapter_that_breaks_leaves_no_call_open(function: str, expected: str) -> None:
    world = World()

    async def broken() -> Outcome:
        raise RuntimeError

    world.answer = broken
    await world.make(tool_call(function))
    assert world.log.last()["error"]["class"] == expected


async def test_a_decision_that_breaks_denies() -> None:
    world = World()

    def broken() -> Authorization:
        raise RuntimeError

    world.authorization = broken
    await world.make(tool_call())
    assert world.dispatched == [] and world.log.last()["reason"] == "DecisionFailed"


@pytest.mark.requirement("A23")
async def test_a_known_secret_in_a_result_is_replaced() -> None:
    world = World()
    need_secret(world)
    world.secrets = {("tickets", "token"): SECRET, ("tickets", "allowed-hosts"): "8.8.8.8:443"}

    async def echo() -> Outcome:
        return Outcome(result={"headers": [f"Bearer {SECRET}"], f"key-{SECRET}": 1})

    world.answer = echo
    await world.make(tool_call())
    assert world.log.last()["result"] == {"headers": [f"Bearer {REDACTED}"], f"key-{REDACTED}": 1}


@pytest.mark.parametrize(
    ("deadline_ms", "tool", "expected"),
    [
        (0, {}, 60.0),
        (0, {"limits": {"timeoutSeconds": 5}}, 5.0),
        (START_MS + 2500, {"limits": {"timeoutSeconds": 5}}, 2.5),
        (DEADLINE_MS + 99_000, {"limits": {"timeoutSeconds": 3600}}, 3600.0),
    ],
)
async def test_a_call_gets_the_least_of_its_bounds(deadline_ms: int, tool: dict[str, Any], expected: float) -> None:
    world = World(tool=tool)
    await world.make(tool_call(deadline_ms=deadline_ms))
    assert world.arguments["timeout_seconds"] == expected


async def test_a_call_whose_time_is_over_is_a_timeout_and_never_leaves() -> None:
    world = World()
    world.clock.ms += 10
    await world.make(tool_call(deadline_ms=START_MS + 5))
    assert world.dispatched == [] and world.log.last()["error"]["class"] == "Timeout"
