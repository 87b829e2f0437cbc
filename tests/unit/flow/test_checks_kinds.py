"""What is known to be wrong with child runs, waits and `finally` before they run."""

from __future__ import annotations

import pytest
import yaml

from fairlead.api.workflow import WorkflowSpec
from fairlead.flow.checks import Finding, InputSchemas, check_workflow

TOPIC = {
    "type": "object",
    "properties": {"topic": {"type": "string"}, "depth": {"type": "integer"}},
    "required": ["topic"],
    "additionalProperties": False,
}
WORKFLOWS = {"researcher": TOPIC, "open": None, "me": None}
TOOLS: dict[str, InputSchemas] = {"tickets": {"find": TOPIC, "list": None}}
PEOPLE = "message: x, from: {users: [a]}"


def check(text: str) -> list[Finding]:
    spec = WorkflowSpec.model_validate(yaml.safe_load(text))
    return check_workflow(spec, models=None, tools=TOOLS, workflows=WORKFLOWS, name="me")


RIGHT = {
    "what fits": "steps: [{name: a, workflow: {workflow: researcher, input: {topic: x, depth: 2}}}]",
    "what is only known when it runs": "steps: [{name: a, workflow: {workflow: researcher, "
    "input: {topic: '$( run.name )', depth: '$( 1 + 1 )'}}}]",
    "a Workflow that takes anything": "steps: [{name: a, workflow: {workflow: open, input: {any: 1}}}]",
    "itself, if something holds": "steps: [{name: a, when: 'input.n > 0', workflow: {workflow: me}}]",
    "offered to an agent": "steps: [{name: a, agent: {model: m, prompt: x, "
    "tools: [{workflow: researcher}, {tool: tickets}]}}]",
    "arguments that fit": "steps: [{name: a, tool: {tool: tickets, function: find, arguments: {topic: x, depth: 2}}}]",
    "arguments that are only known when it runs": "steps: [{name: a, tool: {tool: tickets, function: find, "
    "arguments: {topic: '$( run.name )', depth: '$( 1 + 1 )'}}}]",
    "arguments of a function that takes any": "steps: [{name: a, tool: {tool: tickets, function: list, "
    "arguments: {any: 1}}}]",
    "a wait's output": "steps: [{name: a, wait: {signal: {name: go, schema: {type: object, additionalProperties: false"
    ", properties: {n: {type: integer}}}}}}, {name: b, transform: {value: '$( steps.a.output.data.n )'}}]",
    "a time that is evaluated": "steps: [{name: a, wait: {until: '$( run.createdAt )'}}]",
    "error in finally": "steps: [{name: a, transform: {value: 1}}]\nfinally: clean\n"
    "blocks: [{name: clean, steps: [{name: x, transform: {value: '$( error ) $( steps.a.phase )'}}]}]",
}
WRONG = {
    "no such Workflow": (
        "steps: [{name: a, workflow: {workflow: reseacher}}]",
        "spec.steps[0].workflow.workflow",
        "there is no Workflow 'reseacher'; did you mean 'researcher'",
    ),
    "offered, but no such Workflow": (
        "steps: [{name: a, agent: {model: m, prompt: x, tools: [{workflow: nobody}]}}]",
        "spec.steps[0].agent.tools[0].workflow",
        "there is no Workflow 'nobody'",
    ),
    "offered twice": (
        "steps: [{name: a, agent: {model: m, prompt: x, tools: [{workflow: open}, {workflow: open}]}}]",
        "spec.steps[0].agent.tools[1]",
        "'open' is offered by tools[0] already",
    ),
    "an input that is missing": (
        "steps: [{name: a, workflow: {workflow: researcher, input: {depth: '$( 1 )'}}}]",
        "spec.steps[0].workflow.input",
        '"topic" is a required property',
    ),
    "an input that the Workflow does not take": (
        "steps: [{name: a, workflow: {workflow: researcher, input: {topic: '$( run.name )', depht: 1}}}]",
        "spec.steps[0].workflow.input",
        "there is no 'depht'",
    ),
    "an input of another type": (
        "steps: [{name: a, workflow: {workflow: researcher, input: {topic: '$( run.name )', depth: deep}}}]",
        "spec.steps[0].workflow.input",
        "/depth:",
    ),
    "an argument that is missing": (
        "steps: [{name: a, tool: {tool: tickets, function: find}}]",
        "spec.steps[0].tool.arguments",
        'does not fit tickets.find: "topic" is a required property',
    ),
    "an argument that the function does not take": (
        "steps: [{name: a, tool: {tool: tickets, function: find, arguments: {topic: '$( run.name )', dpth: 1}}}]",
        "spec.steps[0].tool.arguments",
        "there is no 'dpth'; did you mean 'depth'?",
    ),
    "an argument of another type": (
        "steps: [{name: a, tool: {tool: tickets, function: find, arguments: {topic: '$( run.name )', depth: deep}}}]",
        "spec.steps[0].tool.arguments",
        "/depth:",
    ),
    "an argument of a notice that is missing": (
        f"steps: [{{name: a, approval: {{{PEOPLE}, notify: {{tool: tickets, function: find}}}}}}]",
        "spec.steps[0].approval.notify.arguments",
        'does not fit tickets.find: "topic" is a required property',
    ),
    "a schema of a container's output that is none": (
        "serviceAccountName: bob\nsteps: [{name: a, container: {image: x, output: {schema: {type: objet}}}}]",
        "spec.steps[0].container.output.schema",
        "/type: is none of array",
    ),
    "an item in a when, which is asked once": (
        "steps: [{name: a, when: n > 1, forEach: {items: [1], as: n}, transform: {value: 1}}]",
        "spec.steps[0].when",
        "there is no 'n' yet: this is asked once, before the items",
    ),
    "an iteration in a when, which is asked once": (
        "steps: [{name: a, when: iteration > 1, repeat: {until: 'true', maxIterations: 2}, transform: {value: 1}}]",
        "spec.steps[0].when",
        "there is no 'iteration' yet: this is asked once, before the iterations",
    ),
    "a wait longer than the run": (
        "limits: {timeoutSeconds: 60}\nsteps: [{name: a, wait: {seconds: 60}}]",
        "spec.steps[0].wait.seconds",
        "the run ends after 60 s; wait less, or raise spec.limits.timeoutSeconds",
    ),
    "a signal waited for longer than the run": (
        "limits: {timeoutSeconds: 60}\nsteps: [{name: a, wait: {signal: {name: go}, timeoutSeconds: 90}}]",
        "spec.steps[0].wait.timeoutSeconds",
        "the run ends after 60 s",
    ),
    "until that is no time": (
        "steps: [{name: a, wait: {until: tomorrow}}]",
        "spec.steps[0].wait.until",
        "until is an RFC 3339 time with its zone",
    ),
    "a schema of a signal that is none": (
        "steps: [{name: a, wait: {signal: {name: go, schema: {type: objekt}}}}]",
        "spec.steps[0].wait.signal.schema",
        "/type: is none of array",
    ),
    "a field that no wait has": (
        "steps: [{name: a, wait: {seconds: 1}}, {name: b, transform: {value: '$( steps.a.output.text )'}}]",
        "spec.steps[1].transform.value",
        "text",
    ),
    "finally of no block": (
        "steps: [{name: a, transform: {value: 1}}]\nfinally: clean",
        "spec.finally",
        "there is no block 'clean'",
    ),
}


@pytest.mark.parametrize("text", RIGHT.values(), ids=RIGHT)
def test_what_is_right_has_no_findings(text: str) -> None:
    assert check(text) == []


@pytest.mark.parametrize(("text", "path", "message"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_found_once_with_its_path_and_what_would_be_right(text: str, path: str, message: str) -> None:
    found = check(text)
    assert [finding.path for finding in found] == [path], found
    assert message in found[0].message
