"""Which steps and names an expression can read where it stands, and what to say when it reads another.

Within a list a step sees those that have run before it: in a Sequence the earlier ones, in a Graph its ancestors
through `needs`. Of an ancestor that `join: Any` may not have waited for it sees the output only, null until that one is
over. A block's steps also see what is visible at all places that call it; those of `finally` see all steps of the
Workflow, of which each may not have run. From outside a block, only its output is visible.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from fairlead.api.workflow import Block, Step, WorkflowSpec
from fairlead.flow.celtypes import judge, signature, unlike
from fairlead.flow.expressions import Expression, ExpressionError, Reference, compile_expression, named
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
    """What can be read at one place.

    Attributes:
        steps: steps by name, several where callers differ.
        names: the other names.
        open: names of the steps that may not be over.
    """

    steps: Mapping[str, tuple[Step, ...]] = field(default_factory=dict)
    names: Mapping[str, Shape] = field(default_factory=dict)
    open: frozenset[str] = frozenset()

    def within(self, own: Iterable[Step], before: Iterable[Step], over: frozenset[str] | None = None) -> Scope:
        """Return the scope inside a list of steps of which `before` can be read; its names hide the outer ones.

        Those of them that are not `over` may still be at work; None stands for all.
        """
        hidden = {step.name for step in own}
        outer = {name: steps for name, steps in self.steps.items() if name not in hidden}
        seen = {step.name: (step,) for step in before}
        still = seen.keys() - over if over is not None else frozenset()
        return Scope(outer | seen, self.names, (self.open - hidden) | still)

    def adding(self, names: Mapping[str, Shape]) -> Scope:
        """Return the scope with further names."""
        return replace(self, names={**self.names, **names})

    def items(self, step: Step, blocks: Mapping[str, Block]) -> Shape:
        """Return the shape of what a step's forEach goes over: what an expression gives is looked up here."""
        if step.for_each is None:
            return UNKNOWN
        text = whole_segment(step.for_each.items)
        if text is None:
            return value_shape(step.for_each.items)
        path = named(text)
        return self._shapes(path, blocks).get(".".join(path), UNKNOWN) if path else self.gives(text, blocks)[0]

    def gives(self, text: str, blocks: Mapping[str, Block]) -> tuple[Shape, str]:
        """Return the shape of what an expression gives here, as far as it is known, and why it is sure to fail."""
        try:
            references = compile_expression(text).references
        except ExpressionError:  # a finding of its own
            return UNKNOWN, ""
        types: dict[str, str] = {}
        for reference in references:
            shapes = self._shapes((reference.root, *reference.members), blocks)
            types |= {path: signature(shape) for path, shape in shapes.items() if named(path)}
        return judge(text, tuple(sorted((path, of) for path, of in types.items() if of != "dyn")))

    def _shapes(self, path: Sequence[str], blocks: Mapping[str, Block]) -> dict[str, Shape]:
        """Return the shapes of a name, of its member, of that one's member and so on, by their paths."""
        at, shape = path[0], self.names.get(path[0], UNKNOWN)
        if at == "steps" and len(path) > 1:
            steps = [step_shape(step, blocks) for step in self.steps.get(path[1], ())]
            at, shape = f"steps.{path[1]}", steps[0] if steps and steps.count(steps[0]) == len(steps) else UNKNOWN
            path = path[1:]
        found = {at: shape}
        for member in path[1:]:
            at, shape = f"{at}.{member}", member_of(shape, member) or UNKNOWN
            found[at] = shape
        return found

    def common(self, other: Scope) -> Scope:
        """Return what is visible in both."""
        steps = {
            n: tuple({id(s): s for s in (*mine, *other.steps[n])}.values())
            for n, mine in self.steps.items()
            if n in other.steps
        }
        names = {n: s if other.names[n] == s else UNKNOWN for n, s in self.names.items() if n in other.names}
        return Scope(steps, names, self.open | other.open)


@dataclass(frozen=True, slots=True)
class Place:
    """A list of steps: the Workflow's own or a block's."""

    path: str
    body: WorkflowSpec | Block
    outer: Scope
    """What its steps see beside each other."""

    def scopes(self) -> Iterator[tuple[int, Step, Scope]]:
        """Yield each step with its index and what it sees."""
        over = _sure(self.body.steps) if self.body.order == "Graph" else {}
        for index, step in enumerate(self.body.steps):
            yield index, step, self.outer.within(self.body.steps, self._before(index), over.get(step.name))

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


def _sure(steps: Iterable[Step]) -> dict[str, frozenset[str]]:
    """Return by name which steps of a Graph are over when one starts. Steps that wait for each other are left out."""
    over: dict[str, frozenset[str]] = {}
    waiting = {step.name: step for step in steps}
    while ready := [step for step in waiting.values() if not any(need in waiting for need in step.needs or [])]:
        for step in ready:
            ways = [over.get(need, frozenset()) | {need} for need in step.needs or []]
            joined = frozenset.intersection if step.join == "Any" else frozenset.union
            over[step.name] = joined(*ways) if ways else frozenset()
            del waiting[step.name]
    return over


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
    later: Mapping[str, str] = field(default_factory=dict)
    """Names that are there later, and what is asked for once, before the first of them."""

    def problems(self, expression: Expression, wanted: str = "") -> Iterator[str]:
        """Yield what is wrong: one message for each reference; else of the types, of which the result's is `wanted`."""
        found = [problem for one in expression.references if (problem := self._problem(one)) is not None]
        yield from found
        if found:
            return
        shape, complaint = self.scope.gives(expression.text, self._blocks)
        if problem := complaint or (unlike(shape, wanted) if wanted else ""):
            yield problem

    def _problem(self, reference: Reference) -> str | None:
        root, members = reference.root, reference.members
        if root == "steps":
            return self._step_problem(members)
        if root in self.scope.names:
            return missing(self.scope.names[root], root, members)
        if root in self.later:
            once = f"there is no '{root}' yet: this is asked once, before the {self.later[root]}"
            return f"{once}; what is asked for each stands in a block that the step runs"
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
        if name in self.scope.open and rest[:1] != ["output"]:
            return f"step '{name}' may not be over here: read steps.{name}.output, which is null until it is"
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
