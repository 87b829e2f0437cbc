"""Model: an endpoint that answers prompts or embeds text, elsewhere or in a pod that the operator runs."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from fairlead.api.meta import (
    LIST_SET,
    ApiModel,
    CelRule,
    Conditions,
    Decimal,
    Kind,
    ObservedGeneration,
    PrinterColumn,
    Resource,
    exactly_one,
)
from fairlead.api.server import Credential, Server
from fairlead.api.tool import HttpUrl, UrlPath

ModelApi = Annotated[
    Literal["OpenAIChat", "OpenAIEmbeddings"], Field(description="What it speaks: /chat/completions or /embeddings.")
]
EMBEDDINGS = "OpenAIEmbeddings"
ModelName = Annotated[str, Field(min_length=1, max_length=256, description="The name that the endpoint knows it by.")]


class Endpoint(ApiModel):
    """A model that something else runs."""

    api: ModelApi
    url: Annotated[HttpUrl, Field(description="The base URL, for example https://api.example.com/v1.")]
    model: ModelName


class ModelServer(Server):
    """A model server (llama.cpp, vLLM, ...) that the operator runs."""

    api: ModelApi
    model: ModelName
    path: Annotated[UrlPath, Field(description="The base path. Default /v1.")] = "/v1"


class Price(ApiModel):
    """What the endpoint charges, in US dollars a million tokens. Budgets in money need it."""

    input: Annotated[
        Decimal, Field(alias="inputUSDPerMTok", description='For tokens that are sent, for example "0.15".')
    ]
    output: Annotated[
        Decimal, Field(alias="outputUSDPerMTok", description='For tokens that it answers with; "0" for embeddings.')
    ]
    cached_input: Annotated[
        Decimal | None,
        Field(
            alias="cachedInputUSDPerMTok",
            description="For tokens that are sent and that it had kept from before. Absent: as others.",
        ),
    ] = None


class ModelLimits(ApiModel):
    """Bounds of each call to this Model."""

    max_output_tokens: Annotated[
        int, Field(ge=1, le=1000000, description="No call may ask for a longer answer. Default 4096.")
    ] = 4096
    context_tokens: Annotated[
        int | None,
        Field(
            ge=1024,
            le=100_000_000,
            description="Tokens in and out of one call that the model has room for, counted as three bytes each: an "
            "agent leaves its oldest results out, then its oldest turns, before it has more. Absent: nothing is.",
        ),
    ] = None
    concurrency: Annotated[int | None, Field(ge=1, le=1000, description="Calls in flight at most; more wait.")] = None
    requests_per_minute: Annotated[
        int | None, Field(ge=1, le=1_000_000, description="Calls a minute at most, of all runs; more wait.")
    ] = None
    tokens_per_minute: Annotated[
        int | None,
        Field(
            ge=1,
            le=10**9,
            description="Tokens in and out a minute at most, of all runs; calls wait that could use more than is left.",
        ),
    ] = None
    timeout_seconds: Annotated[int, Field(ge=1, le=3600, description="One call takes no longer. Default 120.")] = 120


class ModelSpec(ApiModel):
    """Where the model is and what it can do."""

    cel: ClassVar = (CelRule(exactly_one("endpoint", "server"), "set exactly one of endpoint and server"),)
    endpoint: Endpoint | None = None
    server: ModelServer | None = None
    credential: Credential | None = None
    limits: ModelLimits | None = None
    price: Price | None = None
    capabilities: Annotated[
        list[Literal["Tools", "StructuredOutput"]],
        Field(
            max_length=2,
            description="Tools: native tool calls. StructuredOutput: obeys response_format json_schema.",
            json_schema_extra=LIST_SET,
        ),
    ] = []

    @property
    def api(self) -> str:
        """Return what the model speaks."""
        where = self.endpoint or self.server
        return where.api if where is not None else "OpenAIChat"


class ModelStatus(ApiModel):
    """Written by the operator (Ready, Stalled) and the engine (Reachable)."""

    observed_generation: ObservedGeneration | None = None
    conditions: Conditions = []


class Model(Resource):
    """An endpoint that answers prompts or embeds text."""

    crd: ClassVar = Kind(
        kind="Model",
        plural="models",
        short_names=(),
        columns=(
            PrinterColumn("Ready", ".status.conditions[?(@.type=='Ready')].status"),
            PrinterColumn("Reachable", ".status.conditions[?(@.type=='Reachable')].status"),
            PrinterColumn("URL", ".spec.endpoint.url", priority=1),
            PrinterColumn("Image", ".spec.server.image", priority=1),
            PrinterColumn("Reason", ".status.conditions[?(@.type=='Ready')].message", priority=1),
            PrinterColumn("Age", ".metadata.creationTimestamp", "date"),
        ),
    )
    spec: ModelSpec
    status: ModelStatus | None = None
