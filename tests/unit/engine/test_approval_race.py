"""One approval, two engines that know it: the one that owns the journal uses it up, the other one calls nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.postgres import Server
from tests.unit.engine.approvalworld import RULE, Asked, requested, ruled
from tests.unit.engine.fakes import tool_step
from tests.unit.engine.runworld import uid_of
from tests.unit.engine.test_postgres import replica

from fairlead.engine.engine import WorkflowEngine
from fairlead.errors import StoreError, StoreLocked
from fairlead.flow.journal import EntryKind

RACES = 5


def asked(path: Any) -> Asked:
    world = Asked(path, tool_step("after", "send"))
    world.resources.policies = ruled(RULE)
    return world


async def intents(engine: WorkflowEngine, raw: dict[str, Any]) -> list[str]:
    entries = await engine.store.load(uid_of(raw))
    return [one["name"] for e in entries if e.kind is EntryKind.CALL_INTENT for one in e.data["approvals"]]


@asynccontextmanager
async def losing(world: Asked) -> AsyncIterator[WorkflowEngine]:
    """Have an engine of which the journal is taken away; it may end as it must."""
    serving = world.engine()
    engine = await serving.__aenter__()
    try:
        yield engine
    finally:
        try:
            await serving.__aexit__(None, None, None)
        except* StoreError:
            pass


@pytest.mark.requirement("A47", "G5")
@pytest.mark.parametrize("race", range(RACES))
async def test_of_two_engines_with_one_approval_the_owner_of_the_journal_calls(
    tmp_path: Path, postgres_server: Server, race: int
) -> None:
    """The first one hangs, is replaced, wakes up, and hears of the decision when its successor does."""
    url = postgres_server.empty(str(tmp_path))
    silent = replica(url, "e-0", lease_seconds=60)
    silent.renew_seconds = None
    world, raw = asked(silent), requested()
    async with losing(world) as first:
        first.submit(raw)
        (name,) = await world.asks(first)
        await world.until(lambda: world.told(name) is not None)
        world.path = replica(url, "e-1", lease_seconds=0.3)  # type: ignore[assignment]  # a database is a place too
        async with world.engine(objects=[raw]) as second:
            listeners = [first.approvals.observe, second.approvals.observe]
            world.people.observe = lambda name: [hears(name) for hears in listeners[:: 1 if race % 2 else -1]] and None
            world.people.decide(name)
            await world.until(lambda: first.store.failed.is_set() and world.succeeded() == ("True", "Completed"))
            assert await intents(second, raw) == [name]
            with pytest.raises(StoreError, match="another replica has taken over from epoch 1"):
                await first.store.durable()
    assert [call.function for call in world.sent] == ["send"]


@pytest.mark.sqlite  # on PostgreSQL the last of one name takes over: test_postgres.py
@pytest.mark.requirement("A47", "G5")
async def test_of_many_engines_that_start_on_one_file_one_opens_it_and_calls(tmp_path: Path) -> None:
    world, raw = asked(tmp_path / "journal.db"), requested()
    async with world.engine() as before:
        before.submit(raw)
        (name,) = await world.asks(before)
        await world.until(lambda: world.told(name) is not None)
    world.people.observe = lambda name: None
    world.people.decide(name)
    async with AsyncExitStack() as stack:
        opening = (stack.enter_async_context(world.engine(objects=[raw])) for _ in range(RACES))
        opened = await asyncio.gather(*opening, return_exceptions=True)
        (owner,) = [engine for engine in opened if isinstance(engine, WorkflowEngine)]
        assert [type(lost) for lost in opened if lost is not owner] == [StoreLocked] * (RACES - 1)
        await world.until(lambda: world.succeeded() == ("True", "Completed"))
        assert await intents(owner, raw) == [name]
    async with world.engine(objects=[raw]) as after:
        assert await intents(after, raw) == [name]
    assert [call.function for call in world.sent] == ["send"]
