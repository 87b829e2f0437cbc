"""Namespaces where something happens: an engine, the ledger as a Tool, a scripted Model, and who is granted what.

The ledger is the witness: what it has not noted has not happened. A `Listener` is a place outside the cluster.
"""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml
from tests.e2e.installation import RESTRICTED, SERVERS_IMAGE, condition, until
from tests.e2e.kubectl import Kubectl

Manifest = dict[str, Any]

ACCOUNT = "worker"
LEDGER_FUNCTIONS = {"read": "Read", "append": "Irreversible", "append_keyed": "Irreversible", "slow": "Irreversible"}
SMALL = {"cpu": "500m", "memory": "128Mi"}
PORT = 8080
HELD = {"name": "held", "tool": {"tool": "ledger", "function": "slow", "arguments": {"seconds": 60, "key": "held"}}}


def manifest(kind: str, name: str, spec: Mapping[str, Any], **metadata: Any) -> Manifest:
    """Return an object of ours."""
    head = {"name": name, **metadata}
    return {"apiVersion": "fairlead.dev/v1alpha1", "kind": kind, "metadata": head, "spec": dict(spec)}


def server(*command: str, image: str = SERVERS_IMAGE, **env: str) -> Manifest:
    """Return a small server."""
    variables = [{"name": name, "value": value} for name, value in env.items()]
    return {"image": image, "command": list(command), "port": PORT, "resources": SMALL, "env": variables}


def tool(name: str, mcp: Mapping[str, Any], **spec: Any) -> Manifest:
    """Return a Tool with the ledger's functions."""
    functions = [{"name": function, "effect": effect} for function, effect in LEDGER_FUNCTIONS.items()]
    return manifest("Tool", name, {"mcp": dict(mcp), "functions": functions, **spec})


def ledger_tool() -> Manifest:
    """Return the ledger as a server that the operator runs."""
    command = ("python3", "/opt/servers/ledger.py", "--host", "0.0.0.0", "--port", str(PORT))
    return tool("ledger", {"server": server(*command)})


def scripted_model() -> Manifest:
    """Return the scripted model as a server that the operator runs."""
    command = ("python3", "/opt/servers/scripted.py", "--host", "0.0.0.0", "--port", str(PORT))
    spec = {"server": server(*command) | {"api": "OpenAIChat", "model": "scripted"}, "capabilities": ["Tools"]}
    return manifest("Model", "scripted", spec)


def engine(**spec: Any) -> Manifest:
    """Return a small Engine."""
    resources = {"cpu": "50m", "memory": "256Mi"}
    return manifest("Engine", "default", {"resources": resources, "storage": {"size": "100Mi"}, **spec})


def policy(name: str, *functions: str, tools: Iterable[str] = ("ledger",), account: str = ACCOUNT) -> Manifest:
    """Return a Policy that grants functions of Tools, and the scripted model."""
    granted = [{"tool": one, "functions": list(functions)} for one in tools] if functions else []
    return manifest(
        "Policy", name, {"grants": {"serviceAccounts": [account], "models": ["scripted"], "tools": granted}}
    )


def workflow(name: str, *steps: Manifest, account: str = ACCOUNT, **spec: Any) -> Manifest:
    """Return a Workflow. What was surely not sent is tried again: on a busy machine a server may be away a moment."""
    defaults = {"retry": {"limit": 4}}
    return manifest(
        "Workflow", name, {"serviceAccountName": account, "defaults": defaults, "steps": list(steps), **spec}
    )


def calls(function: str, key: str, /, name: str = "call", tool: str = "ledger", **arguments: Any) -> Manifest:
    """Return a step that calls a function."""
    return {"name": name, "tool": {"tool": tool, "function": function, "arguments": {"key": key, **arguments}}}


@contextmanager
def scene(administrator: Kubectl, *objects: Manifest) -> Iterator[Kubectl]:
    """Have a restricted namespace with these objects; the context gives kubectl within it. It is deleted afterwards."""
    name = f"scene-{uuid.uuid4().hex[:8]}"
    kubectl = administrator.within(name)
    administrator("create", "namespace", name)
    try:
        administrator("label", "namespace", name, RESTRICTED)
        declare(kubectl, *objects)
        yield kubectl
    finally:
        administrator("delete", "namespace", name, "--wait=false", "--ignore-not-found")


def declare(kubectl: Kubectl, *objects: Manifest) -> None:
    """Apply objects."""
    kubectl("apply", "--server-side", "--force-conflicts", "--filename=-", stdin=yaml.safe_dump_all(objects))


def becomes(
    kubectl: Kubectl, kind: str, name: str, type_: str, value: str = "True", *, timeout_seconds: float = 120
) -> Manifest:
    """Wait until a condition has a status or a reason, and return it."""

    def holds() -> Manifest:
        found = condition(kubectl.get(kind, name), type_)
        return found if value in (found.get("status"), found.get("reason")) else {}

    return dict(until(f"{kind} {name} is {type_} {value}", holds, timeout_seconds=timeout_seconds))


def proxy(kubectl: Kubectl, service: str, path: str) -> str:
    """Return the path of a server's service proxy."""
    return f"/api/v1/namespaces/{kubectl.namespace}/services/{service}:{PORT}/proxy{path}"


def play(kubectl: Kubectl, *turns: Manifest, model: str = "scripted") -> None:
    """Give the scripted model its script."""
    path = proxy(kubectl, f"fairlead-model-{model}", "/script")
    kubectl("replace", f"--raw={path}", "--filename=-", stdin=json.dumps({"turns": turns}))


def asked(kubectl: Kubectl) -> list[Manifest]:
    """Return the requests that the scripted model got."""
    answer = json.loads(kubectl("get", "--raw", proxy(kubectl, "fairlead-model-scripted", "/requests")))
    return list(answer["requests"] if isinstance(answer, dict) else answer)


def outcome(run: Manifest) -> tuple[str, str]:
    """Return the reason and the message that a run ended with."""
    succeeded = condition(run, "Succeeded")
    return succeeded.get("reason", ""), succeeded.get("message", "")


@dataclass
class Listener:
    """An HTTP server on this host that keeps what it is sent and knows nothing: 404 for everything.

    Attributes:
        requests: path, headers and body of each request.
    """

    address: str
    status: int = 404
    requests: list[tuple[str, Message, bytes]] = field(default_factory=list)
    port: int = 0

    @property
    def authority(self) -> str:
        """Return host:port."""
        return f"{self.address}:{self.port}"


@contextmanager
def listening(address: str, *, status: int = 404) -> Iterator[Listener]:
    """Listen on a free port of this address for as long as the context lasts."""
    listener = Listener(address, status)

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            listener.requests.append((self.path, self.headers, body))
            self.send_response(listener.status)
            self.send_header("content-length", "0")
            self.end_headers()

        do_GET = do_POST = do_DELETE = answer

        def log_message(self, format: str, *args: object) -> None:
            """Print nothing."""

    with ThreadingHTTPServer((address, 0), Handler) as http:
        listener.port = http.server_address[1]
        thread = threading.Thread(target=http.serve_forever, daemon=True)
        thread.start()
        try:
            yield listener
        finally:
            http.shutdown()
            thread.join()
