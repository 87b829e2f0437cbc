"""HTTP triggers: POST /hooks/WORKFLOW/TRIGGER makes a run, or tells one something. On a port of its own.

Who is nobody, or cannot be verified now, gets one answer, whatever is wrong and whatever exists. Then the order is: the
body's type and form, `when`, the input; only then anything is made. A run's name is a hash of the Workflow's UID, the
trigger and the dedupe key, so that a request that comes again - because its sender saw no answer, or the engine died -
finds its run.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fairlead.api import API_VERSION
from fairlead.api.canonical import canonical_json
from fairlead.api.triggers import HmacAuth, HttpTrigger, SignalCall
from fairlead.api.workflow import Workflow
from fairlead.engine.acceptance import INPUT_BYTES, is_ready
from fairlead.engine.answers import Answer, application, json_response, unauthenticated
from fairlead.engine.bodies import parse_json, read_body
from fairlead.engine.credentials import trigger_key
from fairlead.engine.demands import SIGNAL_BYTES
from fairlead.engine.seams import Cluster, Resources
from fairlead.engine.tokens import Unauthenticated
from fairlead.errors import AuthorizerUnavailable, CredentialMissing, CredentialPending, KubeError
from fairlead.flow.expressions import ExpressionError, evaluate_bool
from fairlead.flow.schema import findings
from fairlead.flow.template import render, render_text
from fairlead.policy.permission import Permission, workflow_permission

TRIGGER_LABEL = "fairlead.dev/trigger"
TOKEN_HEADER = "x-fairlead-token"
MOST_SIGNATURES = 10
"""A sender that changes its key signs with the old and the new one: `v1=...,v1=...`."""

AT_ONCE = 64
"""Requests that are answered at the same time; who comes on top of that is told to come again."""

RETRY_AFTER = {"Retry-After": "5"}
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_UNSHOWN = frozenset({"authorization", "cookie", "proxy-authorization", TOKEN_HEADER})

_log = logging.getLogger(__name__)


class Callers(Protocol):
    """Verifies the tokens of those who call as a ServiceAccount (tokens.py)."""

    async def subject(self, token: str) -> str:
        """Return the user whose token it is, or raise Unauthenticated."""
        ...


class Hooks:
    """Answers the requests of one namespace's triggers."""

    def __init__(
        self,
        resources: Resources,
        cluster: Cluster,
        *,
        callers: Callers,
        user_may: Callable[[str, Permission], Awaitable[bool]],
    ) -> None:
        """Take what is declared, where runs are made, and who knows users and their permissions."""
        self._resources = resources
        self._cluster = cluster
        self._callers = callers
        self._user_may = user_may
        self._at_work = 0

    def application(self) -> Starlette:
        """Return the app of the port."""
        return application([Route("/hooks/{workflow}/{trigger}", self._post, methods=["POST"])])

    async def _post(self, request: Request) -> Response:
        if self._at_work >= AT_ONCE:
            raise Answer(503, "Busy", headers=RETRY_AFTER)
        self._at_work += 1
        try:
            return await self._answer(request)
        except (KubeError, AuthorizerUnavailable) as error:
            _log.warning("a trigger could not be answered: %s", error)
            raise Answer(503, "Unavailable", headers=RETRY_AFTER) from error
        finally:
            self._at_work -= 1

    async def _answer(self, request: Request) -> Response:
        body = await read_body(request)
        workflow, trigger = self._find(**request.path_params)
        user = await self._authenticate(request, body, workflow, trigger)
        scope = {"body": parse_json(request, body), "headers": _headers(request, trigger)}
        if trigger.when is not None and not _evaluated(f"{trigger.name}.when", evaluate_bool, trigger.when, scope):
            return json_response({"outcome": "Ignored"}, 200)
        if trigger.signal is not None:
            return await self._signal(workflow, trigger, trigger.signal, scope, user)
        return await self._start(workflow, trigger, scope, user)

    def _find(self, workflow: str, trigger: str) -> tuple[Workflow, HttpTrigger]:
        known = self._resources.workflows.get(workflow)
        if known is not None and known.spec.triggers is not None:
            for declared in known.spec.triggers.http or []:
                if declared.name == trigger:
                    return known, declared
        raise unauthenticated()

    async def _authenticate(self, request: Request, body: bytes, workflow: Workflow, trigger: HttpTrigger) -> str:
        """Return who calls: the user of a token; "" of who knows the key.

        Raises:
            Answer: it is nobody, or somebody who may not.
        """
        if trigger.auth.hmac is not None:
            if not self._signed(trigger.auth.hmac, request, body, f"{workflow.metadata.name}/{trigger.name}"):
                raise unauthenticated()
            return ""
        bearer = request.headers.get("authorization", "")
        token = request.headers.get(TOKEN_HEADER) or bearer.removeprefix("Bearer ")
        try:
            user = await self._callers.subject(token)
        except Unauthenticated as error:
            _log.info("a trigger's caller was refused", extra={"why": str(error)})
            raise unauthenticated() from error
        except KubeError as error:
            _log.warning("callers of triggers cannot be verified: %s", error)
            raise unauthenticated() from error  # another answer would tell that there is such a trigger
        (permission, *_) = workflow_permission(workflow.metadata.name)
        if not await self._user_may(user, permission):
            raise Answer(403, "Forbidden", f"{user} needs {permission.verb} on {permission.resource}/{permission.name}")
        return user

    def _signed(self, auth: HmacAuth, request: Request, body: bytes, place: str) -> bool:
        """Tell whether a signature is the body's; with a key that is not there yet, or not for this, none is."""
        try:
            key = trigger_key(self._resources, auth.secret_ref)
        except (CredentialMissing, CredentialPending) as error:
            _log.warning("trigger %s cannot be used: %s", place, error)
            return False
        expected = auth.prefix + hmac.new(key.encode(), body, hashlib.sha256).hexdigest()
        headers = request.headers.getlist(auth.header)
        given = headers[0].split(",", MOST_SIGNATURES) if len(headers) == 1 else []
        right = [hmac.compare_digest(expected.encode(), one.strip().encode("latin-1")) for one in given]
        return len(given) <= MOST_SIGNATURES and any(right)

    async def _start(self, workflow: Workflow, trigger: HttpTrigger, scope: Mapping[str, Any], user: str) -> Response:
        name = trigger.name
        value = _evaluated(f"{name}.input", render, trigger.input or {}, scope)
        key = _evaluated(f"{name}.dedupeKey", render_text, trigger.dedupe_key or "", scope)
        if trigger.dedupe_key is not None and not key:
            raise Answer(422, "Invalid", f"{name}.dedupeKey: it has no value, and would make a run for every request")
        _fits(workflow, value)
        if not is_ready(workflow):
            raise Answer(503, "WorkflowNotReady", headers=RETRY_AFTER)
        run = triggered_run(workflow, name, value, key=key or secrets.token_hex(16), user=user)
        made = await self._cluster.create_run(run)
        labels = made["metadata"].get("labels") or {}
        if labels.get(TRIGGER_LABEL) != name or made["spec"]["workflow"] != workflow.metadata.name:
            raise Answer(409, "Conflict", f"somebody else made a run with the name {made['metadata']['name']}")
        fresh = made["spec"].get("input") == value and "status" not in made
        answer = {"run": made["metadata"]["name"], "uid": made["metadata"]["uid"]}
        return json_response(answer | {"outcome": "Accepted" if fresh else "Exists"}, 202 if fresh else 200)

    async def _signal(
        self, workflow: Workflow, trigger: HttpTrigger, call: SignalCall, scope: Mapping[str, Any], user: str
    ) -> Response:
        run = _evaluated(f"{trigger.name}.signal.run", render_text, call.run, scope)
        data = _evaluated(f"{trigger.name}.signal.data", render, call.data, scope)
        if _NAME.fullmatch(run) is None:
            raise Answer(422, "Invalid", f"{trigger.name}.signal.run: it is no name of a run")
        if len(canonical_json(data)) > SIGNAL_BYTES:
            raise Answer(413, "TooLarge", f"{trigger.name}.signal.data: at most {SIGNAL_BYTES} bytes are taken")
        signal = {"name": call.name, "by": user or f"trigger:{trigger.name}"}
        signal |= {"data": data} if data is not None else {}
        try:
            found = await self._cluster.signal_run(run, workflow.metadata.name, signal)
        except KubeError as error:
            if error.retryable or error.status == 409:
                raise
            raise Answer(422, "Invalid", error.message) from error
        if not found:
            raise Answer(404, "NotFound", f"there is no run {run} of Workflow {workflow.metadata.name}")
        return json_response({"outcome": "Signalled", "run": run}, 202)


