"""Rules of Policies: what they deny, whom they bind, and what they can never do."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.flow.world import accepted, plan_of
from tests.unit.policy.test_decide import CHAT, FINE, PIN, SEARCH, TOOL

from fairlead.api.policy import Policy
from fairlead.api.reasons import Stage
from fairlead.api.tool import Function, Tool
from fairlead.api.workflow import Workflow
from fairlead.flow.calls import Call, CallKind
from fairlead.flow.labels import TRUSTED, WORST, Label
from fairlead.flow.runstate import ApprovalState, Usage
from fairlead.policy.budgets import windows_of
from fairlead.policy.decide import decide, would_deny
from fairlead.policy.decision import Decision, Definitions, RunUsage, Snapshot
from fairlead.policy.rules import binding, problems, scope_of

STATE = accepted(plan_of([{"name": "answer", "transform": {"value": 1}}])).fold()
CREATE = replace(SEARCH, function="create", request={"arguments": {"title": "x"}})
# `create` has a pin, and is what it was pinned as; `search` has none.
FUNCTIONS = [{"name": "search"}, {"name": "create", "pin": PIN}]
TICKETS = TOOL.model_copy(
    update={"spec": TOOL.spec.model_copy(update={"functions": [Function.model_validate(one) for one in FUNCTIONS]})}
)
HERE = replace(FINE, tool=TICKETS, definitions=Definitions({"create": PIN}))
CHILD = Call(SEARCH.id, CallKind.WORKFLOW, "researcher", request={"input": {"topic": "x"}})


def policy(name: str = "p", *, mode: str = "Enforce", applies: dict[str, str] | None = None, **rules: Any) -> Policy:
    spec: dict[str, Any] = {"mode": mode, "rules": rules}
    if applies is not None:
        spec["appliesTo"] = {"workflows": {"matchLabels": applies}}
    return Policy.model_validate({"metadata": {"name": name}, "spec": spec})


def denying(when: str, **more: Any) -> Policy:
    return policy(calls=[{"name": "no", "when": when, "message": "not here"}], **more)


def bound(call: Call, *policies: Policy, **changes: Any) -> Snapshot:
    scope = scope_of(
        call, STATE, account="triage", function=None, effect="Reversible", model=None, labels={"tier": "prod"}
    )
    bind = binding(policies, {"tier": "prod"})
    windows = {window: Usage(input_tokens=2, held_tokens=1) for window in windows_of(bind, 0)}
    more = {"windows": windows, "host": "a.example.com:443"} | changes
    return replace(HERE, policies=bind, scope=scope, **more)


def decided(call: Call, *policies: Policy, **changes: Any) -> Decision:
    return decide(call, bound(call, *policies, **changes))


DENIED: dict[str, tuple[str, Call]] = {
    "a tool": ("call.tool == 'tickets'", SEARCH),
    "a function": ("call.function == 'search'", SEARCH),
    "an argument": ("call.arguments.query.startsWith('ref')", SEARCH),
    "an effect": ("call.effect != 'Read'", SEARCH),
    "a kind": ("call.kind == 'model'", CHAT),
    "a model": ("call.model == 'small'", CHAT),
    "a parameter": (
        "call.parameters.maxOutputTokens > 100",
        replace(CHAT, request={"parameters": {"maxOutputTokens": 101}}),
    ),
    "a step": ("call.path == 'answer'", SEARCH),
    "an account": ("run.account == 'triage'", SEARCH),
    "a label": ("workflow.labels.tier == 'prod'", SEARCH),
    "a Workflow": ("workflow.name == 'flow'", SEARCH),
    "what has no value": ("call.arguments.nothing == 1", SEARCH),
    "what is no condition": ("call.tool", SEARCH),
    "what does not compile": ("call.", SEARCH),
    "what names nothing": ("surprise == 1", SEARCH),
}


@pytest.mark.parametrize(("when", "call"), DENIED.values(), ids=DENIED)
def test_a_call_that_a_rule_describes_is_denied(when: str, call: Call) -> None:
    decision = decided(call, denying(when))
    assert (decision.verdict, decision.stage, decision.reason) == ("Deny", Stage.RULES, "PolicyDenied")
    assert decision.message.startswith("Policy p, rule no: ")


@pytest.mark.parametrize(
    ("when", "call"),
    [
        ("call.tool == 'other'", SEARCH),
        ("call.tool == 'tickets' && call.function == 'create'", SEARCH),
        ("call.tool == 'tickets'", CHAT),
        ("call.workflow != '' && call.input.topic != 'x'", CHAT),
        ("get(call.arguments, 'nothing') == 1", SEARCH),
        ("run.requestedBy == 'alice'", SEARCH),
    ],
)
def test_other_calls_are_not(when: str, call: Call) -> None:
    assert decided(call, denying(when)).verdict == "Allow"


def test_a_child_run_is_a_call_that_rules_see() -> None:
    spec = {"steps": [{"name": "look", "transform": {"value": 1}}]}
    researcher = Workflow.model_validate({"metadata": {"name": "researcher"}, "spec": spec})
    rule = "call.kind == 'workflow' && call.workflow == 'researcher' && call.input.topic == '{}'"
    verdicts = [decided(CHILD, denying(rule.format(topic)), workflow=researcher).verdict for topic in ("x", "y")]
    assert verdicts == ["Deny", "Allow"]


@pytest.mark.parametrize(
    ("limit", "made", "allowed"),
    [
        ({"tool": "tickets", "callsPerRun": 3}, {"tickets.search": 1, "tickets.create": 1, "other.x": 9}, True),
        ({"tool": "tickets", "callsPerRun": 3}, {"tickets.search": 1, "tickets.create": 2}, False),
        ({"tool": "tickets", "function": "search", "callsPerRun": 2}, {"tickets.search": 1, "tickets.create": 9}, True),
        ({"tool": "tickets", "function": "search", "callsPerRun": 2}, {"tickets.search": 2}, False),
        ({"tool": "tickets", "function": "create", "callsPerRun": 0}, {}, True),
        ({"tool": "tickets", "callsPerRun": 0}, {}, False),
        ({"tool": "ticket", "callsPerRun": 0}, {"tickets.search": 9}, True),
    ],
)
def test_a_limit_counts_the_calls_of_the_run(limit: dict[str, Any], made: dict[str, int], allowed: bool) -> None:
    decision = decided(SEARCH, policy(limits=[limit]), made=made)
    assert decision.verdict == ("Allow" if allowed else "Deny")
    if not allowed:
        assert (decision.stage, decision.reason) == (Stage.LIMITS, "PolicyDenied")


@pytest.mark.parametrize(
    ("call", "budget", "usage", "allowed"),
    [
        (SEARCH, {"toolCalls": 2}, RunUsage(tool_calls=1), True),
        (SEARCH, {"toolCalls": 2}, RunUsage(tool_calls=2), False),
        (SEARCH, {"modelCalls": 0, "tokens": 0}, RunUsage(), True),
        (CHAT, {"modelCalls": 2}, RunUsage(model_calls=2), False),
        (CHAT, {"tokens": 100}, RunUsage(tokens=99), True),
        (CHAT, {"tokens": 100}, RunUsage(tokens=100), False),
    ],
)
def test_a_budget_is_what_one_run_may_use(call: Call, budget: dict[str, int], usage: RunUsage, allowed: bool) -> None:
    decision = decided(call, policy(budgets={"run": budget}), usage=usage)
    assert decision.verdict == ("Allow" if allowed else "Deny")
    if not allowed:
        assert (decision.stage, decision.reason) == (Stage.BUDGET, "BudgetExceeded")
        assert "Policy p, rule budgets.run." in decision.message


@pytest.mark.parametrize(
    ("applies", "labels", "binds"),
    [
        (None, {}, True),
        ({"tier": "prod"}, {"tier": "prod", "team": "a"}, True),
        ({"tier": "prod"}, {"tier": "dev"}, False),
        ({"tier": "prod", "team": "a"}, {"tier": "prod"}, False),
        ({"tier": "prod"}, None, True),
    ],
)
def test_rules_bind_the_workflows_that_they_select(
    applies: dict[str, str] | None, labels: dict[str, str] | None, binds: bool
) -> None:
    assert bool(binding([denying("true", applies=applies)], labels)) is binds


def test_what_grants_alone_binds_nobody() -> None:
    grants = Policy.model_validate({"metadata": {"name": "g"}, "spec": {"grants": {"serviceAccounts": ["a"]}}})
    assert binding([grants], {}) == ()


WRONG = {
    "call.": "when",
    "tool == 'x'": "there is no 'tool'; there are call, run, workflow",
    "call.tol == 'x'": "'call' has no 'tol'; it has",
    "workflow.tier == 'x'": "'workflow' has no 'tier'; it has labels, name",
    "size(call.function)": "a condition must be true or false; this is of type integer",
}


@pytest.mark.parametrize(("when", "message"), WRONG.items())
def test_a_rule_that_cannot_be_right_is_found_before_anything_runs(when: str, message: str) -> None:
    (found,) = problems(policy(calls=[{"name": "fine", "when": "true"}, {"name": "no", "when": when}]))
    assert found.path == "spec.rules.calls[1].when"
    assert message in f"{found.path}: {found.message}"


NOTICES = {
    "$( ": "is not closed",
    "$( steps.a.output )": "there is no 'steps'; there are call, run, workflow, approval",
    "$( approval.expiry )": "'approval' has no 'expiry'; it has name",
    "$( call.function + )": "notify.arguments",
}


@pytest.mark.parametrize(("text", "message"), NOTICES.items())
@pytest.mark.parametrize("asks", ["calls", "dataFlow"])
def test_a_notice_that_cannot_be_right_is_found_before_anything_runs(asks: str, text: str, message: str) -> None:
    def rules(said: str) -> dict[str, Any]:
        notify = {"tool": "desk", "function": "tell", "arguments": {"text": said}}
        terms = {"approval": {"from": {"users": ["bob"]}, "notify": notify}}
        if asks == "calls":
            return {"calls": [{"name": "ask", "when": "true", "then": "RequireApproval", **terms}]}
        return {"dataFlow": {"untrustedToExternal": "RequireApproval", **terms}}

    assert problems(policy(**rules("$( approval.name ) for $( run.name ) $( call.arguments.to )"))) == []
    (found,) = problems(policy(**rules(text)))
    where = "calls[0]" if asks == "calls" else "dataFlow"
    assert found.path == f"spec.rules.{where}.approval.notify.arguments"
    assert message in f"{found.path}: {found.message}"


@pytest.mark.requirement("A40")
def test_where_pins_are_required_a_function_without_one_cannot_be_called() -> None:
    required = policy(pins="Required")
    decision = decided(SEARCH, required)
    assert (decision.verdict, decision.stage, decision.reason) == ("Deny", Stage.RULES, "PolicyDenied")
    assert decision.message.startswith("Policy p, rule pins: the function has no pin")
    assert [decided(call, required).verdict for call in (CREATE, CHAT)] == ["Allow", "Allow"]
    audited = policy(mode="Audit", pins="Required")
    assert decided(SEARCH, audited).verdict == "Allow"
    assert [breach.rule for breach in would_deny(SEARCH, bound(SEARCH, audited))] == ["pins"]


ASKS: dict[str, Any] = {"name": "people", "when": "call.tool == 'tickets'", "then": "RequireApproval"}
TERMS: dict[str, Any] = {"from": {"groups": ["oncall"]}, "requester": "Allowed"}


def test_a_rate_that_holds_a_call_up_is_named() -> None:
    early = decided(CREATE, policy(limits=[{"tool": "tickets", "ratePerMinute": 1}]), rates={"create": 1})
    assert (early.verdict, early.policy, early.rule) == ("Wait", "p", "limits[0]")


def test_a_rule_that_asks_people_holds_a_call_until_they_have_decided() -> None:
    asks = policy(calls=[ASKS | {"approval": TERMS}])
    waiting = decided(SEARCH, asks)
    assert (waiting.verdict, waiting.stage, waiting.reason) == ("Wait", Stage.APPROVAL, "ApprovalPending")
    assert [needed.key for needed in waiting.needs] == [("p", "calls", "people")]
    assert decided(CHAT, asks).verdict == "Allow"
    known = ApprovalState("a", SEARCH.id.path, 1, "0.0.0", {}, 0, 1)
    assert decided(SEARCH, asks, approvals={("p", "calls", "people"): known}).needs == ()
    for decision, verdict in (("Approved", "Allow"), ("Denied", "Deny"), ("Expired", "Deny"), ("Withdrawn", "Wait")):
        approvals = {("p", "calls", "people"): replace(known, decision=decision)}
        assert decided(SEARCH, asks, approvals=approvals).verdict == verdict


def test_a_rule_that_asks_people_and_has_no_value_denies() -> None:
    broken = policy(calls=[ASKS | {"when": "call.arguments.missing == 1", "approval": TERMS}])
    assert (decided(SEARCH, broken).verdict, decided(SEARCH, broken).stage) == ("Deny", Stage.RULES)


def test_somebody_else_must_approve_and_nobody_knows_who_asked() -> None:
    asks = policy(calls=[ASKS | {"approval": {"from": {"groups": ["oncall"]}}}])
    assert decided(SEARCH, asks).reason == "RequesterUnknown"


# Where data may go.

FLOWS: list[dict[str, Any]] = [
    {"untrustedToExternal": "Deny"},
    {"untrustedToExternal": "RequireApproval", "approval": {"from": {"users": ["bob"]}, "requester": "Allowed"}},
]
DENY_FLOW = policy(dataFlow=FLOWS[0])
CONFIDENTIAL, UNTRUSTED = Label(sensitivity=2), Label(untrusted=True, sensitivity=1)


def with_contract(**more: Any) -> Tool:
    functions = [Function.model_validate({"name": "search", **more})]
    return TOOL.model_copy(update={"spec": TOOL.spec.model_copy(update={"functions": functions})})


@pytest.mark.requirement("A36")
def test_untrusted_and_confidential_data_together_do_not_leave() -> None:
    decision = decided(SEARCH, DENY_FLOW, label=WORST)
    assert (decision.verdict, decision.stage, decision.reason) == ("Deny", Stage.DATA_FLOW, "FlowDenied")
    said = "what led to the call is Untrusted/Confidential, and it reaches outside"
    assert decision.message == f"Policy p, rule dataFlow: {said}"


@pytest.mark.parametrize("label", [CONFIDENTIAL, UNTRUSTED, TRUSTED])
def test_one_of_both_alone_may_leave(label: Label) -> None:
    assert decided(SEARCH, DENY_FLOW, label=label).verdict == "Allow"


@pytest.mark.parametrize(
    ("contract", "verdict"),
    [
        ({"effect": "Read", "reach": "Internal"}, "Allow"),
        ({"effect": "Reversible", "reach": "Internal"}, "Allow"),
        ({"effect": "Irreversible", "reach": "Internal"}, "Deny"),
        ({"effect": "Read", "reach": "External"}, "Deny"),
        ({"effect": "Read"}, "Deny"),
        ({"reach": "Internal"}, "Deny"),
    ],
)
def test_what_stays_inside_and_can_be_undone_is_free(contract: dict[str, Any], verdict: str) -> None:
    assert decided(SEARCH, DENY_FLOW, label=WORST, tool=with_contract(**contract)).verdict == verdict


@pytest.mark.parametrize("call", [CHAT, CHILD])
def test_models_answer_and_children_are_looked_at_themselves(call: Call) -> None:
    assert decided(call, DENY_FLOW, label=WORST).stage != Stage.DATA_FLOW


def test_people_may_let_it_out_by_a_rule_that_asks_them() -> None:
    asks = policy(dataFlow=FLOWS[1])
    decision = decided(SEARCH, asks, label=WORST)
    assert (decision.verdict, decision.reason) == ("Wait", "ApprovalPending")
    (needed,) = decision.needs
    assert needed.key == ("p", "dataFlow", "dataFlow")
    assert "Untrusted/Confidential" in needed.rule.message
    assert decided(SEARCH, asks, label=CONFIDENTIAL).verdict == "Allow"
    assert decided(SEARCH, asks, DENY_FLOW, label=WORST).verdict == "Deny"


# Properties, over any rules.

conditions = st.sampled_from(
    [
        "true",
        "false",
        "call.tool == 'tickets'",
        "call.function == 'create'",
        "call.arguments.query == 'refund'",
        "call.x",
    ]
)
thens = st.sampled_from(
    [
        {},
        {"then": "RequireApproval", "approval": {"from": {"users": ["bob"]}}},
        {"then": "RequireApproval", "approval": {"from": {"users": ["bob"]}, "requester": "Allowed"}},
    ]
)
limits = st.builds(
    lambda tool, function, most: {"tool": tool, **most} | ({"function": function} if function else {}),
    st.sampled_from(["tickets", "other"]),
    st.sampled_from([None, "search", "create"]),
    st.one_of(
        st.fixed_dictionaries({"callsPerRun": st.integers(0, 3)}),
        st.fixed_dictionaries({"ratePerMinute": st.integers(1, 3)}),
        st.fixed_dictionaries({"callsPerRun": st.integers(0, 3), "ratePerMinute": st.integers(1, 3)}),
    ),
)
amounts = {name: st.integers(0, 4) for name in ("tokens", "modelCalls", "toolCalls")}
runs = st.fixed_dictionaries({}, optional=amounts | {"costUSD": st.sampled_from(["0", "0.000001", "1"])})
windows = st.fixed_dictionaries(
    {"periodSeconds": st.just(60), "tokens": st.integers(0, 5)}, optional={"costUSD": st.sampled_from(["0", "1"])}
)
budgets = st.one_of(
    st.fixed_dictionaries({"run": runs}, optional={"unknownPrice": st.sampled_from(["Deny", "Free"])}),
    st.fixed_dictionaries({"window": windows, "run": runs}),
)
rules = st.fixed_dictionaries(
    {
        "calls": st.lists(st.tuples(conditions, thens), max_size=3).map(
            lambda found: [{"name": f"r{n}", "when": when, **then} for n, (when, then) in enumerate(found)]
        ),
        "limits": st.lists(limits, max_size=2),
        "budgets": budgets,
        "pins": st.sampled_from([None, "Required"]),
        "dataFlow": st.sampled_from([None, *FLOWS]),
        "egress": st.sampled_from([None, {"hosts": []}, {"hosts": ["a.example.com:443"]}]),
    }
)
numbered = st.lists(rules, max_size=4).map(lambda all_: [policy(f"p{n}", **one) for n, one in enumerate(all_)])
calls = st.sampled_from([SEARCH, CREATE, CHAT])
usages = st.builds(RunUsage, *[st.integers(0, 3)] * 6)
rates = st.dictionaries(st.sampled_from(["search", "create"]), st.integers(0, 3))
labels = st.builds(Label, st.booleans(), st.integers(0, 2))
counts = st.dictionaries(st.sampled_from(["tickets.search", "tickets.create", "other.x"]), st.integers(0, 3))


@given(calls, numbered, rules, usages, counts, labels, rates)
@pytest.mark.requirement("P1")
def test_another_rule_never_turns_a_deny_into_an_allow(
    call: Call,
    policies: list[Policy],
    more: dict[str, Any],
    usage: RunUsage,
    made: dict[str, int],
    label: Label,
    rate: dict[str, int],
) -> None:
    before = decided(call, *policies, usage=usage, made=made, label=label, rates=rate)
    after = decided(call, *policies, policy("more", **more), usage=usage, made=made, label=label, rates=rate)
    assert not (before.verdict == "Deny" and after.verdict == "Allow")


@given(calls, numbered, usages, counts, labels, rates)
@pytest.mark.requirement("P2")
def test_the_order_of_policies_does_not_matter(
    call: Call, policies: list[Policy], usage: RunUsage, made: dict[str, int], label: Label, rate: dict[str, int]
) -> None:
    orders = itertools.islice(itertools.permutations(policies), 6)
    first, *others = (decided(call, *order, usage=usage, made=made, label=label, rates=rate) for order in orders)
    assert all(other == first for other in others)


@given(calls, numbered, rules, usages, counts, labels, rates)
@pytest.mark.requirement("P3")
def test_audit_mode_finds_and_never_decides(
    call: Call,
    policies: list[Policy],
    more: dict[str, Any],
    usage: RunUsage,
    made: dict[str, int],
    label: Label,
    rate: dict[str, int],
) -> None:
    audited = policy("more", mode="Audit", **more)
    with_it = decided(call, *policies, audited, usage=usage, made=made, label=label, rates=rate)
    without = decided(call, *policies, usage=usage, made=made, label=label, rates=rate)
    assert replace(with_it, windows=without.windows) == without, "it counts in its window, and that is all"
    alone = decided(call, policy("more", **more), usage=usage, made=made, label=label, rates=rate)
    found = would_deny(call, bound(call, audited, usage=usage, made=made, label=label, rates=rate))
    assert bool(found) is (alone.verdict != "Allow")


@given(calls, st.lists(st.sampled_from([None, "Required"]), max_size=3))
@pytest.mark.requirement("P6")
def test_of_several_policies_one_that_requires_pins_is_enough(call: Call, several: list[str | None]) -> None:
    apart = [policy(f"p{n}", pins=pins) for n, pins in enumerate(several)]
    together = policy("all", pins="Required" if "Required" in several else None)
    assert decided(call, *apart).verdict == decided(call, together).verdict
    assert decided(call, *apart, *apart).verdict == decided(call, *reversed(apart)).verdict


@given(calls, st.lists(runs, min_size=1, max_size=3), usages)
@pytest.mark.requirement("P6")
def test_of_several_budgets_the_smallest_counts(call: Call, several: list[dict[str, Any]], usage: RunUsage) -> None:
    apart = [policy(f"p{n}", budgets={"run": one}) for n, one in enumerate(several)]
    least = {name: min((one[name] for one in several if name in one), key=float) for one in several for name in one}
    together = policy("all", budgets={"run": least})
    assert decided(call, *apart, usage=usage).verdict == decided(call, together, usage=usage).verdict
