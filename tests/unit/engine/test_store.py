"""The store: what was durable is there after a restart, in order, once, and nobody else can write."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import alembic
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import create_engine

from fairlead.api.canonical import canonical_json, digest
from fairlead.engine.store import Store, migrations, schema
from fairlead.engine.store.database import Database
from fairlead.engine.store.lock import file_system, refuse_network_file_system
from fairlead.engine.store.payloads import MOST_BYTES, compress, put_aside, put_back, value_of
from fairlead.errors import StoreError, StoreLocked
from fairlead.flow.journal import Draft, EntryKind, RunUid
from fairlead.flow.journal import Path as RunPath

RUN = RunUid("11111111-1111-4111-8111-111111111111")
OTHER = RunUid("22222222-2222-4222-8222-222222222222")
LARGE = {"text": "a large value " * 1000}


class Clock:
    def __init__(self) -> None:
        self.now = 1_000

    def __call__(self) -> int:
        return self.now


def started(name: str = "a") -> Draft:
    return Draft(EntryKind.STEP_STARTED, RunPath(name), 1)


def succeeded(output: Any, name: str = "a") -> Draft:
    return Draft(EntryKind.STEP_SUCCEEDED, RunPath(name), 1, {"output": output})


ENDED = Draft(EntryKind.RUN_SUCCEEDED, data={"output": 1})


def begin(store: Store, uid: RunUid = RUN) -> None:
    store.begin(uid, namespace="team", name=f"run-{uid[:4]}", workflow="w")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(tmp_path: Path, clock: Clock) -> AsyncIterator[Store]:
    opened = await Store.open(tmp_path / "journal.db", clock=clock)
    yield opened
    await opened.close()


async def reopened(store: Store, tmp_path: Path, clock: Clock) -> Store:
    await store.close()
    return await Store.open(tmp_path / "journal.db", clock=clock)


@pytest.mark.requirement("G1")
async def test_what_was_durable_is_there_after_a_restart(tmp_path: Path, clock: Clock) -> None:
    store = await Store.open(tmp_path / "journal.db", clock=clock)
    begin(store)
    appended = store.append(RUN, [started(), succeeded({"n": 1})])
    await store.durable()
    store = await reopened(store, tmp_path, clock)
    assert await store.load(RUN) == appended
    assert [row.uid for row in await store.open_runs()] == [RUN]
    await store.close()


async def test_the_store_keeps_its_id_and_goes_on_counting(tmp_path: Path, clock: Clock) -> None:
    store = await Store.open(tmp_path / "journal.db", clock=clock)
    begin(store)
    store.append(RUN, [started()])
    first_id = store.id
    store = await reopened(store, tmp_path, clock)
    assert store.id == first_id
    assert [entry.seq for entry in store.append(RUN, [started("b"), started("c")])] == [2, 3]
    await store.close()


async def test_time_never_goes_back_within_a_run(store: Store, clock: Clock) -> None:
    begin(store)
    store.append(RUN, [started("a")])
    clock.now = 400
    store.append(RUN, [started("b")])
    clock.now = 2_000
    store.append(RUN, [started("c")])
    assert [entry.at for entry in await store.load(RUN)] == [1_000, 1_000, 2_000]


@pytest.mark.requirement("G4")
async def test_nothing_follows_a_terminal_entry(tmp_path: Path, clock: Clock) -> None:
    store = await Store.open(tmp_path / "journal.db", clock=clock)
    begin(store)
    store.append(RUN, [started(), Draft(EntryKind.RUN_SUCCEEDED, data={"output": 1}), started("late")])
    assert store.append(RUN, [started("later")]) == []
    store = await reopened(store, tmp_path, clock)
    assert store.append(RUN, [started("latest")]) == []
    assert [entry.kind for entry in await store.load(RUN)] == [EntryKind.STEP_STARTED, EntryKind.RUN_SUCCEEDED]
    row = await store.run(RUN)
    assert row is not None and not row.open
    assert await store.open_runs() == []
    await store.close()


@pytest.mark.sqlite
@pytest.mark.requirement("G5")
async def test_a_second_opener_is_refused(store: Store, tmp_path: Path, clock: Clock) -> None:
    with pytest.raises(StoreLocked):
        await Store.open(tmp_path / "journal.db", clock=clock)
    with pytest.raises(sqlite3.OperationalError, match="locked"), sqlite3.connect(tmp_path / "journal.db") as intruder:
        intruder.execute("select * from meta")
    intruder.close()


async def test_a_failed_write_fails_every_waiter_and_all_that_follows(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Database, batch: object) -> float:
        raise sqlite3.OperationalError("database or disk is full")

    begin(store)
    monkeypatch.setattr(Database, "commit", full)
    store.append(RUN, [started()])
    waiters = await asyncio.gather(store.durable(), store.durable(), return_exceptions=True)
    assert [type(waiter) for waiter in waiters] == [StoreError, StoreError]
    assert store.failed.is_set()
    with pytest.raises(StoreError):
        store.append(RUN, [started()])
    with pytest.raises(StoreError):
        await store.load(RUN)


async def test_one_commit_takes_all_that_was_appended_meanwhile(store: Store) -> None:
    batches: list[int] = []
    store.subscribe(lambda entries: batches.append(len(entries)))
    begin(store)
    store.append(RUN, [started("first")])
    first = asyncio.ensure_future(store.durable())
    await asyncio.sleep(0)
    for number in range(50):
        store.append(RUN, [started(f"s{number}")])
    await asyncio.gather(first, store.durable())
    assert batches == [1, 50]


async def test_an_append_that_nobody_waits_for_is_committed_soon(store: Store) -> None:
    committed = asyncio.Event()
    store.subscribe(lambda entries: committed.set())
    begin(store)
    store.append(RUN, [started()])
    await asyncio.wait_for(committed.wait(), 5)


async def test_subscribers_see_only_what_is_committed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    store.subscribe(lambda entries: seen.extend(entry.seq for entry in entries))
    begin(store)
    store.append(RUN, [started(), started("b")])
    assert seen == []
    await store.durable()
    assert seen == [1, 2]


@pytest.mark.sqlite
async def test_large_values_are_kept_once_and_read_by_their_run_only(store: Store, tmp_path: Path) -> None:
    for uid in (RUN, OTHER):
        begin(store, uid)
        store.append(uid, [Draft(EntryKind.CALL_OUTCOME, data={"index": "0.0.0", "result": LARGE}), succeeded(LARGE)])
    begin(store, RunUid("third"))
    assert [entry.data.get("output") for entry in await store.load(OTHER)] == [None, LARGE]
    assert await store.payload(RUN, digest(LARGE)) == canonical_json(LARGE)
    assert await store.payload(RunUid("third"), digest(LARGE)) is None
    await store.close()
    with sqlite3.connect(tmp_path / "journal.db") as database:
        assert database.execute("select count(*), sum(length(data)) < 1000 from payloads").fetchone() == (1, 1)
    database.close()


async def test_a_payload_goes_with_its_last_reference(store: Store) -> None:
    for uid in (RUN, OTHER):
        begin(store, uid)
        store.append(uid, [succeeded(LARGE), ENDED])
    store.forget(RUN)
    assert await store.run(RUN) is None
    assert await store.load(RUN) == []
    assert await store.payload(RUN, digest(LARGE)) is None
    assert await store.payload(OTHER, digest(LARGE)) == canonical_json(LARGE)
    store.forget(OTHER)
    begin(store, RunUid("third"))
    store.append(RunUid("third"), [started()])
    assert await store.payload(OTHER, digest(LARGE)) is None


async def test_a_forgotten_run_never_begins_again_until_it_is_dropped(tmp_path: Path, clock: Clock) -> None:
    store = await Store.open(tmp_path / "journal.db", clock=clock)
    begin(store)
    store.append(RUN, [started(), ENDED])
    clock.now = 5_000
    store.forget(RUN)
    store = await reopened(store, tmp_path, clock)
    assert (await store.runs(), await store.counts(), store.ended_runs()) == ([], {}, {})
    assert [run.at for run in store.forgotten_runs().values()] == [5_000]
    with pytest.raises(StoreError, match="has begun before"):
        begin(store)
    store.drop(RUN)
    store = await reopened(store, tmp_path, clock)
    assert not store.knows(RUN)
    await store.close()


async def test_an_open_run_is_not_forgotten(store: Store) -> None:
    begin(store)
    store.append(RUN, [started()])
    store.forget(RUN)
    assert [entry.kind for entry in await store.load(RUN)] == [EntryKind.STEP_STARTED]


async def test_runs_are_listed_as_they_were_accepted(store: Store) -> None:
    for uid in (OTHER, RUN):
        begin(store, uid)
        store.append(uid, [started()])
    assert [row.uid for row in await store.open_runs()] == [OTHER, RUN]


@pytest.mark.sqlite
async def test_two_hundred_steps_of_four_kilobytes_cost_at_most_1200_kilobytes(store: Store, tmp_path: Path) -> None:
    begin(store)
    for number in range(200):
        text = os.urandom(1950).hex()
        store.append(RUN, [started(f"s{number}"), succeeded({"text": text}, f"s{number}")])
    await store.close()
    assert (tmp_path / "journal.db").stat().st_size <= 1_200_000


async def test_a_parked_run_keeps_its_wake_time(store: Store) -> None:
    begin(store)
    store.append(RUN, [started()])
    store.park(RUN, 77_000)
    assert [row.wake_at for row in await store.open_runs()] == [77_000]
    store.park(RUN, None)
    assert [row.wake_at for row in await store.open_runs()] == [None]


async def test_a_revision_is_found_by_its_digest(store: Store) -> None:
    spec = {"steps": [{"name": "a"}]}
    await store.put_revision(digest(spec), spec)
    await store.put_revision(digest(spec), spec)
    assert await store.revision(digest(spec)) == spec
    assert await store.revision(digest({})) is None


async def test_what_is_no_json_is_refused_before_anything_is_appended(store: Store) -> None:
    begin(store)
    with pytest.raises(TypeError):
        store.append(RUN, [started(), succeeded({1, 2})])
    assert await store.load(RUN) == []


@pytest.mark.sqlite
async def test_the_migrations_lead_to_the_schema(store: Store, tmp_path: Path) -> None:
    await store.close()
    engine = create_engine(f"sqlite:///{tmp_path / 'journal.db'}")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), schema.metadata) == []
    engine.dispose()


def test_the_newest_migration_is_the_one_that_a_restart_expects() -> None:
    assert ScriptDirectory(str(Path(migrations.__file__).parent)).get_current_head() == migrations.HEAD


async def test_a_store_of_this_version_is_opened_without_a_migration(
    store: Store, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.close()
    monkeypatch.setitem(sys.modules, "alembic.command", None)  # an import of it fails
    monkeypatch.delattr(alembic, "command", raising=False)
    again = await Store.open(tmp_path / "journal.db", clock=clock)
    assert again.id == store.id
    await again.close()


async def test_a_value_of_an_earlier_version_that_is_too_large_is_not_read_back(store: Store) -> None:
    begin(store)
    store.append(RUN, [Draft(EntryKind.EVALUATED, data={"purpose": "Inputs", "value": " " * MOST_BYTES})])
    with pytest.raises(StoreError, match=f"more than {MOST_BYTES} bytes"):
        await store.load(RUN)


async def test_a_value_that_many_entries_have_is_read_back_once(store: Store) -> None:
    begin(store)
    store.append(RUN, [Draft(EntryKind.EVALUATED, data={"value": {"text": "x" * 9000}}) for _ in range(2)])
    one, other = [entry.data["value"] for entry in await store.load(RUN)]
    assert one is other and len(one["text"]) == 9000


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=9).map(lambda text: text * 600),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=20), inner, max_size=4),
    max_leaves=4,
)


@given(st.dictionaries(st.sampled_from(["output", "result", "value", "path", "payloads", "$payload"]), json_values))
def test_what_was_put_aside_comes_back_as_it_was(data: dict[str, Any]) -> None:
    kept, refs, bodies = put_aside(data)
    stored = {key: compress(body) for key, body in bodies.items()}
    assert put_back(kept, canonical_json(refs) if refs else None, lambda digest: value_of(stored[digest])) == data


MOUNTS = """\
21 1 0:1 / / rw - ext4 /dev/root rw
30 21 0:2 / /data rw,relatime shared:3 - nfs4 server:/x rw
31 30 0:3 / /data/local\\040disk rw - xfs /dev/sdb rw
32 21 0:4 / /fuse rw - fuse.sshfs host: rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var", "ext4"),
        ("/data", "nfs4"),
        ("/data/a", "nfs4"),
        ("/data/local disk/a", "xfs"),
        ("/database", "ext4"),
        ("/fuse/a", "fuse.sshfs"),
    ],
)
def test_the_file_system_is_that_of_the_nearest_mount(path: str, kind: str) -> None:
    assert file_system(Path(path), MOUNTS) == kind


