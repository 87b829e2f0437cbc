"""What steps' containers call: models and Tools, in the protocols that agents speak anyway. On a port of its own.

Whoever calls is a pod, by the token that its kubelet gave it for this engine; which run, step and attempt it speaks for
is looked up by the pod's UID, never read from a request. What it asks for goes through the gate like any other call.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Mapping
from typing import Any, Protocol

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fairlead.engine.answers import Answer, application, json_response, unauthenticated
from fairlead.engine.bodies import read_json
from fairlead.engine.gateway import mcp, openai
from fairlead.engine.pods.calling import (
    Asked,
    CallingPod,
    CallingPods,
    CutOff,
    Gate,
    Mismatch,
    NotNow,
    StaleAttempt,
    TooManyCalls,
)
from fairlead.engine.seams import Resources
from fairlead.engine.tokens import Pod, Unauthenticated
from fairlead.errors import KubeError
from fairlead.flow.calls import CallKind
from fairlead.flow.state import CallState
from fairlead.stepcalls import NUMBER_HEADER

_POD = "fairlead.pod"
_SPEAKER = "fairlead.speaker"
_NUMBER = re.compile("[1-9][0-9]{0,8}")

_log = logging.getLogger(__name__)


class Identities(Protocol):
    """Verifies the tokens of pods (tokens.py)."""

    async def pod(self, token: str) -> Pod:
        """Return whose token it is, or raise Unauthenticated."""
        ...


class Gateway:
    """Answers the containers of one namespace's steps."""

    def __init__(self, pods: CallingPods, identities: Identities, resources: Resources, gate: Gate) -> None:
        """Take who is under way, who verifies tokens, what is declared, and the one way out."""
        self.refusals = pods.refusals
        self._pods = pods
        self._identities = identities
        self._resources = resources
        self._gate = gate

    def application(self) -> Starlette:
        """Return the app of the port."""
        return application(
            [
                Route("/v1/models", self._models, methods=["GET"]),
                Route("/v1/chat/completions", self._chat, methods=["POST"]),
                Route("/v1/embeddings", self._embeddings, methods=["POST"]),
                Route("/mcp/{tool}", self._mcp, methods=["POST"]),
            ],
            [Middleware(_Fenced, gateway=self)],
        )

    async def speaker(self, request: Request) -> Pod:
        """Return the pod whose token the request has.

        Raises:
            Unauthenticated: nobody whom the cluster knows, or not for this engine.
            KubeError: the cluster's keys could not be had.
        """
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme != "Bearer":
            raise Unauthenticated("no token")
        return await self._identities.pod(token)

    async def caller(self, pod: Pod, request: Request) -> CallingPod:
        """Return the container that speaks.

        Raises:
            StaleAttempt: not the pod of an attempt that is under way.
            KubeError: nobody can tell.
        """
        calling = await self._pods.find(pod.uid)
        await calling.fence(pod.subject, _address(request))
        return calling

    def refuse(self, request: Request, error: StaleAttempt) -> Answer:
        """Take note of a request of a pod that may not speak, and return what it hears."""
        speaker: Pod = request.scope[_SPEAKER]
        if not isinstance(error, CutOff):
            self.refusals.refused(speaker.uid, error, user=speaker.subject, address=_address(request))
        return Answer(403, "StaleAttempt")

    async def _models(self, request: Request) -> Response:
        return json_response(openai.models_answer(_may_call(request.scope[_POD])))

    async def _chat(self, request: Request) -> Response:
        body = await _said(request, openai.CHAT)
        call = await self._ask(request, _of_model(request, CallKind.CHAT, body["model"], openai.chat_request(body)))
        if call.error is not None:
            return _failed(call)
        answer = openai.chat_answer(call, body, name=f"chatcmpl-{_number(request)}", created=int(time.time()))
        if body.get("stream"):
            return Response(openai.streamed(answer, body), media_type="text/event-stream")
        return json_response(answer)

    async def _embeddings(self, request: Request) -> Response:
        body = await _said(request, openai.EMBEDDINGS)
        call = await self._ask(request, _of_model(request, CallKind.EMBED, body["model"], openai.embed_request(body)))
        return json_response(openai.embed_answer(call, body)) if call.error is None else _failed(call)

    async def _mcp(self, request: Request) -> Response:
        tool, pod = request.path_params["tool"], request.scope[_POD]
        named = next((one for one in pod.request.get("tools") or () if one["tool"] == tool), None)
        known = self._resources.tools.get(tool) if named is not None else None
        functions = mcp.offered(known, named.get("functions") if named is not None else None)
        read = mcp.read(await read_json(request), request.headers, functions)
        if isinstance(read, mcp.Reply):
            return json_response(read.body, read.status) if read.body is not None else Response(status_code=read.status)
        asked = Asked(CallKind.TOOL, tool, {"arguments": read.arguments}, read.function, read.function in functions)
        return json_response(mcp.answer(read, await self._ask(request, asked)))

    async def _ask(self, request: Request, asked: Asked) -> CallState:
        try:
            pod: CallingPod = request.scope[_POD]
            return await pod.ask(self._gate, _number(request), asked)
        except StaleAttempt as error:
            raise self.refuse(request, error) from error
        except NotNow as error:
            raise Answer(503, "Unavailable") from error
        except TooManyCalls as error:
            raise Answer(429, "TooManyCalls", str(error)) from error
        except Mismatch as error:
            raise Answer(409, "Nondeterminism", str(error)) from error


class _Fenced:
    """Lets in nothing but containers that are under way, not even to learn which paths exist."""

    def __init__(self, app: ASGIApp, gateway: Gateway) -> None:
        self._app = app
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer; 503 if the process ends before there is an answer, so that the request is sent again."""
        if scope["type"] != "http":
            return
        begun = False

        async def sending(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._let_in(scope, receive, sending)
        except asyncio.CancelledError:
            if not begun:
                await Answer(503, "Unavailable").response(scope, receive, send)
            raise

    async def _let_in(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        try:
            scope[_SPEAKER] = speaker = await self._gateway.speaker(request)
            scope[_POD] = pod = await self._gateway.caller(speaker, request)
        except Unauthenticated as error:
            self._gateway.refusals.unauthenticated(str(error))
            await unauthenticated().response(scope, receive, send)
        except StaleAttempt as error:
            await self._gateway.refuse(request, error).response(scope, receive, send)
        except (KubeError, NotNow) as error:
            _log.warning("a container cannot be answered yet", extra={"why": str(error)})
            await Answer(503, "Unavailable").response(scope, receive, send)
        else:
            async with pod.places:
                await self._app(scope, receive, send)


def _address(request: Request) -> str:
    return request.client.host if request.client is not None else ""


def _may_call(pod: CallingPod) -> list[str]:
    return list(pod.request.get("models") or ())


def _of_model(request: Request, kind: CallKind, model: str, asked: Mapping[str, Any]) -> Asked:
    return Asked(kind, model, asked, offered=model in _may_call(request.scope[_POD]))


async def _said(request: Request, schema: Mapping[str, Any]) -> Any:
    body = await read_json(request)
    if problem := openai.wrong(schema, body):
        raise Answer(400, "Invalid", problem)
    return body


def _number(request: Request) -> int:
    said = request.headers.get(NUMBER_HEADER, "")
    if _NUMBER.fullmatch(said) is None:
        raise Answer(400, "Malformed", f"{NUMBER_HEADER}: the number of the request is missing")
    return int(said)


def _failed(call: CallState) -> Response:
    assert call.error is not None
    status, body = openai.error_answer(call.error, denied=call.denied is not None)
    return json_response(body, status)


__all__ = ["Gateway"]
