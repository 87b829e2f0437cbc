"""WorkflowRun: one execution. Created, never applied; immutable but for `desiredState` and what `signals` adds."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from fairlead.api.meta import (
    ATOMIC,
    LABEL,
    AccountName,
    ApiModel,
    CelRule,
    Conditions,
    Cost,
    Digest,
    Identifier,
    JsonObject,
    Kind,
    ObjectName,
    PrinterColumn,
    Resource,
    Timestamp,
    append_only,
    immutable,
)

MAX_SIGNALS = 50


class Signal(ApiModel):
    """What somebody tells the run; a `wait` of this name takes it, once. It comes early or late, and stays."""

    name: Annotated[Identifier, Field(description="What the wait calls it.")]
    data: Annotated[Any, Field(description="JSON of at most 16 KiB, checked against the wait's schema.")] = None
    by: Annotated[
        str, Field(min_length=1, max_length=253, description="The user who adds it. Needs `invoke` on the Workflow.")
    ]


class ConfigMapKey(ApiModel):
    """One value of a ConfigMap of the same namespace."""

    name: Annotated[AccountName, Field(description="The ConfigMap's name. Needs `get` on it.")]
    key: Annotated[
        str, Field(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$", description="The key in its `data`.")
    ]


class InputFrom(ApiModel):
    """Where a large input stands. It is read once, when the run is accepted, and kept with the run."""

    config_map: Annotated[ConfigMapKey, Field(description="The value is JSON, an object.")]


class RetryFrom(ApiModel):
    """An ended run of the same Workflow, whose finished steps are not done again."""

    run: Annotated[
        str, Field(pattern=LABEL, min_length=1, max_length=63, description="The WorkflowRun's name. Needs `get` on it.")
    ]
    step: Annotated[
        Identifier | None,
        Field(
            description="A step of the Workflow's own list: it and those that come after it are done again. Absent: "
            "only what had not succeeded, or is not the same any more."
        ),
    ] = None


class ParentLimits(ApiModel):
    """What the parent had left when it started the child: the child's bounds, beside those of its own Workflow."""

    timeout_seconds: Annotated[int, Field(ge=1, le=31536000, description="Until the parent's or its step's deadline.")]
    steps: Annotated[int, Field(ge=0, description="Steps.")]
    model_calls: Annotated[int, Field(ge=0, description="Calls to Models.")]
    tool_calls: Annotated[int, Field(ge=0, description="Calls to Tools, and child runs.")]
    tokens: Annotated[int, Field(ge=0, description="Tokens.")]
    cost_usd: Annotated[Cost | None, Field(alias="costUSD", description="US dollars. Absent: no bound.")] = None
    depth: Annotated[int, Field(ge=0, description="Levels of child runs below the child.")]


class Parent(ApiModel):
    """The call of another run that this run answers."""

    name: Annotated[str, Field(max_length=63, description="The parent WorkflowRun's name.")]
    uid: Annotated[str, Field(max_length=64, description="Its UID.")]
    path: Annotated[str, Field(max_length=4096, description="The step that called.")]
    attempt: Annotated[int, Field(ge=1, description="The attempt of that step.")]
    index: Annotated[str, Field(max_length=64, description="Which call of the attempt.")]
    label: Annotated[
        str | None,
        Field(max_length=32, description="Of what led to the call: the child's input has at least this label."),
    ] = None
    limits: ParentLimits


