"""Signals that a trigger passes on: added to the run that it names, once, whoever else writes to it."""

from __future__ import annotations

from typing import Any, cast

import pytest
from tests.unit.kube.api_server import FakeApiServer, answer, failure, serving

from fairlead.engine.objects import ATTEMPTS, ClusterObjects
from fairlead.errors import Conflict, NotFound
from fairlead.kube.client import Kube
from fairlead.kube.watch import Informer

SIGNAL = {"name": "paid", "by": "trigger:till", "data": {"n": 7}}


class FakeKube:
    """One run; `overtaken` says how often somebody else writes between our read and our write."""

    def __init__(self, overtaken: int = 0, signals: list[dict[str, Any]] | None = None) -> None:
        self.overtaken = overtaken
        self.signals = signals
        self.version = 1

    async def get(self, rt: Any, name: str, namespace: str) -> dict[str, Any]:
        if name != "w-1":
            raise NotFound(404, "gone")
        version, spec = str(self.version), {"workflow": "w"}
        more = {"signals": list(self.signals)} if self.signals is not None else {}
        if self.overtaken:
            self.overtaken -= 1
            self.version += 1
        return {"metadata": {"name": name, "resourceVersion": version}, "spec": spec | more}

    async def patch(self, rt: Any, name: str, namespace: str, body: dict[str, Any]) -> None:
        if body["metadata"]["resourceVersion"] != str(self.version):
            raise Conflict(409, "stale")
        self.signals = body["spec"]["signals"]


def objects(kube: FakeKube) -> ClusterObjects:
    return ClusterObjects(cast(Kube, kube), "team", cast(Informer, None), cast(Informer, None))


@pytest.mark.parametrize("overtaken", [0, ATTEMPTS - 1])
async def test_a_signal_is_added_at_the_end(overtaken: int) -> None:
    kube = FakeKube(overtaken, [{"name": "other", "by": "alice"}])
    assert await objects(kube).signal_run("w-1", "w", SIGNAL)
    assert kube.signals == [{"name": "other", "by": "alice"}, SIGNAL]


async def test_the_same_signal_again_is_none() -> None:
    kube = FakeKube(signals=[SIGNAL])
    assert await objects(kube).signal_run("w-1", "w", dict(SIGNAL))
    assert kube.signals == [SIGNAL]


@pytest.mark.parametrize(("name", "workflow"), [("gone", "w"), ("w-1", "other")])
async def test_a_run_of_another_workflow_is_none(name: str, workflow: str) -> None:
    kube = FakeKube()
    assert not await objects(kube).signal_run(name, workflow, SIGNAL)
    assert kube.signals is None


@pytest.mark.requirement("A34")
@pytest.mark.parametrize(
    "spec", [None, "w", {}, {"workflow": ["w"]}, {"workflow": "w", "parent": "x"}, {"workflow": "w", "signals": {}}]
)
async def test_a_run_whose_spec_cannot_be_read_is_of_no_workflow(spec: Any) -> None:
    class Poisoned(FakeKube):
        async def get(self, rt: Any, name: str, namespace: str) -> dict[str, Any]:
            return await super().get(rt, name, namespace) | {"spec": spec}

        async def once_ready(self, asked: Any) -> Any:
            raise Conflict(409, "the name is taken")

        async def create(self, *_: Any) -> Any: ...

    kube = Poisoned()
    assert not await objects(kube).signal_run("w-1", "w", SIGNAL)
    assert kube.signals is None
    made = await objects(kube).create_run({"metadata": {"name": "w-1"}, "spec": {"workflow": "w"}})
    assert made["spec"] == {"workflow": ""}


async def test_who_is_always_overtaken_says_so() -> None:
    with pytest.raises(Conflict):
        await objects(FakeKube(ATTEMPTS)).signal_run("w-1", "w", SIGNAL)


@pytest.mark.requirement("F15")
async def test_a_run_that_an_api_server_refuses_which_has_just_started_is_made() -> None:
    api, run = FakeApiServer(), {"metadata": {"name": "c-1"}, "spec": {"workflow": "c"}}
    api.answers(failure(403), answer("ok"), answer(run))
    async with serving(api) as kube:
        made = await ClusterObjects(kube, "team", cast(Informer, None), cast(Informer, None)).create_run(run)
    assert made == run
