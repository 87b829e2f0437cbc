"""The OpenAI protocol: `/chat/completions` and `/embeddings`, without streaming.

Requests are built from a list of allowed fields, whatever a step or a pod asked for: function tools and text only, no
provider-side tools, files or conversation ids. Answers are read tolerantly, but a part is never taken for the whole.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import orjson

from fairlead.api.canonical import strict_json
from fairlead.api.model import Model, ModelLimits
from fairlead.api.reasons import ErrorClass
from fairlead.errors import StepError
from fairlead.flow.calls import Call, CallKind, Outcome

Json = dict[str, Any]

_CODE = re.compile(r"[a-z][a-z0-9_]{1,63}")


def request(call: Call, model: Model) -> tuple[str, bytes]:
    """Return the path below the base URL and the body of a Chat or Embed call."""
    where = model.spec.endpoint or model.spec.server
    name = where.model if where is not None else ""
    if call.kind is CallKind.EMBED:
        return "embeddings", _dump({"model": name, "input": call.request["texts"], "encoding_format": "float"})
    return "chat/completions", _dump({"model": name} | _chat(call.request, model))


def longest_answer(asked: Mapping[str, Any], model: Model) -> int:
    """Return how many tokens an answer may have: what is asked for, within what the Model allows."""
    most = (model.spec.limits or ModelLimits()).max_output_tokens
    return min((asked.get("parameters") or {}).get("maxOutputTokens") or most, most)


def read_chat(content: bytes, call: Call, duration_ms: int) -> Outcome:
    """Return the outcome of a chat: {content, toolCalls: [{id, name, arguments}]}.

    Raises:
        StepError: not what the protocol says, cut off, or empty.
    """
    answer = _load(content)
    choices = answer.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        raise StepError(ErrorClass.MODEL_ERROR, "the answer holds no message")
    if choice.get("finish_reason") in ("length", "content_filter"):
        reason = "Truncated" if choice["finish_reason"] == "length" else "ContentFiltered"
        raise StepError(ErrorClass.MODEL_ERROR, f"the answer is not whole: {choice['finish_reason']}", reason=reason)
    text, calls = _text(message.get("content")), _tool_calls(message.get("tool_calls"))
    if not text and not calls:
        raise StepError(ErrorClass.MODEL_ERROR, "the answer is empty")
    return _metered(Outcome({"content": text, "toolCalls": calls}, duration_ms=duration_ms), answer)


def read_embeddings(content: bytes, call: Call, duration_ms: int) -> Outcome:
    """Return the outcome of an embedding: {vectors}, one for each text, in order.

    Raises:
        StepError: not what the protocol says, or not one vector of one length for each text.
    """
    answer = _load(content)
    rows = answer.get("data")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise StepError(ErrorClass.MODEL_ERROR, "the answer holds no embeddings")
    said = ((row.get("index", position), row.get("embedding")) for position, row in enumerate(rows))
    by_index = {index: embedding for index, embedding in said if isinstance(index, int)}
    vectors = [by_index.get(position) for position in range(len(call.request["texts"]))]
    if len(rows) != len(vectors) or not all(_is_vector(vector) for vector in vectors):
        raise StepError(ErrorClass.MODEL_ERROR, "the answer does not hold one vector for each text")
    if len({len(vector) for vector in vectors if vector is not None}) > 1:
        raise StepError(ErrorClass.MODEL_ERROR, "the vectors differ in length")
    return _metered(Outcome({"vectors": vectors}, duration_ms=duration_ms), answer)


def error_code(content: bytes) -> str:
    """Return ` (code)` if an error answer carries one that is a plain word; its text may hold content."""
    try:
        error = _load(content).get("error")
    except StepError:
        return ""
    for key in ("code", "type"):
        code = error.get(key) if isinstance(error, dict) else None
        if isinstance(code, str) and _CODE.fullmatch(code):
            return f" ({code})"
    return ""


def metered(outcome: Outcome, content: bytes) -> Outcome:
    """Return the outcome of an answer that cannot be used, with what it reports to have used."""
    try:
        return _metered(outcome, _load(content))
    except StepError:
        return replace(outcome, metered=False)


def _chat(asked: Mapping[str, Any], model: Model) -> Json:
    parameters = asked.get("parameters") or {}
    body: Json = {
        "messages": [_message(message) for message in asked["messages"]],
        "max_tokens": longest_answer(asked, model),
        "stream": False,
    }
    if parameters.get("temperature") is not None:
        body["temperature"] = float(parameters["temperature"])
    if parameters.get("seed") is not None:
        body["seed"] = parameters["seed"]
    if asked.get("tools"):
        body["tools"] = [_tool(tool) for tool in asked["tools"]]
    if asked.get("schema") is not None:
        _ask_for(asked["schema"], body, native="StructuredOutput" in model.spec.capabilities)
    return body


def _message(message: Mapping[str, Any]) -> Json:
    body: Json = {"role": message["role"], "content": message.get("content") or ""}
    if message.get("tool_calls"):
        body["tool_calls"] = [
            {
                "id": call["id"],
                "type": "function",
                "function": {"name": call["name"], "arguments": call["arguments"]},
            }
            for call in message["tool_calls"]
        ]
    if message.get("tool_call_id") is not None:
        body["tool_call_id"] = message["tool_call_id"]
    return body


def _tool(tool: Mapping[str, Any]) -> Json:
    parameters = tool.get("schema") or {"type": "object"}
    function = {"name": tool["name"], "description": tool.get("description") or "", "parameters": parameters}
    return {"type": "function", "function": function}


def _ask_for(schema: Any, body: Json, *, native: bool) -> None:
    """Ask for JSON of a schema: by `response_format`, or in words at the end of the instructions."""
    if native:
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": "output", "schema": schema}}
        return
    words = f"Answer with JSON only, without any other text. It must fit this JSON Schema: {_dump(schema).decode()}"
    messages: list[Json] = body["messages"]
    if messages and messages[0]["role"] == "system":
        messages[0]["content"] = f"{messages[0]['content']}\n\n{words}"
    else:
        messages.insert(0, {"role": "system", "content": words})


def _text(content: Any) -> str:
    """Return the text of a message: a string, or the text parts of a list."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = (part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text")
        return "".join(part for part in parts if isinstance(part, str))
    return ""