class WorkflowRunSpec(ApiModel):
    """What to run, with what."""

    cel: ClassVar = (
        *(
            immutable(name, "create another run")
            for name in ("workflow", "input", "inputFrom", "requestedBy", "timeoutSeconds", "parent", "retryFrom")
        ),
        CelRule("!has(self.input) || !has(self.inputFrom)", "set at most one of input and inputFrom", ".inputFrom"),
        CelRule(
            "!has(self.retryFrom) || !has(self.inputFrom)",
            "leave inputFrom out: a retry has the input of the run that it goes on from, or an input of its own",
            ".inputFrom",
        ),
        CelRule(
            "!(has(oldSelf.desiredState) && oldSelf.desiredState == 'Cancelled') || "
            "(has(self.desiredState) && self.desiredState == 'Cancelled')",
            "Cancelled is final; create another run",
            ".desiredState",
        ),
        append_only(
            "signals", MAX_SIGNALS, "a signal that was sent stays as it is; add another at the end of the list"
        ),
    )
    workflow: Annotated[ObjectName, Field(description="The Workflow's name. Needs `invoke` on it.")]
    input: Annotated[
        JsonObject | None, Field(description="Checked against the Workflow's input schema; at most 256 KiB.")
    ] = None
    input_from: Annotated[InputFrom | None, Field(description="Instead of input, for up to 1 MiB.")] = None
    requested_by: Annotated[
        str | None, Field(max_length=253, description="Absent, or the user who creates the run.")
    ] = None
    desired_state: Annotated[
        Literal["Running", "Paused", "Cancelled"] | None,
        Field(
            description="Running (default), Paused - no new calls, of its child runs neither, while the deadline goes "
            "on - or Cancelled, which is final."
        ),
    ] = None
    timeout_seconds: Annotated[
        int | None, Field(ge=1, le=31536000, description="Ends the run earlier than the Workflow's limit.")
    ] = None
    retry_from: Annotated[
        RetryFrom | None,
        Field(
            description="Go on from another run: its finished steps count where their definition and inputs are the "
            "same. Its input is this run's, unless `input` says another."
        ),
    ] = None
    parent: Annotated[Parent | None, Field(description="Of a child run. Set by the engine, refused from others.")] = (
        None
    )
    signals: Annotated[
        list[Signal] | None,
        Field(
            max_length=MAX_SIGNALS,
            description="What the run was told, in order. Entries are added at the end and never changed.",
            json_schema_extra=ATOMIC,
        ),
    ] = None


class WorkflowRef(ApiModel):
    """The revision that was frozen at acceptance."""

    revision: Annotated[Digest, Field(description="The digest of the Workflow's spec.")]
    generation: Annotated[int, Field(ge=0, description="The Workflow's metadata.generation.")]


class Denial(ApiModel):
    """Why a call was denied; the audit has all of it."""

    reason: Annotated[str, Field(max_length=64, description="The reason, such as PolicyDenied.")]
    policy: Annotated[str | None, Field(max_length=270, description="The Policy, or ClusterPolicy/NAME.")] = None
    rule: Annotated[str | None, Field(max_length=270, description="Its rule that denied the call.")] = None


class StepRow(ApiModel):
    """One row of the step table: a path and where it stands."""

    path: Annotated[str, Field(max_length=512, description="The step's name, below its blocks and iterations.")]
    phase: Annotated[
        Literal["Running", "Waiting", "Succeeded", "Failed", "Skipped"], Field(description="Where the step stands.")
    ]
    attempts: Annotated[int, Field(ge=0, description="How often it was started.")] = 0
    started_at: Annotated[Timestamp | None, Field(description="When its first attempt began.")] = None
    finished_at: Annotated[Timestamp | None, Field(description="When it ended.")] = None
    span_id: Annotated[str | None, Field(max_length=16, alias="spanID", description="Its span in the trace.")] = None
    message: Annotated[str | None, Field(max_length=64, description="What is wrong or in the way; a child run.")] = None
    denial: Annotated[Denial | None, Field(description="Of its calls, the last that was denied.")] = None
    tokens: Annotated[int | None, Field(ge=0, description="Input and output tokens that it used.")] = None


