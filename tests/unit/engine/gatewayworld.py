"""A container that is under way, and the gateway that it speaks with: the real application, gate and fold."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from tests.unit.engine.podworld import PodWorld, asked, exited, status

from fairlead.api.policy import Policy
from fairlead.engine.gateway import Gateway
from fairlead.engine.pods import calling
from fairlead.engine.tokens import Pod, Unauthenticated
from fairlead.errors import Unreachable
from fairlead.flow.calls import Call, CallKind, Outcome
from fairlead.flow.labels import Label
from fairlead.flow.runstate import CallState

ADDRESS = "10.0.0.7"
ACCOUNT = "system:serviceaccount:team-a:triage"
OFFERED: dict[str, Any] = {
    "models": ["small", "embedder"],
    "tools": [{"tool": "tickets", "functions": ["search", "create", "append"]}],
    "maxCalls": 20,
}
HELLO = {"model": "small", "messages": [{"role": "user", "content": "Hello"}]}
ANSWERS = {
    CallKind.CHAT: Outcome({"content": "Hi.", "toolCalls": []}, input_tokens=9, output_tokens=2),
    CallKind.EMBED: Outcome({"vectors": [[0.5, 1.0]]}, input_tokens=4),
    CallKind.TOOL: Outcome({"n": 1}),
}


class GatewayWorld(PodWorld):
    """`running` is the container's own call. Tokens are `ACCOUNT uid`; `away` cannot be verified."""

    def __init__(self, **request: Any) -> None:
        super().__init__()
        self.container: Call = asked(**(OFFERED | request))
        self.cluster.looks = 10**9
        self.running: asyncio.Task[None] | None = None
        fakes: Any = self
        self.gateway = Gateway(self.calling, self, fakes, self.gate.call)
        self.number, self.uid = 0, "pod-1"
        self.answers: dict[str, Outcome] = {}

    async def pod(self, token: str) -> Pod:
        if token == "away":
            raise Unreachable(503, "no answer")
        subject, _, uid = token.partition(" ")
        if not uid:
            raise Unauthenticated("no")
        return Pod(subject, uid)

    async def dispatch(self, call: Call, **arguments: Any) -> Outcome:
        self.dispatched.append(call)
        self.arguments = arguments
        if self.answer is not None:
            return await self.answer()
        return self.answers.get(call.function or call.target, ANSWERS[call.kind])

    async def start(self, pods: int = 1) -> None:
        """Start the container, as the pod of this number; it has an address."""
        self.running = asyncio.create_task(self.make(self.container))
        self.uid = f"pod-{pods}"
        while self.log.kinds().count("PodStarted") < pods:
            await asyncio.sleep(0.001)
        self.the_pod["status"] = {"podIPs": [{"ip": ADDRESS}], "phase": "Running"}
        await asyncio.sleep(0.01)

    def hold(self) -> asyncio.Event:
        """Let every call wait for this event, and answer {id: 7} then."""
        answered = asyncio.Event()

        async def slowly() -> Outcome:
            await answered.wait()
            return Outcome({"id": 7})

        self.answer = slowly
        return answered

    async def was_asked(self, calls: int = 1) -> None:
        """Wait until so many calls were dispatched."""
        while len(self.dispatched) < calls:
            await asyncio.sleep(0.001)

    @property
    def the_pod(self) -> dict[str, Any]:
        (pod,) = self.cluster.pods.values()
        return pod

    async def end(self, code: int = 0) -> None:
        """Let the step's container end."""
        self.the_pod["status"] = status(exited(code), phase="Failed" if code else "Succeeded")["status"]
        assert self.running is not None
        await self.running

    async def send(
        self,
        path: str,
        body: Any = None,
        *,
        method: str = "POST",
        token: str | None = None,
        address: str = ADDRESS,
        number: int | None = None,
        **headers: str,
    ) -> httpx.Response:
        """Send one request as the sidecar does: with the pod's token, and the next number if none is given."""
        self.number += 1
        said = {
            "authorization": f"Bearer {ACCOUNT} {self.uid}" if token is None else token,
            "x-fairlead-call": str(number or self.number),
            "content-type": "application/json",
        } | headers
        transport = httpx.ASGITransport(app=self.gateway.application(), client=(address, 40000))
        async with httpx.AsyncClient(transport=transport, base_url="https://engine") as client:
            content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
            return await client.request(method, path, content=content, headers=said)

    async def tool(self, function: str, tool: str = "tickets", number: int | None = None, **arguments: Any) -> Any:
        """Call a function, and return the result of the JSON-RPC answer."""
        params = {"name": function, "arguments": arguments}
        said = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        answer = await self.send(f"/mcp/{tool}", said, number=number)
        assert answer.status_code == 200, answer.text
        return answer.json()["result"]

    def recorded(self, number: int) -> CallState:
        return self.log.state.steps[self.container.id.path].calls[f"{number}.0.0"]

    @property
    def context(self) -> Label:
        return self.log.state.steps[self.container.id.path].context


@contextlib.asynccontextmanager
async def under_way(**request: Any) -> AsyncIterator[GatewayWorld]:
    """Have a container that is under way, and nobody who waits for long."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fairlead.engine.pods.runner._FIRST_PAUSE_SECONDS", 0.001)
        patch.setattr("fairlead.engine.pods.runner._LONGEST_PAUSE_SECONDS", 0.001)
        patch.setattr(calling, "ARRIVAL_SECONDS", 0.05)
        world = GatewayWorld(**request)
        await world.start()
        yield world
        assert world.running is not None
        world.running.cancel()
        await asyncio.gather(world.running, return_exceptions=True)


def rules(*calls: dict[str, Any]) -> Policy:
    return Policy.model_validate({"metadata": {"name": "r"}, "spec": {"rules": {"calls": [*calls]}}})
