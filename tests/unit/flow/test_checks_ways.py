"""What never runs, and Workflows that always run themselves again."""

from __future__ import annotations

import pytest
import yaml

from fairlead.api.workflow import WorkflowSpec
from fairlead.flow.checks import Finding, check_workflow


def parsed(text: str) -> WorkflowSpec:
    return WorkflowSpec.model_validate(yaml.safe_load(text))


CALLS_ME = "steps: [{name: x, workflow: {workflow: me}}]"
MAY_CALL_ME = "steps: [{name: x, when: input.more, workflow: {workflow: me}}]"
OTHERS = {
    "back": parsed(CALLS_ME),
    "further": parsed(
        "steps: [{name: x, block: b}]\nblocks: [{name: b, steps: [{name: y, workflow: {workflow: back}}]}]"
    ),
    "perhaps": parsed(MAY_CALL_ME),
    "round": parsed("steps: [{name: x, workflow: {workflow: round}}]"),
}


def check(text: str) -> list[Finding]:
    known = dict.fromkeys(("me", *OTHERS))
    return check_workflow(parsed(text), models=None, tools=None, workflows=known, specs=OTHERS.get, name="me")


def child(name: str, more: str = "") -> str:
    return f"{{name: a, {more}workflow: {{workflow: {name}}}}}"


def route(choices: str, more: str = "") -> str:
    return f"steps: [{{name: r, route: {{value: x, {more}choices: [{choices}]}}}}]"


AGAIN = "the Workflow always runs itself again"
OWN = f"blocks: [{{name: b, steps: [{child('me')}]}}]"
IN_BLOCK = "spec.blocks[0].steps[0].workflow.workflow"

RIGHT = {
    "another that may come back": f"steps: [{child('perhaps')}]",
    "another that only runs itself": f"steps: [{child('round')}]",
    "itself in a block that was chosen": (f"{route('{name: go, when: input.more, block: b}')}\n{OWN}"),
    "itself for each of what may be nothing": f"steps: [{child('me', 'forEach: {items: $( input.n )}, ')}]",
    "itself beside what cuts it off": (
        "steps: [{name: a, parallel: {blocks: [b, c], join: {mode: Any}}}]\n"
        f"blocks: [{{name: b, steps: [{child('me')}]}}, {{name: c, steps: [{{name: x, transform: {{value: 1}}}}]}}]"
    ),
    "itself when something failed": f"steps: [{{name: a, onError: {{block: b}}, transform: {{value: 1}}}}]\n{OWN}",
    "a rule, and otherwise": route("{name: a, when: 'input.n > 1'}, {name: b}", "otherwise: b, "),
    "a last rule that always holds": route("{name: a, when: 'input.n > 1'}, {name: b, when: 'true'}"),
    "a rule that never holds of what a model may choose": route("{name: a, when: 'false'}, {name: b}", "model: m, "),
    "a loop to its bound": "steps: [{name: a, repeat: {until: 'false', maxIterations: 3}, transform: {value: 1}}]",
}
WRONG = {
    "itself, always": (f"steps: [{child('me')}]", "spec.steps[0].workflow.workflow", f"{AGAIN}; give the step a when"),
    "itself when true is true": (
        f"steps: [{child('me', 'when: 1 == 1, ')}]",
        "spec.steps[0].workflow.workflow",
        f"{AGAIN}; give",
    ),
    "itself in a block": (f"steps: [{{name: a, block: b}}]\n{OWN}", IN_BLOCK, AGAIN),
    "itself in a branch": (f"steps: [{{name: a, parallel: {{blocks: [b]}}}}]\n{OWN}", IN_BLOCK, AGAIN),
    "itself in finally": (f"steps: [{{name: a, transform: {{value: 1}}}}]\nfinally: b\n{OWN}", IN_BLOCK, AGAIN),
    "itself for each of some": (
        f"steps: [{child('me', 'forEach: {items: [1]}, ')}]",
        "spec.steps[0].workflow.workflow",
        AGAIN,
    ),
    "another that comes back": (
        f"steps: [{child('back')}]",
        "spec.steps[0].workflow.workflow",
        f"{AGAIN}: me -> back -> me; give the step a when, or put it into a block of a route",
    ),
    "others that come back": (
        f"steps: [{child('further')}]",
        "spec.steps[0].workflow.workflow",
        f"{AGAIN}: me -> further -> back -> me",
    ),
    "a child where none can run": (
        f"limits: {{depth: 0}}\nsteps: [{child('perhaps')}]",
        "spec.steps[0].workflow",
        "no child can run: spec.limits.depth is 0; raise it",
    ),
    "a child for an agent where none can run": (
        "limits: {depth: 0}\nsteps: [{name: a, agent: {model: m, prompt: x, tools: [{workflow: perhaps}]}}]",
        "spec.steps[0].agent.tools",
        "spec.limits.depth is 0",
    ),
    "a step that never runs": (
        "steps: [{name: a, when: 'false', transform: {value: 1}}]",
        "spec.steps[0].when",
        "this is never true, so the step never runs",
    ),
    "a step that never runs, by arithmetic": (
        "steps: [{name: a, when: 1 == 2, transform: {value: 1}}]",
        "spec.steps[0].when",
        "this is never true",
    ),
    "a choice after one that always holds": (
        route("{name: a, when: 'true'}, {name: b, when: input.b}"),
        "spec.steps[0].route.choices[1]",
        "'b' can never be chosen: the when of 'a' always holds",
    ),
    "otherwise beside a choice that always holds": (
        route("{name: b}, {name: a, when: 'true'}", "otherwise: b, "),
        "spec.steps[0].route.choices[0]",
        "'b' can never be chosen: the when of 'a' always holds",
    ),
    "a choice that never holds": (
        route("{name: a, when: 'false'}, {name: b, when: input.b}"),
        "spec.steps[0].route.choices[0].when",
        "'a' can never be chosen: this is never true",
    ),
}


@pytest.mark.parametrize("text", RIGHT.values(), ids=RIGHT)
def test_what_may_run_and_end_has_no_findings(text: str) -> None:
    assert check(text) == []


@pytest.mark.parametrize(("text", "path", "message"), WRONG.values(), ids=WRONG)
def test_what_never_runs_or_never_ends_is_found(text: str, path: str, message: str) -> None:
    (finding,) = check(text)
    assert finding.path == path
    assert message in finding.message
