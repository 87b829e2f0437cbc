"""Spans from the journal: run > step > attempt > call or approval. Written when they end, with ids known before.

Feed the fold every entry of a run in order, also after a restart: a span that was emitted before is emitted again
with the same ids, which backends take for the same span.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fairlead.flow.journal import TERMINAL, Entry, EntryKind
from fairlead.telemetry import semconv
from fairlead.telemetry.ids import span_id, trace_id

_OF_ATTEMPTS = ("attempt", "call", "approval")


@dataclass(frozen=True, slots=True)
class Span:
    """One finished span. Times are Unix ms; `error` is the stable reason, empty when all went well.

    `link_id` is a span of `link_trace_id`, or of the same trace when that is empty.
    """

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    start_ms: int
    end_ms: int
    attributes: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""
    error_message: str = ""
    client: bool = False
    link_id: str = ""
    link_trace_id: str = ""


def parent_path(path: str) -> str:
    """Return the path that holds this one; empty for a step of the Workflow's own list.

    `draft#2/score` is in `draft#2`, that in `draft`; `docs[3]` is in `docs`; `reply!/notify` is in `reply`.
    """
    head, _, last = path.rpartition("/")
    for mark in "#[":
        if mark in last:
            return path[: path.rindex(mark)]
    return head.removesuffix("!")


class SpanFold:
    """Folds one run's entries into spans."""

    def __init__(self, run_uid: str) -> None:
        self._uid = run_uid
        self._run: Entry | None = None
        self._steps: dict[str, int] = {}
        self._attempts: dict[str, tuple[int, int]] = {}
        self._ended: set[tuple[str, int]] = set()
        self._calls: dict[tuple[str, int, str], Entry] = {}
        self._children: dict[tuple[str, int, str], str] = {}
        self._approvals: dict[str, Entry] = {}

    def add(self, entry: Entry) -> list[Span]:
        """Return the spans that this entry ends."""
        match entry.kind:
            case EntryKind.RUN_ACCEPTED:
                self._run = entry
                return [self._span(entry, "started", name="run started", start_ms=entry.at)]
            case EntryKind.STEP_STARTED:
                self._steps.setdefault(entry.path, entry.at)
                self._attempts[entry.path] = (entry.attempt, entry.at)
            case EntryKind.CALL_INTENT:
                self._calls[(entry.path, entry.attempt, entry.data["index"])] = entry
            case EntryKind.CHILD_STARTED:
                self._children[(entry.path, entry.attempt, entry.data["index"])] = entry.data["name"]
            case EntryKind.APPROVAL_REQUESTED:
                self._approvals[entry.data["name"]] = entry
            case EntryKind.APPROVAL_DECIDED:
                return self._approval(entry)
            case EntryKind.CALL_OUTCOME:
                return self._outcome(entry)
            case EntryKind.CALL_DENIED:
                return [self._denied(entry)]
            case EntryKind.STEP_SUCCEEDED | EntryKind.STEP_FAILED | EntryKind.STEP_SKIPPED:
                return self._step(entry)
            case kind if kind in TERMINAL:
                return [self._finished(entry)]
            case _:
                pass
        return []

    def _outcome(self, entry: Entry) -> list[Span]:
        at = (entry.path, entry.attempt, entry.data["index"])
        intent, child = self._calls.pop(at, None), self._children.pop(at, "")
        if intent is None:
            return []
        usage = entry.data.get("usage") or {}
        error = entry.data.get("error") or {}
        attributes = _call_attributes(intent) | {semconv.EFFECT: intent.data.get("effect", "")}
        if child:
            attributes[semconv.CHILD_RUN] = child
        if usage:
            attributes[semconv.GEN_AI_INPUT_TOKENS] = usage.get("inputTokens", 0)
            attributes[semconv.GEN_AI_OUTPUT_TOKENS] = usage.get("outputTokens", 0)
        name = _call_name(intent)
        return [
            self._span(entry, "call", name=name, start_ms=intent.at, attributes=attributes, error=error, client=True)
        ]

    def _approval(self, entry: Entry) -> list[Span]:
        """Return how long people took; what they did not approve is an error."""
        name, decision = entry.data["name"], entry.data["decision"]
        asked = self._approvals.pop(name, None)
        if asked is None:
            return []
        attributes = {semconv.APPROVAL: name, semconv.APPROVAL_DECISION: decision}
        refused = {"reason": f"Approval{decision}", "message": entry.data.get("reason", "")}
        error, title = {} if decision == "Approved" else refused, f"approval {name}"
        return [self._span(entry, "approval", name=title, start_ms=asked.at, attributes=attributes, error=error)]

    def _denied(self, entry: Entry) -> Span:
        error = {"reason": entry.data["reason"], "message": entry.data.get("message", "")}
        attributes = _call_attributes(entry) | {
            semconv.DECISION: "Deny",
            semconv.DECISION_REASON: entry.data["reason"],
            semconv.DECISION_STAGE: str(entry.data.get("stage", "")),
        }
        return self._span(
            entry, "call", name=_call_name(entry), start_ms=entry.at, attributes=attributes, error=error, client=True
        )

    def _step(self, entry: Entry) -> list[Span]:
        spans = []
        error = entry.data.get("error") or {}
        attempt, since = self._attempts.get(entry.path, (0, entry.at))
        if attempt and (entry.path, attempt) not in self._ended:
            self._ended.add((entry.path, attempt))  # an onError block may follow; the step ends after it
            before = span_id(self._uid, entry.path, attempt - 1, "attempt", "") if attempt > 1 else ""
            name = f"attempt {attempt}"
            spans.append(self._span(entry, "attempt", name=name, start_ms=since, error=error, link_id=before))
        if entry.kind is EntryKind.STEP_FAILED and not entry.data.get("final", True):
            return spans
        phase = entry.kind.value.removeprefix("Step")
        name = f"step {entry.path}"
        start = self._steps.get(entry.path, entry.at)
        attributes = {semconv.STEP_PHASE: phase}
        if "reusedFrom" in entry.data:
            attributes[semconv.REUSED_FROM] = entry.data["reusedFrom"]
        spans.append(self._span(entry, "step", name=name, start_ms=start, attributes=attributes, error=error))
        return spans

    def _finished(self, entry: Entry) -> Span:
        accepted = self._run.data if self._run else {}
        start = self._run.at if self._run else entry.at
        failed = entry.kind is not EntryKind.RUN_SUCCEEDED
        reason = entry.data.get("reason") or ("Cancelled" if entry.kind is EntryKind.RUN_CANCELLED else "Failed")
        attributes = {
            semconv.GEN_AI_OPERATION: semconv.OPERATION_WORKFLOW,
            semconv.RUN_NAME: accepted.get("name", ""),
            semconv.WORKFLOW: accepted.get("workflow", ""),
            semconv.NAMESPACE: accepted.get("namespace", ""),
            semconv.REVISION: accepted.get("revision", ""),
        }
        parent = accepted.get("parent")
        called = (parent["uid"], parent["path"], parent["attempt"], "call", parent["index"]) if parent else None
        return self._span(
            entry,
            "run",
            name=f"invoke_workflow {accepted.get('workflow', '')}".strip(),
            start_ms=start,
            attributes=attributes,
            error={"reason": reason, "message": entry.data.get("message", "")} if failed else {},
            link_id=span_id(*called) if called else "",
            link_trace_id=trace_id(parent["uid"]) if parent else "",
        )

    def _span(
        self,
        entry: Entry,
        kind: str,
        *,
        name: str,
        start_ms: int,
        attributes: Mapping[str, Any] | None = None,
        error: Mapping[str, Any] | None = None,
        client: bool = False,
        link_id: str = "",
        link_trace_id: str = "",
    ) -> Span:
        index = str(entry.data.get({"call": "index", "approval": "name"}.get(kind, ""), ""))
        own: dict[str, Any] = {semconv.RUN_UID: self._uid}
        if entry.path:
            own[semconv.STEP_PATH] = entry.path
        if kind in _OF_ATTEMPTS:
            own[semconv.ATTEMPT] = entry.attempt
        if kind == "call" and index:
            own[semconv.CALL_INDEX] = index
        if error:
            own[semconv.ERROR_TYPE] = error["reason"]
        return Span(
            trace_id=trace_id(self._uid),
            span_id=self._id(entry.path, entry.attempt, kind, index),
            parent_id=self._parent(entry, kind),
            name=name,
            start_ms=start_ms,
            end_ms=entry.at,
            attributes=own | dict(attributes or {}),
            error=error["reason"] if error else "",
            error_message=error.get("message", "") if error else "",
            client=client,
            link_id=link_id,
            link_trace_id=link_trace_id,
        )

    def _id(self, path: str, attempt: int, kind: str, index: str) -> str:
        return span_id(self._uid, path, attempt if kind in _OF_ATTEMPTS else 0, kind, index)

    def _parent(self, entry: Entry, kind: str) -> str:
        if kind == "run":
            return ""
        if kind == "started":
            return self._id("", 0, "run", "")
        if kind in ("call", "approval"):
            return self._id(entry.path, entry.attempt, "attempt", "")
        if kind == "attempt":
            return self._id(entry.path, 0, "step", "")
        above = parent_path(entry.path)
        if not above:
            return self._id("", 0, "run", "")
        attempt, _ = self._attempts.get(above, (0, 0))
        after_failure = entry.path.rpartition("/")[0].endswith("!")
        if not attempt or after_failure:
            return self._id(above, 0, "step", "")
        return self._id(above, attempt, "attempt", "")


