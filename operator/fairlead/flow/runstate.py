"""What the state of a run consists of: the run, its lists of steps, its steps, their calls.

Plain data. `state.py` folds the journal into it, `next.py` and whoever shows a run read it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from fairlead.api.steps import StepLimits
from fairlead.flow.calls import CallError, CallIndex, CallKind, Outcome
from fairlead.flow.journal import EntryKind, Path, RunUid
from fairlead.flow.labels import TRUSTED, Label
from fairlead.flow.spending import NOTHING, Spend, Window

Phase = Literal["Running", "BackingOff", "Waiting", "Succeeded", "Failed", "Skipped"]


@dataclass(frozen=True, slots=True)
class Accepted:
    """What was frozen when the run was accepted. `created_at`, `deadline` and `scheduled_at` are Unix ms.

    `parent` is that of a child's spec: {name, uid, path, attempt, index, limits}. `retry_from` is the ended run that
    this one goes on from: {run, uid, step?}. `label` is the input's; None of a run of a version without labels.
    `labels` are the Workflow's.
    """

    workflow: str
    namespace: str
    name: str
    revision: str
    generation: int
    semantics: int
    input: Any
    account: str
    created_at: int
    deadline: int
    requested_by: str | None = None
    parent: Mapping[str, Any] | None = None
    scheduled_at: int | None = None
    retry_from: Mapping[str, Any] | None = None
    label: Label | None = None
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def control(self) -> Label:
        """Return the label of what decided that the run began: of a child, of what led its parent to that."""
        if self.parent is None or self.label is None:
            return TRUSTED
        return Label.parse(self.parent.get("label"))


@dataclass(slots=True)
class Usage:
    """What a run or one of its forEach used.

    Steps count from their start, calls from their intent, tokens, cost (10⁻¹² US dollars) and what child runs used from
    the outcome. `held_tokens` and `held_cost` are the most that the model calls that are open can come to.
    """

    steps: int = 0
    model_calls: int = 0
    tool_calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: int = 0
    held_tokens: int = 0
    held_cost: int = 0

    @property
    def tokens(self) -> int:
        """Return tokens in and out."""
        return self.input_tokens + self.output_tokens

    def hold(self, spend: Spend) -> None:
        """Keep room for a call."""
        self.held_tokens += spend.tokens
        self.held_cost += spend.cost

    def settle(self, held: Spend, used: Spend) -> None:
        """Put what a call used in the place of what was held for it."""
        self.held_tokens -= held.tokens
        self.held_cost -= held.cost
        self.input_tokens += used.input_tokens
        self.output_tokens += used.output_tokens
        self.cost += used.cost


@dataclass(frozen=True, slots=True)
class Denial:
    """Why a call was denied, and by which rule of which Policy; "" for none."""

    reason: str
    policy: str = ""
    rule: str = ""


@dataclass(frozen=True, slots=True)
class Closing:
    """No new intents from here on, but in `finally`. `at` is Unix ms; output or error are what the steps came to."""

    reason: str
    message: str
    at: int
    output: Any = None
    error: CallError | None = None
    label: Label = TRUSTED


@dataclass(frozen=True, slots=True)
class Terminal:
    """How the run ended."""

    kind: EntryKind
    reason: str
    message: str
    output: Any = None
    error: CallError | None = None
    label: Label = TRUSTED


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A value as it was evaluated once, or why it could not be, and the label of what was read for it."""

    value: Any = None
    error: CallError | None = None
    label: Label = TRUSTED


@dataclass(frozen=True, slots=True)
class Child:
    """The run that a Workflow call asks for, as its intent recorded it. `uid` is empty until it is known to exist."""

    name: str
    spec: Mapping[str, Any]
    uid: str = ""


@dataclass(slots=True)
class SignalState:
    """What the run was told: `taken` by a wait, or `ignored` by all of them, and why."""

    name: str
    data: Any
    by: str
    ignored: str = ""
    taken: bool = False


@dataclass(slots=True)
class ApprovalState:
    """What people were asked, and decided: "" while they have not; `index` as in the request. Times are Unix ms.

    `notice` are the arguments of the call that tells them; None where nothing does. `tells` is the Tool and function of
    that call; an approval step's stand in its definition.
    """

    name: str
    path: Path
    attempt: int
    index: str
    spec: Mapping[str, Any]
    requested_at: int
    expires_at: int
    decision: str = ""
    by: tuple[str, ...] = ()
    reason: str = ""
    notice: Evaluation | None = None
    tells: tuple[str, str] | None = None


@dataclass(slots=True)
class CallState:
    """One call of the current attempt. Settled once it has an outcome or was denied (`stage`: where).

    `key` is that of its idempotency, or the name of its child run. `label` is that of its outcome. `pod` is the UID of
    a container's pod, once it exists. `held` is the most that it can come to while it is open, `windows` whose budgets
    it counts in.
    """

    index: str
    kind: CallKind
    target: str
    function: str = ""
    digest: str = ""
    effect: str = ""
    key: str = ""
    child: Child | None = None
    pod: str = ""
    outcome: Outcome | None = None
    denied: CallError | None = None
    stage: str = ""
    label: Label = TRUSTED
    held: Spend = NOTHING
    windows: tuple[Window, ...] = ()

    @property
    def settled(self) -> bool:
        """Tell whether nothing more will come of it."""
        return self.outcome is not None or self.denied is not None

    @property
    def is_notice(self) -> bool:
        """Tell whether it only tells people that another call waits for them. Nothing reads what it brings."""
        return CallIndex.parse(self.index).notice > 0

    @property
    def repeatable(self) -> bool:
        """Tell whether making it twice is the same as once. What was denied was not made."""
        return self.effect in ("", "Read") or bool(self.key)

    @property
    def error(self) -> CallError | None:
        """Return how it failed or why it was denied; None when it succeeded or is open."""
        return self.denied or (self.outcome.error if self.outcome else None)

    @property
    def result(self) -> Any:
        """Return what a successful call brought."""
        return self.outcome.result if self.outcome else None


