"""The worst labels that a Workflow's data can have, before anything runs: of every step, and of every call. Pure.

It is the same reading as `labels.py`, over what may be read instead of what was: every branch runs, every loop goes
round, every step may fail. So no run ever finds a worse label at a step than stands here: what is safe here never meets
a denial by data flow. What is not safe here may still be fine in each run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce

from fairlead.api.tool import Function, Tool
from fairlead.api.workflow import Block, Step, Workflow, WorkflowSpec
from fairlead.flow.expressions import ExpressionError, compile_expression
from fairlead.flow.labels import (
    SENSITIVITIES,
    TOLD,
    TRUSTED,
    WORST,
    Label,
    endorsed,
    endorses,
    leaves,
    of_input,
    returned,
)
from fairlead.flow.plan import CALLED, step_kind
from fairlead.flow.shapes import UNKNOWN, must_pass
from fairlead.flow.sites import Offer, block_calls, offers, sites_of, tool_calls
from fairlead.flow.template import expressions_in

MAIN = ""
_DEEPEST = 20
MOST_CHILDREN = 200
"""So many child runs are looked at; of more than these everything is expected."""

_CONFIDENTIAL = SENSITIVITIES.index("Confidential")

Place = tuple[str, str]
"""The list that a step stands in (MAIN or a block's name), and its name."""


@dataclass(frozen=True, slots=True)
class Flow:
    """A label, and the names of what brings the untrusted and the confidential part."""

    label: Label = TRUSTED
    untrusted: frozenset[str] = frozenset()
    confidential: frozenset[str] = frozenset()

    def join(self, other: Flow) -> Flow:
        """Return the worst of both."""
        if other is self or other == NOTHING:
            return self
        label = self.label.join(other.label)
        return Flow(label, self.untrusted | other.untrusted, self.confidential | other.confidential)


NOTHING = Flow()


@dataclass(frozen=True, slots=True)
class Leak:
    """A call that may take untrusted and confidential data out: the field, the step, and from where they come."""

    path: str
    step: str
    untrusted: tuple[str, ...]
    confidential: tuple[str, ...]

    def __str__(self) -> str:
        told, kept = " and ".join(self.untrusted), " and ".join(self.confidential)
        return f"step '{self.step}' may send Confidential data from {kept} after untrusted data from {told}"


@dataclass(frozen=True, slots=True)
class Worst:
    """What was found: contexts by step, the label of the output, and the leaks in the order of the text."""

    contexts: Mapping[Place, Label]
    output: Flow
    leaks: Sequence[Leak]


def worst_of(
    workflow: Workflow,
    tools: Mapping[str, Tool],
    workflows: Mapping[str, Workflow],
    *,
    given: Flow | None = None,
    above: tuple[str, ...] = (),
    known: dict[tuple[str, Flow], Worst] | None = None,
) -> Worst:
    """Return the worst labels of a Workflow's runs.

    Args:
        workflow: the Workflow.
        tools: those that exist; of a function without a contract everything is expected.
        workflows: those that exist, for child runs.
        given: what led to the run, where it is a child.
        above: the Workflows that run it, outermost first.
        known: what was found of child runs already, by Workflow and what led to them.
    """
    spec = workflow.spec
    start = Flow(of_input(workflow, None), untrusted=frozenset({"the input"})) if _is_told(workflow) else NOTHING
    blocks, known = {block.name: block for block in spec.blocks}, known if known is not None else {}
    led = start.join(given or NOTHING)
    walk = _Walk(spec, tools, workflows, led, (*above, workflow.metadata.name), blocks, known)
    walk.controls[MAIN] = given or NOTHING
    before: object = None
    while before != (before := walk.go_over()):
        pass
    return Worst(
        {place: flow.label for place, flow in walk.contexts.items()}, walk.output_of(MAIN), [*walk.leaks.values()]
    )


def _is_told(workflow: Workflow) -> bool:
    return of_input(workflow, None) != TRUSTED


@dataclass(frozen=True, slots=True)
class _Reads:
    """What some expressions read: the input, all steps as one, steps by name."""

    input: bool
    any_step: bool
    steps: tuple[str, ...]


@dataclass(slots=True)
class _Walk:
    spec: WorkflowSpec
    tools: Mapping[str, Tool]
    workflows: Mapping[str, Workflow]
    given: Flow
    above: tuple[str, ...]
    blocks: Mapping[str, Block]
    known: dict[tuple[str, Flow], Worst]
    controls: dict[str, Flow] = field(default_factory=dict)
    contexts: dict[Place, Flow] = field(default_factory=dict)
    outputs: dict[Place, Flow] = field(default_factory=dict)
    leaks: dict[str, Leak] = field(default_factory=dict)
    lists: dict[str, Flow] = field(default_factory=dict)
    names: dict[str, Flow] = field(default_factory=dict)
    any_step: Flow = NOTHING
    reads: dict[str, _Reads] = field(default_factory=dict)

    def go_over(self) -> tuple[dict[str, Flow], dict[Place, Flow], dict[Place, Flow]]:
        """Look at every step once more, with what is known by now."""
        for name, path, steps in self._lists():
            for index, step in enumerate(steps):
                self._step(name, f"{path}.steps[{index}]", step)
        if self.spec.finally_ is not None:
            self._reach(self.spec.finally_, self.lists.get(MAIN, NOTHING))
        return dict(self.controls), dict(self.contexts), dict(self.outputs)

    def output_of(self, name: str) -> Flow:
        """Return the label of a list's output."""
        steps, output = self._list(name)
        if output is None:
            return self._out(name, steps[-1].name)
        return self._read(name, self._reads_at(f"{name}.output", lambda: _texts(output)))

    def _lists(self) -> Iterator[tuple[str, str, Sequence[Step]]]:
        yield MAIN, "spec", self.spec.steps
        for index, block in enumerate(self.spec.blocks):
            yield block.name, f"spec.blocks[{index}]", block.steps

    def _list(self, name: str) -> tuple[Sequence[Step], object]:
        if name == MAIN:
            return self.spec.steps, self.spec.output
        block = self.blocks[name]
        return block.steps, block.output

    def _step(self, where: str, path: str, step: Step) -> None:
        place, blocks = (where, step.name), self.blocks
        control = self.controls.get(where, NOTHING)
        when = step.when
        if when is not None:
            control = control.join(self._read(where, self._reads_at(f"{path}.when", lambda: [when])))
        loops = step.for_each is not None or step.repeat is not None
        known = self.contexts.get(place, NOTHING) if loops else NOTHING
        read = control.join(known)
        read = read.join(self._read(where, self._reads_at(path, lambda: _expressions(step, path, blocks))))
        if step.wait is not None and step.wait.signal is not None:
            read = read.join(Flow(TOLD, untrusted=frozenset({f"the signal '{step.wait.signal.name}'"})))
        context, brought = read, control
        for flow in self._calls(step, read, path):
            brought, context = brought.join(flow), context.join(flow)
        if step.agent is not None or step.container is not None:  # what one call brings may lead to the next
            context = reduce(Flow.join, self._calls(step, context, path), context)
        for call in block_calls(step, path, blocks):
            if call.block in blocks:
                inside = context.join(self.lists.get(call.block, NOTHING)).join(self.output_of(call.block))
                self._reach(call.block, inside if self._tells(step, blocks[call.block]) else context)
                context = inside
        self.contexts[place] = self.contexts.get(place, NOTHING).join(context)
        self.lists[where] = self.lists.get(where, NOTHING).join(context)
        output = context
        if not loops and step.on_error is None and not self._is_graph(where):
            output = brought if step_kind(step) in CALLED else _checked(step, control, read, context)
        self.outputs[place] = self.outputs.get(place, NOTHING).join(output)
        self.names[step.name] = self.names.get(step.name, NOTHING).join(output)
        self.any_step = self.any_step.join(output)

    def _tells(self, step: Step, block: Block) -> bool:
        """Tell whether a step of a block may learn from those beside it otherwise than by reading them.

        Whatever holds a block learns how its steps fail. That reaches the others where it goes on after a failure, goes
        round again, or is tried again.
        """
        again = step.for_each is not None or step.repeat is not None or step.retry is not None
        beside = block.order == "Graph" or step.parallel is not None
        return again or beside or any(inner.on_error is not None for inner in block.steps)

    def _calls(self, step: Step, led: Flow, path: str) -> Iterator[Flow]:
        """Yield what each call of a step brings; take note of those that may leak."""
        name = f"'{step.name}'"
        for here, called in tool_calls(step, path):
            function = _function(self.tools, called.tool, called.function)
            self._look(here, step, function, led)
            yield _brought(name, function)
        if step.workflow is not None:
            yield self._child(step.workflow.workflow, led, f"{path}.workflow", step)
        for index, offered in enumerate(step.agent.tools if step.agent is not None else []):
            if offered.workflow is not None:
                yield self._child(offered.workflow, led, f"{path}.agent.tools[{index}]", step)
        for offer in offers(step, path):
            for function in self._offered(offer):
                self._look(offer.path, step, function, led)
                yield _brought(name, function)

    def _offered(self, offer: Offer) -> Iterator[Function | None]:
        known, functions = self.tools.get(offer.tool), offer.functions
        if functions is None and known is None:
            yield None
        names = functions if functions is not None else [one.name for one in known.spec.functions] if known else []
        yield from (_function(self.tools, offer.tool, one) for one in names)

    def _child(self, name: str, led: Flow, path: str, step: Step) -> Flow:
        child, itself = self.workflows.get(name), (f"Workflow {name}",)
        worst = led.join(Flow(WORST, frozenset(itself), frozenset(itself)))
        if child is None:
            return worst  # no call of what does not exist is let through
        found = self.known.get((name, led))
        if found is None and (len(self.above) > _DEEPEST or len(self.known) >= MOST_CHILDREN):
            self.leaks.setdefault(path, Leak(path, step.name, itself, itself))  # nobody looks what it does
            return worst
        if found is None:
            # Who runs itself with the same again finds this: what leaks there, the one that is at work tells.
            self.known[name, led] = Worst({}, worst, ())
            found = worst_of(child, self.tools, self.workflows, given=led, above=self.above, known=self.known)
            self.known[name, led] = found
        for leak in found.leaks:
            self.leaks.setdefault(path, Leak(path, step.name, leak.untrusted, leak.confidential))
        flow = found.output
        for label in found.contexts.values():  # of a child that fails, its parent learns how
            flow = flow.join(Flow(label, flow.untrusted, flow.confidential))
        named = frozenset({f"Workflow {name}"})
        untrusted = flow.untrusted or (named if flow.label.untrusted else frozenset())
        return Flow(flow.label, untrusted, flow.confidential or _kept(flow.label, f"Workflow {name}"))

    def _look(self, path: str, step: Step, function: Function | None, led: Flow) -> None:
        if function is not None and leaves(led.label, function):
            self.leaks[path] = Leak(path, step.name, tuple(sorted(led.untrusted)), tuple(sorted(led.confidential)))

    def _reads_at(self, path: str, expressions: Callable[[], Iterable[str]]) -> _Reads:
        """Return what is read at a place; its expressions are looked at once."""
        known = self.reads.get(path)
        if known is None:
            known = self.reads[path] = _reads_of(expressions())
        return known

    def _read(self, where: str, reads: _Reads) -> Flow:
        found = self.given if reads.input else NOTHING
        if reads.any_step:
            found = found.join(self.any_step)
        for name in reads.steps:
            found = found.join(self._out(where, name))
        return found

    def _out(self, where: str, name: str) -> Flow:
        """Return what reading a step can bring: that of this list, else of any list that has one of this name."""
        known = self.outputs.get((where, name))
        return known if known is not None else self.names.get(name, NOTHING)

    def _reach(self, block: str, led: Flow) -> None:
        self.controls[block] = self.controls.get(block, NOTHING).join(led)

    def _is_graph(self, where: str) -> bool:
        return (self.spec.order if where == MAIN else self.blocks[where].order) == "Graph"


def _checked(step: Step, control: Flow, read: Flow, context: Flow) -> Flow:
    """Return what a step leaves that is no call's result: its context, or less.

    What a `validate` endorses that must pass is trusted; what people decide has nothing of what told them of it.
    """
    if step.approval is not None:
        return read
    checks = step.validate_
    if checks is None or not endorses(checks) or not must_pass(checks):
        return context
    return control.join(Flow(endorsed(TRUSTED, context.label), confidential=context.confidential))


def _expressions(step: Step, path: str, blocks: Mapping[str, Block]) -> Iterator[str]:
    for site in sites_of(step, path, blocks, UNKNOWN):
        yield from [site.value] if site.bare else _texts(site.value)


def _reads_of(expressions: Iterable[str]) -> _Reads:
    names: dict[str, None] = {}
    of_input = any_step = False
    for expression in expressions:
        try:
            references = compile_expression(expression).references
        except ExpressionError:
            continue  # told by the checks
        for reference in references:
            of_input = of_input or reference.root == "input"
            if reference.root == "steps":
                any_step = any_step or not reference.members
                names.update(dict.fromkeys(reference.members[:1]))
    return _Reads(of_input, any_step, tuple(names))


def _texts(value: object) -> list[str]:
    """Return the expressions of a value; none of one that cannot be read, of which the checks tell."""
    try:
        return expressions_in(value)
    except ExpressionError:
        return []


def _function(tools: Mapping[str, Tool], tool: str, name: str) -> Function | None:
    found = tools.get(tool)
    return next((one for one in found.spec.functions if one.name == name), None) if found is not None else None


def _brought(name: str, function: Function | None) -> Flow:
    label = returned(function) if function is not None else WORST
    return Flow(label, frozenset({name}) if label.untrusted else frozenset(), _kept(label, name))


def _kept(label: Label, name: str) -> frozenset[str]:
    return frozenset({name}) if label.sensitivity >= _CONFIDENTIAL else frozenset()
