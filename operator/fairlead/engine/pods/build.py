"""The pod of a container call. Pure: from the call, the run and the image of ours that stands beside it.

Three containers: `input` waits until the network has locked the pod in, and writes the input; `output` waits beside the
step and takes out what it left (a sidecar: the kubelet ends it when the step has ended); `step` is the user's. All are
restricted alike, none has a token, a Secret, a name service or a way out.

A step that may call models or tools has a fourth, `calls`: a sidecar too, and the only one that mounts the pod's token,
which is good for this engine alone. The pod can reach the engine then, and nothing else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fairlead.api.canonical import canonical_json
from fairlead.api.container import ContainerResources
from fairlead.engine.tokens import audience
from fairlead.flow.calls import Call
from fairlead.flow.journal import RunUid
from fairlead.kube.restricted import NO_NAMES, RESTRICTED_CONTAINER, RESTRICTED_POD, SHORT_TOLERATIONS, unexpanded
from fairlead.kube.types import WORKFLOW_RUNS
from fairlead.stepcalls import COUNT_FILE, TOKEN_FILE
from fairlead.stepfiles import MOST_INPUT, pieces
from fairlead.steplistens import PORT

PREFIX = "fairlead-step-"
COMPONENT = "step"
STEP, INPUT, OUTPUT, CALLS = "step", "input", "output", "calls"
CALLS_LABEL = "fairlead.dev/calls"
"""On pods that may reach their engine."""

TOKEN_SECONDS = 600
CALL = "fairlead.dev/call"
"""The annotation that says which call a pod answers: the digest of its request."""

_GRACE_SECONDS = 10
_FORWARDER = {"requests": {"cpu": "20m", "memory": "64Mi"}, "limits": {"cpu": "500m", "memory": "128Mi"}}
_HELPER = {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"cpu": "500m", "memory": "64Mi"}}


@dataclass(frozen=True, slots=True)
class EngineAddress:
    """Where a step's calls go: the host's name and address, the port, and the certificate that vouches for it."""

    host: str
    address: str
    port: int
    ca_pem: str


@dataclass(frozen=True, slots=True)
class Beside:
    """What stands beside a step: our image, how it is pulled, and whether the network must lock the pod in first.

    `engine` is set for a step that may call.
    """

    image: str
    pull_policy: str
    isolation: bool
    engine: EngineAddress | None = None


@dataclass(frozen=True, slots=True)
class Owner:
    """The run that a pod is made for, as whom, and until when."""

    name: str
    uid: RunUid
    namespace: str
    account: str
    seconds: int


def pod_name(run_uid: RunUid, call: Call) -> str:
    """Return the name of a call's pod: the same whenever it is asked for; another attempt has another one."""
    place = f"{run_uid}|{call.id.path}|{call.id.attempt}|{call.id.index}"
    return PREFIX + hashlib.sha256(place.encode()).hexdigest()[:24]


def too_large(call: Call) -> str:
    """Return why the input does not fit into a pod, "" if it does."""
    size = len(_input(call)) + len(_script(call) or b"")
    return f"input and script have {size} bytes; at most {MOST_INPUT} are allowed" if size > MOST_INPUT else ""


def may_call(call: Call) -> bool:
    """Tell whether a container may call models or tools."""
    return bool(call.request.get("models") or call.request.get("tools"))


def build(call: Call, owner: Owner, beside: Beside) -> dict[str, Any]:
    """Return the pod."""
    request = call.request
    script = _script(call)
    given = pieces("FAIRLEAD_INPUT", _input(call)) + (pieces("FAIRLEAD_SCRIPT", script) if script is not None else [])
    if beside.isolation:
        given.append({"name": "FAIRLEAD_ISOLATION", "value": "Required"})
    resources = ContainerResources.model_validate(request.get("resources") or {}).model_dump()
    step: dict[str, Any] = {
        "name": STEP,
        "image": call.target,
        "imagePullPolicy": "IfNotPresent",
        "env": _environment(request, beside.engine),
        "workingDir": "/work",
        "resources": {"requests": resources, "limits": resources},
        **_mounted(),
    }
    command = _command(request)
    return {
        "metadata": {
            "name": pod_name(owner.uid, call),
            "namespace": owner.namespace,
            "labels": {
                "app.kubernetes.io/managed-by": "fairlead",
                "app.kubernetes.io/part-of": "fairlead",
                "fairlead.dev/component": COMPONENT,
                **({CALLS_LABEL: "Allowed"} if beside.engine is not None else {}),
            },
            "annotations": {
                CALL: call.digest,
                "fairlead.dev/run": owner.name,
                "fairlead.dev/step": call.id.path[:1024],
            },
            "ownerReferences": [
                {
                    "apiVersion": WORKFLOW_RUNS.api_version,
                    "kind": WORKFLOW_RUNS.kind,
                    "name": owner.name,
                    "uid": owner.uid,
                }
            ],
        },
        "spec": {
            "restartPolicy": "Never",
            **({"runtimeClassName": named} if (named := request.get("runtimeClassName")) else {}),
            "serviceAccountName": owner.account,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            **NO_NAMES,
            **({"hostAliases": [_alias(beside.engine)]} if beside.engine is not None else {}),
            "activeDeadlineSeconds": owner.seconds,
            "terminationGracePeriodSeconds": _GRACE_SECONDS,
            "securityContext": dict(RESTRICTED_POD),
            "tolerations": [dict(toleration) for toleration in SHORT_TOLERATIONS],
            "initContainers": [
                _helper(INPUT, "put", beside) | {"env": given},
                _helper(OUTPUT, "take", beside) | {"restartPolicy": "Always"},
                *([_forwarder(beside, beside.engine)] if beside.engine is not None else []),
            ],
            "containers": [step | ({"command": command} if command else {})],
            "volumes": [
                {"name": "work", "emptyDir": {"sizeLimit": "256Mi"}},
                {"name": "tmp", "emptyDir": {"sizeLimit": "256Mi"}},
                *(_volumes(owner.namespace) if beside.engine is not None else []),
            ],
        },
    }


