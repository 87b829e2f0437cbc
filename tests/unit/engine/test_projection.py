"""The status of a run: the largest table, because this is what people and tools read."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.api.canonical import canonical_json, digest
from fairlead.api.conditions import timestamp
from fairlead.api.reasons import AcceptedReason
from fairlead.api.run import WorkflowRunStatus
from fairlead.api.workflow import WorkflowSpec
from fairlead.engine.projection import STATUS_BYTES, STEP_ROWS, Surroundings, project, project_waiting
from fairlead.flow.journal import Draft, Entry, EntryKind, Path, RunUid
from fairlead.flow.plan import Plan, compile_plan
from fairlead.flow.state import RunState, apply, new_state
from fairlead.telemetry.export import TraceCounts

UID = RunUid("0f0e0d0c-0b0a-4908-8706-050403020100")
T0 = 1_700_000_000_000
REVISION = "sha256:" + "a" * 64
ERROR = {"class": "Unavailable", "reason": "Unavailable", "message": "the server did not answer"}


def plan_of(*names: str) -> Plan:
    steps = [{"name": name, "transform": {"value": 1}} for name in names]
    return compile_plan("w", REVISION, WorkflowSpec.model_validate({"steps": steps}))


PLAN = plan_of("a", "b", "c")


def accepted() -> Draft:
    data = {"workflow": "w", "namespace": "n", "name": "r", "revision": REVISION, "generation": 4, "semantics": 1}
    data |= {"input": {}, "account": "acc", "createdAt": T0, "deadline": T0 + 60_000}
    return Draft(EntryKind.RUN_ACCEPTED, data=data)


def step(kind: EntryKind, path: str, attempt: int = 1, /, **data: Any) -> Draft:
    return Draft(kind, Path(path), attempt, data)


def started(path: str, attempt: int = 1) -> Draft:
    return step(EntryKind.STEP_STARTED, path, attempt)


def succeeded(path: str, output: Any = None) -> Draft:
    return step(EntryKind.STEP_SUCCEEDED, path, output=output)


def failed(path: str, *, final: bool = True, error: dict[str, str] = ERROR) -> Draft:
    return step(EntryKind.STEP_FAILED, path, error=error, final=final)


def end(kind: EntryKind, **data: Any) -> Draft:
    return Draft(kind, data=data)


def waits(path: str, wake_at: int | None = None, *, signal: str = "") -> Draft:
    data = {"purpose": "Wait"} | ({"signal": signal} if signal else {}) | ({"wakeAt": wake_at} if wake_at else {})
    return step(EntryKind.TIMER_SET, path, **data)


def told(index: int, name: str, data: Any = None, **more: Any) -> Draft:
    return end(EntryKind.SIGNAL, index=index, name=name, data=data, by="alice", **more)


def fold(*drafts: Draft) -> RunState:
    state = new_state()
    for seq, draft in enumerate(drafts, 1):
        state = apply(state, Entry(UID, seq, T0 + seq * 1000, draft.kind, draft.path, draft.attempt, draft.data))
    return state


def around(**changes: Any) -> Surroundings:
    values: dict[str, Any] = {"uid": UID, "generation": 2, "previous": {}, "store_id": "s1", "now_ms": T0 + 100_000}
    return Surroundings(**values | changes)


def conditions(status: dict[str, Any]) -> dict[str, tuple[str, str, str]]:
    return {c["type"]: (c["status"], c["reason"], c["message"]) for c in status["conditions"]}


OPEN_RUNS: dict[str, tuple[list[Draft], str, str]] = {
    "accepted, nothing started": ([], "Queued", "waits for a free place"),
    "a step runs": ([started("a")], "Executing", "steps are running"),
    "between two steps": ([started("a"), succeeded("a")], "Executing", "steps are running"),
    "its only open step backs off": (
        [started("a"), failed("a", final=False), step(EntryKind.TIMER_SET, "a", wakeAt=T0 + 9, purpose="BackOff")],
        "BackingOff",
        "waits to try again",
    ),
    "a step in a block backs off": ([started("a"), started("a/x"), failed("a/x", final=False)], "BackingOff", "waits"),
    "one backs off while another calls": (
        [
            started("a"),
            failed("a", final=False),
            started("b"),
            step(EntryKind.CALL_INTENT, "b", index="0.0.0", kind="Chat", target="m", digest="sha256:0", effect="Read"),
        ],
        "Executing",
        "steps are running",
    ),
    "it sleeps": ([started("a"), waits("a", T0 + 60_000)], "Sleeping", "waits for a time"),
    "it waits for a signal": ([started("a"), waits("a", signal="go")], "WaitingForSignal", "waits for a signal"),
    "paused": ([started("a"), end(EntryKind.PAUSED)], "Paused", "its deadline goes on"),
    "resumed": ([started("a"), end(EntryKind.PAUSED), end(EntryKind.RESUMED)], "Executing", "steps are running"),
    "finally": (
        [
            started("a"),
            end(EntryKind.CLOSING, reason="StepFailed", message="a: no"),
            end(EntryKind.TIMER_SET, wakeAt=T0, purpose="Finally"),
        ],
        "Closing",
        "finally runs after StepFailed: a: no",
    ),
    "closing": ([started("a"), end(EntryKind.CLOSING, reason="Cancelled", message="asked to")], "Closing", "Cancelled"),
}


@pytest.mark.parametrize(("drafts", "reason", "message"), OPEN_RUNS.values(), ids=OPEN_RUNS.keys())
def test_an_open_run_says_what_it_is_doing(drafts: list[Draft], reason: str, message: str) -> None:
    found = conditions(project(fold(accepted(), *drafts), PLAN, around()))
    assert found["Accepted"] == ("True", "Accepted", f"revision {REVISION}")
    assert found["Finished"][:2] == ("False", reason)
    assert found["Succeeded"][:2] == ("Unknown", reason)
    assert message in found["Succeeded"][2]


WAITING: dict[str, tuple[list[Draft], str]] = {
    "for nothing": ([started("a")], ""),
    "for a time": ([started("a"), waits("a", T0 + 60_000)], f"a time at {timestamp(T0 + 60_000)}"),
    "for a signal": ([started("a"), waits("a", signal="go")], "signal go; kubectl fairlead signal r go"),
    "for a signal or a time": (
        [started("a"), waits("a", signal="go"), started("b"), waits("b", T0 + 60_000)],
        "signal go (and 1 more); kubectl fairlead signal r go",
    ),
    "for somebody": ([started("a"), end(EntryKind.PAUSED)], "somebody to resume it; kubectl fairlead resume r"),
}


@pytest.mark.parametrize(("drafts", "expected"), WAITING.values(), ids=WAITING.keys())
def test_a_run_says_what_it_waits_for_and_what_helps(drafts: list[Draft], expected: str) -> None:
    assert project(fold(accepted(), *drafts), PLAN, around()).get("waitingFor", "") == expected


def test_a_signal_that_was_ignored_is_told_in_the_row_of_the_wait() -> None:
    too_large = told(0, "go", ignored="the data has 20000 bytes")
    status = project(fold(accepted(), started("a"), waits("a", signal="go"), too_large), PLAN, around())
    assert status["steps"][0]["message"] == "a signal was ignored: the data has 20000 bytes"


ENDED_RUNS: dict[str, tuple[list[Draft], str, str, str]] = {
    "completed": ([end(EntryKind.RUN_SUCCEEDED, output=1)], "True", "Completed", ""),
    "a step failed": (
        [
            started("a"),
            failed("a"),
            end(EntryKind.RUN_FAILED, reason="StepFailed", message="a: Unavailable: no answer"),
        ],
        "False",
        "StepFailed",
        "a: Unavailable: no answer",
    ),
    "denied": (
        [end(EntryKind.RUN_FAILED, reason="Denied", message="acc needs invoke on models/m; see: kubectl auth can-i x")],
        "False",
        "Denied",
        "acc needs invoke on models/m; see: kubectl auth can-i x",
    ),
    "timed out": (
        [end(EntryKind.RUN_FAILED, reason="Timeout", message="after 60 s")],
        "False",
        "Timeout",
        "after 60 s",
    ),
    "cancelled": ([end(EntryKind.RUN_CANCELLED, message="asked to")], "False", "Cancelled", "asked to"),
    "unknown": (
        [end(EntryKind.RUN_FAILED, reason="OutcomeUnknown", message="a: t.create")],
        "False",
        "OutcomeUnknown",
        "a: t.create",
    ),
    "nondeterministic": (
        [end(EntryKind.RUN_FAILED, reason="Nondeterminism", message="a")],
        "False",
        "Nondeterminism",
        "a",
    ),
}


@pytest.mark.parametrize(("drafts", "status", "reason", "message"), ENDED_RUNS.values(), ids=ENDED_RUNS.keys())
def test_an_ended_run_says_how(drafts: list[Draft], status: str, reason: str, message: str) -> None:
    projected = project(fold(accepted(), *drafts), PLAN, around())
    found = conditions(projected)
    assert found["Finished"][:2] == ("True", reason)
    assert found["Succeeded"] == (status, reason, message)
    assert projected["completionTime"] == timestamp(T0 + 1000 * (len(drafts) + 1))


@pytest.mark.parametrize(
    ("reason", "accepted_reason"),
    [
        ("WorkflowNotFound", "WorkflowNotFound"),
        ("Denied", "NotAuthorized"),
        ("InvalidInput", "Rejected"),
        ("InvalidWorkflow", "Rejected"),
    ],
)
def test_a_rejected_run_says_why_it_was_not_accepted(reason: str, accepted_reason: str) -> None:
    status = project(fold(end(EntryKind.RUN_REJECTED, reason=reason, message="because")), None, around())
    found = conditions(status)
    assert found["Accepted"] == ("False", accepted_reason, "because")
    assert found["Succeeded"] == ("False", reason, "because")
    assert found["Finished"][:2] == ("True", reason)


@pytest.mark.parametrize("reason", [AcceptedReason.WORKFLOW_NOT_READY, AcceptedReason.NOT_AUTHORIZED])
def test_a_run_that_waits_for_acceptance_says_for_what(reason: AcceptedReason) -> None:
    found = conditions(project_waiting(reason, "Workflow w is not ready", around()))
    assert found["Accepted"] == ("Unknown", reason.value, "Workflow w is not ready")
    assert found["Finished"][:2] == ("False", "Queued")
    assert found["Succeeded"][:2] == ("Unknown", "Queued")


@pytest.mark.requirement("G8")
def test_a_lost_run_keeps_what_the_lost_store_had_said() -> None:
    before = project(fold(accepted(), started("a")), PLAN, around(store_id="lost"))
    lost = fold(end(EntryKind.RUN_FAILED, reason="StateLost", message="another store"))
    status = project(lost, None, around(previous=before))
    found = conditions(status)
    assert found["Accepted"][:2] == ("True", "Accepted")
    assert found["Succeeded"] == ("False", "StateLost", "another store")
    assert status["workflow"] == before["workflow"]
    assert status["steps"] == before["steps"]
    assert status["store"] == {"id": "s1", "sequence": 1}


@pytest.mark.parametrize(
    ("trace", "expected"),
    [
        (None, ("Unknown", "Disabled", "no OTLP endpoint is configured")),
        (TraceCounts(exported=31), ("True", "Exported", "31 spans")),
        (TraceCounts(exported=3, dropped=12), ("False", "ExporterUnreachable", "12 dropped")),
        (TraceCounts(exported=3, pending=2), ("Unknown", "Exporting", "2 on their way")),
        (TraceCounts(), ("Unknown", "Exporting", "0 on their way")),
    ],
)
def test_the_trace_condition_counts_spans(trace: TraceCounts | None, expected: tuple[str, str, str]) -> None:
    assert conditions(project(fold(accepted()), PLAN, around(trace=trace)))["Traced"] == expected


def test_a_note_explains_an_open_run_that_does_not_go_on() -> None:
    found = conditions(project(fold(accepted(), started("a")), PLAN, around(note="internal error; trace 0f0e")))
    assert found["Succeeded"] == ("Unknown", "Executing", "internal error; trace 0f0e")


def test_the_transition_time_changes_only_with_the_status() -> None:
    first = project(fold(accepted(), started("a")), PLAN, around())
    second = project(fold(accepted(), started("a"), succeeded("a")), PLAN, around(previous=first, now_ms=T0 + 500_000))
    third = project(
        fold(accepted(), end(EntryKind.RUN_SUCCEEDED, output=1)), PLAN, around(previous=second, now_ms=T0 + 900_000)
    )
    since = [{c["type"]: c["lastTransitionTime"] for c in status["conditions"]} for status in (first, second, third)]
    assert since[0] == since[1]
    assert since[2]["Finished"] == timestamp(T0 + 900_000)
    assert since[2]["Accepted"] == timestamp(T0 + 100_000)


def test_rows_show_open_steps_first_then_failed_ones() -> None:
    state = fold(
        accepted(),
        started("a"),
        succeeded("a"),
        started("b"),
        failed("b"),
        started("c"),
        failed("c", final=False),
        started("d"),
        step(EntryKind.STEP_SKIPPED, "e", 0, reason="When"),
    )
    rows = project(state, plan_of("a", "b", "c", "d", "e"), around())["steps"]
    assert [(row["path"], row["phase"]) for row in rows] == [
        ("c", "Waiting"),
        ("d", "Running"),
        ("b", "Failed"),
        ("a", "Succeeded"),
        ("e", "Skipped"),
    ]
    assert rows[2]["message"] == "Unavailable: the server did not answer"
    assert rows[2]["startedAt"] == timestamp(T0 + 4000)
    assert rows[2]["finishedAt"] == timestamp(T0 + 5000)
    assert "spanID" not in rows[4]


def test_of_ten_thousand_items_those_that_run_and_have_failed_are_shown_first() -> None:
    drafts = [draft for n in range(9_000) for draft in (started(f"a[{n}]"), succeeded(f"a[{n}]"))]
    drafts += [draft for n in range(9_000, 9_010) for draft in (started(f"a[{n}]"), failed(f"a[{n}]"))]
    drafts += [started(f"a[{n}]") for n in range(9_010, 9_018)]
    status = project(fold(accepted(), started("a"), *drafts), PLAN, around())
    rows = [(row["path"], row["phase"]) for row in status["steps"]]
    assert len(rows) == STEP_ROWS
    assert rows[:9] == [("a", "Running"), *((f"a[{n}]", "Running") for n in range(9_010, 9_018))]
    assert rows[9:19] == [(f"a[{n}]", "Failed") for n in range(9_000, 9_010)]
    assert rows[-1] == ("a[8999]", "Succeeded")
    assert len(canonical_json(status)) <= STATUS_BYTES


def test_a_step_that_left_items_out_says_so_in_its_row() -> None:
    partial = step(EntryKind.STEP_SUCCEEDED, "a", output=[1, None], partial="BudgetExceeded: steps 1 reached")
    row = project(fold(accepted(), started("a"), partial), PLAN, around())["steps"][0]
    assert (row["phase"], row["message"]) == ("Succeeded", "BudgetExceeded: steps 1 reached")


def test_only_the_newest_of_many_finished_steps_are_shown_beside_the_open_one() -> None:
    drafts = [draft for number in range(200) for draft in (started(f"s{number}"), succeeded(f"s{number}"))]
    rows = project(fold(accepted(), started("first"), *drafts), PLAN, around())["steps"]
    assert len(rows) == STEP_ROWS
    assert [rows[0]["path"], rows[1]["path"], rows[-1]["path"]] == ["first", "s151", "s199"]


@pytest.mark.parametrize(
    ("drafts", "progress"),
    [
        ([], "0/3"),
        ([started("a")], "0/3"),
        ([started("a"), succeeded("a"), started("b"), started("b/x"), succeeded("b/x")], "1/3"),
        (
            [started("a"), succeeded("a"), step(EntryKind.STEP_SKIPPED, "b", reason="When"), started("c"), failed("c")],
            "3/3",
        ),
    ],
)
def test_progress_counts_the_steps_of_the_workflows_own_list(drafts: list[Draft], progress: str) -> None:
    assert project(fold(accepted(), *drafts), PLAN, around())["progress"] == progress


@pytest.mark.requirement("F24")
def test_a_small_output_stands_inline_and_a_large_one_by_reference() -> None:
    small, large = {"answer": "yes"}, {"answer": "x" * 5000}
    inline = project(fold(accepted(), end(EntryKind.RUN_SUCCEEDED, output=small)), PLAN, around())
    referred = project(fold(accepted(), end(EntryKind.RUN_SUCCEEDED, output=large)), PLAN, around())
    assert inline["output"] == small and "outputRef" not in inline
    assert referred["outputRef"] == {"digest": digest(large), "bytes": len(canonical_json(large))}
    assert "output" not in referred


def test_usage_denials_and_store_are_those_of_the_journal() -> None:
    call = {"index": "0.0.0", "kind": "Chat", "target": "m"}
    state = fold(
        accepted(),
        started("a"),
        step(EntryKind.CALL_INTENT, "a", **call, digest="sha256:0", effect="Read"),
        step(
            EntryKind.CALL_OUTCOME,
            "a",
            index="0.0.0",
            status="Succeeded",
            result={},
            usage={"inputTokens": 7, "outputTokens": 5},
        ),
        step(EntryKind.CALL_DENIED, "a", **call | {"index": "0.1.0"}, reason="Forbidden", stage=5, message="no"),
    )
    status = project(state, PLAN, around(now_ms=T0 + 31_000))
    assert status["usage"] == {
        "modelCalls": 1,
        "toolCalls": 0,
        "inputTokens": 7,
        "outputTokens": 5,
        "durationSeconds": 30,
    }
    assert status["denials"] == 1
    assert status["store"] == {"id": "s1", "sequence": 5}
    assert status["traceID"] == UID.replace("-", "")
    assert status["steps"][0]["tokens"] == 12


@pytest.mark.parametrize("ended", [False, True], ids=["it goes on", "it fails"])
def test_a_step_names_the_policy_and_the_rule_that_denied_its_last_call(ended: bool) -> None:
    policy, rule = "ClusterPolicy/" + "p" * 253, "r" * 63
    call = {"index": "0.0.0", "kind": "Chat", "target": "m", "stage": 6, "message": f"{policy}, rule {rule}: no"}
    error = {"class": "Denied", "reason": "PolicyDenied", "message": call["message"]}
    state = fold(
        accepted(),
        started("a"),
        step(EntryKind.CALL_DENIED, "a", **call, reason="Forbidden"),
        step(EntryKind.CALL_DENIED, "a", **call, reason="PolicyDenied", policy=policy, rule=rule),
        *([failed("a", error=error)] if ended else []),
    )
    status = project(state, PLAN, around())
    WorkflowRunStatus.model_validate(status)
    assert status["steps"][0]["denial"] == {"reason": "PolicyDenied", "policy": policy, "rule": rule}


@pytest.mark.requirement("F24")
@given(
    paths=st.lists(st.text("abcdefghij", min_size=1, max_size=700), max_size=80, unique=True),
    message=st.text(max_size=300).map(lambda text: text * 20),
    output=st.text(max_size=10).map(lambda text: text * 600),
)
def test_every_status_is_valid_and_stays_under_sixteen_kibibytes(paths: list[str], message: str, output: str) -> None:
    error = {"class": "ToolError", "reason": "ToolError", "message": message}
    denial = {"index": "0", "kind": "Chat", "target": "m", "reason": message, "policy": message, "rule": message}
    drafts = [
        draft
        for path in paths
        for draft in (started(path), step(EntryKind.CALL_DENIED, path, **denial), failed(path, error=error))
    ]
    ends = (
        end(EntryKind.RUN_FAILED, reason="StepFailed", message=message),
        end(EntryKind.RUN_SUCCEEDED, output=output),
    )
    for last in ends:
        status = project(fold(accepted(), *drafts, last), PLAN, around())
        WorkflowRunStatus.model_validate(status)
        assert len(canonical_json(status)) <= STATUS_BYTES
