"""generate: one model call, and as many corrections in the same conversation as the output contract allows."""

from __future__ import annotations

from typing import Any

from fairlead.api.workflow import Generate
from fairlead.flow.calls import CallIndex, CallKind
from fairlead.flow.steps.answer import Accepted, advice_message, chat_request, judge_inputs, message, review_text
from fairlead.flow.steps.attempt import Attempt, Evaluator, Failed, Result, Setting, Succeeded


def inputs(definition: Generate, evaluator: Evaluator, setting: Setting) -> Any:
    """Return {model, messages, judge}."""
    messages = []
    if definition.instructions is not None:
        messages.append(message("system", evaluator.text(definition.instructions, "generate.instructions")))
    if definition.prompt is not None:
        messages.append(message("user", evaluator.text(definition.prompt, "generate.prompt")))
    for nth, given in enumerate(definition.messages or []):
        messages.append(message(given.role, evaluator.text(given.content, f"generate.messages[{nth}].content")))
    judge = definition.output.judge if definition.output else None
    return {
        "model": setting.model(definition.model),
        "messages": messages,
        "judge": judge_inputs(judge, evaluator, setting),
    }


def advance(definition: Generate, attempt: Attempt) -> Result | None:
    """Ask, review, and ask again while revisions are left."""
    contract, messages = definition.output, list(attempt.inputs["messages"])
    revisions = contract.revisions if contract else 0
    json_schema = contract.schema_ if contract else None
    index = CallIndex()
    while True:
        request = chat_request(messages, parameters=definition.parameters, json_schema=json_schema)
        call = attempt.ask(CallKind.CHAT, attempt.inputs["model"], request, index=index)
        if call is None:
            return None
        if call.error:
            return Failed(call.error)
        content = call.result["content"]
        verdict = review_text(attempt, contract, content, index=index)
        if isinstance(verdict, Accepted):
            return Succeeded(verdict.output)
        if verdict is None or isinstance(verdict, Failed):
            return verdict
        if index.turn == revisions:
            return verdict.as_failure()
        messages = [*messages, message("assistant", content), advice_message(verdict)]
        index = CallIndex(index.turn + 1)
