"""What is known to be wrong with a Workflow before it runs, where, and what would be right."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fairlead.api.workflow import WorkflowSpec
from fairlead.flow.checks import Finding, check_workflow

MODELS = {"small", "embedder"}
TOOLS: dict[str, Any] = {"tickets": {"create": None, "search": None}}

TRIAGE = """
input:
  schema: {type: object, required: [message], additionalProperties: false, properties: {message: {type: string}}}
defaults: {model: small}
steps:
- name: topic
  route:
    value: "$( input.message )"
    choices:
    - {name: billing, when: "input.message.contains('invoice')"}
    - {name: technical, description: something is broken, block: diagnose}
    - {name: other}
    model: embedder
    otherwise: other
- name: answer
  agent:
    prompt: "Question: $( input.message ) $( steps.topic.output.choice )"
    tools: [{tool: tickets, functions: [search]}]
    output:
      rules: [{expression: "size(output.text) > 0", message: say something}]
      judge: {criteria: 'Does it answer?'}
- name: draft
  repeat: {until: "output.score >= 80 && (iteration > 1 || previous == null)", maxIterations: 4}
  onError: {block: apologise}
  block: write
- name: file
  when: "steps.topic.output.choice == 'technical' && steps.answer.phase == 'Succeeded'"
  tool:
    tool: tickets
    function: create
    arguments: {title: "$( input.message )", body: "$( steps.answer.output.text )"}
output: {answer: "$( steps.answer.output.text )", ticket: "$( get(steps.file.output, 'id') )", run: "$( run.uid )"}
blocks:
- {name: diagnose, steps: [{name: logs, generate: {prompt: "$( input.message ) $( workflow.name )"}}]}
- name: write
  steps:
  - {name: text, generate: {prompt: "Try $( iteration ): $( get(previous, 'score') ) $( steps.answer.output.text )"}}
  - {name: score, transform: {value: {score: 90, text: "$( steps.text.output.text )"}}}