def _call_name(entry: Entry) -> str:
    target, function = entry.data.get("target", ""), entry.data.get("function", "")
    operation = _operation(entry)
    return f"{operation} {target}.{function}" if operation == semconv.OPERATION_TOOL else f"{operation} {target}"


def _call_attributes(entry: Entry) -> dict[str, Any]:
    operation = _operation(entry)
    target, function = entry.data.get("target", ""), entry.data.get("function", "")
    if operation == semconv.OPERATION_TOOL:
        return {semconv.GEN_AI_OPERATION: operation, semconv.GEN_AI_TOOL_NAME: f"{target}.{function}"}
    if operation == semconv.OPERATION_WORKFLOW:
        return {semconv.GEN_AI_OPERATION: operation, semconv.WORKFLOW: target}
    if operation == semconv.OPERATION_CONTAINER:
        return {semconv.GEN_AI_OPERATION: operation, semconv.CONTAINER_IMAGE: target}
    return {semconv.GEN_AI_OPERATION: operation, semconv.GEN_AI_REQUEST_MODEL: target}


def _operation(entry: Entry) -> str:
    kinds = {
        "Chat": semconv.OPERATION_CHAT,
        "Embed": semconv.OPERATION_EMBEDDINGS,
        "Workflow": semconv.OPERATION_WORKFLOW,
        "Container": semconv.OPERATION_CONTAINER,
    }
    return kinds.get(entry.data.get("kind", ""), semconv.OPERATION_TOOL)
