"""Budgets: is there room for the most that a call can come to? In the run, each forEach around it, and Policies. Pure.

What calls that are under way hold counts as used. A call that only these leave no room for waits until they are done;
one for which there would be no room without them either is denied.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from fairlead.api.conditions import timestamp
from fairlead.api.policy import Budgets, Policy
from fairlead.api.workflow import Limits
from fairlead.flow.calls import Call, CallKind
from fairlead.flow.children import narrowed
from fairlead.flow.foreach import limit_named
from fairlead.flow.runstate import Usage
from fairlead.flow.spending import Spend, Window, format_usd, parse_usd, window_at
from fairlead.policy.decision import Breach, Snapshot

_MODELS = (CallKind.CHAT, CallKind.EMBED)
COST = "costUSD"


@dataclass(frozen=True, slots=True)
class Bound:
    """Something that may be used up.

    Attributes:
        name: the field, as people know it.
        used: without what is held.
        held: by calls that are under way.
        need: the most that this call can come to.
        most: what there is.
        policy: whose rule it is; "" for the Workflow's own.
        enforced: False for a Policy in Audit mode.
        loop: of a limit of a forEach: its path, and the limit in words.
    """

    name: str
    used: int
    held: int
    need: int
    most: int
    policy: str = ""
    enforced: bool = True
    loop: tuple[str, str] = ("", "")

    @property
    def room(self) -> Literal["Enough", "Later", "Never"]:
        """Tell whether there is room for the call: now, or perhaps when others are done."""
        if not self._full(self.used + self.held):
            return "Enough"
        return "Later" if self.held and not self._full(self.used) else "Never"

    def _full(self, used: int) -> bool:
        spent = used >= self.most and not self._is_cost
        return spent or used + self.need > self.most

    @property
    def _is_cost(self) -> bool:
        return self.name.endswith(COST)

    def __str__(self) -> str:
        shown = format_usd if self._is_cost else str
        held = f" and {shown(self.held)} held by calls under way" if self.held else ""
        asks = f"; this call can need {shown(self.need)}" if self.need > 1 and self.used < self.most else ""
        return f"{self.name}: {shown(self.used)} of {shown(self.most)} used{held}{asks}"

    def breach(self) -> Breach:
        """Return it as what a Policy's rule finds."""
        name, _, said = str(self).partition(": ")
        return Breach(self.policy, name, said, enforced=self.enforced)


def bounds(call: Call, snapshot: Snapshot) -> Iterator[Bound]:
    """Yield everything that the call uses up: the Workflow's own limits first. A notice of a rule uses up nothing."""
    if call.id.index.notice:
        return
    limits, usage, need = snapshot.limits, snapshot.usage, snapshot.need
    run = Usage(
        model_calls=usage.model_calls,
        tool_calls=usage.tool_calls,
        input_tokens=usage.tokens,
        cost=usage.cost,
        held_tokens=usage.held_tokens,
        held_cost=usage.held_cost,
    )
    yield from _of(call, "limits.", limits, run, need)
    for loop in snapshot.loops:
        for bound in _of(call, f"limits of step {loop.path}: ", loop.limits, loop.used, need):
            name = bound.name.rpartition(" ")[2]
            yield _about(bound, loop=(loop.path, limit_named(loop.limits, name)))
    for policy in snapshot.policies:
        budgets = policy.spec.rules.budgets if policy.spec.rules else None
        if budgets is not None:
            for bound in _ruled(call, policy, budgets, run, snapshot):
                yield _about(bound, policy=policy.metadata.name, enforced=policy.spec.mode != "Audit")


def limits_within(limits: Limits, policies: Iterable[Policy]) -> Limits:
    """Return what a run may use of all that is bounded: its own limits within the budgets of Policies that bind it."""
    for policy in policies:
        budgets = policy.spec.rules.budgets if policy.spec.rules and policy.spec.mode != "Audit" else None
        if budgets is not None and budgets.run is not None:
            free = {"cost_usd": None} if budgets.unknown_price == "Free" else {}
            limits = narrowed(limits, budgets.run.model_copy(update=free))
    return limits