@dataclass(slots=True)
class StepState:
    """One step, one iteration of a repeat (`draft#2`), or one item of a forEach (`summaries[3]`).

    Attributes:
        path: where it stands.
        phase: Running also while its onError block runs (then `handling`).
        attempt: counts from 1 and only grows.
        tries: attempts since it was last opened: what `retry.limit` is compared with.
        started_at: Unix ms of the first attempt's start.
        finished_at: Unix ms, None while open.
        deadline: Unix ms after which the attempt is a Timeout; 0 for none.
        output: of a Succeeded step; else None.
        error: of the last failed attempt.
        handling: its onError block runs.
        handled: the failure for which that began. Once it has, another attempt of a block around goes on with it.
        wake_at: Unix ms at which the next attempt starts, or the wait is over; None unless such a timer is set.
        waits_for: of a step that is Waiting: the name of the signal, "" for a time alone.
        signal: the index of the signal that was taken.
        iteration: of a repeat: the last one that was started.
        items: of a forEach: what it goes over, evaluated once.
        used: of a forEach: by all of its items; None before the first.
        bounds: of a forEach: its limits; None for none.
        reached: of a forEach: which of its limits a call of an item met, "" for none.
        partial: of a Succeeded forEach: why items were left out, "" when none were.
        reused_from: the name of the earlier run that did it, "" when this one did.
        inputs: evaluated once, kept by all attempts until one succeeds.
        choice: of a route, kept by all attempts.
        until: of an iteration.
        findings: of this attempt's answers, by the index of the call that brought them, or of the signals that it
            ignores, by theirs.
        calls: of this attempt, by index, in order of their intents; emptied when the step is over.
        approvals: of this attempt, by name, in order of their requests; emptied when the step is over.
        held_since: Unix ms since which people have been asked: its time stands still until they have decided. 0 when
            it does not.
        denial: of its calls, the last that was denied; None for none.
        tokens: of all attempts.
        child: the name of the last child run.
        control: the label of what decided that it runs.
        context: of that, of all that it read, and of all that its calls brought.
        label: of its output, or of its error.
    """

    path: Path
    phase: Phase = "Running"
    attempt: int = 0
    tries: int = 0
    started_at: int = 0
    finished_at: int | None = None
    deadline: int = 0
    output: Any = None
    error: CallError | None = None
    handling: bool = False
    handled: CallError | None = None
    wake_at: int | None = None
    waits_for: str = ""
    signal: int | None = None
    iteration: int = 0
    items: Evaluation | None = None
    used: Usage | None = None
    bounds: StepLimits | None = None
    reached: str = ""
    partial: str = ""
    reused_from: str = ""
    inputs: Evaluation | None = None
    choice: Evaluation | None = None
    until: Evaluation | None = None
    findings: dict[str, list[str]] = field(default_factory=dict)
    calls: dict[str, CallState] = field(default_factory=dict)
    approvals: dict[str, ApprovalState] = field(default_factory=dict)
    held_since: int = 0
    denial: Denial | None = None
    tokens: int = 0
    child: str = ""
    control: Label = TRUSTED
    context: Label = TRUSTED
    label: Label = TRUSTED


@dataclass(slots=True)
class BodyState:
    """One run of a list of steps, keyed by the prefix of its steps' paths: `` (the Workflow's), `topic/`, `reply!/`.

    The items of a forEach are a list too (`summaries[`, of `3]`), and so are the branches of a parallel (`both/`).

    Step names, in order: `open` ones have started, `settled` ones are done with, `failed` ones among these end it.
    """

    open: dict[str, None] = field(default_factory=dict)
    settled: dict[str, None] = field(default_factory=dict)
    failed: dict[str, None] = field(default_factory=dict)


@dataclass(slots=True)
class RunState:
    """Everything that the journal says about a run. Callers read; only `apply` writes.

    `held_bytes` are those of its input and of the outputs of its steps, as JSON.

    `approvals` are all that were ever asked for, by name. `made` counts the calls of tools by `tool.function`, from
    their intent. `signals` stand as in the run's spec.
    `finally_deadline` is Unix ms, None until `finally` begins.
    """

    run_uid: RunUid
    seq: int = 0
    started_at: int = 0
    finished_at: int | None = None
    accepted: Accepted | None = None
    steps: dict[Path, StepState] = field(default_factory=dict)
    bodies: dict[str, BodyState] = field(default_factory=dict)
    whens: dict[Path, Evaluation] = field(default_factory=dict)
    open_calls: dict[tuple[Path, str], None] = field(default_factory=dict)
    approvals: dict[str, ApprovalState] = field(default_factory=dict)
    usage: Usage = field(default_factory=Usage)
    held_bytes: int = 0
    denials: int = 0
    made: dict[str, int] = field(default_factory=dict)
    signals: list[SignalState] = field(default_factory=list)
    paused: bool = False
    closing: Closing | None = None
    finally_deadline: int | None = None
    terminal: Terminal | None = None