def _tool_calls(calls: Any) -> list[Json]:
    """Return the calls that a message asks for. Arguments stay text: the agent repairs what does not parse."""
    found = []
    for position, call in enumerate(calls if isinstance(calls, list) else []):
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise StepError(ErrorClass.MODEL_ERROR, "the answer asks for a call without a name")
        arguments = function.get("arguments") or "{}"
        text = arguments if isinstance(arguments, str) else _dump(arguments).decode()
        found.append({"id": str(call.get("id") or f"call_{position}"), "name": function["name"], "arguments": text})
    return found


def _is_vector(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(_is_number(item) for item in value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _metered(outcome: Outcome, answer: Json) -> Outcome:
    """Return the outcome with what the answer says that was used; one that says nothing is not metered."""
    usage = answer.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else 0
    given, made, kept = (
        count if isinstance(count, int) and count > 0 else 0
        for count in (usage.get("prompt_tokens"), usage.get("completion_tokens"), cached)
    )
    return replace(outcome, input_tokens=given, output_tokens=made, cached_tokens=kept, metered=given > 0)


def _load(content: bytes) -> Json:
    try:
        answer = strict_json(content)
    except ValueError as error:
        raise StepError(ErrorClass.MODEL_ERROR, f"the answer is not JSON: {error}") from None
    if not isinstance(answer, dict):
        raise StepError(ErrorClass.MODEL_ERROR, "the answer is not a JSON object")
    return answer


def _dump(value: Any) -> bytes:
    return orjson.dumps(value)
