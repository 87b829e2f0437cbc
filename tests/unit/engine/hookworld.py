"""The port of HTTP triggers for tests: a Workflow with triggers, a Secret, callers, and a cluster that takes runs."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any

import httpx
from tests.unit.engine.fakes import FakeResources, tool_step, workflow

from fairlead.engine.hooks import Hooks
from fairlead.engine.tokens import Unauthenticated
from fairlead.errors import CredentialPending, KubeError, Unreachable
from fairlead.policy.permission import Permission

KEY = "a key of some length"
HMAC = {"hmac": {"secretRef": {"name": "hooks", "key": "secret"}, "header": "X-Signature", "prefix": "v1="}}
INCIDENT = {
    "name": "incident",
    "auth": HMAC,
    "when": "body.kind == 'opened' && get(headers, 'x-event') != 'ping'",
    "input": {"text": "$( body.text )", "n": "$( body.n )"},
    "dedupeKey": "$( body.id )",
}
OPEN = {"name": "open", "auth": HMAC, "input": {"text": "x"}}
SHOWN = {"name": "shown", "auth": HMAC, "input": {"text": "$( toJson(headers) )"}}
CALLED = {"name": "called", "auth": {"kubernetes": {}}, "input": {"text": "$( body.text )"}}
PAID = {"name": "paid", "auth": HMAC, "signal": {"run": "$( body.run )", "name": "paid", "data": {"n": "$( body.n )"}}}
SCHEMA = {"type": "object", "required": ["text"], "properties": {"text": {"type": "string"}, "n": {"type": "integer"}}}
BODY = {"kind": "opened", "id": "i-1", "text": "it burns", "n": 3}


class Resources(FakeResources):
    """One Workflow with triggers, and a Secret."""

    def __init__(self) -> None:
        triggers = {"http": [INCIDENT, OPEN, SHOWN, CALLED, PAID]}
        super().__init__(
            workflow(
                tool_step("a"), input={"schema": SCHEMA}, triggers=triggers, retention={"ttlSecondsAfterFinished": 60}
            )
        )
        self.secret_name = "hooks"
        self.secret: dict[str, str] | None = {"allowed-use": "hmac\n", "secret": KEY}

    def credential(self, secret: str, key: str) -> str | None:
        if self.secret is None:
            raise CredentialPending("not mounted yet")
        return self.secret.get(key) if secret == self.secret_name else None


class Cluster:
    """WorkflowRuns by name; `error` is what the API server says to every write."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.signals: list[tuple[str, str, Mapping[str, Any]]] = []
        self.error: KubeError | None = None

    async def create_run(self, run: Mapping[str, Any]) -> Mapping[str, Any]:
        if self.error is not None:
            raise self.error
        name = run["metadata"]["name"]
        if name in self.objects:
            return {**self.objects[name], "status": {}}
        self.objects[name] = {**run, "metadata": {**run["metadata"], "uid": f"uid-{len(self.objects)}"}}
        return self.objects[name]

    async def signal_run(self, name: str, workflow: str, signal: Mapping[str, Any]) -> bool:
        if self.error is not None:
            raise self.error
        self.signals.append((name, workflow, signal))
        return name != "gone"


class World:
    """The port, and everything behind it."""

    def __init__(self) -> None:
        self.resources, self.cluster = Resources(), Cluster()
        self.may: bool | Exception = True
        self.asked: list[tuple[str, Permission]] = []
        port = Hooks(self.resources, self.cluster, callers=self, user_may=self.user_may)  # type: ignore[arg-type]
        self.application = port.application()
        transport = httpx.ASGITransport(app=self.application)
        self.client = httpx.AsyncClient(transport=transport, base_url="https://engine")

    async def subject(self, token: str) -> str:
        if token == "away":
            raise Unreachable(503, "no answer")
        if token != "good":
            raise Unauthenticated("no")
        return "system:serviceaccount:shop:till"

    async def user_may(self, user: str, permission: Permission) -> bool:
        self.asked.append((user, permission))
        if isinstance(self.may, Exception):
            raise self.may
        return self.may

    async def post(self, trigger: str, body: Any = BODY, *, workflow: str = "w", **headers: str) -> httpx.Response:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"Content-Type": "application/json", "X-Signature": signed(raw)} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        return await self.client.post(f"/hooks/{workflow}/{trigger}", content=raw, headers=sent)

    @property
    def run(self) -> dict[str, Any]:
        (only,) = self.cluster.objects.values()
        return only


def signed(raw: bytes, key: str = KEY) -> str:
    return "v1=" + hmac.new(key.encode(), raw, hashlib.sha256).hexdigest()
