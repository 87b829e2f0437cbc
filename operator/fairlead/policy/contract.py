"""What cannot be right in a Tool's contract, whatever its server says. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fairlead.api.tool import Function, Tool
from fairlead.flow.schema import check_schema


@dataclass(frozen=True, slots=True)
class Finding:
    """The path of a field and what is wrong with it."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


def contract_problems(tool: Tool) -> list[Finding]:
    """Return schemas that cannot be used, and presets that callers are asked for as well."""
    return [
        finding
        for index, function in enumerate(tool.spec.functions)
        for finding in _of(function, f"spec.functions[{index}]")
    ]


def _of(function: Function, path: str) -> Iterator[Finding]:
    schema = function.input.schema_ if function.input is not None else {}
    problems = check_schema(schema)
    yield from (Finding(f"{path}.input.schema", problem) for problem in problems)
    if problems:
        return
    for part in ("properties", "required"):
        for name in sorted((function.preset or {}).keys() & set(schema.get(part, ()))):
            yield Finding(f"{path}.preset.{name}", f"the Tool sets it: leave '{name}' out of input.schema.{part}")
    keyed = function.idempotency.argument if function.idempotency is not None else None
    if keyed is not None and keyed in (function.preset or {}):
        yield Finding(f"{path}.preset.{keyed}", "the idempotency key is another one for each call")
