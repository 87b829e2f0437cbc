"""What is known, before anything runs, of the values that expressions read: their shape as a JSON Schema.

`checks.py` follows member paths through it. `{}` stands for "not known"; what is not known is never a finding.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, TypeAlias

from fairlead.api.workflow import Block, OutputContract, Step, Validate
from fairlead.flow.expressions import ExpressionError
from fairlead.flow.labels import why_not_endorsed
from fairlead.flow.template import Segment, parse

Shape: TypeAlias = Mapping[str, Any]

UNKNOWN: Shape = {}
_WHY_NOT = "fairlead.dev/why-not"
"""Of a closed shape: why it lacks members that it might have."""
_COMBINED = ("$ref", "$dynamicRef", "allOf", "anyOf", "oneOf", "if", "patternProperties")


def closed(**members: Shape) -> Shape:
    """Return the shape of an object that has these members and no others."""
    return {"type": "object", "properties": members, "additionalProperties": False}


TEXT: Shape = {"type": "string"}
NUMBER: Shape = {"type": "integer"}
ERROR = closed(**{"class": TEXT, "reason": TEXT, "message": TEXT})
RUN = closed(name=TEXT, uid=TEXT, createdAt=TEXT, scheduledAt=TEXT)
WORKFLOW = closed(name=TEXT)
APPROVAL = closed(name=TEXT)


def step_shape(step: Step, blocks: Mapping[str, Block], inside: frozenset[str] = frozenset()) -> Shape:
    """Return the shape of `steps.<name>`; `inside` are the blocks that are being looked into already."""
    output = UNKNOWN if step.on_error and step.on_error.block else output_shape(step, blocks, inside)
    return closed(output=output, phase=TEXT, error=ERROR, attempts=NUMBER)


def must_pass(checks: Validate) -> bool:
    """Tell whether a step that goes on has passed: neither `Continue` nor a block stand in."""
    return checks.on_failure is None or checks.on_failure.action == "Fail"


def output_shape(step: Step, blocks: Mapping[str, Block], inside: frozenset[str] = frozenset()) -> Shape:
    """Return the shape of a step's own output: with forEach, a list."""
    turn = turn_shape(step, blocks, inside)
    return {"type": "array", "items": turn} if step.for_each is not None else turn


def turn_shape(step: Step, blocks: Mapping[str, Block], inside: frozenset[str] = frozenset()) -> Shape:
    """Return the shape of the output of one iteration or item, or of a step without a loop."""
    if step.generate is not None:
        return _contract_shape(step.generate.output)
    if step.agent is not None:
        return _contract_shape(step.agent.output)
    if step.route is not None:
        return closed(choice=TEXT, output=UNKNOWN)
    if step.validate_ is not None:
        found: dict[str, Shape] = {"passed": {"type": "boolean"}, "findings": {"type": "array"}}
        checked = step.validate_.schema_ if must_pass(step.validate_) else None
        if not (why := why_not_endorsed(step.validate_)):
            return closed(**found, value=checked or UNKNOWN)
        return {**closed(**found), _WHY_NOT: {"value": f"its schema must have no room for text: {why}"}}
    if step.transform is not None:
        return value_shape(step.transform.value)
    if step.approval is not None:
        return closed(decision=TEXT, by={"type": "array", "items": TEXT}, reason=TEXT)
    if step.wait is not None:
        awaited = step.wait.signal.schema_ if step.wait.signal is not None else None
        return closed(received={"type": "boolean"}, data=awaited or UNKNOWN, by=TEXT)
    if step.container is not None and step.container.output is not None:
        return step.container.output.schema_ or UNKNOWN
    if step.block is not None and step.block in blocks and step.block not in inside:
        block = blocks[step.block]
        if block.output is not None:
            return value_shape(block.output)
        return output_shape(block.steps[-1], blocks, inside | {step.block})
    if step.parallel is not None:
        return closed(**dict.fromkeys(step.parallel.blocks, UNKNOWN))
    return UNKNOWN


def items_of(shape: Shape) -> Shape:
    """Return the shape of a list's items, as far as it is known."""
    items = shape.get("items", UNKNOWN) if not any(word in shape for word in (*_COMBINED, "prefixItems")) else UNKNOWN
    return items if isinstance(items, Mapping) else UNKNOWN


def types_of(shape: Shape) -> list[str]:
    """Return the types that a value of this shape can have; empty when they are not known."""
    types = shape.get("type") if not any(word in shape for word in _COMBINED) else None
    return [types] if isinstance(types, str) else [str(name) for name in types] if isinstance(types, list) else []


def value_shape(value: Any) -> Shape:
    """Return the shape of a JSON value whose strings may hold `$( )`."""
    match value:
        case Mapping():
            return closed(**{key: value_shape(item) for key, item in value.items()})
        case list():
            shapes = [value_shape(item) for item in value]
            same = shapes and shapes.count(shapes[0]) == len(shapes)
            return {"type": "array", "items": shapes[0] if same else UNKNOWN}
        case str():
            try:
                parts = parse(value)
            except ExpressionError:
                return UNKNOWN
            return UNKNOWN if len(parts) == 1 and isinstance(parts[0], Segment) else TEXT
        case bool():
            return {"type": "boolean"}
        case int():
            return NUMBER
    return UNKNOWN


def member_of(shape: Shape, member: str) -> Shape | None:
    """Return the shape of a member, as far as it is known; None when it is known that there is none."""
    if any(word in shape for word in _COMBINED):
        return UNKNOWN
    if (types := types_of(shape)) and "object" not in types:
        return None
    properties, others = _properties(shape), shape.get("additionalProperties", UNKNOWN)
    if member not in properties and others is False:
        return None
    below = properties.get(member, others)
    return below if isinstance(below, Mapping) else UNKNOWN


def missing(shape: Shape, name: str, members: Sequence[str]) -> str | None:
    """Return what is wrong with reading `members` of a value called `name`, None when nothing is known to be."""
    for member in members:
        below = member_of(shape, member)
        if below is None and (types := types_of(shape)) and "object" not in types:
            return f"'{name}' is of type {' or '.join(types)} and has no members"
        if below is None:
            reasons = shape.get(_WHY_NOT)
            why = reasons.get(member) if isinstance(reasons, Mapping) else None
            return f"'{name}' has no '{member}'; {why or did_you_mean(member, _properties(shape), 'it has')}"
        shape, name = below, f"{name}.{member}"
    return None


def _properties(shape: Shape) -> Mapping[str, Any]:
    properties = shape.get("properties")
    return properties if isinstance(properties, Mapping) else {}


def did_you_mean(word: str, known: Iterable[str], otherwise: str) -> str:
    """Return `did you mean 'x'?` for the nearest known word, else `otherwise` and all of them."""
    words = list(known)
    near = get_close_matches(word, words, n=1, cutoff=0.6)
    return f"did you mean '{near[0]}'?" if near else f"{otherwise} {', '.join(words) or 'none'}"


def _contract_shape(contract: OutputContract | None) -> Shape:
    return contract.schema_ if contract is not None and contract.schema_ is not None else closed(text=TEXT)
