"""container: an image in a pod of its own. What it leaves in a file is the step's output.

What it calls meanwhile is no part of this: the engine's gateway takes such calls to the gate, beside its own.
"""

from __future__ import annotations

from typing import Any

from fairlead.api.container import ContainerStep
from fairlead.api.reasons import ErrorClass
from fairlead.flow.calls import CallKind
from fairlead.flow.schema import findings
from fairlead.flow.steps.attempt import Attempt, Evaluator, Failed, Result, Setting, Succeeded, failed


def inputs(definition: ContainerStep, evaluator: Evaluator, setting: Setting) -> Any:
    """Return what its input file holds."""
    return evaluator.render(definition.input, "container.input")


def request(definition: ContainerStep, given: Any) -> dict[str, Any]:
    """Return what a call to run it asks for: the step's fields, as they are written, and its input."""
    spec = definition.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude={"input", "output"})
    return spec | {"input": given}


def advance(definition: ContainerStep, attempt: Attempt) -> Result | None:
    """Run the pod, and check what it left."""
    led = None if definition.calls else attempt.given  # an earlier attempt of what calls others may tell more
    call = attempt.ask(CallKind.CONTAINER, definition.image, request(definition, attempt.inputs), label=led)
    if call is None:
        return None
    if call.error:
        return Failed(call.error)
    output = call.result["output"]
    schema = definition.output.schema_ if definition.output is not None else None
    problems = findings(schema, output) if schema is not None else []
    if problems:
        return failed(ErrorClass.INVALID, f"/work/output.json: {'; '.join(problems)}")
    return Succeeded(output)
