"""Budgets: is there room for the most that a call can come to, and who is in the way when there is none?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.policy.test_decide import CHAT, FINE, SEARCH
from tests.unit.policy.test_rules import HERE, policy

from fairlead.api.model import Model
from fairlead.api.steps import StepLimits
from fairlead.api.workflow import Limits
from fairlead.flow.runstate import Usage
from fairlead.flow.spending import USD, Spend, Window, format_usd, parse_usd, window_at
from fairlead.policy.budgets import Bound, runs_over
from fairlead.policy.decide import decide, would_deny
from fairlead.policy.decision import Decision, Loop, RunUsage, Snapshot

CENT = USD // 100
NEED = Spend(300, 100, CENT)
PRICE = {"inputUSDPerMTok": "1", "outputUSDPerMTok": "2"}


def model(price: dict[str, str] | None = PRICE) -> Model:
    spec: dict[str, Any] = {"endpoint": {"api": "OpenAIChat", "url": "https://8.8.8.8/v1", "model": "m"}}
    return Model.model_validate({"metadata": {"name": "small"}, "spec": spec | ({"price": price} if price else {})})


def decided(**changes: Any) -> Decision:
    return decide(CHAT, snapshot(**changes))


def snapshot(**changes: Any) -> Snapshot:
    return replace(FINE, **{"model": model(), "need": NEED} | changes)


def run(**budget: Any) -> Any:
    return policy(budgets={"run": budget})


def window(**budget: Any) -> Any:
    return policy(budgets={"window": {"periodSeconds": 60, **budget}})


NOW = Window("p", 60_000, 0)


def used(tokens: int = 0, cost: int = 0, held: Spend | None = None) -> dict[Window, Usage]:
    found = Usage(input_tokens=tokens, cost=cost)
    found.hold(held or Spend())
    return {NOW: found}


ROOMS: dict[str, tuple[dict[str, Any], str, str]] = {
    "the last token": ({"limits": Limits(tokens=1000), "usage": RunUsage(tokens=600)}, "Allow", ""),
    "a token too few": (
        {"limits": Limits(tokens=1000), "usage": RunUsage(tokens=601)},
        "Deny",
        "limits.tokens: 601 of 1000 used; this call can need 400",
    ),
    "the last cent": ({"limits": Limits(costUSD="0.02"), "usage": RunUsage(cost=CENT)}, "Allow", ""),
    "a cent too few": (
        {"limits": Limits(costUSD="0.02"), "usage": RunUsage(cost=CENT + 1)},
        "Deny",
        "limits.costUSD: 0.010000000001 of 0.02 used; this call can need 0.01",
    ),
    "calls under way": (
        {"limits": Limits(tokens=1000), "usage": RunUsage(tokens=500, held_tokens=200)},
        "Wait",
        "limits.tokens: 500 of 1000 used and 200 held by calls under way; this call can need 400",
    ),
    "no room without them either": (
        {"limits": Limits(tokens=1000), "usage": RunUsage(tokens=700, held_tokens=200)},
        "Deny",
        "limits.tokens: 700 of 1000 used and 200 held by calls under way; this call can need 400",
    ),
    "a budget of a run": (
        {"policies": (run(costUSD="0.5"),), "usage": RunUsage(cost=50 * CENT)},
        "Deny",
        "Policy p, rule budgets.run.costUSD: 0.5 of 0.5 used",
    ),
    "a window with room": ({"policies": (window(tokens=1000),), "windows": used(600)}, "Allow", ""),
    "a window without": (
        {"policies": (window(tokens=1000),), "windows": used(601)},
        "Deny",
        "Policy p, rule budgets.window.tokens: 601 of 1000 used; this call can need 400",
    ),
    "money of a window": (
        {"policies": (window(costUSD="1"),), "windows": used(cost=100 * CENT)},
        "Deny",
        "Policy p, rule budgets.window.costUSD: 1 of 1 used",
    ),
    "a window that others hold": (
        {"policies": (window(costUSD="0.02"),), "windows": used(cost=CENT, held=NEED)},
        "Wait",
        "budgets.window.costUSD: 0.01 of 0.02 used and 0.01 held by calls under way",
    ),
}


@pytest.mark.parametrize(("changes", "verdict", "words"), ROOMS.values(), ids=ROOMS)
def test_a_call_needs_room_for_the_most_that_it_can_come_to(changes: dict[str, Any], verdict: str, words: str) -> None:
    decision = decided(**changes)
    assert decision.verdict == verdict
    assert words in decision.message
    if verdict != "Allow":
        said = decision.message.removeprefix("Policy p, rule ")
        assert decision.rule and said.startswith(decision.rule), "the rule is what the message begins with"
        assert decision.policy == ("p" if "policies" in changes else "")
        assert (decision.reason, decision.stage) == ("BudgetExceeded", 9)


def test_what_is_allowed_says_what_to_hold_and_where() -> None:
    decision = decided(policies=(window(tokens=1000),), windows=used())
    assert (decision.holds, decision.windows) == (NEED, (NOW,))


def test_tools_need_no_tokens() -> None:
    spent = RunUsage(tokens=10**9, cost=10**18)
    assert decide(SEARCH, replace(HERE, usage=spent, limits=Limits(costUSD="0.01"))).verdict == "Allow"


UNPRICED: dict[str, tuple[dict[str, Any], str]] = {
    "a run": ({"limits": Limits(costUSD="5")}, "limits.costUSD: Model small has no price"),
    "a loop": (
        {"loops": [Loop("each", StepLimits(costUSD="1"), Usage())]},
        "limits of step each: costUSD: Model small has no price",
    ),
    "a budget": ({"policies": (run(costUSD="1"),)}, "Policy p, rule budgets.run.costUSD: Model small has no price"),
    "a window": ({"policies": (window(costUSD="1"),), "windows": used()}, "rule budgets.window.costUSD: Model small"),
}


@pytest.mark.parametrize(("changes", "words"), UNPRICED.values(), ids=UNPRICED)
def test_where_money_counts_an_endpoint_without_a_price_is_denied(changes: dict[str, Any], words: str) -> None:
    decision = decided(model=model(None), need=Spend(300, 100), **changes)
    assert (decision.verdict, decision.reason) == ("Deny", "BudgetExceeded")
    assert words in decision.message


def test_a_policy_may_let_it_count_as_nothing() -> None:
    free = policy(budgets={"run": {"costUSD": "0"}, "unknownPrice": "Free"})
    assert decided(model=model(None), need=Spend(300, 100), policies=(free,)).verdict == "Allow"
    assert decided(policies=(free,)).verdict == "Deny", "it is about Models without a price only"


def test_a_server_of_ours_costs_what_it_says_or_nothing() -> None:
    spec = {"server": {"api": "OpenAIChat", "model": "m", "image": "x@sha256:" + "0" * 64, "port": 8080}}
    ours = Model.model_validate({"metadata": {"name": "small"}, "spec": spec})
    assert decided(model=ours, need=Spend(300, 100), limits=Limits(costUSD="0")).verdict == "Allow"


def test_audit_mode_finds_it_and_denies_nothing() -> None:
    audited = policy(mode="Audit", budgets={"run": {"tokens": 10}})
    before = snapshot(policies=(audited,))
    assert decide(CHAT, before).verdict == "Allow"
    assert [str(found) for found in would_deny(CHAT, before)] == [
        "Policy p, rule budgets.run.tokens: 0 of 10 used; this call can need 400"
    ]


def test_a_limit_of_a_loop_says_whose_it_is() -> None:
    decision = decided(loops=[Loop("each", StepLimits(tokens=399), Usage())])
    assert decision.loop == ("each", "tokens 399")
    assert decision.message == "limits of step each: tokens: 0 of 399 used; this call can need 400"


def test_runs_of_a_window_are_counted_where_rules_bind() -> None:
    two = window(runs=2)
    assert [*runs_over([two], lambda window: Usage_of(1), 61_000)] == []
    (found,) = runs_over([two], lambda window: Usage_of(2), 61_000)
    assert str(found) == "Policy p, rule budgets.window.runs: 2 of 2 runs have begun until 1970-01-01T00:02:00Z"
    audited = policy(mode="Audit", budgets={"window": {"periodSeconds": 60, "runs": 0}})
    both = [*runs_over([audited, window(tokens=1), two], lambda window: Usage_of(9), 0)]
    assert [breach.enforced for breach in both] == [False, True]


class Usage_of:
    def __init__(self, runs: int) -> None:
        self.runs = runs


@given(st.integers(0, 10**18))
def test_money_is_exact(amount: int) -> None:
    assert parse_usd(format_usd(amount)) == amount


def test_windows_follow_each_other_without_a_gap() -> None:
    first, second = window_at("p", 60, 59_999), window_at("p", 60, 60_000)
    assert (first.start, first.end, second.start) == (0, 60_000, 60_000)


numbers = st.integers(0, 5)


@given(numbers, numbers, numbers, numbers, st.sampled_from(["tokens", "costUSD"]))
def test_what_is_let_through_never_passes_the_bound(used: int, held: int, need: int, most: int, name: str) -> None:
    room = Bound(name, used, held, need, most).room
    if room == "Enough":
        assert used + held + need <= most
    if room == "Later":
        assert held and used + need <= most, "there is something to wait for, and then there is room"


@given(numbers, numbers, numbers, numbers, numbers)
def test_less_room_never_turns_a_no_into_a_yes(used: int, held: int, need: int, most: int, more: int) -> None:
    order = ["Enough", "Later", "Never"]
    before, after = Bound("tokens", used, held, need, most), Bound("tokens", used + more, held, need, most)
    assert order.index(after.room) >= order.index(before.room)
