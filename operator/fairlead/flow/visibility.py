"""Which steps and names an expression can read where it stands, and what to say when it reads another.

Within a list a step sees those that have run before it: in a Sequence the earlier ones, in a Graph its ancestors
through `needs`. A block's steps also see what is visible at all places that call it; those of `finally` see all steps
of the Workflow, of which each may not have run. From outside a block, only its output is visible.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from fairlead.api.workflow import Block, Step, WorkflowSpec
from fairlead.flow.expressions import Expression, Reference, named
from fairlead.flow.shapes import (
    RUN,
    UNKNOWN,
    WORKFLOW,
    Shape,
    did_you_mean,
    items_of,
    member_of,
    missing,
    step_shape,
    value_shape,
)
from fairlead.flow.sites import block_calls, final_call
from fairlead.flow.template import whole_segment

_ONLY = {
    "previous": "a step with repeat and the blocks it runs",
    "iteration": "a step with repeat and the blocks it runs",
    "index": "a step with forEach and the blocks it runs",
    "item": "a step with forEach and the blocks it runs",
    "output": "until and rules",
    "error": "a block that onError, onFailure or finally runs",
}


@dataclass(frozen=True, slots=True)
class Scope:
    """What can be read at one place: steps by name (several where callers differ) and the other names."""

    steps: Mapping[str, tuple[Step, ...]] = field(default_factory=dict)
    names: Mapping[str, Shape] = field(default_factory=dict)

    def within(self, own: Iterable[Step], before: Iterable[Step]) -> Scope:
        """Return the scope inside a list of steps of which `before` have run; its names hide the outer ones."""
        hidden = {step.name for step in own}
        outer = {name: steps for name, steps in self.steps.items() if name not in hidden}
        return Scope(outer | {step.name: (step,) for step in before}, self.names)

    def adding(self, names: Mapping[str, Shape]) -> Scope:
        """Return the scope with further names."""
        return Scope(self.steps, {**self.names, **names})

    def items(self, step: Step, blocks: Mapping[str, Block]) -> Shape:
        """Return the shape of what a step's forEach goes over: a value that it only names is looked up here."""
        if step.for_each is None:
            return UNKNOWN
        path = named(whole_segment(step.for_each.items) or "")
        if not path:
            return value_shape(step.for_each.items)
        shape: Shape = self.names.get(path[0], UNKNOWN)
        if path[0] == "steps" and len(path) > 1:
            steps = self.steps.get(path[1], ())
            shape, path = step_shape(steps[0], blocks) if len(steps) == 1 else UNKNOWN, path[1:]
        for member in path[1:]:
            shape = member_of(shape, member) or UNKNOWN
        return shape

    def common(self, other: Scope) -> Scope:
        """Return what is visible in both."""
        steps = {
            n: tuple({id(s): s for s in (*mine, *other.steps[n])}.values())
            for n, mine in self.steps.items()
            if n in other.steps
        }
        names = {n: s if other.names[n] == s else UNKNOWN for n, s in self.names.items() if n in other.names}
        return Scope(steps, names)


@dataclass(frozen=True, slots=True)
class Place:
    """A list of steps: the Workflow's own or a block's."""

    path: str
    body: WorkflowSpec | Block
    outer: Scope
    """What its steps see beside each other."""

    def scopes(self) -> Iterator[tuple[int, Step, Scope]]:
        """Yield each step with its index and what it sees."""
        for index, step in enumerate(self.body.steps):
            yield index, step, self.outer.within(self.body.steps, self._before(index))

    def after(self) -> Scope:
        """Return what the list's `output` sees."""
        return self.outer.within(self.body.steps, self.body.steps)

    def _before(self, index: int) -> list[Step]:
        steps = self.body.steps
        if self.body.order == "Sequence":
            return steps[:index]
        by_name = {step.name: step for step in steps}
        found: dict[str, Step] = {}
        waiting = list(steps[index].needs or [])
        while waiting:
            name = waiting.pop()
            if name in by_name and name not in found and name != steps[index].name:
                found[name] = by_name[name]
                waiting += by_name[name].needs or []
        return [step for step in steps if step.name in found]


