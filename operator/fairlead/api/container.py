"""The container step: an image in a pod of its own."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field

from fairlead.api.meta import ATOMIC, ApiModel, CelRule, FunctionName, ImageName, ObjectName, Quantity, list_map
from fairlead.api.server import EnvVar
from fairlead.api.steps import SchemaObject

IMAGE_PATTERN = r"^[a-z0-9]([a-z0-9._:/-]*[a-z0-9])?(:[A-Za-z0-9_][A-Za-z0-9_.-]*)?(@sha256:(\*|[0-9a-f]{64}))?$"

ImagePattern = Annotated[str, Field(min_length=1, max_length=512, pattern=IMAGE_PATTERN)]
Words = Annotated[
    list[Annotated[str, Field(max_length=4096)]], Field(min_length=1, max_length=100, json_schema_extra=ATOMIC)
]


MOST_CALLS = 100
"""Calls of an attempt where a step says nothing."""


class Script(ApiModel):
    """A program in the Workflow's own text. Nothing is substituted in it: what it works on is its input."""

    command: Annotated[Words, Field(description="What runs it; the file's name is added. Default [sh].")] = ["sh"]
    source: Annotated[str, Field(min_length=1, max_length=65536, description="The program, as it is.")]


class ContainerResources(ApiModel):
    """What the container may use; requests are the same."""

    cpu: Annotated[Quantity, Field(description="CPU. Default 500m.")] = "500m"
    memory: Annotated[Quantity, Field(description="Memory. Default 256Mi.")] = "256Mi"


class ContainerOutput(ApiModel):
    """What the output must be."""

    schema_: Annotated[SchemaObject | None, Field(alias="schema")] = None


class ContainerTool(ApiModel):
    """Functions of a Tool that the container may call."""

    tool: Annotated[ObjectName, Field(description="The Tool's name.")]
    functions: Annotated[
        list[FunctionName] | None,
        Field(max_length=100, description="Default: every function of the Tool's contract.", json_schema_extra=ATOMIC),
    ] = None


class ContainerStep(ApiModel):
    """An image in a pod of its own, without a token, and without network but what `models` and `tools` open.

    It finds its input in /work/input.json and leaves its output in /work/output.json. Output: that file's value, null
    if there is none. What it may call it finds under $OPENAI_BASE_URL (models) and $FAIRLEAD_MCP_URL/TOOL (tools).
    """

    cel: ClassVar = (CelRule("!(has(self.command) && has(self.script))", "say command or script, not both", ".script"),)
    image: Annotated[
        ImageName,
        Field(
            description="The image, by digest. A Policy must grant it to the Workflow's account. Without a digest the "
            "Engine must say `imageTags: Allowed`."
        ),
    ]
    command: Annotated[Words | None, Field(description="What runs. Absent: the image's own entrypoint.")] = None
    script: Script | None = None
    env: Annotated[
        list[EnvVar],
        Field(max_length=50, description="Environment, as it is.", json_schema_extra=list_map("name")),
    ] = []
    resources: ContainerResources | None = None
    runtime_class_name: Annotated[
        str | None,
        Field(
            max_length=253,
            pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$",
            description="The RuntimeClass of its pod, for example one with a sandbox. Default: the node's.",
        ),
    ] = None
    input: Annotated[Any, Field(description="What /work/input.json holds; strings may hold `$( )`.")] = None
    output: ContainerOutput | None = None
    models: Annotated[
        list[ObjectName],
        Field(
            max_length=20,
            description="The Models that it may call; each call needs its grant.",
            json_schema_extra=ATOMIC,
        ),
    ] = []
    tools: Annotated[
        list[ContainerTool],
        Field(
            max_length=20,
            description="What it may call by MCP, each Tool once; each call needs its grant.",
            json_schema_extra=ATOMIC,
        ),
    ] = []
    max_calls: Annotated[
        int, Field(ge=1, le=1000, description="Calls of models and tools at most, in one attempt.")
    ] = MOST_CALLS

    @property
    def calls(self) -> bool:
        """Tell whether it may call anything."""
        return bool(self.models or self.tools)
