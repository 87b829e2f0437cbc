"""The OpenAI protocol as containers speak it to the gateway: read from a closed list of fields, written as they expect.

What is not on the list is refused by name and reaches nobody: no provider-side tools, no files, no URLs of images, no
ids of earlier answers.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping
from typing import Any

from fairlead.api.canonical import canonical_json
from fairlead.api.reasons import ErrorClass
from fairlead.flow.calls import CallError
from fairlead.flow.schema import findings
from fairlead.flow.state import CallState

Json = dict[str, Any]

_TEXT = {"type": "string"}
_NO = {"enum": [False, None]}


def _object(required: list[str], **properties: Any) -> Json:
    return {"type": "object", "additionalProperties": False, "required": required, "properties": properties}


_PART = _object(["type", "text"], type={"const": "text"}, text=_TEXT)
_CALL = _object(
    ["id", "type", "function"],
    id=_TEXT,
    type={"const": "function"},
    function=_object(["name", "arguments"], name=_TEXT, arguments=_TEXT),
)
_MESSAGE = _object(
    ["role"],
    role={"enum": ["system", "developer", "user", "assistant", "tool"]},
    content={"anyOf": [_TEXT, {"type": "null"}, {"type": "array", "items": _PART}]},
    tool_calls={"anyOf": [{"type": "null"}, {"type": "array", "maxItems": 128, "items": _CALL}]},
    tool_call_id=_TEXT,
    name=_TEXT,
    refusal={"type": "null"},
)
_FUNCTION = _object(
    ["name"], name=_TEXT, description=_TEXT, parameters={"type": "object"}, strict={"type": ["boolean", "null"]}
)
_SCHEMA = _object(
    ["name", "schema"], name=_TEXT, description=_TEXT, schema={"type": "object"}, strict={"type": ["boolean", "null"]}
)
_FORMAT = {
    "anyOf": [
        _object(["type"], type={"enum": ["text", "json_object"]}),
        _object(["type", "json_schema"], type={"const": "json_schema"}, json_schema=_SCHEMA),
    ]
}
_POSITIVE = {"anyOf": [{"type": "null"}, {"type": "integer", "minimum": 1, "maximum": 1_000_000}]}

CHAT = _object(
    ["model", "messages"],
    model=_TEXT,
    messages={"type": "array", "minItems": 1, "maxItems": 2000, "items": _MESSAGE},
    max_tokens=_POSITIVE,
    max_completion_tokens=_POSITIVE,
    temperature={"anyOf": [{"type": "null"}, {"type": "number", "minimum": 0, "maximum": 2}]},
    seed={"anyOf": [{"type": "null"}, {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}]},
    tools={
        "type": "array",
        "maxItems": 128,
        "items": _object(["type", "function"], type={"const": "function"}, function=_FUNCTION),
    },
    tool_choice={"enum": ["auto", "none", None]},
    parallel_tool_calls={"type": ["boolean", "null"]},
    response_format=_FORMAT,
    stream={"type": ["boolean", "null"]},
    stream_options={"anyOf": [{"type": "null"}, _object([], include_usage={"type": "boolean"})]},
    user=_TEXT,
    n={"enum": [1, None]},
    top_p={"enum": [1, None]},
    frequency_penalty={"enum": [0, None]},
    presence_penalty={"enum": [0, None]},
    logprobs=_NO,
    store=_NO,
)
"""What may be said for what it does here, or because it asks for nothing: `n: 1`, `user`."""

EMBEDDINGS = _object(
    ["model", "input"],
    model=_TEXT,
    input={"anyOf": [_TEXT, {"type": "array", "minItems": 1, "maxItems": 2048, "items": _TEXT}]},
    encoding_format={"enum": ["float", "base64", None]},
    user=_TEXT,
)

_STATUS = {
    ErrorClass.TIMEOUT: 504,
    ErrorClass.RATE_LIMITED: 429,
    ErrorClass.UNAVAILABLE: 502,
    ErrorClass.INVALID: 400,
    ErrorClass.MODEL_ERROR: 502,
}
_MESSAGES = 3
"""So many findings are told."""


def wrong(schema: Mapping[str, Any], body: Any) -> str:
    """Return what a request says that may not be said, "" if nothing."""
    unknown = sorted(set(body) - set(schema["properties"])) if isinstance(body, dict) else []
    if unknown:
        return f"not taken here: {', '.join(name[:64] for name in unknown[:_MESSAGES])}"
    return "; ".join(findings(schema, body)[:_MESSAGES])


def chat_request(body: Mapping[str, Any]) -> Json:
    """Return the request of a Chat call."""
    parameters: Json = {}
    if (most := body.get("max_completion_tokens") or body.get("max_tokens")) is not None:
        parameters["maxOutputTokens"] = int(most)
    if body.get("temperature") is not None:
        parameters["temperature"] = str(body["temperature"])
    if body.get("seed") is not None:
        parameters["seed"] = int(body["seed"])
    request: Json = {"messages": [_message(message) for message in body["messages"]], "parameters": parameters}
    if body.get("tools") and body.get("tool_choice") != "none":
        request["tools"] = [_function(tool["function"]) for tool in body["tools"]]
    form = body.get("response_format") or {"type": "text"}
    if form["type"] != "text":
        request["schema"] = form["json_schema"]["schema"] if form["type"] == "json_schema" else {"type": "object"}
    return request


def chat_answer(call: CallState, body: Mapping[str, Any], *, name: str, created: int) -> Json:
    """Return what a Chat call brought, as a completion."""
    calls = [
        {"id": one["id"], "type": "function", "function": {"name": one["name"], "arguments": one["arguments"]}}
        for one in call.result["toolCalls"]
    ]
    said = {"role": "assistant", "content": call.result["content"] or None} | ({"tool_calls": calls} if calls else {})
    choice = {"index": 0, "message": said, "finish_reason": "tool_calls" if calls else "stop", "logprobs": None}
    head = {"id": name, "object": "chat.completion", "created": created, "model": body["model"]}
    return head | {"choices": [choice], "usage": _usage(call)}


def streamed(completion: Mapping[str, Any], body: Mapping[str, Any]) -> bytes:
    """Return a completion as the events of a stream: one with all of it, one with its end."""
    (choice,) = completion["choices"]
    said = dict(choice["message"])
    if "tool_calls" in said:
        said["tool_calls"] = [{"index": index} | one for index, one in enumerate(said["tool_calls"])]
    head = {**completion, "object": "chat.completion.chunk"}
    del head["usage"]
    deltas = [(said, None), ({}, choice["finish_reason"])]
    chunks = [head | {"choices": [{"index": 0, "delta": delta, "finish_reason": end}]} for delta, end in deltas]
    if (body.get("stream_options") or {}).get("include_usage"):
        chunks.append(head | {"choices": [], "usage": completion["usage"]})
    return b"".join(b"data: %s\n\n" % canonical_json(chunk) for chunk in chunks) + b"data: [DONE]\n\n"


def embed_request(body: Mapping[str, Any]) -> Json:
    """Return the request of an Embed call."""
    return {"texts": [body["input"]] if isinstance(body["input"], str) else list(body["input"])}


def embed_answer(call: CallState, body: Mapping[str, Any]) -> Json:
    """Return what an Embed call brought, as vectors of numbers, or of base64 where that is asked for."""
    packed = body.get("encoding_format") == "base64"
    rows = [
        {"object": "embedding", "index": index, "embedding": _packed(vector) if packed else vector}
        for index, vector in enumerate(call.result["vectors"])
    ]
    used = _usage(call)
    used.pop("completion_tokens")
    return {"object": "list", "data": rows, "model": body["model"], "usage": used}


def models_answer(names: list[str]) -> Json:
    """Return the Models that a container may call."""
    return {"object": "list", "data": [{"id": name, "object": "model", "owned_by": "fairlead"} for name in names]}


def error_answer(error: CallError, *, denied: bool) -> tuple[int, Json]:
    """Return the status and body of a call that failed; of one that was denied nothing but that it was."""
    if denied:
        return 403, _error("not permitted", "not_permitted")
    status = _STATUS.get(ErrorClass(error.error_class), 500)
    return status, _error(error.message, error.reason)


def _error(message: str, code: str) -> Json:
    return {"error": {"message": message, "type": "fairlead", "param": None, "code": code}}


def _message(message: Mapping[str, Any]) -> Json:
    content = message.get("content")
    text = "".join(part["text"] for part in content) if isinstance(content, list) else content or ""
    role = "system" if message["role"] == "developer" else message["role"]
    said: Json = {"role": role, "content": text}
    if message.get("tool_calls"):
        said["tool_calls"] = [{"id": one["id"], **one["function"]} for one in message["tool_calls"]]
    if "tool_call_id" in message:
        said["tool_call_id"] = message["tool_call_id"]
    return said


def _function(function: Mapping[str, Any]) -> Json:
    schema = function.get("parameters") or {"type": "object"}
    return {"name": function["name"], "description": function.get("description", ""), "schema": schema}


def _usage(call: CallState) -> Json:
    given, made = (call.outcome.input_tokens, call.outcome.output_tokens) if call.outcome is not None else (0, 0)
    return {"prompt_tokens": given, "completion_tokens": made, "total_tokens": given + made}


def _packed(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
