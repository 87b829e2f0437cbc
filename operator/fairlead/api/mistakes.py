"""What does not parse as a resource, in our words: the field path, and what would be right."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError


def mistakes(error: ValidationError) -> Iterator[tuple[str, str]]:
    """Yield field path and message of everything that is wrong."""
    for item in error.errors(include_url=False):
        path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in item["loc"]).lstrip(".")
        match item["type"]:
            case "extra_forbidden":
                message = "there is no such field"
            case "model_type":
                message = _instead(item["ctx"]["class_name"], item["input"])
            case _:
                message = item["msg"]
        yield path, message[:1].lower() + message[1:]


def _instead(wanted: str, given: Any) -> str:
    """Return what to write instead of a value that is no object: a word or a number may say which field it means."""
    match wanted, given:
        case "OnError" | "OnFailure", "Fail" | "Continue":
            return f"write {{action: {given}}}"
        case "Join", "All" | "Any":
            return f"write {{mode: {given}}}"
        case "Join", int():
            return f"write {{succeeded: {given}}}"
    return "an object is needed, with the fields of this place"
