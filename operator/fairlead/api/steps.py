"""What a step can be and what can hold for it: the vocabulary of `workflow.py`, which puts steps in order.

One class per step kind, each with the fields of its YAML and, in its docstring, the shape of its output.
"""

from __future__ import annotations

import json
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from fairlead.api.approval import ApprovalTerms
from fairlead.api.meta import (
    ATOMIC,
    CEL_RESERVED,
    LIST_SET,
    ApiModel,
    CelRule,
    Decimal,
    Expression,
    FunctionName,
    Identifier,
    JsonObject,
    JsonValue,
    ObjectName,
    Template,
    exactly_one,
    list_map,
)

RESERVED_NAMES = ("in", "null", "true", "false")
NO_RESERVED_NAME = CelRule(
    f"!(self.name in [{', '.join(repr(name) for name in RESERVED_NAMES)}])",
    "in, null, true and false mean something else in expressions; choose another name",
    ".name",
)
LOOP_RESERVED_NAMES = (
    *CEL_RESERVED,
    *("body", "call", "error", "index", "input", "iteration", "output", "previous", "run", "steps", "workflow"),
    *("base64", "bool", "bytes", "double", "google", "int", "list", "map", "math", "optional", "string", "strings"),
    *("type", "uint"),
)
"""What a loop variable cannot be called: the words of CEL, what is in scope anyway, and CEL's types and namespaces."""

ChatModel = Annotated[ObjectName, Field(description="A chat Model. Absent: the Workflow's default model.")]
SchemaObject = Annotated[JsonObject, Field(description="A JSON Schema (2020-12). Remote references are refused.")]


class Retry(ApiModel):
    """Try a failed attempt again, with exponential back-off."""

    limit: Annotated[int, Field(ge=0, le=20, description="How many further attempts.")] = 0
    backoff_seconds: Annotated[int, Field(ge=0, le=3600, description="Wait before the first further attempt.")] = 1
    factor: Annotated[int, Field(ge=1, le=10, description="Each wait is this many times the one before.")] = 2
    max_backoff_seconds: Annotated[int, Field(ge=0, le=86400, description="No wait is longer.")] = 60
    error_classes: Annotated[
        list[Literal["Timeout", "Unavailable", "RateLimited", "BudgetExceeded", "ToolError", "ModelError", "Internal"]]
        | None,
        Field(
            max_length=7,
            description="Error classes that are tried again. Default: Timeout, Unavailable, RateLimited. "
            "Denied, Invalid and OutcomeUnknown never are.",
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


class ForEach(ApiModel):
    """Run the step once for every item of a list. Output: the list of outputs, in the order of the items."""

    cel: ClassVar = (
        CelRule(
            f"!has(self.__as__) || !(self.__as__ in {json.dumps(LOOP_RESERVED_NAMES)})",
            "this word means something else in expressions; choose another name for the loop variable",
            ".as",
        ),
    )
    items: Annotated[
        JsonValue, Field(description="A list, or one `$( )` that gives one. Evaluated once; at most 100000 items.")
    ]
    as_: Annotated[
        Identifier,
        Field(alias="as", description="What expressions call the item; `index` counts from 0. Default item."),
    ] = "item"
    max_parallel: Annotated[int, Field(ge=1, le=100, description="How many items are at work at once. Default 1.")] = 1
    on_item_failure: Annotated[
        Literal["Fail", "Continue"],
        Field(description="Fail ends the step with the first failed item (the default); Continue makes it null."),
    ] = "Fail"


class StepLimits(ApiModel):
    """Bounds of one forEach. Once one is reached no further item starts; the output has null for the rest."""

    cel: ClassVar = (
        CelRule(
            "has(self.modelCalls) || has(self.toolCalls) || has(self.tokens) || has(self.costUSD) || has(self.steps)",
            "set at least one of modelCalls, toolCalls, tokens, costUSD and steps",
        ),
    )
    model_calls: Annotated[int | None, Field(ge=1, le=100000, description="Calls to Models by all items.")] = None
    tool_calls: Annotated[int | None, Field(ge=1, le=100000, description="Calls to Tools by all items.")] = None
    tokens: Annotated[int | None, Field(ge=1, description="Tokens used by all items.")] = None
    cost_usd: Annotated[
        Decimal | None, Field(alias="costUSD", description='Cost of all items, in US dollars, for example "1.00".')
    ] = None
    steps: Annotated[
        int | None, Field(ge=1, le=100000, description="Items started, and the steps of the blocks that they run.")
    ] = None


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
    """What the agent may ask for: functions of a `tool`, or a `workflow` that runs as a child."""

    cel: ClassVar = (
        CelRule(exactly_one("tool", "workflow"), "set exactly one of tool and workflow"),
        CelRule(
            "!has(self.functions) || has(self.tool)",
            "functions are a Tool's; a workflow is offered as one function",
            ".functions",
        ),
    )
    tool: Annotated[ObjectName | None, Field(description="The Tool's name.")] = None
    workflow: Annotated[
        ObjectName | None,
        Field(description="A Workflow: offered with its description and input schema; a call runs it as a child."),
    ] = None
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
            description="What it may ask for, each Tool and Workflow once; each call needs its grant.",
            json_schema_extra=ATOMIC,
        ),
    ] = []
    max_turns: Annotated[int, Field(ge=1, le=100, description="Model calls at most, revisions not counted.")] = 8
    parameters: Parameters | None = None
    output: OutputContract | None = None


