"""An installation on the test cluster, as a user sees it: create a WorkflowRun, watch it, read its journal.

The engine's clock is this machine's, so that times in the journal (to the millisecond) compare with ours. The tools
are called for real: each call is one HTTP exchange with a pod, which is measured by the engine and subtracted.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from tests.bench import workloads
from tests.bench.figures import Figure, Repetition, Statistics, Title, figures, percentiles_ms, value
from tests.bench.process import MIB
from tests.bench.submitting import Seen, Submitter, submitting
from tests.bench.team import team
from tests.e2e.installation import ROOT, SYSTEM, condition
from tests.e2e.kubectl import Kubectl

from fairlead.flow.journal import Entry, EntryKind
from fairlead.kube.types import CONFIG_MAPS

SHORT_RUNS = 20
POD_RUNS = 5
STEPS = 100
AT_ONCE, RUNS, RUN_STEPS = 32, 96, 10
LONG_STEPS = 24  # of half a second each
MEMORY_RUNS = 1000
SUBMITTED, SUBMITTED_SECONDS = 1500, 180.0
QUEUED, QUEUED_SECONDS = 5000, 600.0
API_WRITES = 30
KUBELET_SECONDS = 20.0

API = "cluster.baseline.api"
TITLES = {
    API: Title("baseline: create a ConfigMap", "ms"),
    "cluster.first_step": Title("create a run to its first step started", "ms", "50 ms p50, 500 ms p99", API),
    "cluster.three_steps": Title("three call steps, create to Finished seen", "ms", "150 ms p50", API),
    "cluster.pod": Title("create a run to its program in a pod", "ms", "2,500 ms p50", API),
    "cluster.pod_calls": Title("the same where the program may call models and tools", "ms"),
    "cluster.call_step": Title("overhead per call step", "ms", "3 ms p50, 10 ms p99"),
    "cluster.call": Title("the call itself: one exchange with the pod", "ms"),
    "cluster.commit": Title("one group commit, mean", "ms"),
    "cluster.throughput": Title("call steps, 32 runs at once", "1/s", "400 /s"),
    "cluster.submissions": Title(
        f"runs of three calls a minute, {SUBMITTED:,} created at once, until the last is seen to have ended",
        "1/min",
        "1,500 /min",
    ),
    "cluster.cache_hits": Title("permissions that the cache knows, of those asked for in that", "%"),
    "cluster.queued": Title(
        f"{QUEUED:,} runs of three calls created at once, until the last is seen to have ended", "s", "240 s"
    ),
    "cluster.queued.created": Title("of that, until the last is created", "s"),
    "cluster.memory.operator_queued": Title(f"operator memory (RSS) after {QUEUED:,} queued runs", "MiB", "150 MiB"),
    "cluster.memory.engine_queued": Title(f"engine memory (RSS) after {QUEUED:,} queued runs", "MiB", "300 MiB"),
    "cluster.status_short": Title("writes to a run's object, under 10 s", "writes", "4"),
    "cluster.status_long": Title("writes to a run's object, 12 s", "writes", "one every 5 s and the last"),
    "cluster.start.operator": Title("operator container start to Ready, to the second", "s"),
    "cluster.start.engine": Title("engine container start to Ready, to the second", "s"),
    "cluster.memory.operator_idle": Title("operator memory (RSS), idle", "MiB"),
    "cluster.memory.engine_idle": Title("engine memory (RSS), idle", "MiB"),
    "cluster.memory.operator_worked": Title(f"operator memory (RSS) after {MEMORY_RUNS:,} runs", "MiB", "150 MiB"),
    "cluster.memory.engine_worked": Title(f"engine memory (RSS) after {MEMORY_RUNS:,} runs", "MiB", "300 MiB"),
    "image.fairlead": Title("image: operator and engine, unpacked", "MiB"),
    "image.examples": Title("image: examples with their models, unpacked", "MiB"),
}


def measure(*, repeats: int, say: Callable[[str], None]) -> list[Figure]:
    """Measure an installation in a namespace of its own.

    Args:
        repeats: how often, for the spread. What takes long or is known once is measured once.
        say: told what is being measured.
    """
    say("cluster: a namespace with an engine and a tool")
    with team(*flows()) as kubectl:
        return figures(TITLES, asyncio.run(_measure(kubectl, repeats=repeats, say=say)))


def flows() -> list[workloads.Manifest]:
    """Return the Workflows that are run."""
    chains = [workloads.chain("three", 3), workloads.chain("ten", RUN_STEPS)]
    loops = [workloads.loop("loop", STEPS), workloads.loop("slow", LONG_STEPS, "wait")]
    pods = [workloads.container("pod", calls=False), workloads.container("pod-calls", calls=True)]
    return [*chains, *loops, *pods]


async def _measure(kubectl: Kubectl, *, repeats: int, say: Callable[[str], None]) -> list[Repetition]:
    async with submitting(kubectl.namespace) as submitter:
        await submitter.run("three")
        found: list[Repetition] = [_images(), _starts(kubectl), await _memory(kubectl, "idle")]
        for number in range(repeats):
            for part in (_api_writes, _latency, _pods, _call_step, _throughput, _status_writes):
                say(f"cluster {number + 1}/{repeats}: {part.__name__.strip('_').replace('_', ' ')}")
                found.append(await part(submitter))
            found.append({"cluster.commit": value(await _mean_commit_ms(submitter))})
        say(f"cluster: memory after {MEMORY_RUNS} runs")
        await submitter.many("three", runs=MEMORY_RUNS, at_once=AT_ONCE)
        found.append(await _memory(kubectl, "worked"))
        for number in range(repeats):
            say(f"cluster {number + 1}/{repeats}: {SUBMITTED} runs submitted at once")
            found.append(await _submissions(submitter))
        say(f"cluster: {QUEUED} runs queued")
        found += [await _queued(submitter), await _memory(kubectl, "queued")]
    return found


async def _api_writes(submitter: Submitter) -> Repetition:
    seconds = []
    for number in range(API_WRITES):
        began = time.perf_counter()
        manifest = {"metadata": {"generateName": "bench-"}, "data": {"number": str(number)}}
        await submitter.kube.create(CONFIG_MAPS, manifest, submitter.namespace)
        seconds.append(time.perf_counter() - began)
    return {API: percentiles_ms(seconds)}


async def _latency(submitter: Submitter) -> Repetition:
    seen = [await submitter.run("three") for _ in range(SHORT_RUNS)]
    started = [_first(await submitter.journal(run), EntryKind.STEP_STARTED).at / 1000 for run in seen]
    return {
        "cluster.first_step": percentiles_ms([at - run.submitted_at for at, run in zip(started, seen, strict=True)]),
        "cluster.three_steps": percentiles_ms([run.finished_at - run.submitted_at for run in seen]),
    }


async def _pods(submitter: Submitter) -> Repetition:
    async def starts(workflow: str) -> Statistics:
        seconds = []
        for _ in range(POD_RUNS):
            run = await submitter.run(workflow)
            outcome = _first(await submitter.journal(run), EntryKind.CALL_OUTCOME)
            seconds.append(outcome.data["result"]["output"] - run.submitted_at)
        return percentiles_ms(seconds)

    return {"cluster.pod": await starts("pod"), "cluster.pod_calls": await starts("pod-calls")}


async def _call_step(submitter: Submitter) -> Repetition:
    journal = await submitter.journal(await submitter.run("loop"))
    begun = [entry.at for entry in journal if entry.kind is EntryKind.CALL_INTENT]
    calls = [entry.data["durationMs"] for entry in journal if entry.kind is EntryKind.CALL_OUTCOME]
    steps = [later - earlier for earlier, later in pairwise(begun)]
    overheads = [step - call for step, call in zip(steps, calls, strict=False)]
    return {
        "cluster.call_step": percentiles_ms([overhead / 1000 for overhead in overheads]),
        "cluster.call": percentiles_ms([call / 1000 for call in calls]),
    }


async def _throughput(submitter: Submitter) -> Repetition:
    seen = await submitter.many("ten", runs=RUNS, at_once=AT_ONCE)
    return {"cluster.throughput": value(RUNS * RUN_STEPS / _seconds(seen))}


async def _submissions(submitter: Submitter) -> Repetition:
    before = await _reviews(submitter)
    seen = await submitter.all_at_once("three", runs=SUBMITTED, longest_seconds=SUBMITTED_SECONDS)
    reviews = {result: count - before.get(result, 0) for result, count in (await _reviews(submitter)).items()}
    return {
        "cluster.submissions": value(SUBMITTED / _seconds(seen) * 60),
        "cluster.cache_hits": value(reviews["hit"] / sum(reviews.values()) * 100),
    }


async def _queued(submitter: Submitter) -> Repetition:
    seen = await submitter.all_at_once("three", runs=QUEUED, longest_seconds=QUEUED_SECONDS)
    submitted_at = [run.submitted_at for run in seen]
    return {
        "cluster.queued": value(_seconds(seen)),
        "cluster.queued.created": value(max(submitted_at) - min(submitted_at)),
    }


async def _status_writes(submitter: Submitter) -> Repetition:
    async def writes(workflow: str) -> Statistics:
        run: Seen = await submitter.run(workflow)
        return value(submitter.writes[run.name])

    return {"cluster.status_short": await writes("three"), "cluster.status_long": await writes("slow")}


async def _mean_commit_ms(submitter: Submitter) -> float:
    """Return the mean of all commits since the engine began, from its metrics."""
    samples = {sample.name: sample.value for sample in await _samples(submitter)}
    name = "fairlead_journal_commit_duration_seconds"
    return float(samples[f"{name}_sum"] / samples[f"{name}_count"] * 1000)


async def _reviews(submitter: Submitter) -> dict[str, float]:
    """Return how many permissions the engine has asked for, by where the answer came from."""
    samples = [one for one in await _samples(submitter) if one.name == "fairlead_authorizer_cache_total"]
    return {sample.labels["result"]: sample.value for sample in samples}


async def _samples(submitter: Submitter) -> list[Sample]:
    """Return the engine's metrics."""
    path = f"/api/v1/namespaces/{submitter.namespace}/services/fairlead-engine:http/proxy/metrics"
    text = await submitter.kube.request("GET", path)
    return [sample for family in text_string_to_metric_families(text) for sample in family.samples]