def triggered_run(workflow: Workflow, trigger: str, value: Mapping[str, Any], *, key: str, user: str) -> dict[str, Any]:
    """Return the WorkflowRun of a request. It has generateName beside its name: nobody named it (see retention)."""
    name = workflow.metadata.name
    hashed = hashlib.sha256(f"{workflow.metadata.uid}/{trigger}/{key}".encode()).hexdigest()
    return {
        "apiVersion": API_VERSION,
        "kind": "WorkflowRun",
        "metadata": {
            "name": f"{name}-{hashed[:16]}",
            "generateName": f"{name}-",
            "namespace": workflow.metadata.namespace,
            "labels": {TRIGGER_LABEL: trigger},
        },
        "spec": {"workflow": name, "input": dict(value)} | ({"requestedBy": user} if user else {}),
    }


def _headers(request: Request, trigger: HttpTrigger) -> dict[str, str]:
    """Return what expressions see of the headers: everything but what proves who calls."""
    unshown = _UNSHOWN | ({trigger.auth.hmac.header.lower()} if trigger.auth.hmac is not None else set())
    return {name: value for name, value in request.headers.items() if name not in unshown}


def _evaluated(
    place: str, evaluate: Callable[[Any, Mapping[str, Any], str], Any], what: Any, scope: Mapping[str, Any]
) -> Any:
    try:
        return evaluate(what, scope, place)
    except ExpressionError as error:
        raise Answer(422, "Invalid", error.message) from error


def _fits(workflow: Workflow, value: Any) -> None:
    try:
        size = len(canonical_json(value))
    except TypeError as error:
        raise Answer(422, "Invalid", "the input is not JSON") from error
    if size > INPUT_BYTES:
        raise Answer(413, "TooLarge", f"the input has {size} bytes; at most {INPUT_BYTES} are allowed")
    schema = workflow.spec.input.schema_ if workflow.spec.input is not None else None
    wrong = findings(schema, value) if schema is not None else []
    if wrong:
        raise Answer(422, "Invalid", "the input: " + "; ".join(wrong))
