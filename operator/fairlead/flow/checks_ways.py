"""The static checks of ways: what never runs, because its condition is always false, and what never ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from fairlead.api.workflow import Block, Step, WorkflowSpec
from fairlead.flow.checks_triggers import Problem
from fairlead.flow.expressions import ExpressionError, compile_expression
from fairlead.flow.sites import final_call

Specs = Callable[[str], WorkflowSpec | None]
"""The spec of the Workflow of a name; None for one that is not known."""


def constant(text: str | None) -> bool | None:
    """Return what a condition always is, None where it depends on something. There is none: always true."""
    if text is None:
        return True
    try:
        expression = compile_expression(text)
        value = expression.evaluate({}) if not expression.references else None
    except ExpressionError:  # a finding of its own
        return None
    return value if isinstance(value, bool) else None


def way_problems(step: Step, path: str) -> Iterator[Problem]:
    """Yield what of a step can never run."""
    if constant(step.when) is False:
        yield f"{path}.when", "this is never true, so the step never runs: correct the condition, or leave the step out"
    if step.route is None:
        return
    choices = step.route.choices
    certain = next((index for index, choice in enumerate(choices) if choice.when and constant(choice.when)), None)
    for index, choice in enumerate(choices):
        here, never = f"{path}.route.choices[{index}]", f"'{choice.name}' can never be chosen"
        if certain is not None and (index > certain or choice.when is None):
            yield here, f"{never}: the when of '{choices[certain].name}' always holds"
        elif step.route.model is None and choice.name != step.route.otherwise:
            if choice.when is None:
                yield here, f"{never}: give it when, make it otherwise, or set route.model"
            elif constant(choice.when) is False:
                yield f"{here}.when", f"{never}: this is never true"


def endless_problems(spec: WorkflowSpec, name: str, specs: Specs) -> Iterator[Problem]:
    """Yield where a Workflow always runs itself again, itself or through others."""
    for path, child in _always(spec).items():
        if trail := _back(child, name, specs):
            through = f": {' -> '.join((name, *trail))}" if len(trail) > 1 else ""
            instead = "give the step a when, or put it into a block of a route"
            yield path, f"the Workflow always runs itself again{through}; {instead}"


def _back(start: str, name: str, specs: Specs) -> list[str]:
    """Return the Workflows that always run one after the other, from one of them to the one of this name."""
    ways = {start: [start]}
    waiting = [start]
    while waiting and name not in ways:
        here = waiting.pop(0)
        known = specs(here)
        further = [child for child in _always(known).values() if child not in ways] if known is not None else []
        ways |= {child: [*ways[here], child] for child in further}
        waiting += further
    return ways.get(name, [])


def _always(spec: WorkflowSpec) -> dict[str, str]:
    """Return the Workflows that every run of one runs, by the field, as long as nothing fails."""
    lists: dict[str, tuple[str, WorkflowSpec | Block]] = {"": ("spec", spec)}
    lists |= {block.name: (f"spec.blocks[{index}]", block) for index, block in enumerate(spec.blocks)}
    entered = dict.fromkeys(("", *(call.block for call in final_call(spec))))
    found: dict[str, str] = {}
    waiting = [name for name in entered if name in lists]
    while waiting:
        path, body = lists[waiting.pop(0)]
        for index, step in enumerate(body.steps):
            further = [name for name in _entered(step) if name in lists and name not in entered]
            if not (further or step.workflow) or _may_be_empty(step) or constant(step.when) is not True:
                continue
            if step.workflow is not None:
                found[f"{path}.steps[{index}].workflow.workflow"] = step.workflow.workflow
            entered |= dict.fromkeys(further)
            waiting += further
    return found


def _may_be_empty(step: Step) -> bool:
    return step.for_each is not None and (not isinstance(step.for_each.items, list) or not step.for_each.items)


def _entered(step: Step) -> list[str]:
    """Return the blocks that a step always runs to their end: one of a parallel may be cut off when others are done."""
    if step.block is not None:
        return [step.block]
    parallel = step.parallel
    return parallel.blocks if parallel is not None and parallel.needed == len(parallel.blocks) else []
