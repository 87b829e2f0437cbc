"""Spans come from the journal alone, with ids that anybody can predict."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import pytest

from fairlead.flow.journal import Entry, EntryKind, Path, RunUid
from fairlead.telemetry.ids import span_id, trace_id, traceparent
from fairlead.telemetry.spans import Span, SpanFold, parent_path

UID = RunUid("7f0c6c1e-0000-4000-8000-000000000001")


def entry(seq: int, what: EntryKind, path: str = "", attempt: int = 0, /, **data: Any) -> Entry:
    return Entry(UID, seq, 1000 + seq, what, Path(path), attempt, data)


def fold(entries: Sequence[Entry]) -> list[Span]:
    spans = SpanFold(UID)
    return [span for each in entries for span in spans.add(each)]


REFUSED = {"reason": "Forbidden", "stage": 5}
STORY = (
    entry(1, EntryKind.RUN_ACCEPTED, workflow="w", name="w-1", namespace="team", revision="sha256:00"),
    entry(2, EntryKind.STEP_STARTED, "ask", 1),
    entry(3, EntryKind.CALL_INTENT, "ask", 1, index="0.0.0", kind="Chat", target="small", effect="Read"),
    entry(4, EntryKind.CALL_OUTCOME, "ask", 1, index="0.0.0", usage={"inputTokens": 5, "outputTokens": 7}),
    entry(5, EntryKind.STEP_SUCCEEDED, "ask", 1, output={"text": "x"}),
    entry(6, EntryKind.STEP_STARTED, "loop", 1),
    entry(7, EntryKind.STEP_STARTED, "loop#1", 1),
    entry(8, EntryKind.STEP_STARTED, "loop#1/put", 1),
    entry(
        9,
        EntryKind.CALL_DENIED,
        "loop#1/put",
        1,
        index="0.0.0",
        kind="Tool",
        target="t",
        function="f",
        reason="Forbidden",
    ),
    entry(10, EntryKind.STEP_FAILED, "loop#1/put", 1, error={"reason": "Forbidden", "message": "no"}, final=True),
    entry(11, EntryKind.RUN_FAILED, reason="Denied", message="no"),
)


def by_name(name: str) -> Span:
    return next(span for span in fold(STORY) if span.name == name)


def test_the_trace_id_is_the_uid_without_dashes() -> None:
    assert {span.trace_id for span in fold(STORY)} == {UID.replace("-", "")} == {trace_id(UID)}


def test_a_span_id_is_the_first_eight_bytes_of_the_documented_hash() -> None:
    expected = hashlib.sha256(f"{UID}|ask|1|call|0.0.0".encode()).hexdigest()[:16]
    assert by_name("chat small").span_id == expected == span_id(UID, "ask", 1, "call", "0.0.0")
    assert traceparent(UID, "ask", 1, "0.0.0") == f"00-{trace_id(UID)}-{expected}-01"


def test_spans_nest_as_run_step_attempt_call() -> None:
    call, attempt, step, run = (by_name(n) for n in ("chat small", "attempt 1", "step ask", "invoke_workflow w"))
    assert (call.parent_id, attempt.parent_id, step.parent_id) == (attempt.span_id, step.span_id, run.span_id)
    assert run.parent_id == ""
    assert call.attributes["gen_ai.usage.output_tokens"] == 7


def test_a_step_of_a_blocks_iteration_hangs_under_that_iterations_attempt() -> None:
    assert by_name("step loop#1/put").parent_id == span_id(UID, "loop#1", 1, "attempt", "")


def test_a_denied_call_is_an_error_span_with_the_reason() -> None:
    denied = by_name("execute_tool t.f")
    assert (denied.error, denied.attributes["error.type"]) == ("Forbidden", "Forbidden")
    assert denied.attributes["fairlead.decision"] == "Deny"


def test_the_same_journal_gives_the_same_spans_after_a_restart() -> None:
    assert fold(STORY) == fold(STORY)


@pytest.mark.parametrize(("decision", "error"), [("Approved", ""), ("Denied", "ApprovalDenied")])
def test_the_time_that_people_take_is_a_span_of_the_attempt_that_waits(decision: str, error: str) -> None:
    story = (
        entry(1, EntryKind.RUN_ACCEPTED, workflow="w"),
        entry(2, EntryKind.STEP_STARTED, "pay", 1),
        entry(3, EntryKind.APPROVAL_REQUESTED, "pay", 1, index="0.0.0", name="w-1-ab", spec={}, expiresAt=9),
        entry(5, EntryKind.APPROVAL_DECIDED, "pay", 1, name="w-1-ab", decision=decision, by=["bob"], reason="so"),
        entry(6, EntryKind.APPROVAL_DECIDED, "pay", 1, name="w-1-ab", decision="Approved", by=["eve"], reason=""),
    )
    (span,) = (span for span in fold(story) if span.name.startswith("approval"))
    assert (span.name, span.start_ms, span.end_ms, span.error) == ("approval w-1-ab", 1003, 1005, error)
    assert span.span_id == span_id(UID, "pay", 1, "approval", "w-1-ab")
    assert span.parent_id == span_id(UID, "pay", 1, "attempt", "")
    assert span.attributes["fairlead.approval.decision"] == decision


def test_a_retry_links_to_the_attempt_before_it() -> None:
    story = (
        entry(1, EntryKind.STEP_STARTED, "a", 1),
        entry(2, EntryKind.STEP_FAILED, "a", 1, error={"reason": "Timeout", "message": ""}, final=False),
        entry(3, EntryKind.STEP_STARTED, "a", 2),
        entry(4, EntryKind.STEP_SUCCEEDED, "a", 2, output=None),
    )
    second = next(span for span in fold(story) if span.name == "attempt 2")
    assert second.link_id == span_id(UID, "a", 1, "attempt", "")
    assert [span.name for span in fold(story)].count("step a") == 1


def test_a_failed_attempt_is_one_span_and_its_on_error_block_hangs_under_the_step() -> None:
    story = (
        entry(1, EntryKind.STEP_STARTED, "a", 1),
        entry(
            2, EntryKind.STEP_FAILED, "a", 1, error={"reason": "Timeout", "message": ""}, final=False, onError="Block"
        ),
        entry(3, EntryKind.STEP_STARTED, "a!/b", 1),
        entry(4, EntryKind.STEP_SUCCEEDED, "a!/b", 1, output=None),
        entry(5, EntryKind.STEP_SUCCEEDED, "a", 1, output=None),
    )
    spans = fold(story)
    assert [span.name for span in spans] == ["attempt 1", "attempt 1", "step a!/b", "step a"]
    assert len({span.span_id for span in spans}) == len(spans)
    assert spans[2].parent_id == span_id(UID, "a", 0, "step", "")


@pytest.mark.parametrize(
    ("path", "parent"),
    [
        ("a", ""),
        ("a/b", "a"),
        ("a#2", "a"),
        ("a#2/b", "a#2"),
        ("a!/b", "a"),
        ("a#1!/b", "a#1"),
        ("a/b#3", "a/b"),
        ("a[3]", "a"),
        ("a/b[0]", "a/b"),
        ("a[3]/b", "a[3]"),
    ],
)
def test_the_parent_of_a_path(path: str, parent: str) -> None:
    assert parent_path(path) == parent
