"""A run before the gate whose containers have pods in memory, for tests of what runs in them."""

from __future__ import annotations

import base64
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from tests.unit.engine.gateworld import STEP, World

from fairlead.api.policy import Policy
from fairlead.engine.clock import SteadyClock
from fairlead.engine.gate import Gate
from fairlead.engine.pods import PodRunner
from fairlead.engine.pods.build import Beside, EngineAddress
from fairlead.engine.pods.calling import CallingPods
from fairlead.errors import Conflict, KubeError, NotFound, Unreachable
from fairlead.flow.calls import Call, CallId, CallIndex, CallKind
from fairlead.kube.client import Kube
from fairlead.kube.types import ResourceType

IMAGE = "example.com/python@sha256:" + "0" * 64
BESIDE = Beside("fairlead:dev", "IfNotPresent", True)
ENGINE = EngineAddress("fairlead-engine.team-a.svc", "10.1.2.3", 8445, "-----BEGIN CERTIFICATE-----")


def asked(image: str = IMAGE, **request: Any) -> Call:
    given = {"image": image, "input": {"a": 1}} | request
    return Call(CallId(STEP, 1, CallIndex()), CallKind.CONTAINER, image, request=given)


def status(step: dict[str, Any] | None = None, *, inits: Any = (), **more: Any) -> dict[str, Any]:
    states = [{"name": "step", "state": step}] if step is not None else []
    metadata = {"name": "p", "uid": "pod-1", "creationTimestamp": "2026-01-01T00:00:00Z"}
    return {"metadata": metadata, "status": {"containerStatuses": states, "initContainerStatuses": [*inits], **more}}


def exited(code: int, **more: Any) -> dict[str, Any]:
    return {"terminated": {"exitCode": code, **more}}


class Cluster:
    """Pods in memory. `ends` is the status that a pod has once it is looked at so often.

    So many reads as `away` have no answer, so many pods as `lost` are made and nobody hears of it.
    """

    once_ready = Kube.once_ready

    def __init__(self) -> None:
        self.pods: dict[str, dict[str, Any]] = {}
        self.made = 0
        self.ends: dict[str, Any] = status(exited(0), phase="Succeeded")["status"]
        self.output: bytes | None = b'{"n": 7}'
        self.silent = False
        self.looks = 2
        self.refuse: KubeError | None = None
        self.starting = False
        self.away = 0
        self.lost = 0
        self.deleted: list[str] = []

    async def create(self, rt: ResourceType, obj: dict[str, Any], namespace: str) -> dict[str, Any]:
        if self.refuse is not None:
            raise self.refuse
        name = obj["metadata"]["name"]
        if name in self.pods:
            raise Conflict(409, "exists")
        self.made += 1
        created = {"uid": f"pod-{self.made}", "creationTimestamp": datetime.now(UTC).isoformat()}
        self.pods[name] = obj | {"metadata": obj["metadata"] | created, "status": {}, "looks": 0}
        if self.lost:
            self.lost -= 1
            raise Unreachable(0, "no answer in time")
        return self.pods[name]

    async def get(self, rt: ResourceType, name: str, namespace: str) -> dict[str, Any]:
        if self.away:
            self.away -= 1
            raise Unreachable(0, "away")
        if name not in self.pods:
            raise NotFound(404, f"pod {name} not found")
        pod = self.pods[name]
        pod["looks"] += 1
        if pod["looks"] >= self.looks:
            pod["status"] = self.ends
        return pod

    async def request(self, method: str, path: str, *, query: dict[str, str] | None = None, headers: Any = None) -> str:
        if query is None:
            self.refuse = None if self.starting else self.refuse
            return "ok"
        if query["container"] == "step":
            return "hello\nbye\n"
        if self.silent:
            return "fairlead-output: eyJuI\n"  # it was killed while it wrote
        if self.output is None:
            return "fairlead-nothing: .\n"
        return f"fairlead-output: {base64.b64encode(self.output).decode()} .\n"

    async def delete(self, rt: ResourceType, name: str, namespace: str, *, uid: str) -> None:
        if name in self.pods and self.pods[name]["metadata"]["uid"] == uid:
            del self.pods[name]
            self.deleted.append(name)


READY = {"type": "Ready", "status": "True", "reason": "Ready", "lastTransitionTime": "2026-01-01T00:00:00Z"}


def grant(*images: str, ready: str = "True", account: str = "triage") -> Policy:
    spec = {"grants": {"serviceAccounts": [account], "images": [*images]}}
    status_ = {"conditions": [READY | {"status": ready}]}
    return Policy.model_validate({"metadata": {"name": "p"}, "spec": spec, "status": status_})


async def beside(calls: bool) -> Beside:
    return replace(BESIDE, engine=ENGINE) if calls else BESIDE


class PodWorld(World):
    def __init__(self) -> None:
        super().__init__()
        self.cluster = Cluster()
        self.policies = {"p": grant("example.com/python@sha256:*")}
        self.told: list[str] = []
        self.log.draining = False  # type: ignore[attr-defined]
        self.log.tell = lambda path, why: self.told.append(why)  # type: ignore[attr-defined]
        fakes: Any = self
        self.calling = CallingPods()
        runner = PodRunner(self.cluster, beside, self.calling, clock=SteadyClock())  # type: ignore[arg-type]
        tools, sleep = self._Tools(fakes), self.clock.sleep
        self.gate = Gate(fakes, fakes, fakes, tools, self.clock, creator=fakes, sleep=sleep, pods=runner)

    def outcome(self) -> dict[str, Any]:
        return dict(self.log.last())
