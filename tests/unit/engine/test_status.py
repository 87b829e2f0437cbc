"""When statuses are written: the first and the last at once, few between, none before it is durable."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from tests.unit.engine.fakes import FakeSink

from fairlead.engine.status import INTERVAL_SECONDS, StatusWriter
from fairlead.errors import Conflict, KubeError, NotFound, Unreachable


class Desk:
    """A writer, a clock that stands still, and a status that counts its versions."""

    def __init__(self) -> None:
        self.sink = FakeSink()
        self.now = 100.0
        self.version = 0
        self.durable_version = 0
        self.slept: list[float] = []
        self.writes: list[str] = []
        self.composed_from: list[Mapping[str, Any]] = []
        self.writer = StatusWriter(
            "WorkflowRun",
            self.sink,
            durable=self.durable,
            on_write=lambda written: self.writes.append(written.turn),
            clock=lambda: self.now,
            sleep=self.sleep,
        )

    async def durable(self) -> None:
        await asyncio.sleep(0)
        self.durable_version = self.version

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)

    def compose(self, published: Mapping[str, Any]) -> dict[str, Any]:
        self.composed_from.append(published)
        return {"version": self.version}

    def mark(self, *, final: bool = False) -> None:
        self.version += 1
        self.writer.mark("u", "run", self.compose, published={"version": 0}, final=final)

    def written(self) -> list[int]:
        return [status["version"] for status in self.sink.of("run")]

    async def rest(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    desk = Desk()
    serving = asyncio.create_task(desk.writer.run())
    await asyncio.sleep(0)
    yield desk
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)


async def test_the_first_and_the_last_status_are_written_at_once_and_none_between(desk: Desk) -> None:
    desk.mark()
    await desk.rest()
    for _ in range(5):
        desk.mark()
        await desk.rest()
    assert desk.written() == [1]
    desk.mark(final=True)
    await desk.rest()
    assert desk.written() == [1, 7]
    assert desk.writes == ["first", "last"]


async def test_after_the_interval_the_newest_status_is_written(desk: Desk) -> None:
    desk.mark()
    await desk.rest()
    desk.now += INTERVAL_SECONDS
    desk.mark()
    await desk.rest()
    assert desk.written() == [1, 2]
    assert desk.writes == ["first", "interim"]


async def test_what_did_not_change_is_not_written(desk: Desk) -> None:
    desk.writer.mark("u", "run", lambda published: dict(published), published={"version": 0})
    await desk.rest()
    assert desk.written() == []


async def test_who_waits_for_a_turn_says_what_is_true_when_it_comes(desk: Desk) -> None:
    turn = asyncio.Event()

    async def wait() -> None:
        await turn.wait()

    desk.sink.turn = wait  # type: ignore[method-assign]  # a fake of a fake
    desk.mark()
    await desk.rest()
    desk.mark(final=True)
    turn.set()
    await desk.rest()
    assert desk.written() == [2]
    assert desk.writes == ["last"]


async def test_a_status_is_written_only_once_it_is_durable(desk: Desk) -> None:
    seen: list[tuple[int, int]] = []

    async def write(kind: str, name: str, uid: str, status: Mapping[str, Any]) -> None:
        seen.append((status["version"], desk.durable_version))

    desk.sink.write = write  # type: ignore[method-assign]  # a fake of a fake
    desk.mark()
    await desk.rest()
    assert seen == [(1, 1)]


@pytest.mark.requirement("F18")
@pytest.mark.parametrize("error", [Conflict(409, "again"), Unreachable(503, "later")])
async def test_a_refused_status_is_tried_again_from_a_fresh_projection(desk: Desk, error: KubeError) -> None:
    desk.sink.errors = [error, error]
    desk.mark(final=True)
    await desk.rest()
    assert desk.written() == [1]
    assert len(desk.composed_from) == 3
    assert len(desk.slept) == 2 and desk.slept[1] > desk.slept[0] * 1.3


async def test_a_retry_waits_as_long_as_the_server_asks(desk: Desk) -> None:
    desk.sink.errors = [Unreachable(429, "slow down", retry_after_seconds=7)]
    desk.mark()
    await desk.rest()
    assert 7 <= desk.slept[0] <= 7 * 1.5


async def test_an_object_that_is_gone_is_told_nothing_more(desk: Desk) -> None:
    desk.sink.errors = [NotFound(404, "gone")]
    desk.mark()
    await desk.rest()
    assert desk.written() == [] and desk.writer._subjects == {}


async def test_a_status_that_the_server_never_takes_is_not_repeated(desk: Desk) -> None:
    desk.sink.errors = [KubeError(422, "no")]
    desk.mark()
    await desk.rest()
    assert desk.slept == [] and desk.written() == []


async def test_a_last_status_is_written_however_often_it_is_refused(desk: Desk) -> None:
    desk.sink.errors = [KubeError(403, "not yet"), KubeError(422, "no")]
    desk.mark(final=True)
    await desk.rest()
    assert desk.written() == [1] and desk.writes == ["last"]
    assert len(desk.slept) == 2 and desk.slept[1] > desk.slept[0] * 1.3


async def test_what_is_forgotten_is_told_nothing_more(desk: Desk) -> None:
    desk.mark()
    await desk.rest()
    desk.mark()
    desk.writer.forget("u")
    await desk.rest()
    assert desk.written() == [1] and desk.writer._subjects == {}


async def test_what_has_been_said_is_not_held_on_to(desk: Desk) -> None:
    class Whole:
        def compose(self, published: Mapping[str, Any]) -> dict[str, Any]:
            return {"version": 1}

    whole = Whole()
    alive = weakref.ref(whole)
    desk.writer.mark("u", "run", whole.compose, published={})
    await desk.rest()
    del whole
    assert alive() is None and desk.written() == [1]


async def test_the_next_status_is_composed_from_the_one_that_was_written(desk: Desk) -> None:
    desk.mark()
    await desk.rest()
    desk.mark(final=True)
    await desk.rest()
    assert desk.composed_from == [{"version": 0}, {"version": 1}]


@pytest.mark.requirement("A34")
async def test_a_status_that_cannot_be_composed_stops_no_other(desk: Desk) -> None:
    def compose(published: Mapping[str, Any]) -> dict[str, Any]:
        raise ValueError("year 10000 is out of range")

    for final in (False, True):
        desk.writer.mark("poison", "poison", compose, published={}, final=final)
        desk.mark(final=final)
        await desk.rest()
        assert len(desk.written()) == 1 + final and desk.sink.of("poison") == []
    desk.writer.forget("poison")


@pytest.mark.requirement("A34")
async def test_a_last_status_that_cannot_be_composed_yet_is_written_once_it_can(desk: Desk) -> None:
    left = [ValueError(), RecursionError(), KeyError()]

    def compose(published: Mapping[str, Any]) -> dict[str, Any]:
        if left:
            raise left.pop()
        return {"version": 7}

    desk.writer.mark("u", "run", compose, published={}, final=True)
    await desk.rest()
    assert desk.written() == [7] and desk.writer._subjects == {}
    first, second, third = desk.slept
    assert first < second < third
