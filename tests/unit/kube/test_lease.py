from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from aiohttp import web
from tests.unit.kube.api_server import serving

from fairlead.errors import LeaseLost
from fairlead.kube.client import Kube
from fairlead.kube.lease import Lease

PATH = "/apis/coordination.k8s.io/v1/namespaces/team/leases"


class LeaseServer:
    """One Lease in memory, with resourceVersions as the API server has them; `broken` answers 500."""

    def __init__(self) -> None:
        self.record: dict[str, Any] | None = None
        self.version = 0
        self.broken = False
        self.written = asyncio.Condition()

    @property
    def holder(self) -> str | None:
        return None if self.record is None else self.record["spec"]["holderIdentity"]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if self.broken:
            return web.json_response({"message": "broken"}, status=500)
        if request.method == "GET":
            if self.record is None:
                return web.json_response({"message": "none"}, status=404)
            return web.json_response(self.record)
        body = await request.json()
        if request.method == "POST":
            assert request.path == PATH
            if self.record is not None:
                return web.json_response({"message": "exists"}, status=409)
        else:
            assert request.path == f"{PATH}/leader"
            if self.record is None or body["metadata"]["resourceVersion"] != self.record["metadata"]["resourceVersion"]:
                return web.json_response({"message": "changed"}, status=409)
        await self.store(body)
        return web.json_response(self.record)

    async def store(self, body: dict[str, Any]) -> None:
        async with self.written:
            self.version += 1
            self.record = {**body, "metadata": {**body["metadata"], "resourceVersion": str(self.version)}}
            self.written.notify_all()

    async def until_written(self, times: int) -> None:
        async with self.written:
            goal = self.version + times
            await self.written.wait_for(lambda: self.version >= goal)