async def _memory(kubectl: Kubectl, when: str) -> Repetition:
    """Return what the kubelet says about the memory of both processes; it looks every few seconds."""
    await asyncio.sleep(KUBELET_SECONDS)
    node = kubectl.get("nodes")["items"][0]["metadata"]["name"]
    pods = json.loads(kubectl("get", "--raw", f"/api/v1/nodes/{node}/proxy/stats/summary"))["pods"]
    bytes_of = {
        (pod["podRef"]["namespace"], pod["podRef"]["name"]): pod["containers"][0]["memory"]["rssBytes"]
        for pod in pods
        if pod.get("containers")
    }
    operator = _operator(kubectl)["metadata"]["name"]
    return {
        f"cluster.memory.operator_{when}": value(bytes_of[SYSTEM, operator] / MIB),
        f"cluster.memory.engine_{when}": value(bytes_of[kubectl.namespace, "fairlead-engine-0"] / MIB),
    }


def _starts(kubectl: Kubectl) -> Repetition:
    return {
        "cluster.start.operator": value(_seconds_to_ready(_operator(kubectl))),
        "cluster.start.engine": value(_seconds_to_ready(kubectl.get("pod", "fairlead-engine-0"))),
    }


def _operator(kubectl: Kubectl) -> dict[str, Any]:
    """Return a running pod of the operator."""
    pods = kubectl.within(SYSTEM).get("pods", "--selector", "app.kubernetes.io/name=fairlead-operator")["items"]
    (pod, *_) = [pod for pod in pods if condition(pod, "Ready").get("status") == "True"]
    return dict(pod)


def _seconds_to_ready(pod: dict[str, Any]) -> float:
    started = pod["status"]["containerStatuses"][0]["state"]["running"]["startedAt"]
    ready = condition(pod, "Ready")["lastTransitionTime"]
    return (datetime.fromisoformat(ready) - datetime.fromisoformat(started)).total_seconds()


def _images() -> Repetition:
    """Return the sizes of the archives that were built; nothing for those that were not."""
    found: dict[str, Statistics] = {}
    for name in ("fairlead", "examples"):
        description: Path = ROOT / f"build/images/{name}.json"
        if description.exists():
            found[f"image.{name}"] = value(json.loads(description.read_text(encoding="utf-8"))["size"] / MIB)
    return found


def _seconds(seen: list[Seen]) -> float:
    """Return what passed from the first submission until the last was seen to have ended."""
    return max(run.finished_at for run in seen) - min(run.submitted_at for run in seen)


def _first(journal: list[Entry], kind: EntryKind) -> Entry:
    return next(entry for entry in journal if entry.kind is kind)
