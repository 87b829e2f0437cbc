"""Tool: functions with a contract each, on an MCP server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from fairlead.api.meta import (
    ATOMIC,
    ApiModel,
    CelRule,
    Conditions,
    Digest,
    FunctionName,
    JsonObject,
    Kind,
    ObservedGeneration,
    PrinterColumn,
    Resource,
    exactly_one,
    list_map,
)
from fairlead.api.server import Credential, Server


def _resolvable(url: str) -> str:
    """Refuse a host that no name service can be asked for."""
    try:
        (urlsplit(url).hostname or "").encode("idna")
    except ValueError:
        raise ValueError("a host is labels of 1 to 63 characters with single dots between them") from None
    return url


_NO_USER_INFO = CelRule(
    "!self.matches('^[a-z]+://[^/]*@')", "a URL holds no user or password: name a Secret in `credential` instead"
)
HttpUrl = Annotated[
    str,
    Field(
        max_length=2048,
        pattern=r"^https?://[^\s/?#@]+(/[^\s?#]*)?$",
        json_schema_extra={"x-kubernetes-validations": [_NO_USER_INFO.as_schema()]},
    ),
    AfterValidator(_resolvable),
]
UrlPath = Annotated[str, Field(max_length=256, pattern=r"^/[^\s?#]*$")]


class McpServer(Server):
    """An MCP server over streamable HTTP that the operator runs."""

    path: Annotated[UrlPath, Field(description="Where it answers. Default /mcp.")] = "/mcp"


class Mcp(ApiModel):
    """Where the MCP server is."""

    cel: ClassVar = (CelRule(exactly_one("url", "server"), "set exactly one of url and server"),)
    url: Annotated[
        HttpUrl | None, Field(description="A server that runs elsewhere, for example https://mcp.example.com/mcp.")
    ] = None
    server: McpServer | None = None


class Idempotency(ApiModel):
    """How a call is made idempotent: the key goes into a header or an argument."""

    cel: ClassVar = (CelRule(exactly_one("header", "argument"), "set exactly one of header and argument"),)
    header: Annotated[
        str | None,
        Field(max_length=64, pattern=r"^[A-Za-z0-9-]+$", description="The header, for example Idempotency-Key."),
    ] = None
    argument: Annotated[
        str | None,
        Field(max_length=64, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", description="The argument, for example clientToken."),
    ] = None


class FunctionInput(ApiModel):
    """The arguments that the contract allows."""

    schema_: Annotated[JsonObject, Field(alias="schema", description="A JSON Schema (2020-12) of type object.")]


class Returns(ApiModel):
    """The label of what a function returns, its errors included."""

    trust: Annotated[
        Literal["Trusted", "Untrusted"] | None,
        Field(description="Untrusted (default): somebody outside may have written it, as a web page or a mail."),
    ] = None
    sensitivity: Annotated[
        Literal["Public", "Internal", "Confidential"] | None, Field(description="Default Internal.")
    ] = None


class Function(ApiModel):
    """The contract of one function. What is not listed cannot be called."""

    name: Annotated[FunctionName, Field(description="The name that the server knows it by.")]
    description: Annotated[
        str | None, Field(max_length=4096, description="What a model is told, instead of the server's text.")
    ] = None
    effect: Annotated[
        Literal["Read", "Reversible", "Irreversible"],
        Field(
            description="What a call does to the world. Default Irreversible. Only Read may be repeated after a crash."
        ),
    ] = "Irreversible"
    reach: Annotated[
        Literal["Internal", "External"] | None,
        Field(description="Does what a call brings along reach somebody outside? External (default), or Internal."),
    ] = None
    returns: Returns | None = None
    idempotency: Idempotency | None = None
    input: FunctionInput | None = None
    preset: Annotated[
        JsonObject | None,
        Field(description="Arguments that the server gets with every call. No caller sees them, none may set them."),
    ] = None
    pin: Annotated[
        Digest | None,
        Field(
            description="The digest of the server's definition as it was reviewed: with any other the function cannot "
            "be called. `fairlead pin` writes it. Absent: the definition is not looked at."
        ),
    ] = None

    def sent(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the server gets when it is called with these arguments."""
        return {**arguments, **(self.preset or {})}


class ToolLimits(ApiModel):
    """Bounds of each call to this Tool."""

    timeout_seconds: Annotated[int, Field(ge=1, le=3600, description="One call takes no longer. Default 60.")] = 60
    max_result_bytes: Annotated[
        int, Field(ge=1024, le=10485760, description="A longer result is an error. Default 262144.")
    ] = 262144
    concurrency: Annotated[int | None, Field(ge=1, le=1000, description="Calls in flight at most; more wait.")] = None
    rate_per_minute: Annotated[
        int | None, Field(ge=1, le=100_000, description="Calls a minute at most, of all runs; more wait.")
    ] = None


class ToolSpec(ApiModel):
    """Where the functions are and what they may be used for."""

    description: Annotated[str | None, Field(max_length=4096, description="What it is for, for people.")] = None
    mcp: Mcp
    functions: Annotated[
        list[Function],
        Field(
            min_length=1,
            max_length=200,
            description="The contract: what is not listed cannot be called.",
            json_schema_extra=list_map("name"),
        ),
    ]
    credential: Credential | None = None
    limits: ToolLimits | None = None


class DiscoveredFunction(ApiModel):
    """A function that the server lists."""

    name: Annotated[str, Field(max_length=128, description="The name that the server gives it.")]
    contract: Annotated[
        Literal["Listed", "Unlisted"], Field(description="Is it in the contract? Unlisted cannot be called.")
    ]
    digest: Annotated[
        Digest | None, Field(description="Of its definition, as a pin has it. Absent where there are several of it.")
    ] = None


class ToolStatus(ApiModel):
    """Written by the operator (Ready, Stalled) and the engine (Reachable, Pinned, functions, protocolVersion)."""

    observed_generation: ObservedGeneration | None = None
    conditions: Conditions = []
    protocol_version: Annotated[
        str | None, Field(max_length=32, description="The version of MCP that was agreed on.")
    ] = None
    functions: Annotated[
        list[DiscoveredFunction],
        Field(max_length=200, description="What the server offered when asked last.", json_schema_extra=ATOMIC),
    ] = []


class Tool(Resource):
    """Functions with a contract each, on an MCP server."""

    crd: ClassVar = Kind(
        kind="Tool",
        plural="tools",
        short_names=(),
        columns=(
            PrinterColumn("Ready", ".status.conditions[?(@.type=='Ready')].status"),
            PrinterColumn("Reachable", ".status.conditions[?(@.type=='Reachable')].status"),
            PrinterColumn("Pinned", ".status.conditions[?(@.type=='Pinned')].status"),
            PrinterColumn("URL", ".spec.mcp.url", priority=1),
            PrinterColumn("Image", ".spec.mcp.server.image", priority=1),
            PrinterColumn("Reason", ".status.conditions[?(@.type=='Ready')].message", priority=1),
            PrinterColumn("Age", ".metadata.creationTimestamp", "date"),
        ),
    )
    spec: ToolSpec
    status: ToolStatus | None = None