class ChildCall(ApiModel):
    """Another Workflow, as a child run with its own account. Output: the child's output."""

    workflow: Annotated[ObjectName, Field(description="The Workflow's name. The account needs `invoke` on it.")]
    input: Annotated[JsonObject, Field(description="The child's input; strings may hold `$( )`.")] = {}


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
    """Schema, rules and judge over `value`. Output: `{passed, findings}`.

    With a schema that lets no text through - enums, numbers, short ids - also `value`, once it has passed: read there,
    it is trusted, whoever it came from.
    """

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


class AwaitedSignal(ApiModel):
    """A signal that ends the wait: one of this name in the run's `spec.signals`."""

    name: Annotated[Identifier, Field(description="What `fairlead signal RUN NAME` calls it.")]
    schema_: Annotated[SchemaObject | None, Field(alias="schema")] = None


class Wait(ApiModel):
    """Wait for some time, until a time, or for a signal. Output: `{received, data, by}`, of the signal."""

    cel: ClassVar = (
        CelRule(exactly_one("seconds", "until", "signal"), "set exactly one of seconds, until and signal"),
        CelRule(
            "!has(self.timeoutSeconds) || has(self.signal)",
            "timeoutSeconds is how long to wait for `signal`, which is missing",
            ".timeoutSeconds",
        ),
        CelRule(
            "!has(self.onTimeout) || has(self.timeoutSeconds)",
            "onTimeout says what happens after `timeoutSeconds`, which is missing",
            ".onTimeout",
        ),
    )
    seconds: Annotated[int | None, Field(ge=1, le=31536000, description="How long.")] = None
    until: Annotated[
        Template | None, Field(description="An RFC 3339 time with its zone; `$( )` holds CEL. Evaluated once.")
    ] = None
    signal: AwaitedSignal | None = None
    timeout_seconds: Annotated[
        int | None, Field(ge=1, le=31536000, description="How long to wait for the signal. Absent: as long as the run.")
    ] = None
    on_timeout: Annotated[
        Literal["Fail", "Continue"] | None,
        Field(description="When no signal came: Fail (the default) with class Timeout, or Continue without it."),
    ] = None


class ApprovalStep(ApprovalTerms):
    """Wait for people. Output: `{decision, by, reason}`; decision: Approved, Denied or Expired; by: who decided."""

    message: Annotated[Template, Field(description="What they are asked, 4096 characters at most; `$( )` holds CEL.")]
    on_denied: Annotated[
        Literal["Fail", "Continue"],
        Field(description="When it is denied or expires: Fail (the default) with class Denied, or Continue."),
    ] = "Fail"


class Join(ApiModel):
    """How many of the blocks must succeed: `mode` or a number."""

    cel: ClassVar = (
        CelRule(exactly_one("mode", "succeeded"), "set exactly one of mode (All or Any) and succeeded (a number)"),
    )
    mode: Annotated[Literal["All", "Any"] | None, Field(description="All of them (the default), or any one.")] = None
    succeeded: Annotated[int | None, Field(ge=1, le=20, description="So many of them.")] = None


class Parallel(ApiModel):
    """Run blocks at the same time. Output: an object with each block's output, null for one that did not finish."""

    cel: ClassVar = (
        CelRule(
            "!has(self.join) || !has(self.join.succeeded) || self.join.succeeded <= size(self.blocks)",
            "join.succeeded is larger than the number of blocks",
            ".join",
        ),
    )
    blocks: Annotated[
        list[Identifier],
        Field(min_length=1, max_length=20, description="The blocks that run.", json_schema_extra=LIST_SET),
    ]
    join: Annotated[Join | None, Field(description="Once it is met, what still runs is cancelled.")] = None

    @property
    def needed(self) -> int:
        """Return how many blocks must succeed."""
        if self.join is None or self.join.mode == "All":
            return len(self.blocks)
        return self.join.succeeded or 1
