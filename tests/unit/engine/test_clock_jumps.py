"""The wall clock jumps by hours, or is wrong from the start: nothing fires early, late or twice for it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web
from tests.unit.engine.approvalworld import SIGN, Asked
from tests.unit.engine.fakecluster import FakeCluster
from tests.unit.engine.fakes import tool_step, workflow
from tests.unit.engine.podworld import Cluster as Pods
from tests.unit.engine.podworld import beside
from tests.unit.engine.runworld import run_object, uid_of
from tests.unit.engine.test_tokens import Cluster, signed
from tests.unit.kube.api_server import serving

from fairlead.engine.clock import RETRY_SECONDS, TOLERANCE_MS, SteadyClock, agree
from fairlead.engine.pods import PodRunner
from fairlead.engine.pods.startup import Startup
from fairlead.engine.tokens import SKEW_SECONDS, Tokens, Unauthenticated
from fairlead.errors import KubeError, Unreachable
from fairlead.flow.state import RunState
from fairlead.kube.client import TOKEN_SECONDS, token_reader
from fairlead.kube.types import PODS

pytestmark = pytest.mark.requirement("F32")

HOUR = 3600
HOUR_MS = 3_600_000


class Wall:
    """The wall clock of this process, as far as it is wrong."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.hours = 0
        self._ns, self.true_ms = time.time_ns, lambda: self._ns() // 1_000_000
        patch.setattr(time, "time_ns", lambda: self._ns() + self.hours * HOUR * 10**9)
        patch.setattr(time, "time", lambda: self._ns() / 1e9 + self.hours * HOUR)

    @contextlib.asynccontextmanager
    async def jumping(self) -> AsyncIterator[None]:
        async def jump() -> None:
            for self.hours in itertools.cycle((5, -5, 13, 0, -13)):
                await asyncio.sleep(0.01)

        jumps = asyncio.create_task(jump())
        try:
            yield
        finally:
            jumps.cancel()
            self.hours = 0


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Wall:
    return Wall(monkeypatch)


WORKFLOWS = {
    "naps": [{"name": "nap", "wait": {"seconds": 1}}, tool_step("a")],
    "waits": [{"name": "sig", "wait": {"signal": {"name": "go"}, "timeoutSeconds": 1, "onTimeout": "Continue"}}],
    "asks": [{"name": "sign", "approval": SIGN["approval"] | {"expiresAfterSeconds": 1}}],
    "ends": [{"name": "nap", "wait": {"seconds": HOUR}}],
    "sleeps": [{"name": "nap", "wait": {"seconds": HOUR}}],
}
ENDS = {"naps": "Completed", "waits": "Completed", "asks": "Denied", "ends": "Timeout"}


@pytest.fixture
def world(tmp_path: Path, wall: Wall) -> Asked:
    world = Asked(tmp_path / "journal.db", SIGN)
    world.clock = SteadyClock()  # type: ignore[assignment]  # the real one
    world.gate._clock = world.clock
    for name, steps in WORKFLOWS.items():
        world.resources.workflows[name] = workflow(*steps, name=name)
    return world


async def test_timers_deadlines_approvals_and_schedules_take_their_time(world: Asked, wall: Wall) -> None:
    world.cluster = FakeCluster()
    due = datetime.now(UTC) + timedelta(hours=10)
    triggers = {"schedules": [{"name": "later", "cron": f"{due.minute} {due.hour} * * *"}]}
    world.resources.workflows["due"] = workflow(tool_step("a"), name="due", triggers=triggers)
    began = time.monotonic()
    ended: dict[str, tuple[float, str]] = {}

    async with world.engine() as engine, wall.jumping():
        futures = {}
        for number, name in enumerate(WORKFLOWS):
            raw = run_object(
                number, requestedBy="carol", workflow=name, **({"timeoutSeconds": 1} if name == "ends" else {})
            )
            futures[name] = engine.submit(raw)

        async def wait(name: str) -> None:
            state: RunState = await asyncio.wait_for(futures[name], 20)
            assert state.terminal is not None
            ended[name] = time.monotonic() - began, state.terminal.reason

        await asyncio.gather(*(wait(name) for name in ENDS))
        assert {name: reason for name, (_, reason) in ended.items()} == ENDS
        assert all(0.9 < seconds < 10 for seconds, _ in ended.values()), ended
        assert not futures["sleeps"].done()
        assert world.cluster.objects == {}, "a schedule was due"
        entries = [entry for n in range(len(WORKFLOWS)) for entry in await engine.store.load(uid_of(run_object(n)))]
    assert all(abs(entry.at - wall.true_ms()) < 60_000 for entry in entries)


@pytest.mark.parametrize("hours", [5, -5])
async def test_an_engine_that_starts_on_a_node_whose_clock_is_wrong_goes_by_the_api_servers(
    world: Asked, wall: Wall, hours: int, caplog: pytest.LogCaptureFixture
) -> None:
    raw = run_object(workflow="sleeps")
    async with world.engine() as engine:
        engine.submit(raw)
        await world.until(lambda: engine.runs.roster.status("sleeps")["waiting"] == 1)
        (*_, first) = await engine.store.load(uid_of(raw))
    wall.hours = hours
    world.clock = clock = SteadyClock()  # type: ignore[assignment]  # the real one
    with caplog.at_level(logging.WARNING):
        await agree(clock, api_server(wall))
    assert "ClockSkew: the API server's clock counts, this node's is late by" in caplog.text
    async with world.engine(objects=[raw]) as engine:
        naps = engine.submit(run_object(1, workflow="naps"))
        state = await asyncio.wait_for(naps, 20)
        assert engine.runs.roster.status("sleeps")["waiting"] == 1
    assert state.finished_at is not None and abs(state.finished_at - first.at) < 60_000


