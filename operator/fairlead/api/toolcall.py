"""One call of a Tool's function, as a step or the terms of an approval name it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from fairlead.api.meta import ApiModel, FunctionName, JsonObject, ObjectName


class ToolCall(ApiModel):
    """One function call. Output: MCP `structuredContent`, else `{text}`."""

    tool: Annotated[ObjectName, Field(description="The Tool's name.")]
    function: Annotated[FunctionName, Field(description="A function of its contract.")]
    arguments: Annotated[JsonObject, Field(description="The function's arguments; strings may hold `$( )`.")] = {}
