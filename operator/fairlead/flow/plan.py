"""The plan: a Workflow as the engine runs it - frozen, indexed, with the defaults filled in.

`compile_plan` turns a frozen revision's spec into a Plan once per revision; `next.py` walks it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fairlead.api.workflow import Block, Defaults, Limits, Retry, Step, WorkflowSpec
from fairlead.flow.journal import Path
from fairlead.flow.labels import TRUSTED, Label

CONTAINERS = ("block", "parallel", "workflow")
"""Kinds that run other steps, here or in a child: the defaults hold for the steps within, not for them."""

CALLED = ("tool", "workflow")
"""Kinds whose output is what a call brought, whatever was asked."""

WITHOUT_DEFAULTS = (*CONTAINERS, "wait", "approval")
"""Nor do they hold for what only waits, and says itself how long."""


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One step of a list.

    Attributes:
        spec: the definition.
        kind: `generate`, `tool`, ...: the name in YAML.
        definition: what stands under that name.
        needs: the steps of the same list that it waits for.
        join: All, Any or AllDone of them.
        retry: how often and when a failed attempt is followed by another.
        timeout_seconds: of one attempt; 0 for none.
        branches: of a parallel: one step for each of its blocks, by name.
    """

    spec: Step
    kind: str
    definition: Any
    needs: tuple[str, ...]
    join: str
    retry: Retry
    timeout_seconds: int
    branches: Mapping[str, StepPlan] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Return the step's name."""
        return self.spec.name

    @property
    def loops(self) -> bool:
        """Tell whether the step holds iterations or items, which have its attempts."""
        return self.spec.repeat is not None or self.spec.for_each is not None


@dataclass(frozen=True, slots=True)
class Body:
    """A list of steps with an output: the Workflow's own (name "") or a block's. `sequence` is as it was written."""

    name: str
    order: str
    steps: Mapping[str, StepPlan]
    sequence: tuple[StepPlan, ...]
    output: Any

    def step(self, name: str) -> StepPlan:
        """Return the step of this name."""
        return self.steps[name]


@dataclass(frozen=True, slots=True)
class Past:
    """What an ended run found at one step, for a run that goes on from it (`reuse.py`).

    Attributes:
        run: that run's name.
        kind: of the step as it was then.
        definition: what stood under that name.
        inputs: the digest of what it had evaluated.
        choice: of a route that ran a block: which way it went.
        output: of a step that succeeded.
        succeeded: whether it did.
        label: of the output.
    """

    run: str
    kind: str
    definition: Any
    inputs: str
    choice: str | None = None
    output: Any = None
    succeeded: bool = False
    label: Label = TRUSTED


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole Workflow, ready to run.

    `finally_` is the block that runs whatever happened; `past` what an earlier run did that need not be done again.
    """

    name: str
    revision: str
    main: Body
    blocks: Mapping[str, Body]
    finally_: Body | None
    limits: Limits
    defaults: Defaults
    input_schema: Mapping[str, object] | None
    past: Mapping[Path, Past] = field(default_factory=dict)


def compile_plan(name: str, revision: str, spec: WorkflowSpec) -> Plan:
    """Return the plan of a Workflow that passed the static checks.

    In a Sequence each step needs the one before it; in a Graph what it says.
    """
    defaults = spec.defaults or Defaults()
    blocks = {block.name: _body(block.name, block, defaults) for block in spec.blocks}
    return Plan(
        name=name,
        revision=revision,
        main=_body("", spec, defaults),
        blocks=blocks,
        finally_=blocks[spec.finally_] if spec.finally_ is not None else None,
        limits=spec.limits or Limits(),
        defaults=defaults,
        input_schema=spec.input.schema_ if spec.input else None,
    )


def step_kind(step: Step) -> str:
    """Return the one kind that is set, by its name in YAML."""
    return next(kind for kind, definition in _definitions(step).items() if definition is not None)


def has_defaults(step: Step) -> bool:
    """Tell whether the Workflow's default time and retry hold for a step: not for one that runs others."""
    choices = step.route.choices if step.route is not None else []
    handles = step.validate_ is not None and step.validate_.on_failure is not None and step.validate_.on_failure.block
    return not (step_kind(step) in WITHOUT_DEFAULTS or handles or any(choice.block for choice in choices))


def _definitions(step: Step) -> dict[str, Any]:
    return {
        "generate": step.generate,
        "agent": step.agent,
        "tool": step.tool,
        "route": step.route,
        "validate": step.validate_,
        "transform": step.transform,
        "block": step.block,
        "workflow": step.workflow,
        "approval": step.approval,
        "wait": step.wait,
        "container": step.container,
        "parallel": step.parallel,
    }


def _body(name: str, given: WorkflowSpec | Block, defaults: Defaults) -> Body:
    plans = []
    for position, step in enumerate(given.steps):
        before = (given.steps[position - 1].name,) if given.order == "Sequence" and position else ()
        plans.append(_step(step, tuple(step.needs or ()) or before, defaults))
    return Body(name, given.order, {plan.name: plan for plan in plans}, tuple(plans), given.output)


def _step(step: Step, needs: tuple[str, ...], defaults: Defaults) -> StepPlan:
    kind = step_kind(step)
    default = defaults if has_defaults(step) else Defaults()
    return StepPlan(
        spec=step,
        kind=kind,
        definition=_definitions(step)[kind],
        needs=needs,
        join=step.join or "All",
        retry=step.retry or default.retry or Retry(),
        timeout_seconds=step.timeout_seconds or default.timeout_seconds or 0,
        branches={
            block: _step(Step(name=block, block=block), (), defaults)
            for block in (step.parallel.blocks if step.parallel else ())
        },
    )
