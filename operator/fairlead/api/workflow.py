"""Workflow: what should happen, as steps, blocks and bounds."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from fairlead.api.meta import (
    ATOMIC,
    AccountName,
    ApiModel,
    CelRule,
    Conditions,
    Decimal,
    Digest,
    Expression,
    FunctionName,
    Identifier,
    JsonObject,
    JsonValue,
    Kind,
    ObjectName,
    ObservedGeneration,
    PrinterColumn,
    Resource,
    Template,
    exactly_one,
    list_map,
)
from fairlead.api.reasons import ErrorClass

STEP_KINDS = ("generate", "agent", "tool", "route", "validate", "transform", "block")
RESERVED_NAMES = ("in", "null", "true", "false")
NO_RESERVED_NAME = CelRule(
    f"!(self.name in [{', '.join(repr(name) for name in RESERVED_NAMES)}])",
    "in, null, true and false mean something else in expressions; choose another name",
    ".name",
)
NEEDS_ONLY_IN_A_GRAPH = CelRule(
    "(has(self.order) && self.order == 'Graph') || self.steps.all(s, !has(s.needs) && !has(s.join))",
    "needs and join are for `order: Graph`; in a Sequence each step follows the one before",
)
ChatModel = Annotated[ObjectName, Field(description="A chat Model. Absent: the Workflow's default model.")]
SchemaObject = Annotated[JsonObject, Field(description="A JSON Schema (2020-12). Remote references are refused.")]


class Retry(ApiModel):
    """Try a failed attempt again, with exponential back-off."""

    limit: Annotated[int, Field(ge=0, le=20, description="How many further attempts.")] = 0
    backoff_seconds: Annotated[int, Field(ge=0, le=3600, description="Wait before the first further attempt.")] = 1
    factor: Annotated[int, Field(ge=1, le=10, description="Each wait is this many times the one before.")] = 2
    max_backoff_seconds: Annotated[int, Field(ge=0, le=86400, description="No wait is longer.")] = 60
    on: Annotated[
        list[Literal["Timeout", "Unavailable", "RateLimited", "BudgetExceeded", "ToolError", "ModelError", "Internal"]]
        | None,
        Field(
            max_length=7,
            description="Error classes that are tried again. Default: Timeout, Unavailable, RateLimited. "
            'Denied, Invalid and OutcomeUnknown never are. Quote the key, "on": YAML reads a bare on as true.',
            json_schema_extra=ATOMIC,
        ),
    ] = None


class OnError(ApiModel):
    """What happens when the step has failed for good: `action` or a `block` that sees `error`."""

    cel: ClassVar = (CelRule(exactly_one("action", "block"), "set exactly one of action (Fail or Continue) and block"),)
    action: Annotated[
        Literal["Fail", "Continue"] | None,
        Field(description="Fail ends the run (the default); Continue leaves the output null and goes on."),
    ] = None
    block: Annotated[Identifier | None, Field(description="Run this block; its output becomes the step's output.")] = (
        None
    )


class Repeat(ApiModel):
    """Run the step again until an expression holds. It sees `output`, `previous` and `iteration` (from 1)."""

    until: Annotated[
        Expression, Field(description="CEL over `output` (of this iteration), `previous` and `iteration`.")
    ]
    max_iterations: Annotated[int, Field(ge=1, le=1000, description="The bound of the loop.")]
    on_exhausted: Annotated[
        Literal["Fail", "Continue"],
        Field(description="When the bound is reached: Fail, or Continue with the last output."),
    ] = "Fail"


class OutputRule(ApiModel):
    """A CEL rule over `output`, and what to tell the model or the user when it does not hold."""

    expression: Annotated[
        Expression, Field(description="CEL that must be true; sees `output` and everything in scope.")
    ]
    message: Annotated[str, Field(max_length=1024, description="What would be right.")]


Rules = Annotated[
    list[OutputRule],
    Field(max_length=20, description="All must hold; each that does not is a finding.", json_schema_extra=ATOMIC),
]


class Judge(ApiModel):
    """A model call that scores the value against criteria from 0 to 100."""

    model: ChatModel | None = None
    criteria: Annotated[Template, Field(description="What a good value is, in words.")]
    min_score_percent: Annotated[int, Field(ge=0, le=100, description="Below it the value is not accepted.")] = 50


class OutputContract(ApiModel):
    """The validation layer inside a model step: what fails goes back into the same conversation."""

    schema_: Annotated[SchemaObject | None, Field(alias="schema")] = None
    rules: Rules | None = None
    judge: Judge | None = None
    revisions: Annotated[int, Field(ge=0, le=10, description="How often the model may correct its answer.")] = 0


class Parameters(ApiModel):
    """Sampling parameters of a model call."""

    max_output_tokens: Annotated[
        int | None, Field(ge=1, le=1000000, description="The answer is no longer. Absent: the Model's limit.")
    ] = None
    temperature: Annotated[Decimal | None, Field(description='A decimal in quotes, for example "0.2".')] = None
    seed: Annotated[int | None, Field(ge=0, le=2147483647, description="The same seed may give the same answer.")] = (
        None
    )


class Message(ApiModel):
    """One message of a conversation."""

    role: Annotated[Literal["system", "user", "assistant"], Field(description="Who says it.")]
    content: Annotated[Template, Field(description="The text; `$( )` holds CEL.")]


class Generate(ApiModel):
    """One model call. Output: the schema's object, else `{text}`."""

    cel: ClassVar = (CelRule(exactly_one("prompt", "messages"), "set exactly one of prompt and messages"),)
    model: ChatModel | None = None
    instructions: Annotated[Template | None, Field(description="The system message; `$( )` holds CEL.")] = None
    prompt: Annotated[Template | None, Field(description="The user message; `$( )` holds CEL.")] = None
    messages: Annotated[
        list[Message] | None,
        Field(
            min_length=1,
            max_length=50,
            description="A whole conversation, instead of `prompt`.",
            json_schema_extra=ATOMIC,
        ),
    ] = None
    parameters: Parameters | None = None
    output: OutputContract | None = None


