"""The engine without a cluster: what a call step costs, how many fit into a second, what a model call adds.

The engine is the one of local mode, in this process. Where its own cost is wanted, calls are answered in the process
itself; where the way out is part of the question, by servers on the loopback interface in processes of their own.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median

import httpx
from tests import postgres
from tests.bench import baseline, decisions, governed, scale, workloads
from tests.bench.engines import NOWHERE, Bench, InstantTools, serving
from tests.bench.figures import Figure, Repetition, Title, figures, percentiles_ms, value
from tests.bench.process import footprint

from fairlead.cli.standins import Server, running
from fairlead.cli.withfile import Environment, StandIn
from fairlead.engine.store.postgres import Address, Postgres

ROOT = Path(__file__).resolve().parents[2]
TOOL: Server = ("Tool", workloads.TOOL)
MODEL: Server = ("Model", workloads.MODEL)

SHORT_RUNS = 150
STEPS, MANY_STEPS = 200, 2000
AT_ONCE, RUNS, RUN_STEPS = 32, 192, 10
SLOW_SYNC_SECONDS = 0.005
CALLS, PER_SECOND = 500, 100.0
LONG_STEPS, LONG_STEP_SECONDS = 24, 0.5
MEMORY_RUNS = 1000

FSYNC, BARE = "local.baseline.fsync", "local.baseline.call"
TITLES = {
    FSYNC: Title("baseline: append 4 KiB and fsync", "ms"),
    BARE: Title("baseline: bare aiohttp call to the instant model, 100/s", "ms"),
    "local.first_step": Title("submit to first call", "ms", baseline=FSYNC),
    "local.three_steps": Title("three call steps, submit to finished", "ms", "6 ms p50", FSYNC),
    "local.three_steps_mcp": Title("the same, calling a real MCP server", "ms", baseline=FSYNC),
    "local.call_step": Title("overhead per call step", "ms", "2 ms p50, aim 1 ms", FSYNC),
    "local.call_step_cpu": Title("processor time per call step", "ms"),
    "local.call_step_cpu_loop": Title("of that, on the event loop (the rest is the store's thread)", "ms"),
    "local.call_step_commits": Title("commits per call step, one run alone", "commits"),
    "local.call_step_slow_sync": Title("overhead per call step, 5 ms added to each sync", "ms", baseline=FSYNC),
    "local.call_step_long": Title(f"overhead per call step in a run of {MANY_STEPS:,}", "ms", "linear", FSYNC),
    "local.commit": Title("one group commit, mean", "ms", baseline=FSYNC),
    "local.throughput": Title("call steps, 32 runs at once", "1/s", "600 /s"),
    "local.runs_per_minute": Title("three-step runs, 32 at once", "1/min", "1,500 /min"),
    "local.postgres.call_step": Title("on PostgreSQL: overhead per call step", "ms", baseline="local.call_step"),
    "local.postgres.commit": Title("on PostgreSQL: one group commit, mean", "ms", baseline="local.commit"),
    "local.postgres.throughput": Title(
        "on PostgreSQL: call steps, 32 runs at once", "1/s", baseline="local.throughput"
    ),
    "local.model_call": Title("overhead per model call, 100/s", "ms", "3 ms p50, 15 ms p99", BARE),
    "local.model_run": Title("a run of one model call, 100/s, due to finished", "ms", baseline=BARE),
    "local.status_short": Title("status writes of a run under 10 s", "writes", "4"),
    "local.status_long": Title("status writes of a run of 12 s", "writes", "one every 5 s and the last"),
    "local.start": Title("engine process start to ready", "s"),
    "local.start_cpu": Title("processor time of that", "s"),
    "local.memory.idle": Title("engine memory (RSS), idle", "MiB"),
    "local.memory.worked": Title(f"engine memory (RSS) after {MEMORY_RUNS:,} runs of three calls", "MiB", "300 MiB"),
    "local.memory.long": Title(f"engine memory (RSS) after one run of {MANY_STEPS:,} steps", "MiB", "300 MiB"),
    **decisions.TITLES,
    **governed.TITLES,
    **scale.TITLES,
}


async def measure(build: Path, *, repeats: int, say: Callable[[str], None]) -> list[Figure]:
    """Measure everything that needs no cluster.

    Args:
        build: a folder on the file system to measure.
        repeats: how often, for the spread.
        say: told what is being measured.
    """
    repetitions: list[Repetition] = []
    for number in range(repeats):
        for part in PARTS:
            say(f"local {number + 1}/{repeats}: {part.__name__.strip('_').replace('_', ' ')}")
            with tempfile.TemporaryDirectory(dir=build) as folder:
                repetitions.append(await part(Path(folder)))
    return figures(TITLES, repetitions)


async def _baseline(folder: Path) -> Repetition:
    return {FSYNC: await asyncio.to_thread(baseline.synchronised_appends, folder)}


async def _decisions(folder: Path) -> Repetition:
    return await decisions.decisions()


async def _latency(folder: Path) -> Repetition:
    tools = InstantTools()
    async with serving(folder, _declared(workloads.chain("w", 3)), tools=tools) as bench:
        begun, ended = await _one_by_one(bench)
        first = [at - begin for at, begin in zip(tools.called_at[3::3], begun, strict=True)]
        return {
            "local.first_step": percentiles_ms(first),
            "local.three_steps": percentiles_ms([end - begin for begin, end in zip(begun, ended, strict=True)]),
        }


async def _latency_over_mcp(folder: Path) -> Repetition:
    script = ROOT / "tests/servers/ledger.py"
    ledger = StandIn(command=[sys.executable, str(script), "--port=${PORT}"], ready="/health")
    async with running(Environment({TOOL: ledger}), wanted={TOOL}, store=folder) as addresses:
        declared = [workloads.chain("w", 3), workloads.tool({"url": addresses[TOOL]}), workloads.policy()]
        async with serving(folder, declared, addresses=addresses) as bench:
            begun, ended = await _one_by_one(bench)
    return {"local.three_steps_mcp": percentiles_ms([end - begin for begin, end in zip(begun, ended, strict=True)])}


async def _call_step(folder: Path) -> Repetition:
    tools = InstantTools()
    async with serving(folder, _declared(workloads.loop("w", STEPS)), tools=tools) as bench:
        await bench.run("w")
        tools.called_at.clear()
        commits, process_seconds, loop_seconds = bench.commits(), time.process_time(), time.thread_time()
        await bench.run("w")
        process_seconds, loop_seconds = time.process_time() - process_seconds, time.thread_time() - loop_seconds
        commits = bench.commits() - commits
    return {
        "local.call_step": percentiles_ms(_between(tools.called_at)),
        "local.call_step_cpu": value(process_seconds / STEPS * 1000),
        "local.call_step_cpu_loop": value(loop_seconds / STEPS * 1000),
        "local.call_step_commits": value(commits.number / STEPS),
        "local.commit": value(commits.mean_ms),
    }


async def _call_step_on_a_slow_disk(folder: Path) -> Repetition:
    tools = InstantTools()
    declared = _declared(workloads.loop("w", STEPS))
    async with serving(folder, declared, tools=tools, sync_delay_seconds=SLOW_SYNC_SECONDS) as bench:
        await bench.run("w")
    return {"local.call_step_slow_sync": percentiles_ms(_between(tools.called_at))}


async def _call_step_of_a_long_run(folder: Path) -> Repetition:
    tools = InstantTools()
    async with serving(folder, _declared(workloads.loop("w", MANY_STEPS)), tools=tools) as bench:
        await bench.run("w")
    return {"local.call_step_long": percentiles_ms(_between(tools.called_at))}


async def _throughput(folder: Path) -> Repetition:
    declared = _declared(workloads.chain("w", RUN_STEPS), workloads.chain("three", 3))
    async with serving(folder, declared, tools=InstantTools()) as bench:
        await bench.run("w")
        began = time.perf_counter()
        await bench.many("w", runs=RUNS, at_once=AT_ONCE)
        steps_per_second = RUNS * RUN_STEPS / (time.perf_counter() - began)
        began = time.perf_counter()
        await bench.many("three", runs=RUNS, at_once=AT_ONCE)
        runs_per_minute = RUNS / (time.perf_counter() - began) * 60
    return {"local.throughput": value(steps_per_second), "local.runs_per_minute": value(runs_per_minute)}


async def _on_postgres(folder: Path) -> Repetition:
    """Do the same with the journal in a PostgreSQL on this machine, where one can run."""
    if postgres.missing():
        return {}
    declared = _declared(workloads.loop("loop", STEPS), workloads.chain("w", RUN_STEPS))
    tools = InstantTools()
    with postgres.server() as database:
        store = Postgres(Address(lambda: database.url, holder="bench", namespace="bench"))
        async with serving(folder, declared, tools=tools, store=store) as bench:
            await bench.run("loop")
            tools.called_at.clear()
            commits = bench.commits()
            await bench.run("loop")
            commits, called_at = bench.commits() - commits, list(tools.called_at)
            began = time.perf_counter()
            await bench.many("w", runs=RUNS, at_once=AT_ONCE)
            steps_per_second = RUNS * RUN_STEPS / (time.perf_counter() - began)
    return {
        "local.postgres.call_step": percentiles_ms(_between(called_at)),
        "local.postgres.commit": value(commits.mean_ms),
        "local.postgres.throughput": value(steps_per_second),
    }


async def _model_calls(folder: Path) -> Repetition:
    """Pace single calls against a server that answers at once. Its own time is subtracted from ours.

    Each call is a run of its own, so that the load is open: the next one is due whether this one is answered or not.
    """
    instant = StandIn(command=[sys.executable, "-m", "tests.bench.instant", "--port=${PORT}"], ready="/seconds")
    async with running(Environment({MODEL: instant}, folder=ROOT), wanted={MODEL}, store=folder) as addresses:
        url = addresses[MODEL]
        server = url.removesuffix("/v1")
        endpoint = {"api": "OpenAIChat", "url": url, "model": "instant"}
        body = {"model": "instant", "messages": [{"role": "user", "content": "k"}], "stream": False}
        bare = await baseline.bare_calls(f"{url}/chat/completions", body, calls=CALLS, per_second=PER_SECOND)
        declared = [workloads.asking("w"), workloads.model({"endpoint": endpoint}), workloads.policy()]
        async with serving(folder, declared, addresses=addresses) as bench:
            await bench.run("w")
            bench.gate.seconds.clear()
            httpx.get(f"{server}/seconds").raise_for_status()

            async def one(due: float) -> float:
                await bench.run("w")
                return asyncio.get_running_loop().time() - due

            runs = await baseline.paced(one, calls=CALLS, per_second=PER_SECOND)
        server_seconds = median(httpx.get(f"{server}/seconds").json())
    return {
        BARE: percentiles_ms(bare),
        "local.model_call": percentiles_ms([seconds - server_seconds for seconds in bench.gate.seconds]),
        "local.model_run": percentiles_ms(runs),
    }


async def _status_writes(folder: Path) -> Repetition:
    async with serving(folder, _declared(workloads.chain("w", 3)), tools=InstantTools()) as bench:
        await bench.run("w", "short")
    slow = InstantTools(seconds=LONG_STEP_SECONDS)
    async with serving(folder, _declared(workloads.loop("w", LONG_STEPS)), tools=slow) as long:
        await long.run("w", "long")
    return {
        "local.status_short": value(bench.statuses.writes["short"]),
        "local.status_long": value(long.statuses.writes["long"]),
    }


async def _memory_and_start(folder: Path) -> Repetition:
    many = await footprint(folder, workloads.chain("w", 3), runs=MEMORY_RUNS)
    one = await footprint(folder, workloads.loop("w", MANY_STEPS), runs=1)
    return {
        "local.start": value(many.start_seconds),
        "local.start_cpu": value(many.start_processor_seconds),
        "local.memory.idle": value(many.idle),
        "local.memory.worked": value(many.worked),
        "local.memory.long": value(one.worked),
    }


PARTS: Sequence[Callable[[Path], Awaitable[Repetition]]] = (
    _baseline,
    _decisions,
    _latency,
    _latency_over_mcp,
    _call_step,
    _call_step_on_a_slow_disk,
    _call_step_of_a_long_run,
    _throughput,
    _on_postgres,
    _model_calls,
    _status_writes,
    _memory_and_start,
    *governed.PARTS,
    *scale.PARTS,
)


def _declared(*workflows: workloads.Manifest) -> list[workloads.Manifest]:
    return [*workflows, workloads.tool({"url": NOWHERE}), workloads.policy()]


async def _one_by_one(bench: Bench) -> tuple[list[float], list[float]]:
    """Run one after the other, the first one unseen; return when each was submitted and when it had finished."""
    await bench.run("w")
    begun, ended = [], []
    for _ in range(SHORT_RUNS):
        begun.append(time.perf_counter())
        await bench.run("w")
        ended.append(time.perf_counter())
    return begun, ended


def _between(called_at: Sequence[float]) -> list[float]:
    """Return what passes from one call of a run to the next; the calls themselves take no time."""
    return [later - earlier for earlier, later in pairwise(called_at)]
