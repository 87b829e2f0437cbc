"""The audit: complete, chained, anchored - and what is seen when somebody touches it."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.unit.engine.childworld import ChildWorld, hang_once, held
from tests.unit.engine.fakes import tool_step
from tests.unit.engine.runworld import World, run_object, uid_of

from fairlead.engine.audit import AuditHead, readable, verify_anchors, verify_run
from fairlead.engine.audit.records import record_hash
from fairlead.engine.engine import AUDIT_MS, WorkflowEngine
from fairlead.engine.store import Store
from fairlead.errors import StoreError
from fairlead.flow.calls import Call, Outcome
from fairlead.flow.journal import Draft, EntryKind, RunUid
from fairlead.flow.journal import Path as RunPath
from fairlead.policy.permission import function_permission

Chain = list[dict[str, Any]]

STEPS = (tool_step("a"), tool_step("b", "send"), tool_step("c", "put"))
ASKS = {"name": "a", "tool": {"tool": "desk", "function": "read", "arguments": {"q": "$( input.secret )"}}}
RAW = run_object(input={"secret": "tok-0123456789"}, requestedBy="carol")


@pytest.fixture
def desk(tmp_path: Path) -> ChildWorld:
    world = ChildWorld(tmp_path / "journal.db")
    world.declare(*STEPS)
    return world


async def audit(engine: WorkflowEngine, raw: dict[str, Any] = RAW) -> Chain:
    return [json.loads(record) for record in await engine.store.audit_of(uid_of(raw))]


async def anchors(engine: WorkflowEngine) -> Chain:
    return [json.loads(anchor) for anchor in await engine.store.anchors()]


def said(world: World) -> AuditHead:
    status = world.sink.of("run-0")[-1]["audit"]
    return AuditHead(status["records"], status["head"])


async def ran(world: ChildWorld) -> tuple[Chain, Chain]:
    """Run to the end and return the chain of the run and the anchors."""
    async with world.serving() as engine:
        await asyncio.wait_for(engine.submit(RAW), 20)
        await world.until(lambda: world.conditions().get("Audited") == ("True", "Recorded"))
        return await audit(engine), await anchors(engine)


async def test_every_call_has_an_intent_and_an_outcome_and_says_who_what_where_and_why(desk: ChildWorld) -> None:
    chain, anchored = await ran(desk)
    assert [(r["type"], r["event"]) for r in chain] == [
        ("ADMIN", "RunAccepted"),
        *[("INTENT", "CallIntent"), ("OUTCOME", "CallOutcome")] * 3,
        ("ADMIN", "RunSucceeded"),
    ]
    sent = chain[3]
    assert sent["who"] == {"account": "clerk", "requestedBy": "carol"}
    assert sent["where"] == {"path": "b", "attempt": 1, "index": "0.0.0"}
    assert {key: sent["what"][key] for key in ("kind", "target", "function", "effect", "keyed")} == {
        "kind": "Tool",
        "target": "desk",
        "function": "send",
        "effect": "Irreversible",
        "keyed": False,
    }
    assert sent["why"] == {"decision": "Allow"}
    assert chain[4]["result"]["status"] == "Succeeded" and chain[4]["result"]["bytes"] > 0
    assert sent["trace"] == uid_of(RAW).replace("-", "") and len(sent["span"]) == 16
    assert said(desk) == AuditHead(len(chain), record_hash(chain[-1]))
    assert verify_run(uid_of(RAW), chain, said(desk)) == []
    assert verify_anchors(anchored, {uid_of(RAW): chain}) == [] and len(anchored) == 1


async def test_no_content_is_in_the_audit_and_the_same_content_cannot_be_guessed_in_another_store(
    desk: ChildWorld, tmp_path: Path
) -> None:
    desk.declare(ASKS)
    chain, _ = await ran(desk)
    assert "tok-" not in json.dumps(chain)
    other = ChildWorld(tmp_path / "other.db")
    other.declare(ASKS)
    theirs, _ = await ran(other)
    assert chain[1]["what"]["request"] != theirs[1]["what"]["request"]


async def test_what_is_denied_says_by_which_stage_and_why(desk: ChildWorld) -> None:
    desk.declare(tool_step("a", when="true"))
    async with desk.serving() as engine:
        await desk.until(lambda: engine.authorizations.of("w") is not None)
        desk.grants.denied = set(function_permission("desk", "read"))
        await asyncio.wait_for(engine.submit(RAW), 20)
        chain = await audit(engine)
    (denied,) = [record for record in chain if record["type"] == "DENY"]
    assert (denied["why"]["decision"], denied["why"]["reason"], denied["why"]["stage"]) == ("Deny", "Forbidden", 5)
    assert chain[-1]["admin"]["reason"] == "Denied"


def without(chain: Chain, number: int) -> Chain:
    return chain[: number - 1] + chain[number:]


def resigned(chain: Chain) -> Chain:
    """Return the chain as somebody makes it who has the whole store: every hash right again."""
    previous, made = "", []
    for number, record in enumerate(chain, 1):
        made.append(record | {"n": number, "previous": previous})
        previous = record_hash(made[-1])
    return made


def edited(chain: Chain, number: int) -> Chain:
    changed = [*chain]
    changed[number - 1] = changed[number - 1] | {"who": {"account": "somebody else"}}
    return changed


def swapped(chain: Chain) -> Chain:
    return [chain[0], chain[2], chain[1], *chain[3:]]


TAMPERED: dict[str, tuple[Callable[[Chain], Chain], str]] = {
    "the end cut off": (lambda chain: chain[:-3], "the run's status knows of 8 records, there are 5"),
    "one edited": (lambda chain: edited(chain, 4), "record 5: record 4 was changed"),
    "the last edited": (lambda chain: edited(chain, 8), "the first 8 records are not those that the run's status"),
    "one removed": (lambda chain: without(chain, 4), "record 4: record 5 stands in its place"),
    "two swapped": (swapped, "record 2: record 3 stands in its place"),
    "one inserted": (lambda chain: [*chain[:3], chain[2], *chain[3:]], "record 4: record 3 stands in its place"),
    "all signed again": (lambda chain: resigned(edited(chain, 4)), "not those that the run's status knows of"),
    "removed and signed again": (lambda chain: resigned(without(chain, 3)), "knows of 8 records, there are 7"),
    "all gone": (lambda chain: [], "knows of 8 records, there are 0"),
    "of another run": (lambda chain: [r | {"run": "other"} for r in chain], "it is of another run"),
}


@pytest.mark.requirement("A49")
@pytest.mark.parametrize(("tamper", "words"), TAMPERED.values(), ids=TAMPERED.keys())
async def test_whatever_is_done_to_a_chain_is_seen(
    desk: ChildWorld, tamper: Callable[[Chain], Chain], words: str
) -> None:
    chain, _ = await ran(desk)
    found = verify_run(uid_of(RAW), tamper(chain), said(desk))
    assert any(words in str(problem) for problem in found), found


@pytest.mark.requirement("A49")
async def test_a_chain_that_was_made_anew_does_not_fit_the_anchors(desk: ChildWorld) -> None:
    chain, anchored = await ran(desk)
    (problem,) = verify_anchors(anchored, {uid_of(RAW): resigned(edited(chain, 4))})
    assert "had 8 records when it was made, and these are others" in problem.message
    (problem,) = verify_anchors(resigned([anchored[0], anchored[0]])[1:], {})
    assert "stands in its place" in problem.message


@pytest.mark.requirement("A49")
async def test_an_intent_without_an_outcome_in_a_run_that_has_ended_is_seen(desk: ChildWorld) -> None:
    chain, _ = await ran(desk)
    lost = resigned(without(chain, 5))
    found = verify_run(uid_of(RAW), lost, AuditHead(len(lost), record_hash(lost[-1])))
    assert [str(problem) for problem in found] == ["record 4: the run has ended, and this call has no outcome"]


@pytest.mark.requirement("A50", "F41")
async def test_without_room_for_the_record_nothing_is_called_and_the_run_goes_on_when_there_is_room(
    desk: ChildWorld,
) -> None:
    begun, go_on, answer = held()
    desk.servers.answer = answer
    with pytest.raises(StoreError):
        async with desk.serving() as engine:
            engine.submit(RAW)
            await begun.wait()
            connection = engine.store._database._connected  # the disk is full from here on
            await engine.store._commits.in_thread(lambda: connection.exec_driver_sql("PRAGMA max_page_count=1"))
            await engine.store._commits.in_thread(connection.rollback)
            for number in range(2000):
                engine.store.late(uid_of(RAW), Draft(EntryKind.CALL_OUTCOME, RunPath("x"), 1, {"index": str(number)}))
            go_on.set()
            await engine.store.failed.wait()
            assert desk.servers.functions() == ["a:read"]
    desk.servers.answer = lambda call: asyncio.sleep(0, Outcome(result={}))
    async with desk.serving(RAW) as engine:
        await desk.until(lambda: desk.succeeded() == ("True", "Completed"))
        chain = await audit(engine)
    effects = Counter(name for name in desk.servers.functions() if not name.endswith("read"))
    intents = Counter(f"{r['where']['path']}:{r['what']['function']}" for r in chain if r["type"] == "INTENT")
    assert effects == {"b:send": 1, "c:put": 1}
    assert intents == {"a:read": 1, "b:send": 1, "c:put": 1}
    assert verify_run(uid_of(RAW), chain, said(desk)) == []


async def test_a_crash_leaves_neither_a_gap_nor_a_call_without_an_outcome(desk: ChildWorld) -> None:
    begun, hang = hang_once()

    async def answer(call: Call) -> Outcome:
        return await hang() if call.function == "send" else Outcome(result={})

    desk.servers.answer = answer
    await desk.crash(begun, RAW)
    async with desk.serving(RAW) as engine:
        await desk.until(lambda: desk.succeeded() == ("False", "OutcomeUnknown"))
        chain = await audit(engine)
    assert verify_run(uid_of(RAW), chain, said(desk)) == []
    assert chain[4]["result"]["reason"] == "OutcomeUnknown"
    assert chain[4]["who"] == chain[3]["who"] == {"account": "clerk", "requestedBy": "carol"}


async def test_an_answer_that_comes_too_late_is_recorded_and_changes_nothing(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "journal.db", clock=lambda: 5)
    uid = RunUid("u")
    store.begin(uid, namespace="n", name="r", workflow="w")
    store.append(uid, [Draft(EntryKind.RUN_ACCEPTED, data={"account": "clerk"})])
    store.append(uid, [Draft(EntryKind.RUN_FAILED, data={"reason": "Timeout", "message": ""})])
    store.late(uid, Draft(EntryKind.CALL_OUTCOME, RunPath("a"), 1, {"index": "0.0.0", "status": "Succeeded"}))
    store.late(RunUid("nobody"), Draft(EntryKind.CALL_OUTCOME, data={"status": "Succeeded"}))
    chain = [json.loads(record) for record in await store.audit_of(uid)]
    assert [record["type"] for record in chain] == ["ADMIN", "ADMIN", "LATE"]
    assert len(await store.load(uid)) == 2
    assert verify_run(uid, chain, store.audit_head(uid)) == []
    await store.close()


async def test_chains_that_grow_are_anchored_from_time_to_time_and_old_ones_go_after_their_journal(
    desk: ChildWorld,
) -> None:
    desk.declare(tool_step("a"), {"name": "nap", "wait": {"seconds": 3600}})
    async with desk.serving() as engine:
        ended = engine.submit(RAW)
        await desk.until(lambda: desk.succeeded() == ("Unknown", "Sleeping"))
        engine.store.anchor()
        engine.store.anchor()
        assert [anchor["records"] for anchor in await anchors(engine)] == [3]
        desk.clock.now += 3_601_000
        engine.runs.wake()
        await asyncio.wait_for(ended, 20)
        assert verify_anchors(await anchors(engine), {uid_of(RAW): await audit(engine)}) == []
        desk.clock.now += AUDIT_MS + 1
        engine.store.prune_audit(desk.clock.now - AUDIT_MS)
        assert len(await audit(engine)) == 4
        engine.store.forget(uid_of(RAW))
        engine.store.prune_audit(desk.clock.now - AUDIT_MS)
        assert await audit(engine) == [] and len(await anchors(engine)) == 2


async def test_the_chain_of_anchors_goes_on_after_a_restart(desk: ChildWorld) -> None:
    await ran(desk)
    async with desk.serving(RAW) as engine:
        await asyncio.wait_for(engine.submit(run_object(1)), 20)
        found = await anchors(engine)
        chains = {raw_uid: await audit(engine, raw) for raw in (RAW, run_object(1)) if (raw_uid := uid_of(raw))}
    assert [anchor["n"] for anchor in found] == [1, 2]
    assert verify_anchors(found, chains) == []


@pytest.mark.sqlite
async def test_a_store_that_was_touched_on_disk_is_found_out(desk: ChildWorld) -> None:
    await ran(desk)
    with sqlite3.connect(desk.path) as connection:
        ((record,),) = connection.execute("SELECT record FROM audit WHERE n = 4").fetchall()
        connection.execute("UPDATE audit SET record = ? WHERE n = 4", (record.replace(b"clerk", b"crook"),))
    connection.close()
    async with desk.serving(RAW) as engine:
        found = verify_run(uid_of(RAW), await audit(engine), said(desk))
    assert [str(problem) for problem in found] == [
        "record 5: record 4 was changed, or this one is not what followed it"
    ]


@pytest.mark.sqlite
@pytest.mark.requirement("A49")
@pytest.mark.parametrize("made", [b"garbage", b"[]", b'{"n": "x"}', b""])
async def test_an_end_of_which_somebody_made_something_else_is_told_and_stops_nothing(
    desk: ChildWorld, made: bytes
) -> None:
    await ran(desk)
    with sqlite3.connect(desk.path) as connection:
        connection.execute("UPDATE anchors SET anchor = ?", (made,))
        connection.execute("UPDATE audit SET record = ? WHERE n = (SELECT max(n) FROM audit)", (made,))
    connection.close()
    async with desk.serving(RAW) as engine:
        await asyncio.wait_for(engine.submit(run_object(1)), 20)
        found = [readable(anchor) for anchor in await engine.store.anchors()]
        records = [readable(record) for record in await engine.store.audit_of(uid_of(RAW))]
    (problem,) = verify_anchors(found, {})
    assert problem.number == 1 and "it is none of ours" in str(problem)
    assert found[1]["n"] == 2, "the next one follows it"
    assert verify_run(uid_of(RAW), records, said(desk)) != []


async def test_a_run_whose_end_was_not_shown_is_shown_with_its_audit_after_a_restart(desk: ChildWorld) -> None:
    chain, _ = await ran(desk)
    desk.sink.written.clear()
    async with desk.serving(RAW):
        await desk.until(lambda: desk.succeeded() == ("True", "Completed"))
    assert desk.conditions()["Audited"] == ("True", "Recorded")
    assert said(desk) == AuditHead(len(chain), record_hash(chain[-1]))
