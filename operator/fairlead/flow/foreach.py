"""forEach: how a step goes over its items.

The step and its items are steps of their own in the journal: `summaries` holds `summaries[0]`, `summaries[1]`, ... An
item has the attempts, the step the handling of errors. What the items used is counted in the step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fairlead.api.reasons import ErrorClass
from fairlead.api.workflow import ForEach, StepLimits
from fairlead.flow.calls import CallError
from fairlead.flow.evaluation import PlaceEvaluator
from fairlead.flow.journal import EntryKind, Path
from fairlead.flow.members import Member, begun, follow
from fairlead.flow.plan import StepPlan
from fairlead.flow.scope import Frame
from fairlead.flow.spending import parse_usd
from fairlead.flow.state import Evaluation, StepState, Usage, first_failure
from fairlead.flow.steps.attempt import failed
from fairlead.flow.walking import CANCELLED, NOTHING, Drain, evaluate, evaluated

if TYPE_CHECKING:
    from fairlead.flow.body import Walk

MAX_ITEMS = 100_000


def go_on(walk: Walk, frame: Frame, plan: StepPlan, step: StepState, *, deadline_ms: int, drain: Drain) -> None:
    """Evaluate the items, start the next one, follow those that are open, or end the step."""
    loop = plan.spec.for_each
    if loop is None:
        return
    if step.items is None and drain:
        walk.fail(step.path, step.attempt, CANCELLED)
    elif step.items is None:
        limits = {"limits": plan.spec.limits.to_yaml_dict()} if plan.spec.limits is not None else {}
        found = evaluated("Items", _items(walk, frame, loop)) | limits
        walk.record(EntryKind.EVALUATED, step.path, step.attempt, found)
    elif step.items.error is not None:
        walk.fail(step.path, step.attempt, step.items.error, then=None if drain else plan.spec.on_error)
    else:
        _over(walk, frame, plan, loop, step, step.items.value, deadline_ms=deadline_ms, drain=drain)


def _items(walk: Walk, frame: Frame, loop: ForEach) -> Evaluation:
    found = evaluate(PlaceEvaluator(walk.state, frame), lambda evaluator: evaluator.render(loop.items, "forEach.items"))
    if found.error is not None:
        return found
    if not isinstance(found.value, list):
        return Evaluation(error=failed(ErrorClass.INVALID, "forEach.items is no list", reason="NoList").error)
    if len(found.value) > MAX_ITEMS:
        message = f"forEach.items has {len(found.value)} items; at most {MAX_ITEMS} are allowed"
        return Evaluation(error=failed(ErrorClass.INVALID, message, reason="TooManyItems").error)
    return found


def _over(
    walk: Walk,
    frame: Frame,
    plan: StepPlan,
    loop: ForEach,
    step: StepState,
    items: list[Any],
    *,
    deadline_ms: int,
    drain: Drain,
) -> None:
    here = walk.state.bodies.get(f"{step.path}[", NOTHING)
    started = begun(here)
    reached = step.reached or (_reached(plan.spec.limits, step.used or Usage()) if started < len(items) else "")

    def member(name: str) -> Member:
        index = int(name.removesuffix("]"))
        inner = frame.looped({loop.as_: items[index], "index": index})
        return inner, plan, Path(f"{step.path}[{name}")

    more = started < len(items) and not reached and not here.failed and len(here.open) < loop.max_parallel
    ending = max(drain, Drain.WAIT) if here.failed else drain
    follow(walk, here, member, upcoming=f"{started}]" if more else None, deadline_ms=deadline_ms, drain=ending)
    if here.open or walk.records:
        return
    error = first_failure(walk.state, f"{step.path}[", but=_without_room if step.reached else None)
    if error is not None:
        walk.fail(step.path, step.attempt, error, then=None if drain else plan.spec.on_error)
    elif started < len(items) and not reached:
        walk.fail(step.path, step.attempt, CANCELLED)
    else:
        ends = [walk.state.steps.get(Path(f"{step.path}[{index}]")) for index in range(len(items))]
        left_out = f"{sum(map(_left_out, ends))} of {len(items)} skipped"
        partial = f"BudgetExceeded: {reached} reached, {left_out}" if reached else ""
        output = [end.output if end else None for end in ends]
        walk.succeed(step, output, partial=partial, then=None if drain else plan.spec.on_error)


def _left_out(item: StepState | None) -> bool:
    return item is None or (item.error is not None and _without_room(item.error))


def _without_room(error: CallError) -> bool:
    """Tell of an item that a limit left no room for: it met the limit, or had begun and called nothing yet."""
    return error.error_class == ErrorClass.BUDGET_EXCEEDED or error == CANCELLED


def _reached(limits: StepLimits | None, used: Usage) -> str:
    """Return the first limit that is used up; empty when another item may start."""
    if limits is None:
        return ""
    bounds = {
        "modelCalls": (used.model_calls, limits.model_calls),
        "toolCalls": (used.tool_calls, limits.tool_calls),
        "tokens": (used.tokens, limits.tokens),
        "costUSD": (used.cost, parse_usd(limits.cost_usd) if limits.cost_usd is not None else None),
        "steps": (used.steps, limits.steps),
    }
    names = (name for name, (now, most) in bounds.items() if most is not None and now >= most)
    return next((limit_named(limits, name) for name in names), "")


def limit_named(limits: StepLimits, name: str) -> str:
    """Return a limit as people read it: its name, as in the API, and what it is."""
    return f"{name} {limits.model_dump(by_alias=True)[name]}"