- {name: apologise, steps: [{name: sorry, transform: {value: "$( error.reason ) $( steps.answer.output.text )"}}]}
"""


def check(text: str | dict[str, Any], *, models: Any = MODELS, tools: Any = TOOLS) -> list[Finding]:
    data = yaml.safe_load(text) if isinstance(text, str) else text
    return check_workflow(WorkflowSpec.model_validate(data), models=models, tools=tools)


def test_a_right_workflow_has_no_findings() -> None:
    assert check(TRIAGE) == []


ONE = "{name: a, transform: {value: 1}}"


WRONG = {
    # names and structure
    "same step twice": (f"steps: [{ONE}, {ONE}]", "spec.steps[1].name", "'a' is also the name of spec.steps[0]"),
    "same block twice": (
        f"steps: [{{name: s, block: b}}]\nblocks: [{{name: b, steps: [{ONE}]}}, {{name: b, steps: [{ONE}]}}]",
        "spec.blocks[1].name",
        "'b' is also the name of spec.blocks[0]",
    ),
    "same choice twice": (
        "steps: [{name: r, route: {value: x, model: small, choices: [{name: a}, {name: a}]}}]",
        "spec.steps[0].route.choices[1].name",
        "'a' is also the name of",
    ),
    "reserved name": ("steps: [{name: in, transform: {value: 1}}]", "spec.steps[0].name", "choose another name"),
    "no kind": ("steps: [{name: a}]", "spec.steps[0]", "exactly one of generate, agent"),
    "two kinds": (
        "steps: [{name: a, transform: {value: 1}, tool: {tool: tickets, function: create}}]",
        "spec.steps[0]",
        "exactly one of generate, agent",
    ),
    "neither prompt nor messages": (
        "steps: [{name: a, generate: {model: small}}]",
        "spec.steps[0].generate",
        "exactly one of prompt and messages",
    ),
    # what surrounds runs
    "a key of what is not there yet": (
        f"concurrency: {{maxRuns: 1, key: '$( steps.a.output )'}}\nsteps: [{ONE}]",
        "spec.concurrency.key",
        "step 'a' cannot have run here",
    ),
    "a key of no input": (
        "input: {schema: {type: object, properties: {user: {type: string}}, additionalProperties: false}}\n"
        f"concurrency: {{maxRuns: 1, key: '$( input.usr )'}}\nsteps: [{ONE}]",
        "spec.concurrency.key",
        "'input' has no 'usr'; did you mean 'user'?",
    ),
    # order
    "needs in a sequence": (
        f"steps: [{ONE}, {{name: b, needs: [a], transform: {{value: 1}}}}]",
        "spec.steps[1].needs",
        "set order: Graph",
    ),
    "unknown need": (
        "order: Graph\nsteps: [{name: fetch, transform: {value: 1}}, {name: b, needs: [fecth], transform: {value: 1}}]",
        "spec.steps[1].needs[0]",
        "there is no step 'fecth' in this list; did you mean 'fetch'?",
    ),
    "join without needs": (
        "order: Graph\nsteps: [{name: a, join: Any, transform: {value: 1}}]",
        "spec.steps[0].join",
        "join says how to join `needs`",
    ),
    "cycle": (
        "order: Graph\n"
        "steps: [{name: a, needs: [b], transform: {value: 1}}, {name: b, needs: [a], transform: {value: 1}}]",
        "spec.steps[0].needs",
        "a -> b -> a",
    ),
    # blocks
    "unknown block": (
        "steps: [{name: s, block: diagnos}, {name: t, block: diagnose}]\n"
        f"blocks: [{{name: diagnose, steps: [{ONE}]}}]",
        "spec.steps[0].block",
        "there is no block 'diagnos'; did you mean 'diagnose'?",
    ),
    "unknown block of onError": (
        "steps: [{name: s, onError: {block: nope}, transform: {value: 1}}]",
        "spec.steps[0].onError.block",
        "there is no block 'nope'; the blocks are none",
    ),
    "recursive blocks": (
        "steps: [{name: s, block: a}]\n"
        "blocks: [{name: a, steps: [{name: x, block: b}]}, {name: b, steps: [{name: y, block: a}]}]",
        "spec.blocks[0]",
        "the block runs itself: a -> b -> a",
    ),
    "unused block": (
        f"steps: [{ONE}]\nblocks: [{{name: b, steps: [{ONE}]}}]",
        "spec.blocks[0]",
        "block 'b' is never used",
    ),
    # expressions
    "no CEL": (
        "steps: [{name: a, when: '1 +', transform: {value: 1}}]",
        "spec.steps[0].when",
        "line 1, column 4: mismatched input",
    ),
    "open segment": (
        "steps: [{name: t, tool: {tool: tickets, function: create, arguments: {a: [{b: '$( 1'}]}}}]",
        "spec.steps[0].tool.arguments.a[0].b",
        "the $( at character 1 is not closed",
    ),
    "unknown name": (
        "steps: [{name: a, when: 'inptu.x', transform: {value: 1}}]",
        "spec.steps[0].when",
        "there is no 'inptu'; did you mean 'input'?",
    ),
    "step without steps": (
        f"steps: [{ONE}, {{name: b, when: 'a.output', transform: {{value: 1}}}}]",
        "spec.steps[1].when",
        "there is no 'a'; write steps.a.output",
    ),
    "all steps": (
        "steps: [{name: a, when: 'size(steps) > 0', transform: {value: 1}}]",
        "spec.steps[0].when",
        "say which step: steps.<name>.output",
    ),
    "previous outside of a loop": (
        "steps: [{name: a, when: 'previous == 1', transform: {value: 1}}]",
        "spec.steps[0].when",
        "'previous' exists only in a step with repeat",
    ),
    "own loop in when": (
        "steps: [{name: a, when: 'iteration == 1', repeat: {until: 'true', maxIterations: 2}, transform: {value: 1}}]",
        "spec.steps[0].when",
        "there is no 'iteration' yet: this is asked once, before the iterations",
    ),
    "error outside of a handler": (
        "steps: [{name: a, transform: {value: '$( error.reason )'}}]",
        "spec.steps[0].transform.value",
        "'error' exists only in a block that onError, onFailure or finally runs",
    ),
    "output outside of rules": (
        "steps: [{name: a, transform: {value: '$( output )'}}]",
        "spec.steps[0].transform.value",
        "'output' exists only in until and rules",
    ),
    # visibility
    "later step": (
        f"steps: [{{name: topic, transform: {{value: 1}}}}, {{name: x, when: 'steps.file.output', block: b}}, "
        f"{{name: file, transform: {{value: 1}}}}]\nblocks: [{{name: b, steps: [{ONE}]}}]",
        "spec.steps[1].when",
        "step 'file' cannot have run here; steps before it: topic",
    ),
    "itself": (
        "steps: [{name: a, when: 'steps.a.output', transform: {value: 1}}]",
        "spec.steps[0].when",
        "step 'a' cannot have run here; steps before it: none",
    ),
    "no ancestor": (
        "order: Graph\nsteps: [{name: a, transform: {value: 1}}, {name: b, transform: {value: '$( steps.a.output )'}}]",
        "spec.steps[1].transform.value",
        "step 'a' cannot have run here",
    ),
    "unknown step": (
        "steps: [{name: topic, transform: {value: 1}}, {name: b, when: 'steps.topc.output', transform: {value: 1}}]",
        "spec.steps[1].when",
        "there is no step 'topc'; did you mean 'topic'?",
    ),
    "inside of a block": (
        f"steps: [{{name: s, block: b}}]\nblocks: [{{name: b, steps: [{ONE}]}}]\noutput: '$( steps.a.output )'",
        "spec.output",
        "step 'a' is inside block 'b', of which only the output is visible here",
    ),
    "not at every call": (
        "steps: [{name: one, block: b}, {name: two, transform: {value: 1}}, {name: three, block: b}]\n"
        "blocks: [{name: b, steps: [{name: x, transform: {value: '$( steps.two.output )'}}]}]",
        "spec.blocks[0].steps[0].transform.value",
        "step 'two' has not run at every place that calls block 'b'; visible: none",
    ),
    # shapes
    "member of a step": (
        f"steps: [{ONE}, {{name: b, when: 'steps.a.outputs', transform: {{value: 1}}}}]",
        "spec.steps[1].when",
        "'steps.a' has no 'outputs'; did you mean 'output'?",
    ),
    "output of a route": (
        "steps: [{name: r, route: {value: x, model: small, choices: [{name: a}]}}]\n"
        "output: '$( steps.r.output.chioce )'",
        "spec.output",
        "'steps.r.output' has no 'chioce'; did you mean 'choice'?",
    ),
    "output of a validate": (
        "steps: [{name: v, validate: {value: 1, schema: {}}}]\noutput: '$( steps.v.output.ok )'",
        "spec.output",
        "'steps.v.output' has no 'ok'; it has passed, findings",
    ),
    "value of a validate with room for text": (
        "steps: [{name: v, validate: {value: 1, schema: {type: array, items: {type: number}, maxItems: 10}}}]\n"
        "output: '$( steps.v.output.value )'",
        "spec.output",
        "'steps.v.output' has no 'value'; its schema must have no room for text: its strings and numbers hold 80 char",
    ),
    "value of a validate without a schema": (
        "steps: [{name: v, validate: {value: 1, rules: [{expression: 'true', message: m}]}}]\n"
        "output: '$( steps.v.output.value )'",
        "spec.output",
        "'steps.v.output' has no 'value'; its schema must have no room for text: there is no schema",
    ),
    "output without a schema": (
        "steps: [{name: g, generate: {model: small, prompt: x}}]\noutput: '$( steps.g.output.txt )'",
        "spec.output",
        "did you mean 'text'?",
    ),
    "output with a schema": (
        "steps: [{name: g, generate: {model: small, prompt: x, output: {schema: {additionalProperties: false, "
        "properties: {score: {type: integer}}}}}}]\noutput: '$( steps.g.output.score.x )'",
        "spec.output",
        "'steps.g.output.score' is of type integer and has no members",
    ),
    "output of a block": (
        "steps: [{name: s, block: b}]\nblocks: [{name: b, steps: [{name: x, transform: {value: {k: 1}}}]}]\n"
        "output: '$( steps.s.output.j )'",
        "spec.output",
        "'steps.s.output' has no 'j'; it has k",
    ),
    "member of the input": (
        "input: {schema: {type: object, additionalProperties: false, properties: {message: {}}}}\n"
        "steps: [{name: a, when: 'input.mesage == 1', transform: {value: 1}}]",
        "spec.steps[0].when",
        "'input' has no 'mesage'; did you mean 'message'?",
    ),
    "member of the run": (
        "steps: [{name: a, when: 'run.id == 1', transform: {value: 1}}]",
        "spec.steps[0].when",
        "'run' has no 'id'",
    ),
    "output in a rule": (
        "steps: [{name: g, generate: {model: small, prompt: x, "
        "output: {rules: [{expression: output.txt == '', message: m}]}}}]",
        "spec.steps[0].generate.output.rules[0].expression",
        "'output' has no 'txt'; did you mean 'text'?",
    ),
    # schemas
    "schema of the input": (
        f"input: {{schema: {{type: nope}}}}\nsteps: [{ONE}]",
        "spec.input.schema",
        "/type: is none of array",
    ),
    "remote schema": (
        "steps: [{name: v, validate: {value: 1, schema: {$ref: 'http://example.com/'}}}]",
        "spec.steps[0].validate.schema",
        "remote references are refused",
    ),
    # models and tools
    "no model": (
        "steps: [{name: g, generate: {prompt: x}}]",
        "spec.steps[0].generate.model",
        "set it here or in spec.defaults.model",
    ),
    "no model for a judge": (
        "steps: [{name: v, validate: {value: 1, judge: {criteria: good}}}]",
        "spec.steps[0].validate.judge.model",
        "set it here or in spec.defaults.model",
    ),
    "unknown model": (
        "steps: [{name: g, generate: {model: smal, prompt: x}}]",
        "spec.steps[0].generate.model",
        "there is no Model 'smal'; did you mean 'small'?",
    ),
    "unknown default model": (f"defaults: {{model: big}}\nsteps: [{ONE}]", "spec.defaults.model", "no Model 'big'"),
    "unknown tool": (
        "steps: [{name: t, tool: {tool: ticket, function: create}}]",
        "spec.steps[0].tool.tool",
        "there is no Tool 'ticket'; did you mean 'tickets'?",
    ),
    "unknown tool that tells people": (
        "steps: [{name: s, approval: {message: x, from: {users: [a]}, notify: {tool: ticket, function: create}}}]",
        "spec.steps[0].approval.notify.tool",
        "there is no Tool 'ticket'; did you mean 'tickets'?",
    ),
    "more of an approval than its name": (
        "steps: [{name: s, approval: {message: x, from: {users: [a]}, notify: {tool: tickets, function: create, "
        "arguments: {title: $( approval.nam )}}}}]",
        "spec.steps[0].approval.notify.arguments.title",
        "name",
    ),
    "unknown function": (
        "steps: [{name: t, agent: {model: small, prompt: x, tools: [{tool: tickets, functions: [search, close]}]}}]",
        "spec.steps[0].agent.tools[0].functions[1]",
        "Tool 'tickets' has no function 'close'; there are: create, search",
    ),
    "otherwise is no choice": (
        "steps: [{name: r, route: {value: x, model: small, choices: [{name: a}], otherwise: b}}]",
        "spec.steps[0].route.otherwise",
        "otherwise must be the name of one of the choices",
    ),
    "choice that nothing chooses": (
        "steps: [{name: r, route: {value: x, choices: [{name: a, when: 'true'}, {name: b}]}}]",
        "spec.steps[0].route.choices[1]",
        "'b' can never be chosen",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_found_once_with_its_path_and_what_would_be_right(case: str) -> None:
    text, path, message = WRONG[case]

    found = check(text)

    assert [finding.path for finding in found] == [path], found
    assert message in found[0].message
    refers = "Model '" in found[0].message or "Tool '" in found[0].message
    assert found[0].reason == ("UnknownReference" if refers else "InvalidSpec")


def test_without_a_cluster_models_and_tools_are_not_judged() -> None:
    spec = "steps: [{name: t, agent: {model: any, prompt: x, tools: [{tool: any, functions: [any]}]}}]"

    assert check(spec, models=None, tools=None) == []


def test_an_ancestor_through_several_needs_is_visible() -> None:
    assert not check(
        "order: Graph\nsteps: [{name: c, needs: [b], transform: {value: '$( steps.a.output )'}}, "
        "{name: b, needs: [a], transform: {value: 1}}, {name: a, transform: {value: 1}}]"
    )


def test_a_block_hides_the_outer_step_of_the_same_name() -> None:
    found = check(
        "steps: [{name: a, transform: {value: 1}}, {name: s, block: b}]\n"
        "blocks: [{name: b, steps: [{name: x, when: 'steps.a.output', transform: {value: 1}}, "
        "{name: a, transform: {value: 1}}]}]"
    )

    assert [finding.message for finding in found] == ["step 'a' cannot have run here; steps before it: none"]


def test_the_names_of_a_loop_reach_the_blocks_of_its_blocks() -> None:
    assert not check(
        "steps: [{name: s, repeat: {until: 'true', maxIterations: 2}, block: b}]\n"
        "blocks: [{name: b, steps: [{name: x, block: c}]}, "
        "{name: c, steps: [{name: y, transform: {value: '$( iteration ) $( previous )'}}]}]"
    )


def test_the_output_of_a_step_with_an_error_block_is_not_known() -> None:
    assert not check(
        "steps: [{name: g, onError: {block: b}, generate: {model: small, prompt: x}}]\n"
        "blocks: [{name: b, steps: [{name: x, transform: {value: {note: 1}}}]}]\n"
        "output: '$( steps.g.output.note )'"
    )


def test_blocks_that_call_each_other_many_ways_are_checked_in_one_walk() -> None:
    blocks = [
        {"name": f"b{n}", "steps": [{"name": f"x{n}", "block": f"b{n + 1}"}, {"name": f"y{n}", "block": f"b{n + 1}"}]}
        for n in range(49)
    ]
    last = {"name": "b49", "steps": [{"name": "z", "transform": {"value": "$( input )"}}]}

    assert not check({"steps": [{"name": "s", "block": "b0"}], "blocks": [*blocks, last]})


@given(st.text(max_size=30), st.text(max_size=30))
def test_no_text_makes_the_checks_fail(when: str, value: str) -> None:
    for finding in check(
        {"steps": [{"name": "a", "when": when or "x", "transform": {"value": [value, f"$({value})"]}}]}
    ):
        assert finding.path.startswith("spec.steps[0].")
        assert finding.message
