"""Calls: what a step asks of the world, and what came of it. Every one passes the engine's gate."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import Any

from fairlead.api.canonical import digest
from fairlead.flow.journal import Path, RunUid
from fairlead.flow.labels import TRUSTED, Label
from fairlead.flow.spending import Spend


class CallKind(StrEnum):
    """What is called."""

    CHAT = "Chat"
    EMBED = "Embed"
    TOOL = "Tool"
    WORKFLOW = "Workflow"
    CONTAINER = "Container"


@dataclass(frozen=True, slots=True)
class CallIndex:
    """Which call of an attempt: turn from 0; ordinal 0 the model's own call, 1.. its tool calls; repair from 0.

    `notice` is 0 but for the calls that tell people that this one waits for their approval: 1.. of the approvals.
    """

    turn: int = 0
    ordinal: int = 0
    repair: int = 0
    notice: int = 0

    def __str__(self) -> str:
        return f"{self.turn}.{self.ordinal}.{self.repair}" + (f".{self.notice}" if self.notice else "")

    @classmethod
    @lru_cache(maxsize=4096)
    def parse(cls, text: str) -> CallIndex:
        """Read `turn.ordinal.repair` or `turn.ordinal.repair.notice` back."""
        return cls(*(int(part) for part in text.split(".")))


@dataclass(frozen=True, slots=True)
class CallId:
    """The identity of a call within its run."""

    path: Path
    attempt: int
    index: CallIndex


@dataclass(frozen=True, slots=True)
class FromPod:
    """That a call is made by a step's container, not by the step's own text; `most` are allowed to an attempt.

    `uid` is that of its pod.
    """

    most: int
    uid: str = ""


@dataclass(frozen=True, slots=True)
class Call:
    """One request.

    Attributes:
        id: which call of which attempt of which step.
        kind: what is called.
        target: the Model's, Tool's or Workflow's name, or the image.
        function: the Tool's function; empty for all others.
        request: Chat: {messages: [{role, content, tool_calls?, tool_call_id?}], tools?: [{name, description, schema}],
            schema?, parameters: {maxOutputTokens?, temperature?, seed?}}. Embed: {texts: [...]}.
            Tool: {arguments: {...}}. Workflow: {input: {...}}. Container: the step's fields, as they are written, and
            {input}.
        offered: False when a model asked for something that its step does not offer: the gate denies it.
        deadline_ms: Unix ms after which the call is a Timeout; 0 for none of its own.
        label: of everything that led to it. No part of what is asked.
        nth: of what an agent or a container asks for: how many calls with the same digest its attempt made before it.
        pod: set of what a container asks for. Its index is (number, 0, 0), numbers from 1; (0, 0, 0) is its own.
        tells: that it only tells people of an approval. Nothing depends on what it brings, nor waits long for it.
    """

    id: CallId
    kind: CallKind
    target: str
    function: str = ""
    request: Mapping[str, Any] = field(default_factory=dict)
    offered: bool = True
    deadline_ms: int = 0
    label: Label = TRUSTED
    nth: int | None = None
    pod: FromPod | None = None
    tells: bool = False

    @property
    def digest(self) -> str:
        """Return the digest of what is asked, of whom."""
        return digest({"kind": self.kind, "target": self.target, "function": self.function, "request": self.request})

    def idempotency_key(self, run_uid: RunUid) -> str:
        """Return the key that the tool gets: of run, path and index, without the attempt.

        An agent or a container may ask for something else, or in another order, in its next attempt: there the request
        stands for the index. Another attempt asks people anew: what tells them of it is another effect.
        """
        which = str(self.id.index) if self.nth is None else f"{self.digest}|{self.nth}"
        which += f"|{self.id.attempt}" if self.tells else ""
        return hashlib.sha256(f"{run_uid}|{self.id.path}|{which}".encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class CallError:
    """How a call or step failed: class and reason are stable, the message holds no content.

    `retry_after_ms` is what a RateLimited or Unavailable answer asked for; 0 when it asked for nothing.
    """

    error_class: str
    reason: str
    message: str
    retry_after_ms: int = 0

    def as_data(self) -> dict[str, Any]:
        """Return the journal's form."""
        data = {"class": self.error_class, "reason": self.reason, "message": self.message}
        return data | ({"retryAfterMs": self.retry_after_ms} if self.retry_after_ms else {})

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> CallError:
        """Read the journal's form back."""
        return cls(data["class"], data["reason"], data.get("message", ""), data.get("retryAfterMs", 0))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a call: a result or an error.

    Attributes:
        result: Chat: {content: str, toolCalls: [{id, name, arguments: str}]}. Embed: {vectors: [[float]]}.
            Tool: the structured content, else {text}. Workflow: the child's output. Container: {output, logs}, of a
            failed one {logs} beside the error.
        error: set instead of the result when the call failed.
        input_tokens: as the model reported them.
        output_tokens: as the model reported them.
        cached_tokens: those of the input that the model had kept from before.
        cost: 10⁻¹² US dollars.
        metered: False of a call that was sent while nobody knows what it used: all that was held for it.
        duration_ms: from the first byte sent to the last byte read.
    """

    result: Any = None
    error: CallError | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    duration_ms: int = 0
    cached_tokens: int = 0
    cost: int = 0
    metered: bool = True

    @property
    def spend(self) -> Spend:
        """Return what it used."""
        return Spend(self.input_tokens, self.output_tokens, self.cost)
