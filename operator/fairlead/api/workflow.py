"""Workflow: what should happen, as steps, blocks and bounds.

The kinds of steps are in `steps.py`; what others need of them is importable from here, where it is used.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from fairlead.api.container import ContainerStep
from fairlead.api.meta import (
    ATOMIC,
    AccountName,
    ApiModel,
    CelRule,
    Conditions,
    Decimal,
    Digest,
    Expression,
    Identifier,
    Kind,
    ObjectName,
    ObservedGeneration,
    PrinterColumn,
    Resource,
    Template,
    Timestamp,
    exactly_one,
    list_map,
)
from fairlead.api.steps import (
    NO_RESERVED_NAME,
    Agent,
    AgentTool,
    ApprovalStep,
    AwaitedSignal,
    ChildCall,
    Choice,
    ForEach,
    Generate,
    Join,
    Judge,
    Message,
    OnError,
    OnFailure,
    OutputContract,
    OutputRule,
    Parallel,
    Parameters,
    Repeat,
    Retry,
    Route,
    SchemaObject,
    StepLimits,
    Transform,
    Validate,
    Wait,
)
from fairlead.api.toolcall import ToolCall
from fairlead.api.triggers import Schedule, Triggers

STEP_KINDS = (
    *("generate", "agent", "tool", "route", "validate", "transform", "block", "parallel", "workflow"),
    *("approval", "wait", "container"),
)
NEEDS_ONLY_IN_A_GRAPH = CelRule(
    "(has(self.order) && self.order == 'Graph') || self.steps.all(s, !has(s.needs) && !has(s.join))",
    "needs and join are for `order: Graph`; in a Sequence each step follows the one before",
)


class Step(ApiModel):
    """One step: exactly one kind, and what holds for any kind."""

    cel: ClassVar = (
        CelRule(exactly_one(*STEP_KINDS), f"a step has exactly one of {', '.join(STEP_KINDS)}"),
        NO_RESERVED_NAME,
        CelRule("!has(self.needs) || !(self.name in self.needs)", "a step cannot need itself", ".needs"),
        CelRule("!has(self.join) || has(self.needs)", "join says how to join `needs`, which is missing", ".join"),
        CelRule(
            "!has(self.wait) || !(has(self.timeoutSeconds) || has(self.retry))",
            "a wait says under `wait` how long it waits, and is never tried again",
            ".wait",
        ),
        CelRule(
            "!has(self.approval) || !(has(self.timeoutSeconds) || has(self.retry))",
            "an approval says in expiresAfterSeconds how long it waits, and is never asked for again",
            ".approval",
        ),
        CelRule("!has(self.forEach) || !has(self.repeat)", "a step has one loop: forEach or repeat", ".repeat"),
        CelRule("!has(self.limits) || has(self.forEach)", "limits bound a `forEach`, which is missing", ".limits"),
    )
    name: Annotated[Identifier, Field(description="Expressions speak of it as `steps.<name>`; no dashes.")]
    needs: Annotated[
        list[Identifier] | None,
        Field(max_length=50, description="With order Graph: steps that must be done first.", json_schema_extra=ATOMIC),
    ] = None
    join: Annotated[
        Literal["All", "Any", "AllDone"] | None,
        Field(
            description="With needs: All (default) - all are done; Any - one has succeeded, or all are done; AllDone - "
            "all are over, also when some failed or never ran: such a step runs even when the list fails."
        ),
    ] = None
    when: Annotated[Expression | None, Field(description="CEL; false skips the step, its output is null.")] = None
    timeout_seconds: Annotated[int | None, Field(ge=1, le=604800, description="For one attempt.")] = None
    retry: Retry | None = None
    on_error: OnError | None = None
    repeat: Repeat | None = None
    for_each: ForEach | None = None
    limits: StepLimits | None = None

    generate: Generate | None = None
    agent: Agent | None = None
    tool: ToolCall | None = None
    route: Route | None = None
    validate_: Annotated[Validate | None, Field(alias="validate")] = None
    transform: Transform | None = None
    block: Annotated[Identifier | None, Field(description="Run a block; its output is the step's output.")] = None
    workflow: ChildCall | None = None
    container: ContainerStep | None = None
    approval: ApprovalStep | None = None
    wait: Wait | None = None
    parallel: Parallel | None = None


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
    trust: Annotated[
        Literal["Trusted", "Untrusted"] | None,
        Field(
            description="The label that the input starts with. Untrusted (default): whoever wrote it may want "
            "something else than you; see `rules.dataFlow` of Policies."
        ),
    ] = None


class Defaults(ApiModel):
    """What holds for every step that does not say otherwise."""

    model: Annotated[ObjectName | None, Field(description="The chat Model of steps that name none.")] = None
    timeout_seconds: Annotated[int | None, Field(ge=1, le=604800, description="For one attempt of a step.")] = None
    retry: Retry | None = None


class Limits(ApiModel):
    """Bounds of one run; absent fields have the values shown. What its child runs use counts.

    Not to be set: a value has at most 10 MiB, a run's input and the outputs of its steps together 64 MiB, as JSON.
    """

    timeout_seconds: Annotated[
        int, Field(ge=1, le=31536000, description="The whole run takes no longer. Default 86400.")
    ] = 86400
    steps: Annotated[
        int, Field(ge=1, le=100000, description="Steps started, each iteration counted. Default 5000.")
    ] = 5000
    model_calls: Annotated[int, Field(ge=0, le=100000, description="Calls to Models. Default 500.")] = 500
    tool_calls: Annotated[
        int, Field(ge=0, le=100000, description="Calls to Tools, and child runs started. Default 500.")
    ] = 500
    tokens: Annotated[
        int, Field(ge=0, description="No model call starts that could use more than is left. Default 2000000.")
    ] = 2000000
    cost_usd: Annotated[
        Decimal | None,
        Field(
            alias="costUSD",
            description='US dollars, for example "5.00": no model call starts that could cost more than is left. '
            "Endpoints that it calls need a price. Absent: no bound.",
        ),
    ] = None
    depth: Annotated[
        int, Field(ge=0, le=20, description="Levels of child runs below a run; 0 for no children. Default 5.")
    ] = 5


class Concurrency(ApiModel):
    """How many runs are at work at the same time; the others stand in line, or are rejected."""

    max_runs: Annotated[
        int,
        Field(
            ge=1,
            le=10000,
            description="One more begins only while fewer than these are at work. A run that waits, as for a long "
            "back-off, is not at work, and goes on at once when its time has come.",
        ),
    ]
    key: Annotated[
        Template | None,
        Field(
            description="Text with $( ) over `input`: runs with the same value are counted by themselves. "
            "Absent: all runs of the Workflow are counted together."
        ),
    ] = None
    when_busy: Annotated[
        Literal["Queue", "Reject"] | None,
        Field(description="Queue (default): one more run waits for its turn. Reject: it ends as Rejected."),
    ] = None


class Retention(ApiModel):
    """Which finished runs stay. Runs that somebody named are never deleted."""

    cel: ClassVar = (
        CelRule(
            "has(self.ttlSecondsAfterFinished) || has(self.succeeded) || has(self.failed)",
            "say at least one of ttlSecondsAfterFinished, succeeded and failed",
        ),
    )
    ttl_seconds_after_finished: Annotated[
        int | None, Field(ge=0, le=31536000, description="Older ones are deleted. Absent: whatever their age.")
    ] = None
    succeeded: Annotated[
        int | None, Field(ge=0, le=10000, description="So many that ended well stay, the latest. Absent: all.")
    ] = None
    failed: Annotated[
        int | None, Field(ge=0, le=10000, description="So many that ended otherwise stay, the latest. Absent: all.")
    ] = None


class WorkflowSpec(ApiModel):
    """The definition: what a run does, with whose permissions, within which bounds."""

    cel: ClassVar = (
        NEEDS_ONLY_IN_A_GRAPH,
        CelRule(
            "!has(self.triggers) || has(self.retention)",
            "triggers make runs without end: say in retention which of them stay",
            ".retention",
        ),
    )
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
    concurrency: Concurrency | None = None
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
    finally_: Annotated[
        Identifier | None,
        Field(
            alias="finally",
            description="A block that runs once, whatever happened, for 30 seconds at most. It sees `steps`, and "
            "`error`: null when all went well.",
        ),
    ] = None
    triggers: Triggers | None = None
    retention: Annotated[
        Retention | None,
        Field(
            description="Which finished runs stay, of those made with generateName or by Fairlead. "
            "Absent: all, until somebody deletes them, as with Jobs. The engine keeps the journal of a run "
            "until its object is deleted, and 30 days at most."
        ),
    ] = None


class RunCounts(ApiModel):
    """Runs of this Workflow by where they stand."""

    active: Annotated[int, Field(ge=0, description="At work now.")] = 0
    waiting: Annotated[int, Field(ge=0, description="Parked until something happens.")] = 0
    queued: Annotated[int, Field(ge=0, description="Accepted and not started.")] = 0
    succeeded: Annotated[int, Field(ge=0, description="Ended well.")] = 0
    failed: Annotated[int, Field(ge=0, description="Ended otherwise.")] = 0


class EffectivePolicy(ApiModel):
    """A Policy whose rules bind the runs of this Workflow."""

    name: Annotated[str, Field(max_length=63, description="The Policy's name.")]
    mode: Annotated[Literal["Enforce", "Audit"], Field(description="Whether its rules decide or only record.")]


class WorkflowStatus(ApiModel):
    """Written by the operator (Ready, Stalled, observedGeneration) and the engine (all else)."""

    observed_generation: ObservedGeneration | None = None
    conditions: Conditions = []
    runs: RunCounts | None = None
    revision: Annotated[Digest | None, Field(description="The digest of the spec that new runs follow.")] = None
    effective_policies: Annotated[
        list[EffectivePolicy] | None,
        Field(max_length=200, description="Whose rules bind its runs now.", json_schema_extra=ATOMIC),
    ] = None
    next_schedule_time: Annotated[
        Timestamp | None, Field(description="When a schedule makes a run next; absent while the Workflow is not Ready.")
    ] = None


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


__all__ = [
    "STEP_KINDS",
    "Agent",
    "AgentTool",
    "ApprovalStep",
    "AwaitedSignal",
    "Block",
    "ChildCall",
    "Choice",
    "Concurrency",
    "Defaults",
    "ForEach",
    "Generate",
    "Input",
    "Join",
    "Judge",
    "Limits",
    "Message",
    "OnError",
    "OnFailure",
    "OutputContract",
    "OutputRule",
    "Parallel",
    "Parameters",
    "Repeat",
    "Retention",
    "Retry",
    "Route",
    "RunCounts",
    "Schedule",
    "SchemaObject",
    "Step",
    "StepLimits",
    "Transform",
    "Triggers",
    "Validate",
    "Wait",
    "Workflow",
    "WorkflowSpec",
    "WorkflowStatus",
]
