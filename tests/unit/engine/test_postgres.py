"""PostgreSQL: one replica owns the store at a time; one that was replaced writes nothing more."""

from __future__ import annotations

import asyncio
import os
import random
import re
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text
from tests.postgres import Server
from tests.unit.engine.conftest import JOURNALED, ONCE
from tests.unit.engine.killable import STEPS, uid
from tests.unit.engine.test_killed import has_lines, lines
from tests.unit.engine.test_store import RUN, begin, started, succeeded

from fairlead.engine.store import Store, schema
from fairlead.engine.store.postgres import Address, Postgres, database_url
from fairlead.errors import StoreError, StoreLocked
from fairlead.flow.journal import EntryKind

LEASE_SECONDS = 1.0
RUNS, KILLS = 6, 4


@pytest.fixture
def url(postgres_server: Server, tmp_path: Path) -> str:
    return postgres_server.empty(str(tmp_path))


def replica(url: str, name: str = "e-0", *, namespace: str = "team", lease_seconds: float = LEASE_SECONDS) -> Postgres:
    backend = Postgres(Address(lambda: url, holder=name, namespace=namespace), lease_seconds=lease_seconds)
    backend.renew_seconds, backend.retry_seconds = lease_seconds / 5, 0.05
    return backend


async def opened(backend: Postgres) -> tuple[Store, list[str]]:
    waited: list[str] = []
    store = await Store.open(backend, clock=lambda: 1_000, on_waiting=lambda error: waited.append(str(error)))
    return store, waited


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not true():
            await asyncio.sleep(0.01)


@pytest.mark.requirement("G5")
async def test_a_second_replica_stands_by_and_goes_on_where_the_first_one_ended(url: str) -> None:
    first, _ = await opened(replica(url, "e-0"))
    begin(first)
    appended = first.append(RUN, [started(), succeeded({"n": 1})])
    waited: list[str] = []
    second = asyncio.create_task(
        Store.open(
            replica(url, "e-1", lease_seconds=60), clock=lambda: 1, on_waiting=lambda error: waited.append(str(error))
        )
    )
    await until(lambda: len(waited) > 1)
    assert set(waited) == {"e-0 owns the store"}
    await first.close()
    store = await asyncio.wait_for(second, 20)
    assert (await store.load(RUN), store.id) == (appended, first.id)
    await store.close()


@pytest.mark.requirement("G5")
async def test_an_owner_that_has_nothing_to_write_stays_the_owner(url: str) -> None:
    lease_seconds = 4.0  # longer than a busy machine keeps a process from its turn
    store, _ = await opened(replica(url, "e-0", lease_seconds=lease_seconds))
    await asyncio.sleep(lease_seconds * 1.25)
    with pytest.raises(StoreLocked, match="e-0 owns the store"):
        replica(url, "e-1", lease_seconds=lease_seconds).open()
    assert not store.failed.is_set()
    await store.close()


@pytest.mark.requirement("G5")
async def test_who_was_silent_for_too_long_is_replaced_and_writes_nothing_more(url: str) -> None:
    silent = replica(url, "e-0", lease_seconds=60)
    silent.renew_seconds = None  # it hangs
    store, _ = await opened(silent)
    begin(store)
    store.append(RUN, [started()])
    await store.durable()
    successor, waited = await opened(replica(url, "e-1", lease_seconds=0.3))
    assert waited[:1] == ["e-0 owns the store"]
    store.append(RUN, [succeeded({"late": True})])
    with pytest.raises(StoreError, match="another replica has taken over from epoch 1"):
        await store.durable()
    assert store.failed.is_set()
    await store.close()
    assert [entry.kind for entry in await successor.load(RUN)] == [EntryKind.STEP_STARTED]
    successor.append(RUN, [succeeded({"late": False})])
    await successor.durable()
    assert not successor.failed.is_set(), "the end of the old owner is nothing to the new one"
    await successor.close()


@pytest.mark.requirement("G5")
async def test_nobody_takes_over_between_a_commit_s_beginning_and_its_end(url: str) -> None:
    owner, late = replica(url, "e-0", lease_seconds=0.0), replica(url, "e-1", lease_seconds=0.0)
    connection = await asyncio.to_thread(owner.open)
    with connection.begin():
        owner.renew(connection)
        with pytest.raises(StoreLocked, match="about to commit"):
            await asyncio.to_thread(late.open)
    await asyncio.to_thread(owner.close)


async def test_who_stands_by_holds_no_lock_while_it_looks(url: str) -> None:
    owner = replica(url, "e-0", lease_seconds=60)
    connection = await asyncio.to_thread(owner.open)
    with connection.begin():
        owner.renew(connection)
        with pytest.raises(StoreLocked, match="e-0 owns the store"):  # and has not waited for the owner's lock
            await asyncio.to_thread(replica(url, "e-1", lease_seconds=60).open)
    await asyncio.to_thread(owner.close)


async def test_a_pod_of_the_same_name_need_not_wait_for_the_one_before_it(url: str) -> None:
    before = replica(url, "e-0", lease_seconds=60)
    before.open()
    again = replica(url, "e-0", lease_seconds=60)
    again.open()
    assert (before.epoch, again.epoch) == (1, 2)
    again.close()
    before.close()
    third = replica(url, "e-2", lease_seconds=60)
    third.open()  # the old one's end has not touched what is not its own
    assert third.epoch == 3
    third.close()