class AgentTool(ApiModel):
    """A Tool whose functions the agent may ask for."""

    tool: Annotated[ObjectName, Field(description="The Tool's name.")]
    functions: Annotated[
        list[FunctionName] | None,
        Field(max_length=100, description="Default: every function of the Tool's contract.", json_schema_extra=ATOMIC),
    ] = None


class Agent(ApiModel):
    """A model with tools in a bounded loop. Output: the schema's object, else `{text}`."""

    model: ChatModel | None = None
    instructions: Annotated[Template | None, Field(description="The system message; `$( )` holds CEL.")] = None
    prompt: Annotated[Template, Field(description="The task, as the user message; `$( )` holds CEL.")]
    tools: Annotated[
        list[AgentTool],
        Field(
            max_length=20,
            description="What it may ask for; each call needs its grant.",
            json_schema_extra=list_map("tool"),
        ),
    ] = []
    max_turns: Annotated[int, Field(ge=1, le=100, description="Model calls at most, revisions not counted.")] = 8
    parameters: Parameters | None = None
    output: OutputContract | None = None


class ToolCall(ApiModel):
    """One function call. Output: MCP `structuredContent`, else `{text}`."""

    tool: Annotated[ObjectName, Field(description="The Tool's name.")]
    function: Annotated[FunctionName, Field(description="A function of its contract.")]
    arguments: Annotated[JsonObject, Field(description="The function's arguments; strings may hold `$( )`.")] = {}


class Choice(ApiModel):
    """One way a route can go."""

    cel: ClassVar = (NO_RESERVED_NAME,)
    name: Annotated[Identifier, Field(description="The word that the step's output has as `choice`.")]
    when: Annotated[Expression | None, Field(description="CEL rule; the first that holds decides without a model.")] = (
        None
    )
    description: Annotated[str | None, Field(max_length=1024, description="What belongs here, for the model.")] = None
    examples: Annotated[
        list[Annotated[str, Field(max_length=1024)]] | None,
        Field(max_length=50, description="Values that belong here, for the model.", json_schema_extra=ATOMIC),
    ] = None
    block: Annotated[Identifier | None, Field(description="The block that runs when this is chosen.")] = None


