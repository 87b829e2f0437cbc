"""The demo on a real cluster: what a user would type, step by step."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from examples.demo.forward import forward
from examples.demo.show import EXAMPLE, FAIRLEAD, REFUSED, ROOT, WORKFLOW, heading, messages, stage, verdict
from tests.cluster import Cluster

NAMESPACE = "fairlead-demo"
SYSTEM = "fairlead-system"
IMAGES = ROOT / "build" / "images"
FORWARD_PORT = 18080


def demo(count: int) -> int:
    """Bring everything up, answer `count` messages, show one refusal."""
    cluster = Cluster()
    with stage("A Kubernetes cluster"):
        cluster.up()
    os.environ.update(cluster.environment())
    with stage("The images"):
        _run(str(ROOT / ".venv/bin/python"), "-m", "images", "build", "fairlead", "examples", "--out", str(IMAGES))
        if not os.environ.get("USE_CONTEXT"):
            for name in ("fairlead", "examples"):
                cluster.load(IMAGES / f"{name}.tar")
    with stage("helm install fairlead"):
        _run("helm", "upgrade", "--install", "fairlead", str(ROOT / "charts/fairlead"), "--namespace", SYSTEM,
             "--set", "image.name=localhost/fairlead:dev",
             "--take-ownership", "--force-conflicts", "--create-namespace", "--wait", "--timeout", "180s")  # fmt: skip
    with stage("The example: a Workflow, two Models, a Tool, a Policy"):
        _apply(cluster)
    right = sum(_answer(number, message) for number, message in enumerate(messages(count), start=1))
    return verdict(right, count, refused=_refusal())


def _apply(cluster: Cluster) -> None:
    namespace = json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    _run("kubectl", "apply", "-f", "-", stdin=namespace)
    _kubectl("apply", "--server-side", "-f", str(EXAMPLE))
    if os.environ.get("MODEL_URL"):
        _use_endpoint(cluster)
    _kubectl("wait", "--for=condition=Ready", "models,tools,workflows", "--all", "--timeout=180s")
    _kubectl("wait", "--for=condition=Authorized", f"workflows/{WORKFLOW}", "--timeout=60s")
    _kubectl("get", "fairlead,pods")


def _use_endpoint(cluster: Cluster) -> None:
    """Let the Model `small` be what MODEL_URL, MODEL_API_KEY and MODEL say."""
    url, key = os.environ["MODEL_URL"], os.environ.get("MODEL_API_KEY", "none")
    if not os.environ.get("USE_CONTEXT"):
        url = forward(url, host=cluster.host_address, port=FORWARD_PORT)
    target = urlsplit(url)
    where = f"{target.hostname}:{target.port or {'http': 80, 'https': 443}[target.scheme]}"
    api = "fairlead.dev/v1alpha1"
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "model"},
        "stringData": {"apiKey": key, "allowed-hosts": f"{target.scheme}://{where}"},
    }
    engine = {
        "apiVersion": api,
        "kind": "Engine",
        "metadata": {"name": "default"},
        "spec": {"security": {"allowedPrivateHosts": [where]}},
    }
    model = {
        "apiVersion": api,
        "kind": "Model",
        "metadata": {"name": "small"},
        "spec": {
            "endpoint": {"api": "OpenAIChat", "url": url, "model": os.environ.get("MODEL", "default")},
            "credential": {"secretRef": {"name": "model", "key": "apiKey"}},
            "capabilities": ["Tools", "StructuredOutput"],
        },
    }
    _kubectl("delete", "model", "small", "--ignore-not-found")
    for item in (secret, engine, model):
        _kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=json.dumps(item))


def _answer(number: int, message: dict[str, str]) -> bool:
    heading(number, message)
    name = _submit(WORKFLOW, {"message": message["message"], "customer": message["customer"]})
    run = _get(name)
    status = run["status"]
    output = status.get("output") or {}
    usage = status.get("usage", {})
    for condition in status["conditions"]:
        print(f"   {condition['type']:<10} {condition['status']:<8} {condition['reason']}  {condition['message']}")
    print(f"   route      {output.get('topic')} (a person says {message['expect']})")
    print(f"   answer     {output.get('answer')}")
    print(f"   ticket     {output.get('ticket')}")
    print(f"   tokens     {usage.get('inputTokens', 0)} in, {usage.get('outputTokens', 0)} out")
    subprocess.run([FAIRLEAD, "trace", name, "-n", NAMESPACE], check=True)
    succeeded = any(c["type"] == "Succeeded" and c["status"] == "True" for c in status["conditions"])
    return succeeded and output.get("topic") == message["expect"]


def _refusal() -> bool:
    print("\n-- And one that is refused: a Workflow under the same account that asks for `remove`", flush=True)
    name = _submit(REFUSED, {"id": "T-1"})
    conditions = {c["type"]: c for c in _get(name)["status"]["conditions"]}
    print(f"   {conditions['Succeeded']['reason']}: {conditions['Succeeded']['message']}")
    account = f"system:serviceaccount:{NAMESPACE}:{WORKFLOW}"
    command = ["kubectl", "auth", "can-i", "invoke", "toolfunctions.fairlead.dev/handbook.remove", "-n", NAMESPACE,
               f"--as={account}"]  # fmt: skip
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    print(f"   $ {' '.join(command)}\n   {said}", flush=True)
    return conditions["Succeeded"]["reason"] == "Denied" and said == "no"


def _submit(workflow: str, values: dict[str, str]) -> str:
    """Create a run, show its progress until it is finished, and return its name."""
    manifest = {
        "apiVersion": "fairlead.dev/v1alpha1",
        "kind": "WorkflowRun",
        "metadata": {"generateName": f"{workflow}-"},
        "spec": {"workflow": workflow, "input": values},
    }
    name = _kubectl("create", "-f", "-", "-o", "jsonpath={.metadata.name}", stdin=json.dumps(manifest), quiet=True)
    subprocess.run([FAIRLEAD, "watch", name, "-n", NAMESPACE], check=False)
    return name


def _get(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(_kubectl("get", "run", name, "-o", "json", quiet=True))
    return found


def _kubectl(*arguments: str, stdin: str | None = None, quiet: bool = False) -> str:
    return _run("kubectl", "-n", NAMESPACE, *arguments, stdin=stdin, quiet=quiet)


def _run(*command: str | Path, stdin: str | None = None, quiet: bool = False) -> str:
    done = subprocess.run(command, input=stdin, stdout=subprocess.PIPE, text=True, check=True)
    if not quiet and done.stdout.strip():
        print("   " + done.stdout.strip().replace("\n", "\n   "), flush=True)
    return done.stdout
