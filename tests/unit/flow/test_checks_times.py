"""What takes longer than something around it lets it."""

from __future__ import annotations

import pytest
import yaml

from fairlead.api.workflow import WorkflowSpec
from fairlead.flow.checks import Finding, check_workflow


def check(text: str) -> list[Finding]:
    return check_workflow(WorkflowSpec.model_validate(yaml.safe_load(text)), models=None, tools=None)


SLOW = "blocks: [{name: slow, steps: [{name: w, wait: {seconds: 300}}]}]"
ASKING = "blocks: [{name: asking, steps: [{name: w, approval: {message: x, from: {users: [a]}}}]}]"

RIGHT = {
    "a wait shorter than the step around it": f"steps: [{{name: a, timeoutSeconds: 301, block: slow}}]\n{SLOW}",
    "an error block, which is no part of the attempt": (
        "steps: [{name: a, timeoutSeconds: 10, onError: {block: slow}, transform: {value: 1}}]\n" + SLOW
    ),
    "a block that has enough time somewhere": (
        f"steps: [{{name: a, timeoutSeconds: 10, block: slow}}, {{name: b, block: slow}}]\n{SLOW}"
    ),
    "defaults, which do not hold for what runs other steps": (
        "defaults: {timeoutSeconds: 2}\n"
        f"steps: [{{name: a, route: {{value: x, choices: [{{name: go, when: 'true', block: slow}}]}}}}]\n{SLOW}"
    ),
    "a timeout as long as the run": "limits: {timeoutSeconds: 9}\n"
    "steps: [{name: a, timeoutSeconds: 9, transform: {value: 1}}]",
}
WRONG = {
    "a wait in a block of a step with less time": (
        f"steps: [{{name: a, timeoutSeconds: 10, block: slow}}]\n{SLOW}",
        "spec.blocks[0].steps[0].wait.seconds",
        "spec.steps[0].timeoutSeconds ends it after 10 s; wait less, or raise that",
    ),
    "a wait in a block of a block of a step with less time": (
        "steps: [{name: a, timeoutSeconds: 10, parallel: {blocks: [outer]}}]\nblocks: [{name: outer, steps: [{name: b, "
        "timeoutSeconds: 9, block: inner}]}, {name: inner, steps: [{name: w, wait: {seconds: 9}}]}]",
        "spec.blocks[1].steps[0].wait.seconds",
        "spec.blocks[0].steps[0].timeoutSeconds ends it after 9 s",
    ),
    "people that nobody waits for": (
        f"steps: [{{name: a, timeoutSeconds: 600, block: asking}}]\n{ASKING}",
        "spec.blocks[0].steps[0].approval.expiresAfterSeconds",
        "spec.steps[0].timeoutSeconds ends it after 600 s",
    ),
    "a wait in finally": (
        f"steps: [{{name: a, transform: {{value: 1}}}}]\nfinally: slow\n{SLOW}",
        "spec.blocks[0].steps[0].wait.seconds",
        "finally ends after 30 s; wait less, or do it before",
    ),
    "a step's timeout in finally": (
        "steps: [{name: a, transform: {value: 1}}]\nfinally: b\n"
        "blocks: [{name: b, steps: [{name: x, timeoutSeconds: 31, transform: {value: 1}}]}]",
        "spec.blocks[0].steps[0].timeoutSeconds",
        "finally ends after 30 s",
    ),
    "a step's timeout beyond the run's": (
        "limits: {timeoutSeconds: 9}\nsteps: [{name: a, timeoutSeconds: 10, transform: {value: 1}}]",
        "spec.steps[0].timeoutSeconds",
        "the run ends after 9 s; wait less, or raise spec.limits.timeoutSeconds",
    ),
}


@pytest.mark.parametrize("text", RIGHT.values(), ids=RIGHT)
def test_what_there_is_time_for_has_no_findings(text: str) -> None:
    assert check(text) == []


@pytest.mark.parametrize(("text", "path", "message"), WRONG.values(), ids=WRONG)
def test_what_there_is_no_time_for_is_found_with_what_ends_it(text: str, path: str, message: str) -> None:
    (finding,) = check(text)
    assert finding.path == path
    assert message in finding.message
