"""What a record of the audit says of a call: what it went to, as what, and what allowed it or stood in the way."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.unit.engine.approvalworld import RULE, Asked, reason_of, requested, ruled
from tests.unit.engine.fakes import tool_step
from tests.unit.engine.gatewayworld import HELLO, under_way
from tests.unit.engine.gateworld import SECRET, World, chat_call, tool_call
from tests.unit.engine.runworld import uid_of
from tests.unit.engine.test_pins import PINS, pinned

from fairlead.api.policy import Policy
from fairlead.engine.audit import verify_run
from fairlead.engine.audit.records import Keyed, is_audited, record_of
from fairlead.engine.store import Store
from fairlead.flow.journal import EntryKind, RunUid
from fairlead.flow.labels import WORST
from fairlead.policy.decision import Authorization
from fairlead.policy.permission import function_permission

CORPUS = Path(__file__).parents[2] / "corpus"
BOUND = 'RBAC: allowed by RoleBinding "p/team-a" of Role "p" to ServiceAccount "triage/team-a"'


def records(world: World) -> list[dict[str, Any]]:
    """Return the records of what the run has done since it began."""
    audited = [entry for entry in world.log.entries[2:] if is_audited(entry.kind)]
    return [record_of(entry, {"account": "triage"}, Keyed(b"k"), number=1, previous="") for entry in audited]


def policy(**rules: Any) -> dict[str, Policy]:
    return {"p": Policy.model_validate({"metadata": {"name": "p"}, "spec": {"rules": rules}})}


async def test_an_intent_says_which_definition_was_reviewed_how_far_it_reaches_and_which_binding_allows_it() -> None:
    look = {"name": "look", "effect": "Read", "reach": "Internal", "pin": PINS["look"]}
    async with pinned(look, {"name": "send", "effect": "Irreversible"}) as (world, _):
        world.authorization = lambda: Authorization("Allowed", message=BOUND)
        assert [await world.calls(function) for function in ("look", "send")] == ["Succeeded", "Succeeded"]
    looked, sent = (record for record in records(world) if record["type"] == "INTENT")
    assert {key: looked["what"][key] for key in ("pin", "reach", "effect")} == {
        "pin": PINS["look"],
        "reach": "Internal",
        "effect": "Read",
    }
    assert "pin" not in sent["what"] and sent["what"]["reach"] == "External"
    assert looked["why"] == sent["why"] == {"decision": "Allow", "rbac": BOUND}
    assert "pod" not in looked["who"]


async def test_a_denial_says_the_policy_and_its_rule_what_was_known_of_the_call_and_what_the_authorizer_said() -> None:
    world = World()
    world.policies = policy(calls=[{"name": "reads", "when": "call.effect != 'Read'"}])
    world.authorization = lambda: Authorization("Allowed", message=BOUND)
    await world.make(tool_call("append", label=WORST))
    (denied,) = records(world)
    assert denied["what"] | {"request": ""} == {
        "kind": "Tool",
        "target": "tickets",
        "function": "append",
        "effect": "Reversible",
        "reach": "External",
        "request": "",
    }
    assert denied["why"] == {
        "decision": "Deny",
        "reason": "PolicyDenied",
        "stage": 6,
        "message": "Policy p, rule reads",
        "policy": "p",
        "rule": "reads",
        "rbac": BOUND,
        "label": "Untrusted/Confidential",
    }


async def test_what_the_authorizer_says_of_a_no_is_recorded() -> None:
    world, said = World(), 'RBAC: role.rbac.authorization.k8s.io "p" not found'
    missing = function_permission("tickets", "append")[0]
    world.authorization = lambda: Authorization("Denied", missing=missing, message=said)
    await world.make(tool_call("append"))
    (denied,) = records(world)
    assert (denied["why"]["reason"], denied["why"]["rbac"]) == ("Forbidden", said)


RULES: dict[str, tuple[dict[str, Any], str, str]] = {
    "a number of calls": ({"limits": [{"tool": "tickets", "callsPerRun": 1}]}, "limits[0]", "PolicyDenied"),
    "a budget": ({"budgets": {"run": {"toolCalls": 1}}}, "budgets.run.toolCalls", "BudgetExceeded"),
    "pins": ({"pins": "Required"}, "pins", "PolicyDenied"),
    "hosts": ({"egress": {"hosts": ["example.com:443"]}}, "egress.hosts", "PolicyDenied"),
    "people who do not know who asks": (
        {"calls": [RULE | {"when": "true", "approval": RULE["approval"] | {"requester": "Excluded"}}]},
        "oncall",
        "RequesterUnknown",
    ),
}


@pytest.mark.parametrize(("rules", "rule", "reason"), RULES.values(), ids=RULES)
async def test_whatever_kind_of_rule_stands_in_the_way_is_named(rules: dict[str, Any], rule: str, reason: str) -> None:
    world = World()
    world.policies = policy(**rules)
    for number in (1, 2):
        await world.make(tool_call("append", ordinal=number, request={"arguments": {"query": str(number)}}))
    why = records(world)[-1]["why"]
    assert (why["policy"], why["rule"], why["reason"]) == ("p", rule, reason)


async def test_an_approved_call_says_which_approval_it_was_made_by_and_which_rule_asked_for_it(tmp_path: Path) -> None:
    world, raw = Asked(tmp_path / "journal.db", tool_step("after", "send")), requested()
    world.resources.policies.update(ruled(RULE))
    async with world.engine() as engine:
        ended = engine.submit(raw)
        (name,) = await world.asks(engine)
        world.people.decide(name)
        assert reason_of(await asyncio.wait_for(ended, 20)) == "Completed"
        chain = [json.loads(record) for record in await engine.store.audit_of(uid_of(raw))]
        assert verify_run(uid_of(raw), chain, engine.store.audit_head(uid_of(raw))) == []
    asked, decided, intent = chain[1:4]
    assert [record["type"] for record in (asked, decided, intent)] == ["APPROVAL", "APPROVAL", "INTENT"]
    assert {key: asked["approval"][key] for key in ("name", "policy", "rule")} == {
        "name": name,
        "policy": "p",
        "rule": "oncall",
    }
    assert decided["approval"]["by"] == ["alice"]
    assert intent["why"]["approvals"] == [{"policy": "p", "rule": "oncall", "name": name}]
    assert intent["who"] == {"account": "clerk", "requestedBy": "carol"}


async def test_a_call_that_people_denied_names_their_decision(tmp_path: Path) -> None:
    world, raw = Asked(tmp_path / "journal.db", tool_step("after", "send")), requested()
    world.resources.policies.update(ruled(RULE))
    async with world.engine() as engine:
        ended = engine.submit(raw)
        (name,) = await world.asks(engine)
        world.people.decide(name, "Deny", reason="not today")
        await asyncio.wait_for(ended, 20)
        chain = [json.loads(record) for record in await engine.store.audit_of(uid_of(raw))]
    (denied,) = [record for record in chain if record["type"] == "DENY"]
    assert denied["why"]["reason"] == "ApprovalDenied"
    assert denied["why"]["approvals"] == [{"policy": "p", "rule": "oncall", "name": name}]


async def test_a_model_call_says_what_is_held_for_it_and_in_which_window(tmp_path: Path) -> None:
    world = World()
    world.policies = policy(budgets={"window": {"periodSeconds": 60, "tokens": 10**9}})
    await world.make(chat_call())
    intent, outcome = records(world)
    assert intent["what"]["holds"]["outputTokens"] > 0
    start = world.clock.ms - world.clock.ms % 60_000
    assert intent["why"]["windows"] == [{"policy": "p", "start": start}]
    assert "usage" in outcome["result"]


async def test_what_a_container_asks_for_says_which_pod_asked() -> None:
    async with under_way() as world:
        assert (await world.send("/v1/chat/completions", HELLO)).status_code == 200
        await world.send("/v1/chat/completions", HELLO | {"model": "other"})
        own, asked, _, denied = records(world)
    assert "pod" not in own["who"], "nobody asked for it from a pod"
    assert asked["who"]["pod"] == denied["who"]["pod"] == "pod-1"
    assert (asked["type"], denied["type"]) == ("INTENT", "DENY")


async def test_what_a_call_brought_is_labelled_and_no_secret_is_in_any_record() -> None:
    world = World()
    world.secrets = {("tickets", "token"): SECRET}
    assert world.log.state.accepted is not None
    world.log.state.accepted = replace(world.log.state.accepted, label=WORST)
    await world.make(tool_call("append", request={"arguments": {"query": SECRET}}))
    intent, outcome = records(world)
    assert outcome["result"]["label"] == "Untrusted/Internal"
    assert SECRET not in json.dumps([intent, outcome])


@pytest.mark.sqlite
async def test_entries_of_an_earlier_version_have_the_records_that_they_had(tmp_path: Path) -> None:
    """They say nothing of pins, reasons or approvals, and their records do not either."""
    file = tmp_path / "journal.db"
    with sqlite3.connect(file) as connection:
        connection.executescript((CORPUS / "0.1.0.sql").read_text(encoding="utf-8"))
    connection.close()
    store = await Store.open(file, clock=lambda: 0)
    made, kinds = 0, set()
    for row in await store.runs():
        for entry in filter(lambda entry: is_audited(entry.kind), await store.load(RunUid(row.uid))):
            record = record_of(entry, {}, Keyed(b""), number=1, previous="")
            new = {"pin", "reach", "rbac", "approvals", "windows", "policy", "pod"}
            parts = [record["who"], record.get("what", {}), record.get("why", {})]
            assert not new & {key for part in parts for key in part}
            made, kinds = made + 1, kinds | {entry.kind}
    await store.close()
    assert made > 50 and {EntryKind.CALL_INTENT, EntryKind.CALL_OUTCOME, EntryKind.CALL_DENIED} <= kinds
