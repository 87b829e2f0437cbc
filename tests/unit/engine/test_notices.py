"""Notices: a rule that asks people says by which call they are told: one like any other, which holds up nobody."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from tests.unit.engine.approvalworld import RULE, Asked, parked, reason_of, requested, ruled
from tests.unit.engine.fakes import tool_step, workflow
from tests.unit.engine.runworld import uid_of

from fairlead.api.approval import ApprovalSpec
from fairlead.api.tool import ToolLimits
from fairlead.engine.gate import NOTICE_SECONDS
from fairlead.flow.calls import Call, Outcome
from fairlead.flow.journal import EntryKind

TEXT = "$( run.name ): $( call.function ) $( call.arguments.to ): fairlead approve $( approval.name )"
ONLY_SENDS = "call.function == 'send'"


def notifying(function: str = "put", text: str = TEXT, **rule: Any) -> dict[str, Any]:
    notify = {"tool": "desk", "function": function, "arguments": {"text": text}}
    return RULE | {"when": ONLY_SENDS} | rule | {"approval": RULE["approval"] | {"notify": notify}}


@pytest.fixture
def world(tmp_path: Path) -> Asked:
    found = Asked(tmp_path / "journal.db", tool_step("after", "send"))
    found.resources.workflows["w"] = workflow(sends(to="bob"))
    found.resources.policies = ruled(notifying())
    return found


def sends(**arguments: str) -> dict[str, Any]:
    return {"name": "after", "tool": {"tool": "desk", "function": "send", "arguments": arguments}}


def texts(world: Asked) -> list[str]:
    return [call.request["arguments"]["text"] for call in world.sent if call.function == "put"]


def names_of(world: Asked) -> list[str]:
    return [call.function for call in world.sent]


async def test_people_are_told_once_of_what_a_rule_asks_them_whatever_restarts(world: Asked) -> None:
    raw = requested()
    async with world.engine() as engine:
        engine.submit(raw)
        (name,) = await world.asks(engine)
        await world.until(lambda: parked(engine, raw) and bool(world.sent))
    async with world.engine(objects=[raw]) as engine:
        await world.asks(engine)
        world.people.decide(name)
        await world.until(lambda: world.succeeded() == ("True", "Completed"))
        entries = await engine.store.load(uid_of(raw))
    assert texts(world) == [f"run-0: send bob: fairlead approve {name}"]
    assert names_of(world) == ["put", "send"]
    indices = [entry.data["index"] for entry in entries if entry.kind is EntryKind.CALL_INTENT]
    assert indices == ["0.0.0.1", "0.0.0"]


@pytest.mark.parametrize(
    ("function", "why"),
    [("erase", "erase is not in the contract of Tool desk"), ("send", "people must approve, and a notice cannot wait")],
)
async def test_who_may_not_be_told_can_still_decide(world: Asked, function: str, why: str) -> None:
    """The run's account sends it, under all rules: also those that ask people, whom nobody would tell of that."""
    world.resources.policies = ruled(notifying(function))
    raw = requested()
    async with world.engine() as engine:
        ended = engine.submit(raw)
        (name,) = await world.asks(engine)
        world.people.decide(name)
        state = await asyncio.wait_for(ended, 20)
        entries = await engine.store.load(uid_of(raw))
    (denied,) = (entry.data for entry in entries if entry.kind is EntryKind.CALL_DENIED)
    assert why in denied["message"]
    assert (reason_of(state), names_of(world)) == ("Completed", ["send"])


async def test_a_notice_of_which_nobody_knows_whether_it_was_sent_is_not_sent_again(world: Asked) -> None:
    world.resources.workflows["w"] = workflow({"name": "after", "tool": {"tool": "desk", "function": "put"}})
    world.resources.policies = ruled(notifying("send", text="x", when="call.function == 'put'"))

    def unknown(call: Call, seconds: float) -> Outcome:
        if call.function == "send":
            raise RuntimeError("the connection is gone")
        return Outcome(result={"text": call.function})

    world.answers = unknown
    raw = requested()
    async with world.engine() as engine:
        engine.submit(raw)
        (name,) = await world.asks(engine)
        await world.until(lambda: parked(engine, raw) and bool(world.sent))
    async with world.engine(objects=[raw]) as engine:
        await world.asks(engine)
        world.people.decide(name)
        await world.until(lambda: world.succeeded() == ("True", "Completed"))
    assert names_of(world) == ["send", "put"]