def places(spec: WorkflowSpec, order: Iterable[str]) -> list[Place]:
    """Return the Workflow's list and those of the blocks `order`, in which callers come before what they call."""
    blocks = {block.name: block for block in spec.blocks}
    indexes = {block.name: index for index, block in enumerate(spec.blocks)}
    base = Scope({}, {"input": _input_shape(spec), "run": RUN, "workflow": WORKFLOW})
    outer: dict[str, Scope] = {}
    found = []
    for name in ("", *order):
        place = Place("spec", spec, base)
        if name:
            place = Place(f"spec.blocks[{indexes[name]}]", blocks[name], outer.get(name, base))
        found.append(place)
        calls = [
            (call, scope)
            for _, step, scope in place.scopes()
            for call in block_calls(step, "", blocks, items_of(scope.items(step, blocks)))
        ]
        calls += [(call, place.after()) for call in final_call(spec) if not name]
        for call, scope in calls:
            seen = scope.adding(call.adds)
            outer[call.block] = outer[call.block].common(seen) if call.block in outer else seen
    return found


def before_the_run(spec: WorkflowSpec) -> Reader:
    """Return the reader of what is evaluated when a run is accepted: there is only its input."""
    scope = Scope({}, {"input": _input_shape(spec)})
    return Reader(spec, Place("spec", spec, scope), scope)


def _input_shape(spec: WorkflowSpec) -> Shape:
    return (spec.input.schema_ if spec.input else None) or UNKNOWN


@dataclass(frozen=True, slots=True)
class Reader:
    """Says what is wrong with the references of expressions at one place."""

    spec: WorkflowSpec
    place: Place
    scope: Scope

    def problems(self, expression: Expression) -> Iterator[str]:
        """Yield what is wrong, one message for each reference."""
        for reference in expression.references:
            problem = self._problem(reference)
            if problem is not None:
                yield problem

    def _problem(self, reference: Reference) -> str | None:
        root, members = reference.root, reference.members
        if root == "steps":
            return self._step_problem(members)
        if root in self.scope.names:
            return missing(self.scope.names[root], root, members)
        if root in _ONLY:
            return f"'{root}' exists only in {_ONLY[root]}"
        if root in self.scope.steps:
            return f"there is no '{root}'; write steps.{root}.output"
        known = sorted({*self.scope.names, "steps"})
        return f"there is no '{root}'; {did_you_mean(root, known, 'in scope are')}"

    def _step_problem(self, members: tuple[str, ...]) -> str | None:
        if not members:
            return "say which step: steps.<name>.output"
        name, *rest = members
        if name not in self.scope.steps:
            return self._invisible(name)
        shapes = (step_shape(step, self._blocks) for step in self.scope.steps[name])
        return next((problem for shape in shapes if (problem := missing(shape, f"steps.{name}", rest))), None)

    def _invisible(self, name: str) -> str:
        before = ", ".join(self.scope.steps) or "none"
        if any(step.name == name for step in self.place.body.steps):
            return f"step '{name}' cannot have run here; steps before it: {before}"
        holders = [block.name for block in self.spec.blocks if any(step.name == name for step in block.steps)]
        inside = isinstance(self.place.body, Block)
        if inside and any(step.name == name for step in self.spec.steps):
            return f"step '{name}' has not run at every place that calls block '{self._name}'; visible: {before}"
        if holders:
            return f"step '{name}' is inside block '{holders[0]}', of which only the output is visible here"
        return f"there is no step '{name}'; {did_you_mean(name, self.scope.steps, 'steps before it:')}"

    @property
    def _blocks(self) -> dict[str, Block]:
        return {block.name: block for block in self.spec.blocks}

    @property
    def _name(self) -> str:
        return self.place.body.name if isinstance(self.place.body, Block) else ""