class Work:
    """A leader's work, that can be seen to start and to end."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.finish = asyncio.Event()
        self.cancelled = False

    async def __call__(self) -> None:
        self.started.set()
        try:
            await self.finish.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise


def lease(kube: Kube, identity: str, **options: Any) -> Lease:
    settings = {"duration_seconds": 1.5, "renew_within_seconds": 1.0, "retry_seconds": 0.005, **options}
    return Lease(kube, name="leader", namespace="team", identity=identity, **settings)


async def test_one_leads_the_other_waits_and_follows_when_the_first_gives_it_back() -> None:
    server = LeaseServer()
    async with serving(server.handle) as kube, asyncio.timeout(10):
        first, second, first_work, second_work = lease(kube, "a"), lease(kube, "b"), Work(), Work()
        leading = asyncio.create_task(first.run(first_work))
        await first_work.started.wait()
        waiting = asyncio.create_task(second.run(second_work))
        await server.until_written(5)
        assert (first.leading, second.leading, server.holder) == (True, False, "a")
        assert not second_work.started.is_set()
        first_work.finish.set()
        await leading
        await second_work.started.wait()
        assert (first.leading, second.leading, server.holder) == (False, True, "b")
        second_work.finish.set()
        await waiting
        assert server.holder == ""
        assert server.record is not None
        assert server.record["spec"]["leaseTransitions"] == 1


@pytest.mark.requirement("F04")
async def test_of_many_candidates_exactly_one_leads() -> None:
    server = LeaseServer()
    async with serving(server.handle) as kube, asyncio.timeout(10):
        long = {"duration_seconds": 5, "renew_within_seconds": 4}  # nobody loses it where the machine stands still
        leases = [lease(kube, str(number), **long) for number in range(10)]
        works = [Work() for _ in leases]
        tasks = [asyncio.create_task(one.run(work)) for one, work in zip(leases, works, strict=True)]
        await asyncio.wait([asyncio.create_task(work.started.wait()) for work in works], return_when="FIRST_COMPLETED")
        await server.until_written(3)
        assert [one.leading for one in leases].count(True) == 1
        assert [work.started.is_set() for work in works].count(True) == 1
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def test_a_holder_that_died_is_followed_after_the_duration_by_ones_own_clock() -> None:
    server = LeaseServer()
    await server.store({"metadata": {"name": "leader"}, "spec": {"holderIdentity": "dead", "leaseDurationSeconds": 15}})
    now, asked = [1000.0], asyncio.Event()

    async def handle(request: web.Request) -> web.StreamResponse:
        asked.set()
        return await server.handle(request)

    async with serving(handle) as kube, asyncio.timeout(10):
        work = Work()
        task = asyncio.create_task(lease(kube, "b", clock=lambda: now[0]).run(work))
        for seconds in (7, 7):
            for _ in range(3):
                asked.clear()
                await asked.wait()
            assert server.holder == "dead"
            now[0] += seconds
        now[0] += 2
        await work.started.wait()
        assert server.holder == "b"
        task.cancel()
        await asyncio.wait((task,))


@pytest.mark.requirement("F04")
async def test_who_loses_the_lease_to_another_stops_and_raises() -> None:
    server = LeaseServer()
    async with serving(server.handle) as kube, asyncio.timeout(10):
        work, one = Work(), lease(kube, "a")
        task = asyncio.create_task(one.run(work))
        await work.started.wait()
        assert server.record is not None
        await server.store({**server.record, "spec": {"holderIdentity": "b"}})
        with pytest.raises(LeaseLost, match="held by b"):
            await task
        assert (work.cancelled, one.leading, server.holder) == (True, False, "b")


@pytest.mark.requirement("F04")
async def test_who_cannot_renew_in_time_stops_before_another_may_lead() -> None:
    server = LeaseServer()
    async with serving(server.handle) as kube, asyncio.timeout(10):
        work = Work()
        task = asyncio.create_task(lease(kube, "a").run(work))
        await work.started.wait()
        server.broken = True
        with pytest.raises(LeaseLost, match="could not be renewed"):
            await task
        assert work.cancelled


async def throttled(share: float) -> None:
    """Leave the process that share of the time, in slices as the kernel does it."""
    while True:
        time.sleep(0.1 * (1 - share))
        end = time.perf_counter() + 0.1 * share
        while time.perf_counter() < end:
            await asyncio.sleep(0)


@pytest.mark.requirement("F03")
async def test_who_has_a_twentieth_of_its_time_keeps_the_lease_and_goes_on() -> None:
    server = LeaseServer()
    async with serving(server.handle) as kube, asyncio.timeout(60):
        slow = {"duration_seconds": 15, "renew_within_seconds": 10, "retry_seconds": 0.2}
        one, work, written = lease(kube, "a", **slow), Work(), 0
        kube.may_write = one.check
        task = asyncio.create_task(one.run(work))
        await work.started.wait()
        throttle = asyncio.create_task(throttled(0.05))
        renewed, began = server.version, time.monotonic()
        while time.monotonic() - began < 3:
            await asyncio.sleep(0.05)
            one.check()
            written += 1
        throttle.cancel()
        assert written and server.version > renewed and server.holder == "a"
        work.finish.set()
        await task
        assert not work.cancelled


@pytest.mark.requirement("F03")
async def test_who_stood_still_while_another_took_the_lease_writes_nothing_more() -> None:
    server = LeaseServer()
    async with serving(server.handle) as kube, asyncio.timeout(10):
        one, wrote = lease(kube, "a"), list[str]()
        kube.may_write = one.check

        async def work() -> None:
            await kube.request("GET", PATH + "/leader")
            assert server.record is not None
            time.sleep(1.6)  # the process is not given any time for longer than the Lease lasts
            await server.store({**server.record, "spec": {"holderIdentity": "b"}})
            with pytest.raises(LeaseLost):
                await kube.request("PUT", PATH + "/leader", body=server.record)
            wrote.append("nothing")
            await asyncio.Event().wait()

        with pytest.raises(LeaseLost):
            await one.run(work)
        assert (server.holder, wrote, one.leading) == ("b", ["nothing"], False)
        with pytest.raises(LeaseLost):
            one.check()


async def test_a_short_outage_is_survived() -> None:
    server = LeaseServer()
    failing = iter([True] * 5)

    async def handle(request: web.Request) -> web.StreamResponse:
        if server.version > 1 and next(failing, False):
            return web.json_response({"message": "broken"}, status=503)
        return await server.handle(request)

    async with serving(handle) as kube, asyncio.timeout(10):
        work = Work()
        task = asyncio.create_task(lease(kube, "a", duration_seconds=30, renew_within_seconds=20).run(work))
        await server.until_written(6)
        work.finish.set()
        await task
        assert not work.cancelled


async def test_what_the_work_raises_is_raised_and_the_lease_given_back() -> None:
    server = LeaseServer()

    async def work() -> None:
        raise ArithmeticError("a bug")

    async with serving(server.handle) as kube:
        with pytest.raises(ArithmeticError):
            await lease(kube, "a").run(work)
    assert server.holder == ""


async def test_who_is_stopped_gives_the_lease_back() -> None:
    server = LeaseServer()
    async with serving(server.handle) as kube, asyncio.timeout(10):
        work = Work()
        task = asyncio.create_task(lease(kube, "a").run(work))
        await work.started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert (server.holder, work.cancelled) == ("", True)
