"""The plan: a Workflow as the engine runs it - frozen, indexed, with every expression found and parsed.

`compile_plan` turns a frozen revision's spec into a Plan once per revision; `next.py` walks it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fairlead.api.workflow import Block, Defaults, Limits, Step, WorkflowSpec


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One step of a list: its definition and what it waits for."""

    spec: Step
    kind: str
    needs: tuple[str, ...]
    join: str


@dataclass(frozen=True, slots=True)
class Body:
    """A list of steps with an output: the Workflow's own (name "") or a block's."""

    name: str
    steps: tuple[StepPlan, ...]
    output: object

    def step(self, name: str) -> StepPlan:
        """Return the step of this name."""
        return next(step for step in self.steps if step.spec.name == name)


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole Workflow, ready to run."""

    name: str
    revision: str
    main: Body
    blocks: Mapping[str, Body]
    limits: Limits
    defaults: Defaults
    input_schema: Mapping[str, object] | None


def compile_plan(name: str, revision: str, spec: WorkflowSpec) -> Plan:
    """Return the plan of a Workflow that passed the static checks.

    In a Sequence each step needs the one before it; in a Graph what it says.
    """
    return Plan(
        name=name,
        revision=revision,
        main=_body("", spec.order, spec.steps, spec.output),
        blocks={block.name: _block(block) for block in spec.blocks},
        limits=spec.limits or Limits(),
        defaults=spec.defaults or Defaults(),
        input_schema=spec.input.schema_ if spec.input else None,
    )


def step_kind(step: Step) -> str:
    """Return the one kind that is set, by its name in YAML."""
    kinds = {
        "generate": step.generate,
        "agent": step.agent,
        "tool": step.tool,
        "route": step.route,
        "validate": step.validate_,
        "transform": step.transform,
        "block": step.block,
    }
    return next(kind for kind, value in kinds.items() if value is not None)


def _block(block: Block) -> Body:
    return _body(block.name, block.order, block.steps, block.output)


def _body(name: str, order: str, steps: list[Step], output: object) -> Body:
    plans = []
    for position, step in enumerate(steps):
        before = (steps[position - 1].name,) if order == "Sequence" and position else ()
        plans.append(StepPlan(step, step_kind(step), tuple(step.needs or ()) or before, step.join or "All"))
    return Body(name, tuple(plans), output)
