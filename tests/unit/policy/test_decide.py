"""The decision: one reason for each deny, in the order of the contract, and nothing but its arguments decides."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.api.model import Model
from fairlead.api.reasons import DecisionReason, Stage
from fairlead.api.tool import Tool
from fairlead.api.workflow import Limits
from fairlead.flow.calls import Call, CallId, CallIndex, CallKind
from fairlead.flow.journal import Path
from fairlead.policy import decide as decisions
from fairlead.policy.decide import STAGES, decide
from fairlead.policy.decision import Authorization, Decision, Definitions, Obstacle, RunUsage, Snapshot
from fairlead.policy.permission import Permission

SCHEMA = {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]}
TOOL = Tool.model_validate(
    {
        "metadata": {"name": "tickets"},
        "spec": {
            "mcp": {"url": "https://t.example.com/mcp"},
            "functions": [{"name": "search", "input": {"schema": SCHEMA}}, {"name": "create"}],
        },
    }
)


PIN = "sha256:" + "a" * 64
OTHER = "sha256:" + "b" * 64
PINNED = Tool.model_validate(
    {
        "metadata": {"name": "tickets"},
        "spec": {
            "mcp": {"url": "https://t.example.com/mcp"},
            "functions": [{"name": "search", "pin": PIN, "input": {"schema": SCHEMA}}, {"name": "create"}],
        },
    }
)


def make_model(api: str) -> Model:
    endpoint = {"api": api, "url": "https://m.example.com/v1", "model": "m"}
    return Model.model_validate({"metadata": {"name": "small"}, "spec": {"endpoint": endpoint}})


ALLOWED = Authorization("Allowed")
DENIED = Authorization("Denied", missing=Permission("toolfunctions", "tickets.search"))
UNAVAILABLE = Authorization("Unavailable")
ID = CallId(Path("answer"), 1, CallIndex())
SEARCH = Call(ID, CallKind.TOOL, "tickets", "search", {"arguments": {"query": "refund"}})
CHAT = Call(ID, CallKind.CHAT, "small", request={"messages": []})
EMBED = replace(CHAT, kind=CallKind.EMBED, request={"texts": []})
FINE = Snapshot("team-a", "triage", model=make_model("OpenAIChat"), tool=TOOL, authorization=ALLOWED)
AS_PINNED = replace(FINE, tool=PINNED, definitions=Definitions({"search": PIN, "more": OTHER}))
DRIFTED = replace(AS_PINNED, definitions=Definitions({"search": OTHER}))
UNKNOWN = replace(AS_PINNED, definitions=Definitions(message="no answer"))
SPENT = RunUsage(model_calls=500, tool_calls=500, tokens=2_000_000)
BLOCKED = Obstacle(DecisionReason.EGRESS_DENIED, "not there")
PENDING = Obstacle(DecisionReason.CREDENTIAL_PENDING, "not yet")

TABLE = [
    ("all is well", SEARCH, FINE, "Allow", Stage.APPROVAL, "Allowed"),
    ("a chat", CHAT, FINE, "Allow", Stage.APPROVAL, "Allowed"),
    ("an embedding", EMBED, replace(FINE, model=make_model("OpenAIEmbeddings")), "Allow", Stage.APPROVAL, "Allowed"),
    ("no tool", SEARCH, replace(FINE, tool=None), "Deny", Stage.CONTRACT, "Invalid"),
    ("no model", CHAT, replace(FINE, model=None), "Deny", Stage.CONTRACT, "Invalid"),
    ("no chat model", CHAT, replace(FINE, model=make_model("OpenAIEmbeddings")), "Deny", Stage.CONTRACT, "Invalid"),
    ("no embedder", EMBED, FINE, "Deny", Stage.CONTRACT, "Invalid"),
    ("no such function", replace(SEARCH, function="drop"), FINE, "Deny", Stage.CONTRACT, "Invalid"),
    ("not offered", replace(SEARCH, offered=False), FINE, "Deny", Stage.CONTRACT, "Invalid"),
    ("misfit", replace(SEARCH, request={"arguments": {"query": 1}}), FINE, "Deny", Stage.CONTRACT, "Invalid"),
    ("no arguments", replace(SEARCH, request={}), FINE, "Deny", Stage.CONTRACT, "Invalid"),
    ("as pinned", SEARCH, AS_PINNED, "Allow", Stage.APPROVAL, "Allowed"),
    ("drifted", SEARCH, DRIFTED, "Deny", Stage.CONTRACT, "ToolDrift"),
    ("gone", SEARCH, replace(AS_PINNED, definitions=Definitions({})), "Deny", Stage.CONTRACT, "ToolDrift"),
    (
        "no digest",
        SEARCH,
        replace(AS_PINNED, definitions=Definitions({"search": ""})),
        "Deny",
        Stage.CONTRACT,
        "ToolDrift",
    ),
    ("drift of another", replace(SEARCH, function="create"), DRIFTED, "Allow", Stage.APPROVAL, "Allowed"),
    ("defined somehow", SEARCH, UNKNOWN, "Wait", Stage.CONTRACT, "DefinitionUnknown"),
    ("forbidden anyway", SEARCH, replace(UNKNOWN, authorization=DENIED), "Deny", Stage.RBAC, "Forbidden"),
    ("drifted and forbidden", SEARCH, replace(DRIFTED, authorization=DENIED), "Deny", Stage.CONTRACT, "ToolDrift"),
    ("unknown and no way out", SEARCH, replace(UNKNOWN, obstacle=BLOCKED), "Deny", Stage.RULES, "EgressDenied"),
    ("unknown, no secret", SEARCH, replace(UNKNOWN, obstacle=PENDING), "Wait", Stage.RULES, "CredentialPending"),
    ("drifted misfit", replace(SEARCH, request={}), DRIFTED, "Deny", Stage.CONTRACT, "ToolDrift"),
    ("no grant", SEARCH, replace(FINE, authorization=DENIED), "Deny", Stage.RBAC, "Forbidden"),
    ("nobody knows", SEARCH, replace(FINE, authorization=UNAVAILABLE), "Wait", Stage.RBAC, "AuthorizerUnavailable"),
    ("no way out", SEARCH, replace(FINE, obstacle=BLOCKED), "Deny", Stage.RULES, "EgressDenied"),
    ("no secret yet", SEARCH, replace(FINE, obstacle=PENDING), "Wait", Stage.RULES, "CredentialPending"),
    ("second time", SEARCH, replace(FINE, repeats=1), "Allow", Stage.APPROVAL, "Allowed"),
    ("third time", SEARCH, replace(FINE, repeats=2), "Deny", Stage.LIMITS, "LoopDetected"),
    ("a chat again", CHAT, replace(FINE, repeats=9), "Allow", Stage.APPROVAL, "Allowed"),
    ("tool calls", SEARCH, replace(FINE, usage=RunUsage(tool_calls=500)), "Deny", Stage.BUDGET, "BudgetExceeded"),
    ("one tool call left", SEARCH, replace(FINE, usage=RunUsage(999, 499, 9**9)), "Allow", Stage.APPROVAL, "Allowed"),
    ("model calls", CHAT, replace(FINE, usage=RunUsage(model_calls=500)), "Deny", Stage.BUDGET, "BudgetExceeded"),
    ("tokens", CHAT, replace(FINE, usage=RunUsage(tokens=2_000_000)), "Deny", Stage.BUDGET, "BudgetExceeded"),
    ("one token left", CHAT, replace(FINE, usage=RunUsage(499, 999, 1_999_999)), "Allow", Stage.APPROVAL, "Allowed"),
]


@pytest.mark.parametrize(
    ("call", "snapshot", "verdict", "stage", "reason"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_a_call_is_decided(call: Call, snapshot: Snapshot, verdict: str, stage: Stage, reason: str) -> None:
    decision = decide(call, snapshot)
    assert (decision.verdict, decision.stage, decision.reason) == (verdict, stage, reason)


OBJECTIONS: list[tuple[Stage, dict[str, Any]]] = [
    (Stage.CONTRACT, {"tool": None}),
    (Stage.RBAC, {"authorization": DENIED}),
    (Stage.RULES, {"obstacle": BLOCKED}),
    (Stage.LIMITS, {"repeats": 2}),
    (Stage.BUDGET, {"usage": SPENT}),
]


@pytest.mark.parametrize("wrong", list(product([False, True], repeat=len(OBJECTIONS))))
def test_the_first_stage_with_an_objection_decides(wrong: tuple[bool, ...]) -> None:
    objections = [objection for objection, chosen in zip(OBJECTIONS, wrong, strict=True) if chosen]
    snapshot = FINE
    for _, change in objections:
        snapshot = replace(snapshot, **change)
    decision = decide(SEARCH, snapshot)
    assert decision.stage == (objections[0][0] if objections else Stage.APPROVAL)


def test_the_stages_stand_in_the_order_of_the_contract() -> None:
    names = [stage.__name__ for stage in STAGES]
    assert names == ["contract", "rbac", "rules", "data_flow", "limits", "budget", "approval"]


@pytest.mark.parametrize("stage", [decisions.data_flow, decisions.approval])
def test_a_stage_without_rules_has_no_objection(stage: Any) -> None:
    assert stage(SEARCH, replace(FINE, authorization=DENIED, obstacle=BLOCKED, usage=SPENT, repeats=9)) is None


def test_a_missing_permission_is_spelled_out() -> None:
    message = decide(SEARCH, replace(FINE, authorization=DENIED)).message
    assert "triage needs invoke on toolfunctions/tickets.search or invoke on tools/tickets" in message
    assert "--as=system:serviceaccount:team-a:triage" in message


def test_a_finding_about_arguments_shows_no_value() -> None:
    decision = decide(replace(SEARCH, request={"arguments": {"query": 918273645}}), FINE)
    assert decision.reason is DecisionReason.INVALID and "918273645" not in decision.message


calls = st.builds(
    Call,
    id=st.just(ID),
    kind=st.sampled_from(CallKind),
    target=st.sampled_from(["tickets", "small", "none"]),
    function=st.sampled_from(["", "search", "create", "drop"]),
    request=st.sampled_from([{}, {"arguments": {}}, {"arguments": {"query": "x"}}, {"arguments": None}]),
    offered=st.booleans(),
)
snapshots = st.builds(
    Snapshot,
    namespace=st.just("team-a"),
    account=st.sampled_from(["triage", "other"]),
    model=st.sampled_from([None, make_model("OpenAIChat"), make_model("OpenAIEmbeddings")]),
    tool=st.sampled_from([None, TOOL, PINNED]),
    definitions=st.sampled_from(
        [Definitions(), Definitions({}), Definitions({"search": PIN}), Definitions({"search": ""})]
    ),
    authorization=st.sampled_from([ALLOWED, DENIED, UNAVAILABLE, Authorization("Denied")]),
    limits=st.builds(Limits, model_calls=st.integers(0, 3), tool_calls=st.integers(0, 3), tokens=st.integers(0, 3)),
    usage=st.builds(RunUsage, st.integers(0, 4), st.integers(0, 4), st.integers(0, 4)),
    repeats=st.integers(0, 4),
    obstacle=st.sampled_from([None, BLOCKED, PENDING, Obstacle(DecisionReason.CREDENTIAL_MISSING, "none")]),
)


@pytest.mark.requirement("P4")
@given(calls, snapshots)
def test_the_same_call_and_snapshot_give_the_same_decision(call: Call, snapshot: Snapshot) -> None:
    assert decide(call, snapshot) == decide(replace(call), replace(snapshot))


@pytest.mark.requirement("P5")
@given(calls, snapshots)
def test_every_deny_has_exactly_one_reason(call: Call, snapshot: Snapshot) -> None:
    decision = decide(call, snapshot)
    assert isinstance(decision, Decision) and decision.reason in DecisionReason and decision.stage in Stage
    assert (decision.verdict == "Allow") == (decision.reason is DecisionReason.ALLOWED)
    assert bool(decision.message) == (decision.verdict != "Allow")


@pytest.mark.requirement("F14")
@given(calls, snapshots, st.sampled_from([DENIED, UNAVAILABLE]))
def test_nothing_is_allowed_without_an_allow_of_the_authorizer(
    call: Call, snapshot: Snapshot, authorization: Authorization
) -> None:
    assert decide(call, replace(snapshot, authorization=authorization)).verdict != "Allow"


@pytest.mark.requirement("A39")
@given(calls, snapshots, st.sampled_from([Definitions(), Definitions({}), Definitions({"search": OTHER})]))
def test_no_pinned_function_is_called_but_as_it_is_pinned(call: Call, snapshot: Snapshot, now: Definitions) -> None:
    called = replace(call, kind=CallKind.TOOL, function="search")
    assert decide(called, replace(snapshot, tool=PINNED, definitions=now)).verdict != "Allow"


@given(calls, snapshots, st.integers(1, 3))
def test_more_usage_never_allows_more(call: Call, snapshot: Snapshot, more: int) -> None:
    used = snapshot.usage
    spent = replace(snapshot, usage=RunUsage(used.model_calls + more, used.tool_calls + more, used.tokens + more))
    assert decide(call, snapshot).verdict == "Allow" or decide(call, spent).verdict != "Allow"
