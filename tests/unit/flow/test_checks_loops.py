"""What is known to be wrong with loops and with blocks in parallel before they run."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from fairlead.api.workflow import WorkflowSpec
from fairlead.flow.checks import Finding, check_workflow

ONE = "{name: x, transform: {value: 1}}"
DOCS = (
    "input: {schema: {type: object, additionalProperties: false, properties: {docs: {type: array, items: "
    "{type: object, additionalProperties: false, properties: {text: {type: string}}}}}}}\n"
)


def check(text: str) -> list[Finding]:
    return check_workflow(WorkflowSpec.model_validate(yaml.safe_load(text)), models=None, tools=None)


RIGHT = {
    "an item in the step and in its block": DOCS
    + "steps: [{name: s, forEach: {items: '$( input.docs )', as: doc}, block: b}]\n"
    "blocks: [{name: b, steps: [{name: x, transform: {value: '$( index ) $( doc.text )'}}]}]",
    "an item of another loop's output": DOCS
    + "steps: [{name: a, forEach: {items: '$( input.docs )'}, transform: {value: {n: '$( item.text )'}}}, "
    "{name: b, forEach: {items: '$( steps.a.output )'}, transform: {value: '$( item.n )'}}]",
    "an item of what is not known": "steps: [{name: a, forEach: {items: '$( input.any )'}, "
    "transform: {value: '$( item.what.ever )'}}]",
    "an item of an expression": "steps: [{name: a, forEach: {items: '$( input.any.map(x, x) )'}, "
    "transform: {value: '$( item.what.ever )'}}]",
    "an item of a list": "steps: [{name: a, forEach: {items: [{n: 1}, {n: 2}]}, transform: {value: '$( item.n )'}}]",
    "a rule sees one item's output": "steps: [{name: a, forEach: {items: [1]}, generate: {model: m, prompt: x, "
    "output: {rules: [{expression: output.text != '', message: say something}]}}}]",
    "the output of a parallel": "steps: [{name: p, parallel: {blocks: [b, c], join: {succeeded: 2}}}]\n"
    f"blocks: [{{name: b, steps: [{ONE}]}}, {{name: c, steps: [{ONE}]}}]\noutput: '$( steps.p.output.c.any )'",
}


@pytest.mark.parametrize("text", RIGHT.values(), ids=RIGHT)
def test_what_is_right_has_no_findings(text: str) -> None:
    assert check(text) == []


WRONG = {
    "no member of an item": (
        DOCS + "steps: [{name: a, forEach: {items: '$( input.docs )', as: doc}, transform: {value: '$( doc.txt )'}}]",
        "spec.steps[0].transform.value",
        "'doc' has no 'txt'; did you mean 'text'?",
    ),
    "no member of an item in a block": (
        DOCS + "steps: [{name: a, forEach: {items: '$( input.docs )'}, block: b}]\n"
        "blocks: [{name: b, steps: [{name: x, transform: {value: '$( item.txt )'}}]}]",
        "spec.blocks[0].steps[0].transform.value",
        "'item' has no 'txt'; did you mean 'text'?",
    ),
    "no member of an item of a loop": (
        "steps: [{name: a, forEach: {items: [1]}, transform: {value: {n: 1}}}, "
        "{name: b, forEach: {items: '$( steps.a.output )'}, transform: {value: '$( item.m )'}}]",
        "spec.steps[1].transform.value",
        "'item' has no 'm'; it has n",
    ),
    "a member of the list of outputs": (
        "steps: [{name: a, forEach: {items: [1]}, transform: {value: {n: 1}}}]\noutput: '$( steps.a.output.n )'",
        "spec.output",
        "'steps.a.output' is of type array and has no members",
    ),
    "items that are no list": (
        "input: {schema: {type: object, properties: {docs: {type: object}}}}\n"
        f"steps: [{{forEach: {{items: '$( input.docs )'}}, {ONE[1:-1]}}}]",
        "spec.steps[0].forEach.items",
        "items must be a list, or one $( ) that gives one; this is of type object",
    ),
    "items that are a text": (
        f"steps: [{{forEach: {{items: 'a $( input.b )'}}, {ONE[1:-1]}}}]",
        "spec.steps[0].forEach.items",
        "this is of type string",
    ),
    "items that are a number": (
        f"steps: [{{forEach: {{items: 3}}, {ONE[1:-1]}}}]",
        "spec.steps[0].forEach.items",
        "items must be a list",
    ),
    "an item in the items": (
        f"steps: [{{forEach: {{items: '$( item )'}}, {ONE[1:-1]}}}]",
        "spec.steps[0].forEach.items",
        "there is no 'item' yet: this is asked once, before the items",
    ),
    "an index in when": (
        f"steps: [{{when: index > 1, forEach: {{items: [1]}}, {ONE[1:-1]}}}]",
        "spec.steps[0].when",
        "there is no 'index' yet: this is asked once, before the items",
    ),
    "an item in the handler of the step": (
        f"steps: [{{forEach: {{items: [1]}}, onError: {{block: b}}, {ONE[1:-1]}}}]\n"
        "blocks: [{name: b, steps: [{name: y, transform: {value: '$( item )'}}]}]",
        "spec.blocks[0].steps[0].transform.value",
        "'item' exists only in a step with forEach",
    ),
    "a loop variable that not every caller has": (
        "steps: [{name: a, forEach: {items: [1], as: doc}, block: b}, {name: c, block: b}]\n"
        "blocks: [{name: b, steps: [{name: y, transform: {value: '$( doc )'}}]}]",
        "spec.blocks[0].steps[0].transform.value",
        "there is no 'doc'",
    ),
    "two loops": (
        f"steps: [{{forEach: {{items: [1]}}, repeat: {{until: 'true', maxIterations: 2}}, {ONE[1:-1]}}}]",
        "spec.steps[0].repeat",
        "a step has one loop: forEach or repeat",
    ),
    "limits without a loop": (
        f"steps: [{{limits: {{tokens: 5}}, {ONE[1:-1]}}}]",
        "spec.steps[0].limits",
        "limits bound a `forEach`, which is missing",
    ),
    "a reserved loop variable": (
        f"steps: [{{forEach: {{items: [1], as: steps}}, {ONE[1:-1]}}}]",
        "spec.steps[0].forEach.as",
        "choose another name for the loop variable",
    ),
    "an unknown block": (
        f"steps: [{{name: p, parallel: {{blocks: [logs, metrcs]}}}}]\n"
        f"blocks: [{{name: logs, steps: [{ONE}]}}, {{name: metrics, steps: [{ONE}]}}]",
        "spec.steps[0].parallel.blocks[1]",
        "there is no block 'metrcs'; did you mean 'metrics'?",
    ),
    "a block twice": (
        f"steps: [{{name: p, parallel: {{blocks: [b, b]}}}}]\nblocks: [{{name: b, steps: [{ONE}]}}]",
        "spec.steps[0].parallel.blocks[1]",
        "'b' is in the list already",
    ),
    "a join of more than there are": (
        "steps: [{name: p, parallel: {blocks: [b], join: {succeeded: 2}}}]\n"
        f"blocks: [{{name: b, steps: [{ONE}]}}]",
        "spec.steps[0].parallel.join",
        "join.succeeded is larger than the number of blocks",
    ),
    "two joins": (
        "steps: [{name: p, parallel: {blocks: [b], join: {mode: Any, succeeded: 1}}}]\n"
        f"blocks: [{{name: b, steps: [{ONE}]}}]",
        "spec.steps[0].parallel.join",
        "set exactly one of mode (All or Any) and succeeded (a number)",
    ),
    "recursion through a parallel": (
        "steps: [{name: p, parallel: {blocks: [b]}}]\nblocks: [{name: b, steps: [{name: x, parallel: {blocks: [b]}}]}]",
        "spec.blocks[0]",
        "the block runs itself: b -> b; a loop is written with repeat or forEach",
    ),
    "no such member of a parallel's output": (
        f"steps: [{{name: p, parallel: {{blocks: [logs]}}}}]\nblocks: [{{name: logs, steps: [{ONE}]}}]\n"
        "output: '$( steps.p.output.log )'",
        "spec.output",
        "'steps.p.output' has no 'log'; did you mean 'logs'?",
    ),
}


@pytest.mark.parametrize(("text", "path", "words"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_found_with_its_place(text: str, path: str, words: str) -> None:
    found = check(text)
    assert any(finding.path == path and words in finding.message for finding in found), found


def test_blocks_that_fan_out_again_and_again_are_checked_once() -> None:
    blocks: list[dict[str, Any]] = [
        {"name": f"b{n}", "steps": [{"name": "x", "parallel": {"blocks": [f"b{n + 1}", f"b{n + 2}"]}}]}
        for n in range(48)
    ]
    blocks += [{"name": f"b{n}", "steps": [yaml.safe_load(ONE)]} for n in (48, 49)]
    assert not check(yaml.safe_dump({"steps": [{"name": "s", "block": "b0"}], "blocks": blocks}))
