"""Approvals of runs that an engine drives: asked for once, believed only under guard, good for one call alone."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

import pytest
from tests.unit.engine.approvalworld import RULE, SIGN, Asked, parked, reason_of, requested, ruled
from tests.unit.engine.fakes import tool_step, workflow
from tests.unit.engine.runworld import run_object, uid_of

from fairlead.api.tool import Tool
from fairlead.engine.gate import SHOWN_BYTES
from fairlead.errors import Unreachable
from fairlead.flow.approvals import undecided
from fairlead.flow.journal import EntryKind

READS = {"name": "after", "tool": {"tool": "desk", "function": "send", "arguments": {"t": "$( steps.first.output )"}}}
CONFIDENTIAL = Tool.model_validate(
    {
        "metadata": {"name": "desk", "namespace": "team"},
        "spec": {
            "mcp": {"url": "http://desk.example/mcp"},
            "functions": [
                {"name": "read", "effect": "Read", "returns": {"trust": "Untrusted", "sensitivity": "Confidential"}},
                {"name": "send", "effect": "Irreversible"},
            ],
        },
    }
)


@pytest.fixture
def step(tmp_path: Path) -> Asked:
    return Asked(tmp_path / "journal.db", SIGN, tool_step("after", "send"))


@pytest.fixture
def rule(tmp_path: Path) -> Asked:
    world = Asked(tmp_path / "journal.db", tool_step("first", "read"), tool_step("after", "send"))
    world.resources.policies = ruled(RULE)
    return world


@pytest.mark.requirement("G7")
async def test_a_run_that_waits_for_people_is_a_row_and_a_decision_wakes_it(step: Asked) -> None:
    raw = requested()
    async with step.engine() as engine:
        ended = engine.submit(raw)
        (name,) = await step.asks(engine)
        await step.until(lambda: parked(engine, raw) and step.told(name) == ("Unknown", "Pending"))
        run = engine.runs.roster.get(uid_of(raw))
        assert run is not None and run.task is None and run.log is None
        await step.until(lambda: step.succeeded() == ("Unknown", "WaitingForApproval"))
        status = step.sink.of("run-0")[-1]
        until = step.people.objects[name]["spec"]["expiresAt"]
        asked = f"approval {name} by user alice or group oncall until {until}; kubectl fairlead approve {name}"
        assert status["waitingFor"] == asked
        assert (status["steps"][0]["phase"], status["steps"][0]["message"]) == ("Waiting", f"approval {name}")
        step.people.decide(name)
        state = await asyncio.wait_for(ended, 20)
        await step.until(lambda: step.told(name) == ("True", "Approved"))
    assert reason_of(state) == "Completed"
    assert [call.function for call in step.sent] == ["send"]


async def test_people_are_told_by_a_call_like_any_other_and_once_whatever_restarts(tmp_path: Path) -> None:
    notify = {"tool": "desk", "function": "send", "arguments": {"text": "fairlead approve $( approval.name )"}}
    world = Asked(tmp_path / "journal.db", SIGN | {"approval": SIGN["approval"] | {"notify": notify}})
    raw = requested()
    async with world.engine() as engine:
        engine.submit(raw)
        (name,) = await world.asks(engine)
        await world.until(lambda: parked(engine, raw) and bool(world.sent))
    async with world.engine(objects=[raw]) as engine:
        await world.asks(engine)
        world.people.decide(name)
        await world.until(lambda: world.succeeded() == ("True", "Completed"))
    assert [call.request["arguments"] for call in world.sent] == [{"text": f"fairlead approve {name}"}]


async def test_a_notice_that_needs_an_approval_itself_holds_up_nobody(tmp_path: Path) -> None:
    notify = {"tool": "desk", "function": "send", "arguments": {"text": "x"}}
    world = Asked(tmp_path / "journal.db", SIGN | {"approval": SIGN["approval"] | {"notify": notify}})
    world.resources.policies = ruled(RULE)
    async with world.engine() as engine:
        ended = engine.submit(requested())
        (name,) = await world.asks(engine)
        world.people.decide(name)
        state = await asyncio.wait_for(ended, 20)
    assert (reason_of(state), state.denials, world.sent) == ("Completed", 1, [])
    assert world.people.made == [name], "and nobody is asked whether people may be asked"


@pytest.mark.requirement("A48")
async def test_what_was_decided_while_no_engine_ran_is_found_and_nothing_is_asked_twice(step: Asked) -> None:
    raw = requested()
    async with step.engine() as engine:
        engine.submit(raw)
        (name,) = await step.asks(engine)
        await step.until(lambda: parked(engine, raw))
    step.people.observe = lambda name: None
    async with step.engine(objects=[raw]) as engine:
        await step.until(lambda: parked(engine, raw))
        assert step.sent == []
    step.people.decide(name)
    async with step.engine(objects=[raw]):
        await step.until(lambda: step.succeeded() == ("True", "Completed"))
        await step.until(lambda: step.told(name) == ("True", "Approved"))
    assert step.people.made == [name]


@pytest.mark.requirement("A47")
async def test_no_approval_counts_while_a_forged_one_is_not_refused(step: Asked) -> None:
    step.people.guarded = False
    async with step.engine() as engine:
        ended = engine.submit(requested())
        (name,) = await step.asks(engine)
        await step.until(lambda: step.told(name) == ("Unknown", "GuardrailsMissing"))
        step.people.decide(name)
        state = await asyncio.wait_for(ended, 20)
    assert reason_of(state) == "Denied"
    assert state.terminal is not None
    assert "the cluster does not refuse forged decisions" in state.terminal.message
    assert step.sent == []


async def test_a_guard_that_comes_later_is_seen(step: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fairlead.engine.approvals.RETRY_SECONDS", 0.01)
    step.people.guarded = False
    async with step.engine() as engine:
        ended = engine.submit(requested())
        (name,) = await step.asks(engine)
        await step.until(lambda: step.told(name) == ("Unknown", "GuardrailsMissing"))
        step.people.guarded = True
        await asyncio.sleep(0.1)
        step.people.decide(name)
        assert reason_of(await asyncio.wait_for(ended, 20)) == "Completed"


async def test_an_approval_that_cannot_be_made_or_is_deleted_is_made_again(
    step: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fairlead.engine.approvals.RETRY_SECONDS", 0.01)
    step.people.errors = [Unreachable(0, "away")]
    async with step.engine() as engine:
        ended = engine.submit(requested())
        (name,) = await step.asks(engine)
        del step.people.objects[name]
        engine.approvals.observe(name)
        assert await step.asks(engine, 2) == [name, name]
        step.people.decide(name)
        assert reason_of(await asyncio.wait_for(ended, 20)) == "Completed"


@pytest.mark.requirement("A46")
async def test_a_foreign_object_of_the_name_approves_nothing(step: Asked) -> None:
    raw = requested()
    async with step.engine() as engine:
        engine.submit(raw)
        (name,) = await step.asks(engine)
        obj = step.people.objects[name]
        step.people.objects[name] = {**obj, "spec": {**obj["spec"], "digest": "sha256:" + "0" * 64}}
        step.people.decide(name)
        await asyncio.sleep(0.05)
        run = engine.runs.roster.get(uid_of(raw))
        assert run is not None
    assert step.sent == []


@pytest.mark.requirement("A46", "A47")
async def test_what_was_approved_for_one_run_approves_nothing_of_another(step: Asked) -> None:
    async with step.engine() as engine:
        first = engine.submit(requested())
        (name,) = await step.asks(engine)
        step.people.decide(name)
        assert reason_of(await asyncio.wait_for(first, 20)) == "Completed"
        other = run_object(1, requestedBy="carol")
        engine.submit(other)
        *_, asked = await step.asks(engine, 2)
        assert asked != name
        approved = step.people.objects[name]["spec"]
        for spec in (approved, approved | {"run": step.people.objects[asked]["spec"]["run"]}):
            step.people.objects[asked] = {**step.people.objects[asked], "spec": spec}
            engine.approvals.observe(asked)
            await asyncio.sleep(0.05)
        run = engine.runs.roster.get(uid_of(other))
        assert run is not None
    assert [call.function for call in step.sent] == ["send"]


async def test_an_object_that_is_not_understood_decides_and_breaks_nothing(step: Asked) -> None:
    raw = requested()
    async with step.engine() as engine:
        engine.submit(raw)
        (name,) = await step.asks(engine)
        obj = step.people.objects[name]
        for spec in (obj["spec"] | {"decisions": [{"by": 7}]}, {}):
            step.people.objects[name] = {**obj, "spec": spec}
            engine.approvals.observe(name)
            await asyncio.sleep(0.02)
        assert engine.runs.roster.get(uid_of(raw)) is not None
    assert step.sent == []


@pytest.mark.requirement("A47")
async def test_a_decision_that_comes_too_late_is_none(step: Asked) -> None:
    async with step.engine() as engine:
        ended = engine.submit(requested())
        (name,) = await step.asks(engine)
        await step.until(lambda: step.told(name) is not None)
        step.clock.now += 3_600_000
        step.people.decide(name)
        engine.runs.wake()
        state = await asyncio.wait_for(ended, 20)
        await step.until(lambda: step.told(name) == ("True", "Expired"))
    assert reason_of(state) == "Denied"
    assert step.sent == []


async def test_a_cancelled_run_withdraws_what_it_asked(step: Asked) -> None:
    raw = requested()
    async with step.engine() as engine:
        ended = engine.submit(raw)
        (name,) = await step.asks(engine)
        await step.until(lambda: step.told(name) is not None)
        engine.runs.observe(raw | {"spec": raw["spec"] | {"desiredState": "Cancelled"}})
        assert reason_of(await asyncio.wait_for(ended, 20)) == "Cancelled"
        await step.until(lambda: step.told(name) == ("True", "Withdrawn"))


@pytest.mark.requirement("A46")
async def test_a_call_that_a_rule_gives_to_people_happens_once_after_they_approved(rule: Asked) -> None:
    raw = requested()
    async with rule.engine() as engine:
        ended = engine.submit(raw)
        (name,) = await rule.asks(engine)
        spec = rule.people.objects[name]["spec"]
        assert spec["call"] == {
            "kind": "Tool",
            "target": "desk",
            "function": "send",
            "effect": "Irreversible",
            "arguments": {},
        }
        assert (spec["policy"], spec["rule"], spec["message"]) == ("p", "oncall", "is it meant?")
        assert [call.function for call in rule.sent] == ["read"]
        rule.people.decide(name)
        assert reason_of(await asyncio.wait_for(ended, 20)) == "Completed"
        kinds = [entry.kind for entry in await engine.store.load(uid_of(raw)) if entry.path == "after"]
    assert [call.function for call in rule.sent] == ["read", "send"]
    asked, decided, intent = (
        kinds.index(kind) for kind in (EntryKind.APPROVAL_REQUESTED, EntryKind.APPROVAL_DECIDED, EntryKind.CALL_INTENT)
    )
    assert asked < decided < intent


async def test_a_denied_call_tells_people_who_and_why(rule: Asked) -> None:
    async with rule.engine() as engine:
        ended = engine.submit(requested())
        (name,) = await rule.asks(engine)
        rule.people.decide(name, "Deny", reason="not today")
        state = await asyncio.wait_for(ended, 20)
    assert state.terminal is not None and state.terminal.error is not None
    assert state.terminal.error.reason == "ApprovalDenied"
    assert state.terminal.error.message == "Policy p, rule oncall: is it meant?; Denied by alice: not today"
    assert [call.function for call in rule.sent] == ["read"]


@pytest.mark.requirement("A46")
@pytest.mark.parametrize("tightened", ["the rule", "the contract"])
async def test_a_rule_or_contract_that_changed_since_asks_again(rule: Asked, tightened: str) -> None:
    async with rule.engine() as engine:
        ended = engine.submit(requested())
        (name,) = await rule.asks(engine)
        if tightened == "the rule":
            calls = [RULE | {"approval": {"from": {"users": ["alice"]}, "minApprovals": 1, "expiresAfterSeconds": 60}}]
            rule.resources.policies = ruled(*calls)
        else:
            tool = rule.resources.tools["desk"]
            spec_of = tool.spec.model_copy(update={"description": "another one"})
            rule.resources.tools["desk"] = tool.model_copy(update={"spec": spec_of})
        rule.people.decide(name)
        first, second = await rule.asks(engine, 2)
        assert first != second
        assert [call.function for call in rule.sent] == ["read"]
        rule.people.decide(second)
        assert reason_of(await asyncio.wait_for(ended, 20)) == "Completed"


async def test_what_is_too_large_to_be_shown_is_denied(tmp_path: Path, rule: Asked) -> None:
    step = {"name": "after", "tool": {"tool": "desk", "function": "send", "arguments": {"text": "x" * SHOWN_BYTES}}}
    rule.resources.workflows["w"] = workflow(step)
    async with rule.engine() as engine:
        state = await asyncio.wait_for(engine.submit(requested()), 20)
    assert "nobody can be shown" in state.terminal.message if state.terminal else False
    assert rule.sent == rule.people.made == []


async def test_the_time_that_people_take_is_not_the_step_s(rule: Asked) -> None:
    steps = [tool_step("after", "send", timeoutSeconds=5)]
    rule.resources.workflows["w"] = workflow(*steps)
    async with rule.engine() as engine:
        ended = engine.submit(requested())
        (name,) = await rule.asks(engine)
        rule.clock.now += 60_000
        rule.people.decide(name)
        assert reason_of(await asyncio.wait_for(ended, 20)) == "Completed"


async def test_several_rules_ask_each_for_itself(rule: Asked) -> None:
    calls = [RULE, RULE | {"name": "legal", "approval": {"from": {"users": ["dora"]}}}]
    rule.resources.policies = ruled(*calls)
    async with rule.engine() as engine:
        ended = engine.submit(requested())
        names = await rule.asks(engine, 2)
        by_rule = {rule.people.objects[name]["spec"]["rule"]: name for name in names}
        rule.people.decide(by_rule["oncall"])
        await asyncio.sleep(0.05)
        assert not ended.done()
        rule.people.decide(by_rule["legal"], by="dora")
        assert reason_of(await asyncio.wait_for(ended, 20)) == "Completed"


@pytest.mark.requirement("A46")
async def test_a_rule_about_calls_that_is_named_as_the_one_about_data_flow_asks_for_itself(rule: Asked) -> None:
    named = RULE | {"name": "dataFlow", "approval": {"from": {"users": ["dora"]}}}
    flow = {"untrustedToExternal": "RequireApproval", "approval": {"from": {"users": ["alice"]}}}
    rule.resources.workflows["w"] = workflow(tool_step("first", "read"), READS)
    rule.resources.tools["desk"] = CONFIDENTIAL
    rule.resources.policies = ruled(named, dataFlow=flow)
    async with rule.engine() as engine:
        ended = engine.submit(requested())
        names = await rule.asks(engine, 2)
        asked = {rule.people.objects[name]["spec"]["from"]["users"][0]: name for name in names}
        rule.people.decide(asked["dora"], "Deny", by="dora")
        rule.people.decide(asked["alice"], by="alice")
        state = await asyncio.wait_for(ended, 20)
    assert reason_of(state) == "Denied"
    assert [call.function for call in rule.sent] == ["read"]


async def test_in_audit_mode_nobody_is_asked_and_it_is_recorded(rule: Asked) -> None:
    rule.resources.policies = ruled(RULE, mode="Audit")
    raw = requested()
    async with rule.engine() as engine:
        state = await asyncio.wait_for(engine.submit(raw), 20)
        intents = [entry for entry in await engine.store.load(uid_of(raw)) if entry.kind is EntryKind.CALL_INTENT]
    assert reason_of(state) == "Completed"
    assert intents[-1].data["wouldDeny"] == ["Policy p, rule oncall: is it meant?"]


async def test_a_decision_is_believed_once_whoever_repeats_it(rule: Asked) -> None:
    raw = requested()
    async with rule.engine() as engine:
        ended = engine.submit(raw)
        (name,) = await rule.asks(engine)
        for _ in range(3):
            rule.people.decide(name)
        state = await asyncio.wait_for(ended, 20)
        decided = [entry for entry in await engine.store.load(uid_of(raw)) if entry.kind is EntryKind.APPROVAL_DECIDED]
    assert undecided(state.approvals.values()) == []
    assert len(decided) == 1
    assert [dataclasses.astuple(call.id)[0] for call in rule.sent] == ["first", "after"]


@pytest.mark.parametrize(("decision", "told"), [("Approve", '{"text":"send"}'), ("Deny", "not permitted: too dear")])
async def test_a_model_learns_a_person_s_reason_and_nothing_else(rule: Asked, decision: str, told: str) -> None:
    heard = rule.asks_for("{}")
    async with rule.engine() as engine:
        ended = engine.submit(requested())
        (name,) = await rule.asks(engine)
        rule.people.decide(name, decision, reason="too dear")
        assert reason_of(await asyncio.wait_for(ended, 20)) == "Completed"
    assert heard == [told]
    assert [call.function for call in rule.sent].count("send") == (decision == "Approve")


async def test_what_is_approved_is_sent_while_another_call_is_under_way(tmp_path: Path) -> None:
    world = Asked(tmp_path / "journal.db", SIGN)
    world.resources.policies = ruled(RULE | {"when": "call.path == 'pay'"})
    both = (tool_step("slow", "send"), tool_step("pay", "send", needs=[]))
    world.resources.workflows["w"] = workflow(*both, order="Graph")
    world.held["slow"] = asyncio.Event()
    async with world.engine() as engine:
        future = engine.submit(requested())
        (name,) = await world.asks(engine)
        await world.until(lambda: world.begun == ["slow"])
        world.people.decide(name)
        await world.until(lambda: [str(call.id.path) for call in world.sent] == ["pay"])
        world.held["slow"].set()
        assert reason_of(await future) == "Completed"
    assert [str(call.id.path) for call in world.sent] == ["pay", "slow"]
