"""What a step of a Graph sees of steps that `join: Any` has not waited for."""

from __future__ import annotations

import pytest
import yaml

from fairlead.api.workflow import WorkflowSpec
from fairlead.flow.checks import Finding, check_workflow


def check(text: str) -> list[Finding]:
    return check_workflow(WorkflowSpec.model_validate(yaml.safe_load(text)), models=None, tools=None)


RACE = "{name: a, transform: {value: 1}}, {name: b, block: slow}, {name: c, needs: [a, b], join: Any, "
SLOW = "{name: slow, steps: [{name: x, wait: {seconds: 1}}]}"


@pytest.mark.parametrize("read", ["steps.b.phase", "steps.b", "steps.b.error.class", "steps['b']['attempts']"])
def test_where_a_branch_stands_that_was_not_waited_for_cannot_be_read(read: str) -> None:
    found = check(
        f'order: Graph\nsteps: [{RACE}transform: {{value: "$( {read} )"}}}}, {{name: d, needs: [c], block: e}}]\n'
        f'blocks: [{SLOW}, {{name: e, steps: [{{name: y, transform: {{value: "$( {read} )"}}}}]}}]'
    )

    assert [finding.path for finding in found] == [
        "spec.steps[2].transform.value",
        "spec.blocks[1].steps[0].transform.value",
    ]
    assert "step 'b' may not be over here: read steps.b.output, which is null until it is" in found[0].message


@pytest.mark.parametrize(
    "step",
    [
        "{name: d, needs: [c], transform: {value: $( steps.b.output ) $( steps.c.phase )}}",
        "{name: d, needs: [b, c], transform: {value: $( steps.b.phase )}}",
        "{name: d, needs: [c, b], join: AllDone, transform: {value: $( steps.b.phase )}}",
    ],
)
def test_what_is_over_can_be_read_and_what_may_not_be_by_its_output(step: str) -> None:
    seen = "transform: {value: $( steps.a.output ) $( steps.b.output )}}"
    text = f"order: Graph\nsteps: [{RACE}{seen}, {step}]\nblocks: [{SLOW}]\noutput: $( steps.b.phase )"
    assert not check(text)
