"""What is refused to steps' pods is in the audit of their run, and nobody makes the store grow by asking."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest
from tests.unit.engine.gatewayworld import ACCOUNT, ADDRESS, HELLO, GatewayWorld, under_way
from tests.unit.engine.gateworld import UID, UNAVAILABLE

from fairlead.cli.audit import cloud_event
from fairlead.engine.audit import readable, verify_anchors, verify_run
from fairlead.engine.pods.calling import RunNotActive, StaleAttempt
from fairlead.engine.pods.refusals import LOG_SECONDS, Refusals
from fairlead.engine.store import Store
from fairlead.engine.store.rows import PodRow
from fairlead.errors import StoreError
from fairlead.flow.journal import Draft, EntryKind, RunUid
from fairlead.flow.journal import Path as RunPath
from fairlead.policy.decision import Authorization
from fairlead.telemetry.metrics import EngineMetrics

OURS = f"Bearer {ACCOUNT} pod-1"
STALE = StaleAttempt("the attempt is over")
POD = PodRow("pod-1", RunUid("u"), RunPath("a"), 2)


class Seen:
    """Takes what is recorded, like the store."""

    def __init__(self) -> None:
        self.drafts: list[tuple[str, Draft]] = []

    def __call__(self, run_uid: RunUid, draft: Draft) -> None:
        self.drafts.append((run_uid, draft))

    @property
    def said(self) -> list[dict[str, Any]]:
        return [dict(draft.data) for _, draft in self.drafts]


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
async def world(seen: Seen) -> AsyncIterator[GatewayWorld]:
    async with under_way() as world:
        world.gateway.refusals.attach(seen)
        yield world


@pytest.mark.requirement("A09")
@pytest.mark.parametrize(
    ("token", "address", "why"),
    [
        pytest.param(OURS, "10.0.0.8", "the pod is elsewhere, or ends", id="from elsewhere"),
        pytest.param("Bearer system:serviceaccount:team-b:x pod-1", ADDRESS, "the pod has another account", id="other"),
    ],
)
async def test_a_pod_that_may_not_speak_is_in_the_audit_of_its_run(
    world: GatewayWorld, seen: Seen, token: str, address: str, why: str
) -> None:
    assert (await world.send("/v1/chat/completions", HELLO, token=token, address=address)).status_code == 403
    ((run_uid, draft),) = seen.drafts
    assert (run_uid, draft.kind, draft.path, draft.attempt) == (UID, EntryKind.CALL_DENIED, "answer", 1)
    assert draft.data == {
        "reason": "StaleAttempt",
        "stage": 1,
        "message": why,
        "times": 1,
        "pod": "pod-1",
        "user": token.split()[1],
        "address": address,
    }


@pytest.mark.requirement("A09")
async def test_a_pod_whose_attempt_is_over_is_still_known(world: GatewayWorld, seen: Seen) -> None:
    await world.end()
    for _ in range(2):
        assert (await world.send("/v1/models", method="GET")).status_code == 403
    (said,) = seen.said
    assert said["message"] == "no step's container that is under way has this pod"


async def test_a_request_that_waits_when_its_run_ends_is_refused(world: GatewayWorld, seen: Seen) -> None:
    def ends() -> Authorization:
        world.log.append(Draft(EntryKind.RUN_FAILED, data={"reason": "Timeout", "message": ""}))
        return UNAVAILABLE

    world.authorization = ends
    assert (await world.send("/v1/chat/completions", HELLO)).status_code == 403
    assert [(said["reason"], said["message"]) for said in seen.said] == [("RunNotActive", "the run has ended")]


async def test_a_call_that_is_cut_off_is_on_record_and_no_refusal(world: GatewayWorld, seen: Seen) -> None:
    answered = world.hold()
    sent = asyncio.create_task(world.send("/v1/chat/completions", HELLO))
    await world.was_asked()
    world.log.append(Draft(EntryKind.STEP_STARTED, world.container.id.path, 2))
    answered.set()
    assert (await sent).status_code == 403
    assert seen.drafts == [] and world.log.too_late != []
    assert (await world.send("/v1/chat/completions", HELLO)).status_code == 403
    assert [said["message"] for said in seen.said] == ["the attempt is over"]


async def test_a_call_that_was_begun_when_its_run_ended_is_no_refusal(world: GatewayWorld, seen: Seen) -> None:
    answered = world.hold()
    sent = asyncio.create_task(world.send("/v1/chat/completions", HELLO))
    await world.was_asked()
    world.log.append(Draft(EntryKind.RUN_FAILED, data={"reason": "Timeout", "message": ""}))
    answered.set()
    assert (await sent).status_code == 403
    assert seen.drafts == [] and world.log.too_late != []


async def test_nobody_leaves_a_record_by_proving_nothing(world: GatewayWorld, seen: Seen) -> None:
    for token in ("", "Bearer nothing", f"Bearer {ACCOUNT}", f"Bearer {ACCOUNT} pod-of-nobody"):
        assert (await world.send("/v1/models", method="GET", token=token)).status_code in (401, 403)
    assert seen.drafts == []


def test_of_a_pod_and_a_cause_there_is_a_record_of_the_first_the_tenth_and_the_hundredth(seen: Seen) -> None:
    metrics = EngineMetrics()
    refusals = Refusals(metrics.step_requests_refused)
    refusals.attach(seen)
    refusals.remember(POD)
    for _ in range(250):
        refusals.refused("pod-1", STALE, user="x", address="10.0.0.8")
    refusals.refused("pod-1", RunNotActive("the run has ended"), user="x", address="10.0.0.8")
    assert [(said["reason"], said["times"]) for said in seen.said] == [
        ("StaleAttempt", 1),
        ("StaleAttempt", 10),
        ("StaleAttempt", 100),
        ("RunNotActive", 1),
    ]
    refusals.remember(POD)
    refusals.refused("pod-1", STALE, user="x", address="10.0.0.8")
    assert len(seen.drafts) == 4, "who is taken over again does not begin anew"
    counted = generate_latest(metrics.registry).decode()
    assert 'fairlead_step_requests_refused_total{reason="StaleAttempt"} 251.0' in counted


def test_only_the_newest_pods_are_remembered_whoever_started_them(seen: Seen) -> None:
    refusals = Refusals(remembered=3)
    refusals.remember(POD)
    refusals.attach(seen, [PodRow(f"old-{n}", RunUid("u"), RunPath("a"), 1) for n in range(5)])
    for uid in ("pod-1", "old-0", "old-1", "old-2", "old-4"):
        refusals.refused(uid, STALE, user="x", address="")
    assert [said["pod"] for said in seen.said] == ["pod-1", "old-0", "old-1"]


def test_a_flood_is_one_line_of_log_a_minute_and_kind(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    refusals = Refusals(clock=lambda: now[0])
    with caplog.at_level(logging.INFO):
        for _ in range(500):
            refusals.unauthenticated("no token")
        refusals.refused("pod-1", STALE, user="x", address="")
        now[0] += LOG_SECONDS
        refusals.unauthenticated("no token")
    said = [(record.reason, record.times) for record in caplog.records]  # type: ignore[attr-defined]
    assert said == [("Unauthenticated", 1), ("StaleAttempt", 1), ("Unauthenticated", 500)]


def test_where_nothing_can_be_recorded_any_more_it_is_refused_all_the_same() -> None:
    def broken(run_uid: RunUid, draft: Draft) -> None:
        raise StoreError("the disk is full")

    refusals = Refusals()
    refusals.attach(broken)
    refusals.remember(POD)
    refusals.refused("pod-1", STALE, user="x", address="")


def _begin(store: Store, uid: RunUid) -> None:
    store.begin(uid, namespace="n", name=str(uid), workflow="w")
    store.append(uid, [Draft(EntryKind.RUN_ACCEPTED, data={"account": "clerk", "requestedBy": "carol"})])
    started = {"index": "0.0.0", "name": f"p-{uid}", "uid": f"pod-{uid}"}
    store.append(uid, [Draft(EntryKind.POD_STARTED, RunPath("a"), 1, started)])


def _refuse(store: Store, uid: RunUid) -> None:
    data = {"reason": "StaleAttempt", "stage": 1, "message": "m", "times": 1, "pod": "p", "user": "u", "address": "a"}
    store.refused(uid, Draft(EntryKind.CALL_DENIED, RunPath("a"), 1, data))


@pytest.mark.requirement("A49")
async def test_a_refusal_is_a_link_of_its_run_s_chain_and_is_anchored_when_the_run_has_ended(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "journal.db", clock=lambda: 5)
    goes_on, ended = RunUid("goes-on"), RunUid("ended")
    for uid in (goes_on, ended):
        _begin(store, uid)
    store.append(ended, [Draft(EntryKind.RUN_FAILED, data={"reason": "Timeout", "message": ""})])
    for uid in (goes_on, ended, RunUid("nobody")):
        _refuse(store, uid)
    chains = {uid: [readable(record) for record in await store.audit_of(uid)] for uid in (goes_on, ended)}
    for uid, chain in chains.items():
        assert verify_run(uid, chain, store.audit_head(uid)) == []
        denied = chain[-1]
        assert (denied["type"], denied["where"]) == ("DENY", {"path": "a", "attempt": 1})
        assert denied["who"] == {"account": "clerk", "requestedBy": "carol", "pod": "p", "user": "u", "address": "a"}
        assert denied["why"]["times"] == 1 and "seq" not in denied and "what" not in denied
        assert cloud_event(denied, "n")["type"] == "dev.fairlead.audit.deny"
        assert EntryKind.CALL_DENIED not in {entry.kind for entry in await store.load(uid)}, "it is no entry"
    anchors = [readable(anchor) for anchor in await store.anchors()]
    assert [(anchor["run"], anchor["records"]) for anchor in anchors] == [("ended", 2), ("ended", 3)]
    assert verify_anchors(anchors, chains) == []
    assert await store.audit_of(RunUid("nobody")) == []
    await store.close()


async def test_pods_of_runs_that_ended_long_ago_are_not_looked_for(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "journal.db", clock=lambda: 5)
    for name in ("open", "over"):
        _begin(store, RunUid(name))
    store.append(RunUid("over"), [Draft(EntryKind.RUN_FAILED, data={"reason": "Timeout", "message": ""})])
    assert [pod.uid for pod in await store.pods_started(10, 6)] == ["pod-open"]
    assert {pod.uid for pod in await store.pods_started(10, 5)} == {"pod-open", "pod-over"}
    await store.close()


async def test_the_next_process_knows_whose_the_pods_are_that_this_one_has_started(tmp_path: Path, seen: Seen) -> None:
    now = [5]
    store = await Store.open(tmp_path / "journal.db", clock=lambda: now[0])
    for name in ("first", "second"):
        _begin(store, RunUid(name))
        now[0] += 1
    await store.close()
    store = await Store.open(tmp_path / "journal.db", clock=lambda: 9)
    started = await store.pods_started(10, 0)
    assert [pod.uid for pod in started] == ["pod-second", "pod-first"]
    assert await store.pods_started(1, 0) == started[:1]
    refusals = Refusals()
    refusals.attach(store.refused, started)
    refusals.refused("pod-first", STALE, user="x", address="10.0.0.8")
    chain = [json.loads(record) for record in await store.audit_of(RunUid("first"))]
    assert [record["type"] for record in chain] == ["ADMIN", "DENY"]
    assert verify_run("first", chain, store.audit_head(RunUid("first"))) == []
    await store.close()