async def test_a_lost_connection_is_a_journal_that_cannot_be_written(url: str, postgres_server: Server) -> None:
    store, _ = await opened(replica(url))
    begin(store)
    store.append(RUN, [started()])
    await store.durable()
    other = replica(postgres_server.empty("elsewhere"))
    with other.open() as connection:
        connection.execute(text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"))
    other.close()
    store.append(RUN, [started("b")])
    with pytest.raises(StoreError, match="the journal cannot be written"):
        await store.durable()
    await store.close()
    again, _ = await opened(replica(url))
    assert [entry.path for entry in await again.load(RUN)] == ["a"]
    await again.close()


async def test_a_database_serves_one_engine(url: str) -> None:
    first = replica(url, namespace="team")
    first.open()
    first.close()
    with pytest.raises(StoreError, match=r"holds the journal of namespace team; every Engine has its own"):
        replica(url, namespace="other").open()


@pytest.mark.parametrize(
    "wrong", ["", "hunter2secret", "mysql://u:hunter2secret@h/d", "postgresql://u:hunter2secret@/d", "postgresql://h"]
)
def test_what_is_no_url_is_named_without_being_shown(wrong: str) -> None:
    with pytest.raises(StoreError, match="must be postgresql://user:password@host:port/database") as error:
        replica(wrong).open()
    assert "hunter2secret" not in repr(error.value) + str(error.value)


def test_a_server_that_is_not_there_is_named_without_the_password() -> None:
    with pytest.raises(StoreError, match="the database cannot be used: connection failed") as error:
        replica("postgresql://u:hunter2secret@127.0.0.1:1/d").open()
    assert "hunter2secret" not in str(error.value)


def test_a_secret_must_be_for_databases(tmp_path: Path) -> None:
    secret = tmp_path / "journal"
    secret.mkdir()
    file = secret / "url"
    with pytest.raises(StoreError, match="the keys url and allowed-use of Secret journal cannot be read"):
        database_url(file)
    file.write_text("postgresql://h/d")
    (secret / "allowed-use").write_text("hmac\n")
    with pytest.raises(StoreError, match="the key allowed-use of Secret journal must be database"):
        database_url(file)
    (secret / "allowed-use").write_text("database\n")
    assert database_url(file) == "postgresql://h/d"


async def test_the_migrations_lead_to_the_schema(url: str) -> None:
    store, _ = await opened(replica(url))
    await store.close()
    backend = replica(url)
    with backend.open() as connection:
        context = MigrationContext.configure(connection, opts={"include_name": lambda name, *_: name != "owner"})
        assert compare_metadata(context, schema.metadata) == []
    backend.close()


async def start(directory: Path, url: str, name: str) -> asyncio.subprocess.Process:
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(path for path in sys.path if path), DATABASE_URL=url)
    arguments = ("-m", "tests.unit.engine.killable", str(directory), str(RUNS), name)
    return await asyncio.create_subprocess_exec(sys.executable, *arguments, env=environment)


@pytest.mark.requirement("G1")
@pytest.mark.requirement("G2")
@pytest.mark.requirement("G5")
async def test_replicas_that_are_killed_lose_nothing_and_repeat_no_effect(tmp_path: Path, url: str) -> None:
    """Two replicas in processes of their own; whoever serves is killed, and comes back as the one that stands by."""
    chance, ledger, owners = random.Random(20261127), tmp_path / "ledger", tmp_path / "owners"
    replicas = {name: await start(tmp_path, url, name) for name in ("e-0", "e-1")}
    try:
        for kill in range(KILLS):
            await asyncio.wait_for(until_owned(owners, kill + 1), 60)
            name = lines(owners)[-1][0]
            await asyncio.wait_for(has_lines(ledger, len(lines(ledger)) + chance.randint(1, 5), replicas[name]), 60)
            if replicas[name].returncode is not None:
                break
            replicas[name].kill()
            await replicas[name].wait()
            await asyncio.wait_for(until_owned(owners, kill + 2), 60)  # by the other one
            replicas[name] = await start(tmp_path, url, name)
        for name in replicas:
            while await asyncio.wait_for(replicas[name].wait(), 60):  # one that was replaced ends, and begins anew
                replicas[name] = await start(tmp_path, url, name)
    finally:
        for process in replicas.values():
            if process.returncode is None:
                process.kill()
                await process.wait()

    assert len({name for name, *_ in lines(owners)}) == 2, "both have served"
    calls = Counter((run, path, function) for run, path, function in lines(ledger))
    assert {call: count for call, count in calls.items() if count > 1 and call[2] == "send"} == {}
    told = {(run, path): token for run, path, token in lines(tmp_path / "acknowledged")}
    store, _ = await opened(replica(url))
    for number in range(RUNS):
        entries = await store.load(uid(number))
        results = [entry for entry in entries if entry.kind is EntryKind.STEP_SUCCEEDED]
        kept = {(entry.run_uid, str(entry.path)): str(entry.data["output"]["token"]) for entry in results}
        assert len(results) == len(kept)
        assert {key: token for key, token in told.items() if key[0] == uid(number)}.items() <= kept.items()
        if entries[-1].kind is EntryKind.RUN_SUCCEEDED:
            assert len(results) == len(STEPS)
        else:
            assert (entries[-1].kind, entries[-1].data["reason"]) == (EntryKind.RUN_FAILED, "OutcomeUnknown")
    await store.close()


async def until_owned(owners: Path, times: int) -> None:
    while len(lines(owners)) < times:
        await asyncio.sleep(0.01)


def test_every_module_that_opens_a_store_does_so_on_postgresql_too() -> None:
    opens = re.compile(r"^from (tests\.unit\.engine\.(run|child|approval)world|fairlead\.engine\.store) import", re.M)
    modules = Path(__file__).parent.glob("test_*.py")
    assert {path.stem for path in modules if opens.search(path.read_text(encoding="utf-8"))} == JOURNALED | ONCE