async def test_what_a_notice_says_must_have_a_value_or_the_call_is_denied(world: Asked) -> None:
    world.resources.policies = ruled(notifying(text="$( call.arguments.subject )"))
    async with world.engine() as engine:
        state = await asyncio.wait_for(engine.submit(requested()), 20)
    assert state.terminal is not None
    assert "Policy p, rule oncall" in state.terminal.message
    assert "approval.notify.arguments: " in state.terminal.message
    assert world.sent == world.people.made == []


async def test_who_is_told_is_no_part_of_what_is_approved(world: Asked) -> None:
    async with world.engine() as engine:
        ended = engine.submit(requested())
        (name,) = await world.asks(engine)
        world.resources.policies = ruled(notifying(text="another"))
        world.people.decide(name)
        assert reason_of(await asyncio.wait_for(ended, 20)) == "Completed"
    assert world.people.made == [name]


@pytest.mark.parametrize("bound", ["the Workflow's", "the Policy's"])
async def test_a_notice_uses_up_none_of_the_run_s_limits(world: Asked, bound: str) -> None:
    """Whoever writes a rule would break Workflows with it, after people have approved."""
    if bound == "the Workflow's":
        world.resources.workflows["w"] = workflow(sends(to="bob"), limits={"toolCalls": 1})
    else:
        world.resources.policies = ruled(notifying(), limits=[{"tool": "desk", "callsPerRun": 1}])
    async with world.engine() as engine:
        ended = engine.submit(requested())
        (name,) = await world.asks(engine)
        await world.until(lambda: bool(texts(world)))
        world.people.decide(name)
        state = await asyncio.wait_for(ended, 20)
    assert (reason_of(state), state.usage.tool_calls) == ("Completed", 1)
    assert names_of(world) == ["put", "send"]


async def test_a_notice_has_a_time_of_its_own_and_it_is_short(world: Asked) -> None:
    seconds: dict[str, float] = {}

    def answer(call: Call, timeout_seconds: float) -> Outcome:
        seconds[call.function] = timeout_seconds
        return Outcome(result={"text": call.function})

    world.answers = answer
    desk = world.resources.tools["desk"]
    patient = desk.spec.model_copy(update={"limits": ToolLimits.model_validate({"timeoutSeconds": 3000})})
    world.resources.tools["desk"] = desk.model_copy(update={"spec": patient})
    world.resources.workflows["w"] = workflow({**sends(to="bob"), "timeoutSeconds": 5})
    async with world.engine() as engine:
        ended = engine.submit(requested())
        (name,) = await world.asks(engine)
        await world.until(lambda: bool(texts(world)))
        world.people.decide(name)
        await asyncio.wait_for(ended, 20)
    assert 5 < seconds["put"] <= NOTICE_SECONDS
    assert seconds["send"] <= 5


async def test_an_agent_s_calls_each_tell_people_and_no_notice_is_a_loop_or_seen_by_the_model(world: Asked) -> None:
    """Four calls of a turn, four notices that say the same: the third of an agent's own would be a loop."""
    heard = world.asks_for(*(f'{{"to": "{n}"}}' for n in range(4)))
    world.resources.policies = ruled(notifying(text="somebody is needed"))
    async with world.engine() as engine:
        ended = engine.submit(requested())
        names = await world.asks(engine, 4)
        await world.until(lambda: len(texts(world)) == 4)
        for name in names:
            world.people.decide(name)
        assert reason_of(await asyncio.wait_for(ended, 20)) == "Completed"
    assert names_of(world).count("send") == 4
    assert texts(world) == ["somebody is needed"] * 4
    assert heard == ['{"text":"send"}'] * 4


def test_an_approval_may_be_about_an_image_and_not_about_anything() -> None:
    """The API server takes it, as the CRD comes from the same model."""
    image = "registry.example:5000/python@sha256:" + "0" * 64
    call = {"kind": "Container", "target": image, "effect": "Read", "arguments": {"script": {"source": "print(1)"}}}
    spec = {
        **{"run": {"name": "r", "uid": "u"}, "workflow": "w", "serviceAccountName": "clerk", "step": "work"},
        **{"attempt": 1, "index": "0.0.0", "message": "may it run?", "digest": "sha256:" + "0" * 64},
        **{"from": {"users": ["alice"]}, "minApprovals": 1, "requester": "Excluded"},
        **{"expiresAt": "2026-11-30T00:00:00Z", "call": call},
    }
    assert ApprovalSpec.model_validate(spec).call.target == image  # type: ignore[union-attr]
    with pytest.raises(ValidationError):
        ApprovalSpec.model_validate(spec | {"call": call | {"target": "No Image"}})