def _helper(name: str, what: str, beside: Beside) -> dict[str, Any]:
    return {
        "name": name,
        "image": beside.image,
        "imagePullPolicy": beside.pull_policy,
        "command": ["python3", "-m", "fairlead.stepfiles", what],
        "resources": _HELPER,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        **_mounted(),
    }


def _forwarder(beside: Beside, engine: EngineAddress) -> dict[str, Any]:
    """Return the sidecar that takes calls to the engine; the step begins when it listens."""
    mounts = [
        {"name": "token", "mountPath": str(TOKEN_FILE.parent), "readOnly": True},
        {"name": "calls", "mountPath": str(COUNT_FILE.parent)},
    ]
    return {
        "name": CALLS,
        "image": beside.image,
        "imagePullPolicy": beside.pull_policy,
        "command": ["python3", "-m", "fairlead.stepcalls"],
        "env": [
            {"name": "FAIRLEAD_ENGINE_URL", "value": f"https://{engine.host}:{engine.port}"},
            {"name": "FAIRLEAD_ENGINE_CA", "value": engine.ca_pem},
        ],
        "resources": _FORWARDER,
        "restartPolicy": "Always",
        "lifecycle": {"postStart": {"exec": {"command": ["python3", "-m", "fairlead.steplistens"]}}},
        "securityContext": dict(RESTRICTED_CONTAINER),
        "volumeMounts": mounts,
    }


def _alias(engine: EngineAddress) -> dict[str, Any]:
    """Return the one name that such a pod knows."""
    return {"ip": engine.address, "hostnames": [engine.host]}


def _volumes(namespace: str) -> list[dict[str, Any]]:
    token = {"audience": audience(namespace, ""), "expirationSeconds": TOKEN_SECONDS, "path": TOKEN_FILE.name}
    return [
        {"name": "token", "projected": {"sources": [{"serviceAccountToken": token}]}},
        {"name": "calls", "emptyDir": {"sizeLimit": "1Mi"}},
    ]


def _environment(request: Mapping[str, Any], engine: EngineAddress | None) -> list[dict[str, str]]:
    """Return what the step sees: where it calls, if it may, and what it says itself, which goes before."""
    local = f"http://127.0.0.1:{PORT}"
    ours = {"OPENAI_BASE_URL": f"{local}/v1", "OPENAI_API_KEY": "none", "FAIRLEAD_MCP_URL": f"{local}/mcp"}
    said = {one["name"]: unexpanded(one.get("value", "")) for one in request.get("env") or ()}
    found = (ours if engine is not None else {}) | said
    return [{"name": name, "value": value} for name, value in found.items()]


def _mounted() -> dict[str, Any]:
    mounts = [{"name": "work", "mountPath": "/work"}, {"name": "tmp", "mountPath": "/tmp"}]
    return {"securityContext": dict(RESTRICTED_CONTAINER), "volumeMounts": mounts}


def _command(request: Mapping[str, Any]) -> list[str]:
    script = request.get("script")
    words = [*(script.get("command") or ["sh"]), "/work/script"] if script else request.get("command") or []
    return [unexpanded(word) for word in words]


def _input(call: Call) -> bytes:
    return canonical_json(call.request.get("input"))


def _script(call: Call) -> bytes | None:
    script = call.request.get("script")
    return script["source"].encode() if script else None
