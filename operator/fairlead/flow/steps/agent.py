"""agent: a model with tools in a bounded loop, and the same corrections of its answer as in `generate`.

Every turn is replayed from the recorded calls: the conversation is built again from what the model said and what the
calls brought, up to the first call that has no outcome yet. Bounds: `maxTurns` model calls, of which the last can only
answer; `revisions` of the answer; three repairs of replies that cannot be understood; what its Model has room for.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from fairlead.api.canonical import canonical_json, digest
from fairlead.api.reasons import DecisionReason, ErrorClass
from fairlead.api.workflow import Agent
from fairlead.flow.calls import CallError, CallIndex, CallKind
from fairlead.flow.schema import findings
from fairlead.flow.state import CallState
from fairlead.flow.steps.answer import (
    Accepted,
    Rejected,
    advice_message,
    judge_inputs,
    message,
    review,
    review_text,
)
from fairlead.flow.steps.attempt import Attempt, Evaluator, Failed, Result, Setting, Succeeded, failed
from fairlead.flow.steps.conversation import Conversation, room_for
from fairlead.flow.steps.protocol import (
    AgentProtocol,
    Asked,
    Function,
    Reply,
    explanation,
    offered_functions,
    protocol_of,
)

MAX_REPAIRS = 3
MAX_CALLS_PER_TURN = 32
_ERROR_CHARACTERS = 500


def inputs(definition: Agent, evaluator: Evaluator, setting: Setting) -> Any:
    """Return {model, constrained, functions, messages, judge, room?}: the offer is frozen for all attempts."""
    name = setting.model(definition.model)
    model = setting.resources.models.get(name)
    constrained = model is None or "Tools" not in model.spec.capabilities
    functions = offered_functions(definition.tools, setting.resources.tools, setting.resources.workflows)
    room = room_for(model, [] if constrained else functions)  # of a constrained one they stand in the task
    told = explanation(functions, definition.output, constrained=constrained)
    instructions = (
        evaluator.text(definition.instructions, "agent.instructions") if definition.instructions is not None else ""
    )
    system = "\n\n".join(part for part in (instructions, told) if part)
    judge = definition.output.judge if definition.output else None
    return {
        "model": name,
        "constrained": constrained,
        "functions": functions,
        "messages": [
            *([message("system", system)] if system else []),
            message("user", evaluator.text(definition.prompt, "agent.prompt")),
        ],
        "judge": judge_inputs(judge, evaluator, setting),
    } | ({"room": room} if room is not None else {})


def advance(definition: Agent, attempt: Attempt) -> Result | None:
    """Go through the recorded turns and on from there."""
    return _Loop(definition, attempt, protocol_of(definition, attempt.inputs)).run()


@dataclass(slots=True)
class _Loop:
    """One walk through the turns.

    Attributes:
        turns: counted model calls, this one included.
        revisions: answers that were rejected.
        repairs: replies that could not be understood.
        alike: how often each call was asked for that has not failed: who asks again after that means the same.
    """

    definition: Agent
    attempt: Attempt
    protocol: AgentProtocol
    turns: int = 1
    revisions: int = 0
    repairs: int = 0
    alike: Counter[str] = field(default_factory=Counter)

    def run(self) -> Result | None:
        """Return the result, or None while calls are open."""
        frozen = self.attempt.inputs
        told, index = Conversation(frozen["messages"], frozen.get("room")), CallIndex()
        while True:
            tools = bool(frozen["functions"]) and self.turns < self.definition.max_turns
            call = self.attempt.replayed(index)
            if call is None:
                request = self.protocol.request(told.messages, tools=tools)
                call = self.attempt.ask(CallKind.CHAT, frozen["model"], request, index=index)
            if call is None:
                return None
            if call.error:
                return Failed(call.error)
            reply = self.protocol.read(call.result)
            if reply.asked and not tools:
                return failed(ErrorClass.MODEL_ERROR, "no answer in the last turn", reason="TurnsExhausted")
            added = self._react(reply, index)
            if not isinstance(added, _Next):
                return added
            told.add(reply.said, added.messages)
            index = CallIndex(index.turn, 0, index.repair + 1) if added.repair else CallIndex(index.turn + 1)

    def _react(self, reply: Reply, index: CallIndex) -> _Next | Result | None:
        if reply.problem:
            return self._repair([message("user", reply.problem)], reason="BadAnswer")
        if reply.asked:
            return self._calls(reply.asked, index)
        verdict = self._review(reply, index)
        match verdict:
            case Accepted(output):
                return Succeeded(output)
            case Rejected():
                self.revisions += 1
                allowed = self.definition.output.revisions if self.definition.output else 0
                return verdict.as_failure() if self.revisions > allowed else _Next([advice_message(verdict)])
            case _:
                return verdict

    def _review(self, reply: Reply, index: CallIndex) -> Accepted | Rejected | Failed | None:
        contract = self.definition.output
        if isinstance(reply.final, str) and not self.attempt.inputs["constrained"]:
            return review_text(self.attempt, contract, reply.final, index=index)
        if contract is not None and contract.schema_ is not None:
            return review(self.attempt, contract, reply.final, index=index, problems=[])
        text = reply.final.get("text") if isinstance(reply.final, dict) else reply.final
        return review_text(self.attempt, contract, text if isinstance(text, str) else "", index=index)

    def _calls(self, asked: list[Asked] | Any, index: CallIndex) -> _Next | Result | None:
        """Make the turn's calls in parallel; go on when all of them are settled."""
        answers: list[str | None] = []
        fatal: CallError | None = None
        wrong = False
        for ordinal, one in enumerate(asked, start=1):
            at = CallIndex(index.turn, ordinal, index.repair)
            problems = self._problems(one, at)
            if problems:
                wrong = True
                answers.append("The call was not made: " + "; ".join(problems))
                continue
            call = self._call(one, at)
            answers.append(_told(call, self.attempt.denied_because(at)) if call else None)
            fatal = fatal or (_fatal(call) if call else None)
        if None in answers:
            return None
        if fatal is not None:
            return Failed(fatal)
        results = [self.protocol.result_message(one, text or "") for one, text in zip(asked, answers, strict=True)]
        if wrong:
            return self._repair(results, reason="BadArguments")
        self.turns += 1
        return _Next(results)

    def _call(self, asked: Asked, index: CallIndex) -> CallState | None:
        function = self._offered(asked.name)
        request = {"arguments": asked.arguments or {}}
        if function is None:
            target, split, name = asked.name.partition("__")
            target, name = (target, name) if split else ("", asked.name)
            return self.attempt.ask(CallKind.TOOL, target, request, index=index, function=name, offered=False)
        if "workflow" in function:
            request = {"input": asked.arguments or {}}
            return self.attempt.ask(CallKind.WORKFLOW, function["workflow"], request, index=index)
        tool, name = function["tool"], function["function"]
        alike = digest([tool, name, request])
        nth = self.alike[alike]
        call = self.attempt.ask(CallKind.TOOL, tool, request, index=index, function=name, nth=nth)
        self.alike[alike] += call is None or call.error is None
        return call

    def _problems(self, asked: Asked, index: CallIndex) -> list[str]:
        """Return why a call cannot be made as it is asked for. What was made once had none."""
        function = self._offered(asked.name)
        if function is None or self.attempt.recorded(index) is not None:
            return []

        def check() -> list[str]:
            if index.ordinal > MAX_CALLS_PER_TURN:
                return [f"at most {MAX_CALLS_PER_TURN} calls at once"]
            if asked.arguments is None:
                return ["the arguments are no JSON object"]
            return findings(function["schema"], asked.arguments)

        return self.attempt.findings(index, check, again=False)

    def _offered(self, name: str) -> Function | None:
        functions: list[Function] = self.attempt.inputs["functions"]
        return next((function for function in functions if function["name"] == name), None)

    def _repair(self, messages: list[dict[str, Any]], *, reason: str) -> _Next | Failed:
        self.repairs += 1
        if self.repairs > MAX_REPAIRS:
            return failed(ErrorClass.MODEL_ERROR, f"not understood after {MAX_REPAIRS} repairs", reason=reason)
        return _Next(messages, repair=True)


@dataclass(frozen=True, slots=True)
class _Next:
    """The loop goes on with these messages; a repair asks for the same turn again."""

    messages: list[dict[str, Any]]
    repair: bool = False


def _told(call: CallState, because: str) -> str:
    """Return what the model is told about a settled call: of a denial nothing but a person's reason for it."""
    if call.denied:
        return f"not permitted: {because}" if because else "not permitted"
    if call.error:
        return f"error: {call.error.error_class}: {call.error.message}"[:_ERROR_CHARACTERS]
    return canonical_json(call.result).decode()


def _fatal(call: CallState) -> CallError | None:
    """Return the error that ends the attempt: what the model could not mend or must not try again."""
    if call.error is None:
        return None
    if call.denied:
        mendable = call.error.error_class == ErrorClass.DENIED and call.error.reason != DecisionReason.LOOP_DETECTED
        return None if mendable else call.error
    return call.error if call.error.error_class == ErrorClass.OUTCOME_UNKNOWN else None
