"""The fold: what each entry changes, and what changes nothing."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.flow.world import START_MS, UID, Driver, Journal, World, accepted, plan_of, step, tool

from fairlead.flow.calls import Call, CallId, CallIndex, CallKind
from fairlead.flow.journal import SEMANTICS, Draft, EntryKind, Path
from fairlead.flow.next import Next, what_next
from fairlead.flow.paths import place_of
from fairlead.flow.recover import recover
from fairlead.flow.state import CallState, RunState, new_state, repeats_of

A = Path("a")


def started(*more: Draft) -> tuple[Journal, RunState]:
    """Return a run whose step `a` runs, and after it these entries."""
    journal = accepted(plan_of([{"name": "a", "transform": {"value": 1}}]), {"n": 1})
    for draft in (Draft(EntryKind.STEP_STARTED, A, 1), *more):
        journal.append(draft)
    return journal, journal.fold()


def intent(index: str = "0.0.0", kind: str = "Tool", *, effect: str = "Irreversible", **data: Any) -> Draft:
    fields = {"index": index, "kind": kind, "target": "t", "function": "f", "digest": "d", "effect": effect, **data}
    return Draft(EntryKind.CALL_INTENT, A, 1, fields)


def outcome(index: str = "0.0.0", *, attempt: int = 1, **data: Any) -> Draft:
    fields = {"index": index, "status": "Succeeded", "durationMs": 5, **data}
    return Draft(EntryKind.CALL_OUTCOME, A, attempt, fields)


def denied(index: str = "0.0.0", reason: str = "Forbidden") -> Draft:
    fields = {"index": index, "kind": "Tool", "target": "t", "function": "f", "reason": reason, "stage": 5}
    return Draft(EntryKind.CALL_DENIED, A, 1, fields | {"message": "no"})


def only_call(state: RunState) -> CallState:
    (call,) = step(state, "a").calls.values()
    return call


def test_nothing_is_known_of_a_new_run() -> None:
    state = new_state()
    assert (state.seq, state.accepted, state.terminal, state.steps) == (0, None, None, {})
    assert what_next(plan_of([{"name": "a", "transform": {"value": 1}}]), state, START_MS, World()) == Next()


def test_acceptance_is_frozen() -> None:
    _, state = started()
    assert state.accepted is not None
    assert (state.accepted.input, state.accepted.semantics, state.accepted.requested_by) == ({"n": 1}, SEMANTICS, None)
    assert (state.run_uid, state.seq, state.started_at) == (UID, 2, START_MS)


@pytest.mark.requirement("G6")
def test_a_run_of_other_semantics_waits_for_an_engine_that_knows_them() -> None:
    plan = plan_of([{"name": "a", "transform": {"value": 1}}])
    journal = accepted(plan)
    data = {**journal.entries[0].data, "semantics": SEMANTICS + 1}
    other = Journal()
    other.append(Draft(EntryKind.RUN_ACCEPTED, data=data))
    assert what_next(plan, other.fold(), START_MS, World()) == Next()
    assert what_next(plan, journal.fold(), START_MS, World()).records


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("a", ("", "a", 0)),
        ("a#2", ("", "a", 2)),
        ("a#2/b", ("a#2/", "b", 0)),
        ("a!/b/c#12", ("a!/b/", "c", 12)),
        ("a[3]", ("a[", "3]", 0)),
        ("a#2/b[0]/c", ("a#2/b[0]/", "c", 0)),
    ],
)
def test_a_path_says_where_it_stands(path: str, place: tuple[str, str, int]) -> None:
    assert place_of(Path(path)) == place


def test_calls_count_from_their_intent_and_tokens_from_their_outcome() -> None:
    journal, state = started(intent("0.0.0", "Chat", effect="Read"), intent("0.1.0"), intent("0.1.0"))
    assert (state.usage.model_calls, state.usage.tool_calls) == (1, 1)
    assert list(state.open_calls) == [(A, "0.0.0"), (A, "0.1.0")]
    journal.append(outcome("0.0.0", result={"content": "x"}, usage={"inputTokens": 3, "outputTokens": 4}))
    state = journal.fold()
    assert (state.usage.input_tokens, state.usage.output_tokens, step(state, "a").tokens) == (3, 4, 7)
    assert list(state.open_calls) == [(A, "0.1.0")]


@pytest.mark.parametrize(
    "late",
    [
        outcome(result="second", usage={"inputTokens": 9, "outputTokens": 9}),
        outcome("5.0.0", result="unknown call"),
        outcome(attempt=2, result="other attempt"),
    ],
    ids=["second", "unknown", "attempt"],
)
def test_only_the_first_outcome_of_a_call_counts(late: Draft) -> None:
    _, state = started(intent(), outcome(result="first"), late)
    assert only_call(state).result == "first"
    assert state.usage.input_tokens == 0


@pytest.mark.requirement("G4")
def test_nothing_changes_a_run_that_is_over() -> None:
    end = Draft(EntryKind.RUN_FAILED, data={"reason": "Timeout", "message": "late"})
    journal, state = started(intent(), end)
    before = (state.terminal, state.usage, state.finished_at, dict(state.steps))
    journal.append(outcome(result="late"))
    journal.append(Draft(EntryKind.RUN_SUCCEEDED, data={"output": 1}))
    state = journal.fold()
    assert (state.terminal, state.usage, state.finished_at, dict(state.steps)) == before
    assert state.seq == 6


def test_what_was_open_at_the_end_is_cancelled() -> None:
    _, state = started(Draft(EntryKind.RUN_CANCELLED, data={"message": "by bob"}))
    failed = step(state, "a")
    assert failed.error is not None
    assert (failed.phase, failed.error.error_class, failed.finished_at) == ("Failed", "Cancelled", START_MS)
    assert state.terminal is not None
    assert (state.terminal.reason, state.terminal.message) == ("Cancelled", "by bob")


def test_a_denial_counts_and_settles_the_call() -> None:
    _, state = started(denied())
    call = only_call(state)
    assert call.denied is not None
    assert (state.denials, call.settled, call.denied.reason, call.stage) == (1, True, "Forbidden", "5")
    assert state.usage.tool_calls == 0


def test_a_denial_after_a_restart_settles_the_open_intent() -> None:
    _, state = started(intent(effect="Read"), denied())
    assert state.open_calls == {}
    assert only_call(state).error is not None


def test_a_rejected_run_is_over() -> None:
    journal = Journal()
    journal.append(Draft(EntryKind.RUN_REJECTED, data={"reason": "InvalidInput", "message": "/n"}))
    terminal = journal.fold().terminal
    assert terminal is not None
    assert (terminal.reason, terminal.message) == ("InvalidInput", "/n")


# Repeats.


def a_call(index: CallIndex, q: int = 1, *, attempt: int = 1, kind: CallKind = CallKind.TOOL) -> Call:
    return Call(CallId(A, attempt, index), kind, "t", "f", {"arguments": {"q": q}})


def test_repeats_are_the_same_function_with_the_same_arguments_in_this_attempt() -> None:
    digests = {n: a_call(CallIndex(n), q).digest for n, q in enumerate([1, 1, 2, 1])}
    _, state = started(*(intent(f"{n}.0.0", digest=digest) for n, digest in digests.items()))
    assert repeats_of(state, a_call(CallIndex(9))) == 3
    assert repeats_of(state, a_call(CallIndex(0))) == 2
    assert repeats_of(state, a_call(CallIndex(9), q=3)) == 0
    assert repeats_of(state, a_call(CallIndex(9), attempt=2)) == 0
    assert repeats_of(state, a_call(CallIndex(9), kind=CallKind.CHAT)) == 0


# Recovery.


@pytest.mark.parametrize(
    ("drafts", "unknown"),
    [
        ([intent()], ["0.0.0"]),
        ([intent(effect="Reversible")], ["0.0.0"]),
        ([intent(effect="Read")], []),
        ([intent(key="k")], []),
        ([intent(), outcome(result=1)], []),
        ([denied()], []),
        ([intent("0.1.0"), intent("0.2.0", effect="Read"), intent("0.3.0")], ["0.1.0", "0.3.0"]),
    ],
)
@pytest.mark.requirement("G2", "G3")
def test_only_what_may_have_taken_effect_is_unknown_after_a_restart(drafts: list[Draft], unknown: list[str]) -> None:
    journal, state = started(*drafts)
    found = recover(state)
    assert [draft.data["index"] for draft in found] == unknown
    for draft in found:
        journal.append(draft)
    assert recover(journal.fold()) == ()
    reasons = [call.error.reason for call in step(journal.fold(), "a").calls.values() if call.error]
    assert reasons.count("OutcomeUnknown") == len(unknown)


@pytest.mark.requirement("G3")
def test_an_effect_of_unknown_outcome_is_never_made_again() -> None:
    plan = plan_of([{"name": "a", "tool": {"tool": "t", "function": "f", "arguments": {}}, "retry": {"limit": 9}}])
    world = World(tools={"t": tool({"name": "f"})})
    journal = accepted(plan)
    for draft in what_next(plan, journal.fold(), START_MS, world).records:
        journal.append(draft)
    (call,) = what_next(plan, journal.fold(), START_MS, world).calls
    journal.append(intent(digest=call.digest))
    driver = Driver(plan, world, journal)
    driver.run()
    assert world.performed == []
    assert driver.state.terminal is not None
    assert driver.state.terminal.reason == "OutcomeUnknown"
