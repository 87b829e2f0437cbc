"""The bench measures what there is: its workloads are Workflows that Fairlead takes, and each of its parts runs."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.bench import baseline, cluster, decisions, governed, local, report, scale, workloads
from tests.bench.engines import NOWHERE, InstantTools, serving
from tests.bench.figures import Title, figures, value
from tests.bench.submitting import Submitter

from fairlead.telemetry.metrics import EngineMetrics

TINY: Mapping[Any, Mapping[str, Any]] = {
    baseline: {"APPENDS": 3},
    decisions: {"TIMES": 3},
    governed: {"AT_ONCE": 2, "RUNS": 2, "RUN_STEPS": 2},
    local: {
        **{"SHORT_RUNS": 2, "STEPS": 3, "MANY_STEPS": 3, "AT_ONCE": 2, "RUNS": 2, "RUN_STEPS": 2},
        **{"CALLS": 2, "LONG_STEPS": 2, "LONG_STEP_SECONDS": 0.01, "MEMORY_RUNS": 2},
    },
    scale: {"FEW_ITEMS": 2, "MANY_ITEMS": 3, "QUEUED": 3, "OPEN": 4, "UNDER_WAY": 2},
    cluster: {"SUBMITTED": 20, "QUEUED": 20, "SUBMITTED_SECONDS": 10.0, "QUEUED_SECONDS": 10.0},
}
ENDPOINT = {"api": "OpenAIChat", "url": "https://models.example/v1", "model": "instant"}
DECLARED = [workloads.tool({"url": NOWHERE}), workloads.model({"endpoint": ENDPOINT})]


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is small, so that it is run and not measured."""
    for module, sizes in TINY.items():
        for name, size in sizes.items():
            monkeypatch.setattr(module, name, size)


@pytest.mark.usefixtures("tiny")
async def test_each_part_without_a_cluster_runs_and_together_they_find_every_figure(tmp_path: Path) -> None:
    found = set[str]()
    for part in local.PARTS:
        if "postgres" not in part.__name__:  # it starts a server of its own: the tests of the store do so already
            (folder := tmp_path / part.__name__).mkdir()
            found |= (await part(folder)).keys()
    assert found == {key for key in local.TITLES if not key.startswith("local.postgres.")}


async def test_every_workload_is_a_workflow_and_a_loop_makes_as_many_calls_as_it_says(tmp_path: Path) -> None:
    flows = [
        *cluster.flows(),
        workloads.loop("long", local.MANY_STEPS),
        workloads.chain("chain", 20),
        workloads.for_each("each", 10),
        workloads.waiting("waiting"),
        workloads.parent("parent", "waiting"),
        workloads.approval("approval"),
        workloads.asking("asking"),
    ]
    five, tools = workloads.loop("five", 5), InstantTools()
    declared = [workloads.engine(), *flows, five, *DECLARED, workloads.policy("waiting")]
    async with serving(tmp_path, declared, tools=tools) as bench:
        await bench.run("five")
    assert len(tools.called_at) == 5


class Api:
    """An API server whose runs end when they are created, if they do, and an engine that has asked for permissions."""

    def __init__(self, *, ending: bool = True) -> None:
        self.submitter = Submitter(self, "team")  # type: ignore[arg-type]  # only requests are sent
        self._ending = ending
        self._metrics = EngineMetrics()
        self._metrics.authorizer_cache.labels("miss").inc()

    async def request(self, method: str, path: str, *, body: Any = None, urgent: bool = False) -> Any:
        if method == "GET":
            return self._metrics.expose().decode()
        made = {**body, "metadata": {**body["metadata"], "uid": str(uuid.uuid4())}}
        self._metrics.authorizer_cache.labels("hit").inc()
        self._metrics.journal_commit_seconds.observe(0.001)
        true = {"status": "True", "reason": "Completed", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}
        if self._ending:
            ended = [{"type": "Finished", **true}, {"type": "Succeeded", **true}]
            self.submitter.changed(made, {**made, "status": {"conditions": ended}})
        return made


@pytest.mark.usefixtures("tiny")
async def test_runs_that_are_created_at_once_are_counted_and_so_are_the_permissions_that_the_cache_knew() -> None:
    submitter = Api().submitter
    found = {**await cluster._submissions(submitter), **await cluster._queued(submitter)}
    assert found["cluster.cache_hits"] == {"value": 100.0}
    assert found["cluster.submissions"]["value"] > 0 and found["cluster.queued"]["value"] > 0
    assert found.keys() <= cluster.TITLES.keys()
    assert await cluster._mean_commit_ms(submitter) == pytest.approx(1.0)


async def test_runs_that_do_not_end_are_waited_for_no_longer_than_was_said() -> None:
    with pytest.raises(RuntimeError, match=r"3 runs of three: 3 were created and 0 had ended after 0 s"):
        await Api(ending=False).submitter.all_at_once("three", runs=3, longest_seconds=0.05)


def test_the_table_compares_medians_and_means_with_their_baselines() -> None:
    titles = {
        "rate": Title("calls", "1/s"),
        "half": Title("calls elsewhere", "1/s", baseline="rate"),
        "call": Title("a call", "ms"),
        "slow": Title("a slow call", "ms", "2 ms p50", baseline="call"),
    }
    times = {"call": {"p50": 1.0, "p99": 2.0}, "slow": {"p50": 3.0, "p99": 4.0}}
    found = figures(titles, [{"rate": value(100.0), "half": value(50.0), **times}])
    said = report.table(found)
    assert "| calls elsewhere |  | 50 /s | 0.5 |" in said
    assert "| a slow call | 2 ms p50 | p50 3 ms; p99 4 ms | 3.0 |" in said
