"""How an agent's loop speaks with its model: native tool calls, or constrained JSON for a model that has none.

A protocol makes the request of a turn and reads the reply; the loop in `agent.py` is the same for both.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from fairlead.api.canonical import canonical_json, strict_json
from fairlead.api.tool import Tool
from fairlead.api.workflow import Agent, AgentTool, OutputContract, Workflow
from fairlead.flow.steps.answer import chat_request, message, parse_json

Function = Mapping[str, Any]
"""What is offered, frozen with the inputs: {name: as the model sees it, description, schema} and what it stands for:
{tool, function} or {workflow}."""

_TEXT_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {"text": {"type": "string"}},
    "required": ["text"],
    "additionalProperties": False,
}
_NAME_CHARACTERS = 64


@dataclass(frozen=True, slots=True)
class Asked:
    """One tool call that the model asks for; `arguments` is None when they are no JSON object."""

    id: str
    name: str
    arguments: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Reply:
    """What the model said: it asks for calls, or gives a final answer, or `problem` says why it is neither.

    Attributes:
        said: the message as it goes into the conversation.
        asked: the tool calls, in the model's order.
        final: the final answer: text from a native model, a value from a constrained one.
        problem: what is wrong with the reply.
    """

    said: dict[str, Any]
    asked: Sequence[Asked] = field(default=())
    final: Any = None
    problem: str = ""


class AgentProtocol(Protocol):
    """The two ways to speak."""

    def request(self, messages: list[dict[str, Any]], *, tools: bool) -> dict[str, Any]:
        """Return the request of a turn; without tools only a final answer is possible."""
        ...

    def read(self, result: Mapping[str, Any]) -> Reply:
        """Read what the model answered."""
        ...

    def result_message(self, asked: Asked, content: str) -> dict[str, Any]:
        """Return the message that tells what came of a call."""
        ...


def offered_functions(
    granted: Sequence[AgentTool], tools: Mapping[str, Tool], workflows: Mapping[str, Workflow]
) -> list[dict[str, Any]]:
    """Return the functions and Workflows that the step offers, with the contract's texts and schemas.

    What does not exist is not offered; the model may still ask for it and is then denied.
    """
    offered: dict[str, dict[str, Any]] = {}
    for grant in granted:
        workflow = workflows.get(grant.workflow or "")
        if workflow is not None:
            name = _free_name(workflow.metadata.name, offered)
            offered[name] = {"name": name, "workflow": workflow.metadata.name, **_as_function(workflow)}
        tool = tools.get(grant.tool or "")
        for function in tool.spec.functions if tool else []:
            if grant.functions is not None and function.name not in grant.functions:
                continue
            name = _free_name(f"{grant.tool}__{function.name}", offered)
            offered[name] = {
                "name": name,
                "tool": grant.tool,
                "function": function.name,
                "description": function.description or "",
                "schema": function.input.schema_ if function.input else {"type": "object"},
            }
    return list(offered.values())


def _as_function(workflow: Workflow) -> dict[str, Any]:
    json_schema = workflow.spec.input.schema_ if workflow.spec.input else None
    return {"description": workflow.spec.description or "", "schema": json_schema or {"type": "object"}}


def _free_name(wanted: str, taken: Mapping[str, Any]) -> str:
    """Return a name that model APIs accept: letters, digits, dash and underscore, at most 64, and unique."""
    name = re.sub(r"[^A-Za-z0-9_-]", "_", wanted)[:_NAME_CHARACTERS]
    number = 2
    while name in taken:
        suffix = f"_{number}"
        name, number = name[: _NAME_CHARACTERS - len(suffix)] + suffix, number + 1
    return name


def explanation(functions: Sequence[Function], contract: OutputContract | None, *, constrained: bool) -> str:
    """Return what the system message says about functions and the final answer."""
    json_schema = contract.schema_ if contract else None
    if not constrained:
        if json_schema is None or not functions:
            return ""
        return f"When you are done, answer with JSON only, of this schema: {_text(json_schema)}"
    final = _text(json_schema or _TEXT_SCHEMA)
    lines = [f"- {f['name']}: {f['description']} Arguments: {_text(f['schema'])}" for f in functions]
    calls = '{"call": "<function>", "arguments": {...}} to call a function, or '
    return "\n".join(
        [
            f'Reply with one JSON object: {calls if functions else ""}{{"final": <answer>}} when you are done.',
            f"The answer has this schema: {final}",
            *(["Functions:", *lines] if functions else []),
        ]
    )


def protocol_of(definition: Agent, inputs: Mapping[str, Any]) -> AgentProtocol:
    """Return the protocol that was frozen with the inputs."""
    return (Constrained if inputs["constrained"] else Native)(definition, inputs["functions"])


@dataclass(frozen=True, slots=True)
class Native:
    """For a model that calls tools by itself."""

    definition: Agent
    functions: Sequence[Function]

    def request(self, messages: list[dict[str, Any]], *, tools: bool) -> dict[str, Any]:
        """Offer the tools, or constrain the answer: servers do not take both."""
        offered = [{key: f[key] for key in ("name", "description", "schema")} for f in self.functions] if tools else []
        contract = self.definition.output
        json_schema = contract.schema_ if contract and not offered else None
        return chat_request(
            messages, parameters=self.definition.parameters, json_schema=json_schema, tools=offered or None
        )

    def read(self, result: Mapping[str, Any]) -> Reply:
        """Go by the presence of tool calls, never by what the model says about why it stopped."""
        content, calls = result.get("content") or "", result.get("toolCalls") or []
        said = message("assistant", content)
        if not calls:
            return Reply(said, final=content)
        asked = [Asked(call["id"], call["name"], _arguments(call["arguments"])) for call in calls]
        return Reply(said | {"tool_calls": calls}, asked=asked)

    def result_message(self, asked: Asked, content: str) -> dict[str, Any]:
        """Return a tool message."""
        return {"role": "tool", "tool_call_id": asked.id, "content": content}


@dataclass(frozen=True, slots=True)
class Constrained:
    """For a model without tools: each reply is `{call, arguments}` or `{final}`, enforced by a schema."""

    definition: Agent
    functions: Sequence[Function]

    def request(self, messages: list[dict[str, Any]], *, tools: bool) -> dict[str, Any]:
        """Constrain the reply."""
        contract = self.definition.output
        answer = (contract.schema_ if contract else None) or _TEXT_SCHEMA
        offered = self.functions if tools else []
        ways = [self._call(function, at=f"#/anyOf/{n}") for n, function in enumerate(offered)]
        at = f"#/anyOf/{len(ways)}" if ways else "#"
        final = _object({"final": _moved(answer, f"{at}/properties/final")})
        json_schema = {"anyOf": [*ways, final]} if ways else final
        return chat_request(messages, parameters=self.definition.parameters, json_schema=json_schema)

    def _call(self, function: Function, *, at: str) -> dict[str, Any]:
        arguments = _moved(function["schema"], f"{at}/properties/arguments")
        return _object({"call": {"const": function["name"]}, "arguments": arguments})

    def read(self, result: Mapping[str, Any]) -> Reply:
        """Read the one object."""
        content = result.get("content") or ""
        said = message("assistant", content)
        try:
            value = parse_json(content)
        except ValueError:
            value = None
        if isinstance(value, dict) and isinstance(value.get("call"), str):
            arguments = value.get("arguments")
            return Reply(said, asked=[Asked("", value["call"], arguments if isinstance(arguments, dict) else None)])
        if isinstance(value, dict) and "final" in value:
            return Reply(said, final=value["final"])
        return Reply(said, problem='The reply is neither {"call", "arguments"} nor {"final"}. Reply again.')

    def result_message(self, asked: Asked, content: str) -> dict[str, Any]:
        """Return a user message: such a model knows no other."""
        return message("user", f"Result of {asked.name}:\n{content}")


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}


def _moved(schema: Any, to: str) -> Any:
    """Return a schema as it stands inside another at the pointer `to`: its references to itself follow it there."""
    if isinstance(schema, Mapping):
        return {
            key: to + value[1:] if key == "$ref" and isinstance(value, str) and value[:1] == "#" else _moved(value, to)
            for key, value in schema.items()
        }
    return [_moved(item, to) for item in schema] if isinstance(schema, list) else schema


def _arguments(text: str) -> dict[str, Any] | None:
    try:
        value = strict_json(text or "{}")
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _text(value: Any) -> str:
    return canonical_json(value).decode()