def windows_of(policies: Iterable[Policy], now_ms: int) -> list[Window]:
    """Return the windows of now of the Policies that share a budget among runs."""
    budgets = ((policy.metadata.name, policy.spec.rules.budgets) for policy in policies if policy.spec.rules)
    return [
        window_at(name, found.window.period_seconds, now_ms)
        for name, found in budgets
        if found is not None and found.window is not None
    ]


def runs_over(policies: Sequence[Policy], spent: Callable[[Window], Any], now_ms: int) -> Iterator[Breach]:
    """Yield the windows whose budget of runs leaves no room for one more.

    Args:
        policies: those that bind the Workflow.
        spent: what was used in a window: its `runs` began.
        now_ms: Unix ms.
    """
    for policy in policies:
        for window in windows_of([policy], now_ms):
            assert policy.spec.rules is not None and policy.spec.rules.budgets is not None
            budget, began = policy.spec.rules.budgets.window, spent(window).runs
            if budget is None or budget.runs is None or began < budget.runs:
                continue
            found = f"{began} of {budget.runs} runs have begun until {timestamp(window.end)}"
            yield Breach(policy.metadata.name, "budgets.window.runs", found, enforced=policy.spec.mode != "Audit")


def run_budgets(call: Call, snapshot: Snapshot) -> Iterator[Breach]:
    """Yield the `rules.budgets` of Policies without room for the call now."""
    for bound in bounds(call, snapshot):
        if bound.policy and bound.room != "Enough":
            yield bound.breach()


def unpriced(call: Call, snapshot: Snapshot) -> Iterator[Breach]:
    """Yield which bounds in money cannot be held, because nobody knows what the Model costs."""
    model = snapshot.model
    if call.kind not in _MODELS or model is None or model.spec.price is not None or model.spec.server is not None:
        return
    said = f"Model {call.target} has no price"
    if snapshot.limits.cost_usd is not None:
        yield Breach("", f"limits.{COST}", said, enforced=True)
    for loop in snapshot.loops:
        if loop.limits.cost_usd is not None:
            yield Breach("", f"limits of step {loop.path}: {COST}", said, enforced=True)
    for policy in snapshot.policies:
        budgets = policy.spec.rules.budgets if policy.spec.rules else None
        if budgets is None or budgets.unknown_price == "Free":
            continue
        parts: tuple[tuple[str, Any], ...] = (("run", budgets.run), ("window", budgets.window))
        for part, budget in parts:
            if budget is not None and budget.cost_usd is not None:
                rule = f"budgets.{part}.{COST}"
                yield Breach(policy.metadata.name, rule, said, enforced=policy.spec.mode != "Audit")


def _ruled(call: Call, policy: Policy, budgets: Budgets, run: Usage, snapshot: Snapshot) -> Iterator[Bound]:
    if budgets.run is not None:
        yield from _of(call, "budgets.run.", budgets.run, run, snapshot.need)
    use = next((use for window, use in snapshot.windows.items() if window.policy == policy.metadata.name), None)
    if budgets.window is not None and use is not None:
        yield from _of(call, "budgets.window.", budgets.window, use, snapshot.need)


def _of(call: Call, prefix: str, limits: Any, used: Usage, need: Spend) -> Iterator[Bound]:
    """Yield the bounds of one set of limits; what it does not have, or what it leaves open, is none."""
    asked: tuple[tuple[str, str, int, int, int], ...] = (("toolCalls", "tool_calls", used.tool_calls, 0, 1),)
    if call.kind in _MODELS:
        asked = (
            ("modelCalls", "model_calls", used.model_calls, 0, 1),
            ("tokens", "tokens", used.tokens, used.held_tokens, need.tokens),
            (COST, "cost_usd", used.cost, used.held_cost, need.cost),
        )
    for name, field, spent, held, needs in asked:
        most = getattr(limits, field, None)
        if most is not None:
            yield Bound(f"{prefix}{name}", spent, held, needs, _usd(most) if field == "cost_usd" else most)


def _about(bound: Bound, **more: Any) -> Bound:
    return Bound(bound.name, bound.used, bound.held, bound.need, bound.most, **more)


@lru_cache(maxsize=256)
def _usd(text: str) -> int:
    return parse_usd(text)
