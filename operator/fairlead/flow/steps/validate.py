"""validate: schema, rules and judge over a value, and what happens when it does not pass."""

from __future__ import annotations

from typing import Any

from fairlead.api.reasons import ErrorClass
from fairlead.api.workflow import OnFailure, Validate
from fairlead.flow.calls import CallIndex
from fairlead.flow.labels import endorses
from fairlead.flow.steps.answer import Rejected, check_value, judge_inputs, judged
from fairlead.flow.steps.attempt import Attempt, Enter, Evaluator, Failed, Result, Setting, Succeeded, failed


def inputs(definition: Validate, evaluator: Evaluator, setting: Setting) -> Any:
    """Return {value, judge}."""
    return {
        "value": evaluator.render(definition.value, "validate.value"),
        "judge": judge_inputs(definition.judge, evaluator, setting),
    }


def advance(definition: Validate, attempt: Attempt) -> Result | None:
    """Check, then succeed, fail, or run the onFailure block."""
    value, index = attempt.inputs["value"], CallIndex()
    found = attempt.findings(index, lambda: check_value(definition.schema_, definition.rules, value, attempt.evaluator))
    if not found and definition.judge is not None:
        verdict = judged(attempt, definition.judge, value, index=index)
        if verdict is None or isinstance(verdict, Failed):
            return verdict
        found = verdict.findings if isinstance(verdict, Rejected) else []
    if not found:
        return Succeeded({"passed": True, "findings": []} | ({"value": value} if endorses(definition) else {}))
    return _not_passed(definition, found)


def _not_passed(definition: Validate, found: list[str]) -> Result:
    on_failure = definition.on_failure or OnFailure(action="Fail")
    output = {"passed": False, "findings": found} | ({"value": None} if endorses(definition) else {})
    failure = failed(ErrorClass.INVALID, "; ".join(found)[:1000], reason="ValidationFailed")
    if on_failure.block is not None:
        return Enter(on_failure.block, lambda _: output, error=failure.error)
    return Succeeded(output) if on_failure.action == "Continue" else failure