class Route(ApiModel):
    """Choose one: rules first, then a model. Output: `{choice, output}`."""

    cel: ClassVar = (
        CelRule(
            "!has(self.otherwise) || self.choices.exists(c, c.name == self.otherwise)",
            "otherwise must be the name of one of the choices",
            ".otherwise",
        ),
        CelRule(
            "!has(self.minScorePercent) || has(self.model)",
            "minScorePercent is a score of `model`, which is missing",
            ".minScorePercent",
        ),
    )
    value: Annotated[Template, Field(description="What is routed; `$( )` holds CEL.")]
    choices: Annotated[
        list[Choice],
        Field(min_length=1, max_length=50, description="The ways it can go.", json_schema_extra=list_map("name")),
    ]
    model: Annotated[
        ObjectName | None,
        Field(
            description="An embeddings Model: nearest description or example. A chat Model: constrained to the names."
        ),
    ] = None
    min_score_percent: Annotated[
        int | None,
        Field(ge=0, le=100, description="Embeddings only: below this cosine similarity `otherwise` is taken."),
    ] = None
    otherwise: Annotated[
        Identifier | None, Field(description="The choice when nothing else decides; absent: the step fails.")
    ] = None


class OnFailure(ApiModel):
    """What a failed validation does."""

    cel: ClassVar = (CelRule(exactly_one("action", "block"), "set exactly one of action (Fail or Continue) and block"),)
    action: Annotated[
        Literal["Fail", "Continue"] | None,
        Field(description="Fail ends the step with class Invalid (the default); Continue goes on with the findings."),
    ] = None
    block: Annotated[Identifier | None, Field(description="Run this block; it sees the findings.")] = None


class Validate(ApiModel):
    """Schema, rules and judge over `value`. Output: `{passed, findings}`."""

    cel: ClassVar = (
        CelRule(
            "has(self.schema) || has(self.rules) || has(self.judge)", "set at least one of schema, rules and judge"
        ),
    )
    value: Annotated[JsonValue, Field(description="The value; usually `$( steps.x.output )`.")]
    schema_: Annotated[SchemaObject | None, Field(alias="schema")] = None
    rules: Rules | None = None
    judge: Judge | None = None
    on_failure: OnFailure | None = None


class Transform(ApiModel):
    """Compute a value with CEL. Output: the value."""

    value: Annotated[
        JsonValue, Field(description="Any JSON; strings may hold `$( )`, one whole segment keeps its type.")
    ]


class Step(ApiModel):
    """One step: exactly one kind, and what holds for any kind."""

    cel: ClassVar = (
        CelRule(exactly_one(*STEP_KINDS), f"a step has exactly one of {', '.join(STEP_KINDS)}"),
        NO_RESERVED_NAME,
        CelRule("!has(self.needs) || !(self.name in self.needs)", "a step cannot need itself", ".needs"),
        CelRule("!has(self.join) || has(self.needs)", "join says how to join `needs`, which is missing", ".join"),
    )
    name: Annotated[Identifier, Field(description="Expressions speak of it as `steps.<name>`; no dashes.")]
    needs: Annotated[
        list[Identifier] | None,
        Field(max_length=50, description="With order Graph: steps that must be done first.", json_schema_extra=ATOMIC),
    ] = None
    join: Annotated[
        Literal["All", "Any", "AllDone"] | None,
        Field(
            description="With needs: All (default) succeeded or skipped, Any one of them, AllDone however they ended."
        ),
    ] = None
    when: Annotated[Expression | None, Field(description="CEL; false skips the step, its output is null.")] = None
    timeout_seconds: Annotated[int | None, Field(ge=1, le=604800, description="For one attempt.")] = None
    retry: Retry | None = None
    on_error: OnError | None = None
    repeat: Repeat | None = None

    generate: Generate | None = None
    agent: Agent | None = None
    tool: ToolCall | None = None
    route: Route | None = None
    validate_: Annotated[Validate | None, Field(alias="validate")] = None
    transform: Transform | None = None
    block: Annotated[Identifier | None, Field(description="Run a block; its output is the step's output.")] = None


Order = Annotated[
    Literal["Sequence", "Graph"],
    Field(description="Sequence: one after the other. Graph: a step starts when its `needs` are done."),
]


class Block(ApiModel):
    """A named list of steps: the body of a branch or a loop."""

    cel: ClassVar = (NO_RESERVED_NAME, NEEDS_ONLY_IN_A_GRAPH)
    name: Annotated[Identifier, Field(description="Steps run it by this name.")]
    order: Order = "Sequence"
    steps: Annotated[
        list[Step],
        Field(min_length=1, max_length=100, description="What it does.", json_schema_extra=list_map("name")),
    ]
    output: Annotated[Any, Field(description="What the block is worth outside; default: the last step's output.")] = (
        None
    )