class Usage(ApiModel):
    """What the run has used so far."""

    model_calls: Annotated[int, Field(ge=0, description="Calls to Models that were let through.")] = 0
    tool_calls: Annotated[int, Field(ge=0, description="Calls to Tools and child runs that were let through.")] = 0
    input_tokens: Annotated[int, Field(ge=0, description="Tokens sent to Models, as they counted them.")] = 0
    output_tokens: Annotated[int, Field(ge=0, description="Tokens that Models answered with.")] = 0
    cost_usd: Annotated[
        Cost | None,
        Field(
            alias="costUSD",
            description="US dollars by the prices of the Models; absent while it is nothing. A call of which nobody "
            "knows what it came to counts with the most that it can have cost.",
        ),
    ] = None
    duration_seconds: Annotated[int, Field(ge=0, description="From acceptance to now or to the end.")] = 0


class OutputRef(ApiModel):
    """Where an output over 4 KiB stands: in the engine's store."""

    digest: Annotated[Digest, Field(description="The digest of the output's canonical JSON.")]
    bytes: Annotated[int, Field(ge=0, description="Its size.")]


class StoreRef(ApiModel):
    """Which store knows this run, and how far."""

    id: Annotated[str, Field(max_length=64, description="The store's own name for itself.")]
    sequence: Annotated[int, Field(ge=0, description="The journal entry that this status shows.")]


class AuditRef(ApiModel):
    """How far the audit of the run goes: what is in the store must begin with these records (`fairlead audit`)."""

    records: Annotated[int, Field(ge=0, description="How many records its chain has.")]
    head: Annotated[str, Field(max_length=71, description="The hash of the last one.")]


class WorkflowRunStatus(ApiModel):
    """Written by the engine alone: a projection of its journal."""

    conditions: Conditions = []
    workflow: WorkflowRef | None = None
    start_time: Annotated[Timestamp | None, Field(description="When the run was accepted.")] = None
    completion_time: Annotated[Timestamp | None, Field(description="When it ended, however it ended.")] = None
    trace_id: Annotated[
        str | None, Field(max_length=32, alias="traceID", description="Its trace: the run's UID without dashes.")
    ] = None
    progress: Annotated[str | None, Field(max_length=32, description="Steps that ended, of those known.")] = None
    waiting_for: Annotated[
        str | None, Field(max_length=256, description="What the run waits for, and the command that helps.")
    ] = None
    steps: Annotated[
        list[StepRow],
        Field(
            max_length=50,
            description="At most 50 steps, running and failed ones first; the engine knows them all.",
            json_schema_extra=ATOMIC,
        ),
    ] = []
    usage: Usage | None = None
    output: Annotated[Any, Field(description="The output, up to 4 KiB.")] = None
    output_ref: OutputRef | None = None
    denials: Annotated[int | None, Field(ge=0, description="Calls that were denied.")] = None
    audit: AuditRef | None = None
    store: StoreRef | None = None


class WorkflowRun(Resource):
    """One execution of a Workflow."""

    crd: ClassVar = Kind(
        kind="WorkflowRun",
        plural="workflowruns",
        short_names=("run", "runs"),
        name_max_length=63,
        columns=(
            PrinterColumn("Workflow", ".spec.workflow"),
            PrinterColumn("Finished", ".status.conditions[?(@.type=='Finished')].status"),
            PrinterColumn("Succeeded", ".status.conditions[?(@.type=='Succeeded')].status"),
            PrinterColumn("Reason", ".status.conditions[?(@.type=='Succeeded')].reason"),
            PrinterColumn("Progress", ".status.progress"),
            PrinterColumn("Message", ".status.conditions[?(@.type=='Succeeded')].message", priority=1),
            PrinterColumn("Waiting For", ".status.waitingFor", priority=1),
            PrinterColumn("Trace", ".status.traceID", priority=1),
            PrinterColumn("Age", ".metadata.creationTimestamp", "date"),
        ),
        selectable_fields=(".spec.workflow",),
    )
    spec: WorkflowRunSpec
    status: WorkflowRunStatus | None = None