async def test_the_api_servers_time_is_waited_for_and_a_little_difference_is_none(wall: Wall) -> None:
    clock, before = SteadyClock(), wall.true_ms()
    assert clock.follow(before + TOLERANCE_MS - 500) == 0 and abs(clock() - before) < 1000
    answers: list[Exception | int] = [Unreachable(503, "away"), before + 2 * HOUR_MS]

    async def ask() -> int:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    began = time.monotonic()
    await agree(clock, ask)
    assert time.monotonic() - began >= RETRY_SECONDS and abs(clock() - before - 2 * HOUR_MS) < 10_000
    answers = [KubeError(403, "no")]
    await agree(clock, ask)
    assert abs(clock() - before - 2 * HOUR_MS) < 10_000


@pytest.mark.parametrize("date", ["Wed, 21 Oct 2026 07:28:05 GMT", "soon", "Wed, 21 Oct 99999999999 07:28:05 GMT"])
async def test_what_time_it_is_stands_in_any_answer_of_the_api_server(date: str) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        assert request.path == "/version"
        return web.json_response({}, headers={"Date": date})

    async with serving(answer) as kube:
        if date.endswith("2026 07:28:05 GMT"):
            assert await kube.now_ms() == 1_792_567_685_000
        else:
            with pytest.raises(KubeError, match="what time it is"):
                await kube.now_ms()


async def test_the_own_token_is_read_again_whatever_the_wall_clock_says(tmp_path: Path, wall: Wall) -> None:
    file, passed, heard = tmp_path / "token", 0.0, list[str]()
    file.write_text("one\n")

    async def answer(request: web.Request) -> web.StreamResponse:
        heard.append(request.headers["Authorization"])
        return web.json_response({})

    async with serving(answer) as kube:
        kube._configuration.refresh_api_key_hook = token_reader(file, clock=lambda: passed)
        await kube.request("GET", "/version")
        file.write_text("two\n")
        wall.hours = -5
        passed = TOKEN_SECONDS / 2
        await kube.request("GET", "/version")
        passed = TOKEN_SECONDS + 1
        await kube.request("GET", "/version")
        file.unlink()
        passed *= 2
        await kube.request("GET", "/version")
    assert heard == ["Bearer one", "Bearer one", "Bearer two", "Bearer two"]


@pytest.mark.parametrize("hours", [2, -2])
async def test_tokens_are_good_by_the_clock_of_who_made_them(wall: Wall, hours: int) -> None:
    made = wall.true_ms() // 1000
    token = signed(iat=made, nbf=made, exp=made + 600)
    wall.hours = hours
    clock = SteadyClock()
    late = r"ClockSkew: the token begins in 7(200|19\d) s" if hours < 0 else "the token ended 660. s ago"
    with pytest.raises(Unauthenticated, match=late):
        await Tokens(Cluster().fetch, "team", now=clock).verify(token)
    await agree(clock, api_server(wall))
    await Tokens(Cluster().fetch, "team", now=clock).verify(token)


@pytest.mark.parametrize(
    ("claims", "why"),
    [
        ({"iat": SKEW_SECONDS - 5}, ""),
        ({"iat": SKEW_SECONDS + 5}, "ClockSkew"),
        ({"nbf": SKEW_SECONDS + 5}, "ClockSkew"),
        ({"exp": 0}, "ended 0 s ago"),
    ],
)
async def test_a_token_has_its_time(claims: dict[str, float], why: str) -> None:
    clock = lambda: 1_000_000_000_000  # noqa: E731
    token = signed(**({"iat": 10**9, "exp": 10**9 + 600} | {key: int(10**9 + at) for key, at in claims.items()}))
    with pytest.raises(Unauthenticated, match=why) if why else contextlib.nullcontext():
        await Tokens(Cluster().fetch, "team", now=clock).verify(token)


@pytest.mark.parametrize("odd", [{"exp": "soon"}, {"exp": None}, {"iat": []}, {"exp": "NaN"}, {"iat": "NaN"}])
async def test_a_token_whose_times_are_none_is_refused(odd: dict[str, Any]) -> None:
    with pytest.raises(Unauthenticated):
        await Tokens(Cluster().fetch, "team", now=SteadyClock()).verify(signed(**odd))


@pytest.mark.parametrize(("late_hours", "lost"), [(0, False), (1, True)])
async def test_how_long_a_pod_should_be_gone_is_counted_by_the_api_servers_clock(late_hours: int, lost: bool) -> None:
    cluster, told = Pods(), list[str]()
    cluster.looks = 10**9
    pod = await cluster.create(PODS, {"metadata": {"name": "p"}}, "team-a")
    pod["metadata"]["deletionTimestamp"] = pod["metadata"]["creationTimestamp"]

    def clock() -> int:
        return time.time_ns() // 1_000_000 + late_hours * HOUR_MS

    runner = PodRunner(cluster, beside, clock=clock)  # type: ignore[arg-type]  # pods in memory
    log: Any = SimpleNamespace(draining=False, namespace="team-a")
    startup = Startup(clock, seconds=3600, tell=told.append)
    following = asyncio.create_task(runner._follow(log, "p", pod["metadata"]["uid"], startup))
    while not following.done() and pod["looks"] < 3:
        await asyncio.sleep(0.01)
    assert following.done() is lost
    log.draining = True
    outcome = await following
    assert (outcome is not None and outcome.error is not None) is lost


def api_server(wall: Wall) -> Any:
    async def ask() -> int:
        return wall.true_ms() // 1000 * 1000  # a Date has no fractions

    return ask