def test_network_file_systems_are_refused_by_name() -> None:
    for path, kind in (("/data/a", "nfs4"), ("/fuse/a", "fuse.sshfs")):
        with pytest.raises(StoreError, match=kind):
            refuse_network_file_system(Path(path), MOUNTS)
    refuse_network_file_system(Path("/var"), MOUNTS)


def pod(step: str, uid: str) -> Draft:
    return Draft(EntryKind.POD_STARTED, RunPath(step), 1, {"index": "0.0.0", "name": f"pod-{step}", "uid": uid})


def came(step: str) -> Draft:
    return Draft(EntryKind.CALL_OUTCOME, RunPath(step), 1, {"index": "0.0.0", "status": "Succeeded"})


@pytest.mark.requirement("F06")
async def test_pods_whose_work_is_done_are_known_for_a_while(store: Store, clock: Clock) -> None:
    begin(store)
    store.append(RUN, [pod("old", "u-0"), came("old")])
    clock.now = 900_000
    store.append(RUN, [pod("a", "u-1"), came("a"), pod("b", "u-2")])
    begin(store, OTHER)
    store.append(OTHER, [pod("c", "u-3"), ENDED])
    assert sorted(await store.pods_left(300_000)) == [("pod-a", "u-1"), ("pod-c", "u-3")]