class Input(ApiModel):
    """What a run must bring."""

    schema_: Annotated[SchemaObject | None, Field(alias="schema")] = None


class Defaults(ApiModel):
    """What holds for every step that does not say otherwise."""

    model: Annotated[ObjectName | None, Field(description="The chat Model of steps that name none.")] = None
    timeout_seconds: Annotated[int | None, Field(ge=1, le=604800, description="For one attempt of a step.")] = None
    retry: Retry | None = None


class Limits(ApiModel):
    """Bounds of one run; absent fields have the values shown."""

    timeout_seconds: Annotated[
        int, Field(ge=1, le=31536000, description="The whole run takes no longer. Default 86400.")
    ] = 86400
    steps: Annotated[
        int, Field(ge=1, le=100000, description="Steps started, each iteration counted. Default 5000.")
    ] = 5000
    model_calls: Annotated[int, Field(ge=0, le=100000, description="Calls to Models. Default 500.")] = 500
    tool_calls: Annotated[int, Field(ge=0, le=100000, description="Calls to Tools. Default 500.")] = 500
    tokens: Annotated[
        int, Field(ge=0, description="No model call starts once this many were used. Default 2000000.")
    ] = 2000000


class WorkflowSpec(ApiModel):
    """The definition: what a run does, with whose permissions, within which bounds."""

    cel: ClassVar = (NEEDS_ONLY_IN_A_GRAPH,)
    description: Annotated[str | None, Field(max_length=4096, description="What it is for, for people.")] = None
    service_account_name: Annotated[
        AccountName | None,
        Field(
            description="Whose permissions the runs have. Absent: fairlead-none, which has none. "
            "Needs `use` on that account."
        ),
    ] = None
    input: Input | None = None
    defaults: Defaults | None = None
    limits: Limits | None = None
    order: Order = "Sequence"
    steps: Annotated[
        list[Step],
        Field(
            min_length=1, max_length=200, description="What happens, in `order`.", json_schema_extra=list_map("name")
        ),
    ]
    blocks: Annotated[
        list[Block],
        Field(
            max_length=50,
            description="Named lists of steps: bodies of branches and loops, and handlers of errors.",
            json_schema_extra=list_map("name"),
        ),
    ] = []
    output: Annotated[Any, Field(description="The run's output; default: the last step's output.")] = None


class RunCounts(ApiModel):
    """Runs of this Workflow by where they stand."""

    active: Annotated[int, Field(ge=0, description="At work now.")] = 0
    waiting: Annotated[int, Field(ge=0, description="Parked until something happens.")] = 0
    queued: Annotated[int, Field(ge=0, description="Accepted and not started.")] = 0
    succeeded: Annotated[int, Field(ge=0, description="Ended well.")] = 0
    failed: Annotated[int, Field(ge=0, description="Ended otherwise.")] = 0


class WorkflowStatus(ApiModel):
    """Written by the operator (Ready, Stalled, observedGeneration) and the engine (Authorized, runs, revision)."""

    observed_generation: ObservedGeneration | None = None
    conditions: Conditions = []
    runs: RunCounts | None = None
    revision: Annotated[Digest | None, Field(description="The digest of the spec that new runs follow.")] = None


class Workflow(Resource):
    """A workflow of models and tools, governed and durable."""

    crd: ClassVar = Kind(
        kind="Workflow",
        plural="workflows",
        short_names=("wfl",),
        columns=(
            PrinterColumn("Ready", ".status.conditions[?(@.type=='Ready')].status"),
            PrinterColumn("Authorized", ".status.conditions[?(@.type=='Authorized')].status"),
            PrinterColumn("Active", ".status.runs.active", "integer"),
            PrinterColumn("Account", ".spec.serviceAccountName", priority=1),
            PrinterColumn("Reason", ".status.conditions[?(@.type=='Ready')].message", priority=1),
            PrinterColumn("Age", ".metadata.creationTimestamp", "date"),
        ),
    )
    spec: WorkflowSpec
    status: WorkflowStatus | None = None


__all__ = ["STEP_KINDS", "ErrorClass", "Step", "Workflow", "WorkflowSpec"]
