"""kopf itself, against an API server in memory: no object ends it or keeps others from being seen."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import kopf
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from fairlead.controllers.handlers import kopf_settings
from fairlead.controllers.login import Login
from fairlead.kube.reading import DEEPEST, shallow

WORKFLOWS = "/apis/fairlead.dev/v1alpha1/workflows"
VERBS = ["list", "watch", "patch"]
DISCOVERY: dict[str, Any] = {
    "/api": {"versions": ["v1"]},
    "/api/v1": {
        "resources": [
            {"name": name, "singularName": "", "namespaced": False, "kind": kind, "verbs": VERBS}
            for name, kind in (("namespaces", "Namespace"), ("events", "Event"))
        ]
    },
    "/apis": {
        "groups": [
            {
                "name": "fairlead.dev",
                "versions": [{"version": "v1alpha1"}],
                "preferredVersion": {"version": "v1alpha1"},
            }
        ]
    },
    "/apis/fairlead.dev/v1alpha1": {
        "resources": [
            {"name": "workflows", "singularName": "workflow", "namespaced": True, "kind": "Workflow", "verbs": VERBS}
        ]
    },
}


def workflow(name: str, value: str = "1") -> str:
    metadata = {"name": name, "namespace": "team", "uid": name, "resourceVersion": "6"}
    obj = {"apiVersion": "fairlead.dev/v1alpha1", "kind": "Workflow", "metadata": metadata, "spec": {"x": "@"}}
    return json.dumps(obj).replace('"@"', value)


def nested(levels: int) -> str:
    return "[" * levels + "]" * levels


@pytest.mark.requirement("A34")
@pytest.mark.parametrize("levels", [DEEPEST - 10, 900, 2000, 9000])
@pytest.mark.parametrize("way", ["list", "watch"])
async def test_an_object_that_is_nested_too_deep_keeps_no_other_from_being_seen(
    way: str, levels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep, fine = workflow("deep", nested(levels)), workflow("fine")
    seen: dict[str, Any] = {}
    both = asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path != WORKFLOWS:
            return web.json_response(DISCOVERY[request.path])
        if "watch" not in request.query:
            items = f"{deep},{fine}" if way == "list" else ""
            text = f'{{"metadata": {{"resourceVersion": "5"}}, "items": [{items}]}}'
            return web.Response(text=text, content_type="application/json")
        stream = web.StreamResponse()
        await stream.prepare(request)
        for one in (deep, fine) if way == "watch" else ():
            await stream.write(f'{{"type": "ADDED", "object": {one}}}\n'.encode())
        await both.wait()
        return stream

    async def event(event: Any, **_: Any) -> None:
        seen[event["object"]["metadata"]["name"]] = event["object"]
        if len(seen) == 2:
            both.set()

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    registry = kopf.OperatorRegistry()
    async with TestServer(app) as server:
        info = kopf.ConnectionInfo(server=str(server.make_url("")).rstrip("/"))
        monkeypatch.setattr(kopf, "login_with_service_account", lambda **_: info)
        kopf.on.login(registry=registry)(Login().session)
        kopf.on.event("fairlead.dev", "v1alpha1", "workflows", registry=registry, id="workflows")(event)
        settings = kopf_settings()
        operator = asyncio.create_task(
            kopf.operator(registry=registry, settings=settings, standalone=True, clusterwide=True, identity="me")  # type: ignore[arg-type]  # a name is one
        )
        waiting = asyncio.create_task(both.wait())
        await asyncio.wait((operator, waiting), timeout=20, return_when=asyncio.FIRST_COMPLETED)
        ended, _ = operator.done(), operator.cancel()
        with contextlib.suppress(asyncio.CancelledError, RecursionError):
            await operator
        waiting.cancel()
    assert not ended and set(seen) == {"deep", "fine"}
    assert nested(levels) not in json.dumps(seen["deep"]) or levels < DEEPEST


async def test_the_same_credentials_are_the_same_session(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = iter(["one", "one", "two"])
    found = lambda **_: kopf.ConnectionInfo(server="http://127.0.0.1:1", token=next(tokens))  # noqa: E731
    monkeypatch.setattr(kopf, "login_with_service_account", found)
    login = Login()
    first, again, other = [await login.session(settings=kopf_settings()) for _ in range(3)]
    assert first is not None and other is not None and first is again and first != other
    assert other.aiohttp_session.headers["Authorization"].endswith(" two")
    for one in (first, other):
        await one.aiohttp_session.close()


def test_what_is_not_deep_is_left_as_it_is() -> None:
    wide = json.dumps([{}] * 1000).encode()
    assert shallow(wide) is wide
    assert shallow(b"[{" * 5000) != b"[{" * 5000, "no JSON, and nobody's recursion"
