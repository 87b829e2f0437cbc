"""Where expressions stand in a step, and which blocks it calls: the one list of them that the static checks use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fairlead.api.toolcall import ToolCall
from fairlead.api.workflow import Block, Judge, OutputContract, OutputRule, Step, WorkflowSpec
from fairlead.flow.shapes import APPROVAL, ERROR, NUMBER, UNKNOWN, Shape, turn_shape


@dataclass(frozen=True, slots=True)
class Site:
    """A place that holds an expression.

    Attributes:
        path: the field path.
        value: bare CEL, or a JSON value whose strings hold `$( )`.
        bare: which of the two.
        adds: the names that are in scope here beside those of the list of steps.
        later: the names that the step itself has later on, and of what there is one for each.
        wanted: the type of JSON that a value must have that is one `$( )`; bare CEL is a condition.
    """

    path: str
    value: Any
    bare: bool = False
    adds: Mapping[str, Shape] = field(default_factory=dict)
    later: Mapping[str, str] = field(default_factory=dict)
    wanted: str = ""


@dataclass(frozen=True, slots=True)
class BlockCall:
    """A place that runs a block, and the names that the block's steps see beside the caller's."""

    path: str
    block: str
    adds: Mapping[str, Shape]


def sites_of(step: Step, path: str, blocks: Mapping[str, Block], item: Shape) -> Iterator[Site]:
    """Yield every place of a step that holds expressions, in the order of the text; `item` is one of a forEach."""
    loop = _loop(step, blocks, item)
    later = dict.fromkeys(loop, "items" if step.for_each is not None else "iterations")
    if step.when is not None:
        yield Site(f"{path}.when", step.when, True, later=later)
    output = {"output": turn_shape(step, blocks)}
    if step.repeat is not None:
        yield Site(f"{path}.repeat.until", step.repeat.until, True, loop | output)
    if step.for_each is not None:
        yield Site(f"{path}.forEach.items", step.for_each.items, later=later)
    if step.generate is not None:
        here = f"{path}.generate"
        yield Site(f"{here}.instructions", step.generate.instructions, adds=loop)
        yield Site(f"{here}.prompt", step.generate.prompt, adds=loop)
        for index, message in enumerate(step.generate.messages or []):
            yield Site(f"{here}.messages[{index}].content", message.content, adds=loop)
        yield from _contract(step.generate.output, f"{here}.output", loop, output)
    if step.agent is not None:
        here = f"{path}.agent"
        yield Site(f"{here}.instructions", step.agent.instructions, adds=loop)
        yield Site(f"{here}.prompt", step.agent.prompt, adds=loop)
        yield from _contract(step.agent.output, f"{here}.output", loop, output)
    if step.tool is not None:
        yield Site(f"{path}.tool.arguments", step.tool.arguments, adds=loop)
    if step.route is not None:
        yield Site(f"{path}.route.value", step.route.value, adds=loop)
        for index, choice in enumerate(step.route.choices):
            if choice.when is not None:
                yield Site(f"{path}.route.choices[{index}].when", choice.when, True, loop)
    if step.validate_ is not None:
        here = f"{path}.validate"
        yield Site(f"{here}.value", step.validate_.value, adds=loop)
        yield from _rules(step.validate_.rules, f"{here}.rules", loop | {"output": UNKNOWN})
        yield from _judge(step.validate_.judge, f"{here}.judge", loop)
    if step.transform is not None:
        yield Site(f"{path}.transform.value", step.transform.value, adds=loop)
    if step.workflow is not None:
        yield Site(f"{path}.workflow.input", step.workflow.input, adds=loop)
    if step.container is not None:
        yield Site(f"{path}.container.input", step.container.input, adds=loop)
    if step.approval is not None:
        yield Site(f"{path}.approval.message", step.approval.message, adds=loop)
        if step.approval.notify is not None:
            here = f"{path}.approval.notify.arguments"
            yield Site(here, step.approval.notify.arguments, adds=loop | {"approval": APPROVAL})
    if step.wait is not None:
        yield Site(f"{path}.wait.until", step.wait.until, adds=loop, wanted="string")


def tool_calls(step: Step, path: str) -> Iterator[tuple[str, ToolCall]]:
    """Yield every place of a step that calls a function by itself; what is offered (`offers`) is not among them."""
    if step.tool is not None:
        yield f"{path}.tool", step.tool
    if step.approval is not None and step.approval.notify is not None:
        yield f"{path}.approval.notify", step.approval.notify


@dataclass(frozen=True, slots=True)
class Offer:
    """A place where an agent or a container is offered a Tool: these functions, None for all of its contract."""

    path: str
    tool: str
    functions: Sequence[str] | None


def offers(step: Step, path: str) -> Iterator[Offer]:
    """Yield every place of a step where something may call a Tool that is not the step's own text."""
    for index, offered in enumerate(step.agent.tools if step.agent is not None else []):
        if offered.tool is not None:
            yield Offer(f"{path}.agent.tools[{index}]", offered.tool, offered.functions)
    for index, allowed in enumerate(step.container.tools if step.container is not None else []):
        yield Offer(f"{path}.container.tools[{index}]", allowed.tool, allowed.functions)


def final_call(spec: WorkflowSpec) -> Iterator[BlockCall]:
    """Yield the place where a Workflow names the block that runs whatever happened."""
    if spec.finally_ is not None:
        yield BlockCall("spec.finally", spec.finally_, {"error": ERROR})


def block_calls(step: Step, path: str, blocks: Mapping[str, Block], item: Shape = UNKNOWN) -> Iterator[BlockCall]:
    """Yield every place of a step that runs a block; `item` is one of a forEach."""
    loop = _loop(step, blocks, item)
    if step.block is not None:
        yield BlockCall(f"{path}.block", step.block, loop)
    for index, block in enumerate(step.parallel.blocks if step.parallel else []):
        yield BlockCall(f"{path}.parallel.blocks[{index}]", block, loop)
    for index, choice in enumerate(step.route.choices if step.route else []):
        if choice.block is not None:
            yield BlockCall(f"{path}.route.choices[{index}].block", choice.block, loop)
    if step.validate_ and step.validate_.on_failure and step.validate_.on_failure.block:
        yield BlockCall(f"{path}.validate.onFailure.block", step.validate_.on_failure.block, loop | {"error": ERROR})
    if step.on_error and step.on_error.block:
        yield BlockCall(f"{path}.onError.block", step.on_error.block, {"error": ERROR})


def _loop(step: Step, blocks: Mapping[str, Block], item: Shape) -> dict[str, Shape]:
    if step.for_each is not None:
        return {step.for_each.as_: item, "index": NUMBER}
    return {"iteration": NUMBER, "previous": turn_shape(step, blocks)} if step.repeat is not None else {}


def _contract(
    contract: OutputContract | None, path: str, loop: Mapping[str, Shape], output: Mapping[str, Shape]
) -> Iterator[Site]:
    if contract is not None:
        yield from _rules(contract.rules, f"{path}.rules", {**loop, **output})
        yield from _judge(contract.judge, f"{path}.judge", loop)


def _rules(rules: list[OutputRule] | None, path: str, adds: Mapping[str, Shape]) -> Iterator[Site]:
    for index, rule in enumerate(rules or []):
        yield Site(f"{path}[{index}].expression", rule.expression, True, adds)


def _judge(judge: Judge | None, path: str, loop: Mapping[str, Shape]) -> Iterator[Site]:
    if judge is not None:
        yield Site(f"{path}.criteria", judge.criteria, adds=loop)
