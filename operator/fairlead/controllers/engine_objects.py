"""What an Engine consists of: one pod with a volume, its accounts and rights, its addresses.

Pure: from the Engine, the chart's image and the names of the Secrets to mount. `engine.py` decides when.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from fairlead.api.engine import EngineResources, EngineSpec, Storage
from fairlead.controllers.children import (
    COMPONENT,
    ENGINE_COMPONENT,
    labels,
    metadata,
    owner,
    selector,
)
from fairlead.controllers.plan import Object, Typed
from fairlead.controllers.settings import EngineImage
from fairlead.kube.restricted import RESTRICTED_CONTAINER, RESTRICTED_POD, SHORT_TOLERATIONS
from fairlead.kube.types import (
    CONFIG_MAPS,
    ENGINES,
    NETWORK_POLICIES,
    ROLE_BINDINGS,
    SERVICE_ACCOUNTS,
    SERVICES,
    STATEFUL_SETS,
)

ENGINE = "default"
ENGINE_NAME = "fairlead-engine"
VIEWER_ACCOUNT = "fairlead-viewer"
NO_RIGHTS_ACCOUNT = "fairlead-none"
CA_CONFIG_MAP = "fairlead-engine-ca"
STEP_NETWORK = "fairlead-step"
STEP_CALLS_NETWORK = "fairlead-step-calls"
STEP_COMPONENT = "step"
DATA_PATH = "/var/lib/fairlead"
SECRETS_PATH = "/var/run/fairlead/secrets"
HTTPS_PORT = 8443
HOOKS_PORT = 8444
STEPS_PORT = 8445
HTTP_PORT = 8080
_CALLING_STEPS = {"matchLabels": {COMPONENT: STEP_COMPONENT, "fairlead.dev/calls": "Allowed"}}
_SCRAPERS = {"matchLabels": {"fairlead.dev/scrapes": "Allowed"}}
_GRACE_SECONDS = 45
_SECRET_VOLUME = "secret-"


def engine_objects(
    engine: Object, spec: EngineSpec, *, image: EngineImage, secrets: Iterable[str]
) -> tuple[Typed, ...]:
    """Return what is applied for an Engine, rights and addresses before the pod."""
    namespace = engine["metadata"]["namespace"]

    def head(name: str) -> Object:
        return metadata(name, namespace, labels=labels(ENGINE_COMPONENT, ENGINE), owners=[owner(ENGINES, engine)])

    accounts = tuple(
        (SERVICE_ACCOUNTS, {"metadata": head(name), "automountServiceAccountToken": False})
        for name in (ENGINE_NAME, VIEWER_ACCOUNT, NO_RIGHTS_ACCOUNT)
    )
    binding = {
        "metadata": head(ENGINE_NAME),
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": ENGINE_NAME},
        "subjects": [{"kind": "ServiceAccount", "name": ENGINE_NAME, "namespace": namespace}],
    }
    return (
        *accounts,
        (ROLE_BINDINGS, binding),
        *((NETWORK_POLICIES, {"metadata": head(name), "spec": spec}) for name, spec in networks().items()),
        (SERVICES, {"metadata": head(ENGINE_NAME), "spec": _service(_owner(engine, spec))}),
        (
            STATEFUL_SETS,
            {"metadata": head(ENGINE_NAME), "spec": _stateful_set(namespace, spec, image, sorted(set(secrets)))},
        ),
    )


def networks() -> dict[str, Object]:
    """Return the specs of a namespace's own NetworkPolicies, by name; each server has another one."""
    return {
        ENGINE_NAME: _network_policy(),
        STEP_NETWORK: _closed(STEP_COMPONENT),
        STEP_CALLS_NETWORK: _to_the_engine(),
    }


def ca_config_map(engine: Object) -> Typed:
    """Return the empty ConfigMap that the engine puts its certificate authority into; never overwritten."""
    return CONFIG_MAPS, {
        "metadata": metadata(
            CA_CONFIG_MAP,
            engine["metadata"]["namespace"],
            labels=labels(ENGINE_COMPONENT, ENGINE),
            owners=[owner(ENGINES, engine)],
        )
    }


def mounted_secrets(stateful_set: Object | None) -> frozenset[str]:
    """Return the names of the Secrets that the StatefulSet mounts now."""
    if stateful_set is None:
        return frozenset()
    volumes = stateful_set["spec"]["template"]["spec"].get("volumes", [])
    return frozenset(volume["secret"]["secretName"] for volume in volumes if volume["name"].startswith(_SECRET_VOLUME))


def _stateful_set(namespace: str, spec: EngineSpec, image: EngineImage, secrets: list[str]) -> Object:
    return {
        "replicas": spec.replicas,
        "serviceName": ENGINE_NAME,
        # A pod that cannot start is replaced by the next template; OrderedReady would wait for it for ever.
        "podManagementPolicy": "Parallel",
        "revisionHistoryLimit": 2,
        "selector": {"matchLabels": selector(ENGINE_COMPONENT, ENGINE)},
        # The journal outlives the engine: an Engine that is deleted and made again finds it.
        "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"},
        "volumeClaimTemplates": [_claim(spec.storage or Storage())],
        "template": {
            "metadata": {"labels": labels(ENGINE_COMPONENT, ENGINE)},
            "spec": {
                "serviceAccountName": ENGINE_NAME,
                "automountServiceAccountToken": True,
                "enableServiceLinks": False,
                "securityContext": dict(RESTRICTED_POD),
                "terminationGracePeriodSeconds": _GRACE_SECONDS,
                "tolerations": [dict(toleration) for toleration in SHORT_TOLERATIONS],
                **({"topologySpreadConstraints": [_spread()]} if spec.replicas > 1 else {}),
                "containers": [_container(namespace, spec, image, secrets)],
                "volumes": [
                    {"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}},
                    *({"name": _volume(name), "secret": _optional_secret(name)} for name in secrets),
                ],
            },
        },
    }


def _container(namespace: str, spec: EngineSpec, image: EngineImage, secrets: list[str]) -> Object:
    resources = spec.resources or EngineResources()
    env = [{"name": "FAIRLEAD_NAMESPACE", "value": namespace}, {"name": "FAIRLEAD_DATA", "value": DATA_PATH}]
    env.append({"name": "FAIRLEAD_IMAGE", "value": image.name})
    env.append({"name": "FAIRLEAD_IMAGE_PULL_POLICY", "value": image.pull_policy})
    if spec.database is not None:
        named = spec.database.secret_ref
        env.append({"name": "FAIRLEAD_DATABASE", "value": f"{SECRETS_PATH}/{named.name}/{named.key}"})
    if spec.telemetry is not None:
        env.append({"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": spec.telemetry.endpoint})
    return {
        "name": "engine",
        "image": image.name,
        "imagePullPolicy": image.pull_policy,
        "command": ["python3", "-m", "fairlead.engine"],
        "env": env,
        "ports": [
            {"name": "https", "containerPort": HTTPS_PORT, "protocol": "TCP"},
            {"name": "hooks", "containerPort": HOOKS_PORT, "protocol": "TCP"},
            {"name": "steps", "containerPort": STEPS_PORT, "protocol": "TCP"},
            {"name": "http", "containerPort": HTTP_PORT, "protocol": "TCP"},
        ],
        "resources": {
            "requests": {"cpu": resources.cpu, "memory": resources.memory},
            "limits": {"memory": resources.memory},
        },
        "securityContext": dict(RESTRICTED_CONTAINER),
        "startupProbe": _probe("/healthz", period_seconds=1, failures=120),
        "livenessProbe": _probe("/healthz", period_seconds=10, failures=3),
        "readinessProbe": _probe("/readyz", period_seconds=2, failures=2),
        "volumeMounts": [
            {"name": "data", "mountPath": DATA_PATH},
            {"name": "tmp", "mountPath": "/tmp"},
            *({"name": _volume(name), "mountPath": f"{SECRETS_PATH}/{name}", "readOnly": True} for name in secrets),
        ],
    }


def _claim(storage: Storage) -> Object:
    spec: dict[str, Any] = {
        "accessModes": ["ReadWriteOncePod"],
        "resources": {"requests": {"storage": storage.size}},
    }
    if storage.storage_class_name is not None:
        spec["storageClassName"] = storage.storage_class_name
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data", "labels": selector(ENGINE_COMPONENT, ENGINE)},
        "spec": spec,
    }


def _probe(path: str, *, period_seconds: int, failures: int) -> Mapping[str, Any]:
    return {
        "httpGet": {"path": path, "port": "http"},
        "periodSeconds": period_seconds,
        "failureThreshold": failures,
        "timeoutSeconds": 2,
    }


def _volume(secret: str) -> str:
    """Return a volume's name: Secrets may have longer names, with dots."""
    return _SECRET_VOLUME + hashlib.sha256(secret.encode()).hexdigest()[:16]


def _optional_secret(name: str) -> Object:
    return {"secretName": name, "optional": True, "defaultMode": 0o440}


def _owner(engine: Object, spec: EngineSpec) -> str:
    """Return which of several replicas serves, as far as it said so; "" for the only one."""
    return str((engine.get("status") or {}).get("owner") or "") if spec.replicas > 1 else ""


def _spread() -> Object:
    """Return what keeps replicas on different nodes, where there are some."""
    return {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": selector(ENGINE_COMPONENT, ENGINE)},
    }


def _service(pod: str) -> Object:
    """Return the address of the pod that serves: the only one, or the owner of several."""
    owner_only = {"statefulset.kubernetes.io/pod-name": pod} if pod else {}
    return {
        "type": "ClusterIP",
        "selector": selector(ENGINE_COMPONENT, ENGINE) | owner_only,
        "ports": [
            {"name": "https", "port": HTTPS_PORT, "targetPort": "https", "protocol": "TCP"},
            {"name": "hooks", "port": HOOKS_PORT, "targetPort": "hooks", "protocol": "TCP"},
            {"name": "steps", "port": STEPS_PORT, "targetPort": "steps", "protocol": "TCP"},
            {"name": "http", "port": HTTP_PORT, "targetPort": "http", "protocol": "TCP"},
        ],
    }


def _closed(component: str) -> Object:
    """Return what lets nothing into pods of a component, and nothing out."""
    return {"podSelector": {"matchLabels": {COMPONENT: component}}, "policyTypes": ["Ingress", "Egress"]}


def _to_the_engine() -> Object:
    """Return what lets the pods of steps that call out to their engine's own port for them."""
    engine = {"podSelector": {"matchLabels": selector(ENGINE_COMPONENT, ENGINE)}}
    return {
        "podSelector": _CALLING_STEPS,
        "policyTypes": ["Egress"],
        "egress": [{"to": [engine], "ports": [{"protocol": "TCP", "port": STEPS_PORT}]}],
    }


def _network_policy() -> Object:
    """Return what lets everybody to the ports that ask who it is, and to metrics only namespaces that may scrape.

    Probes come from the pod's own node, which no NetworkPolicy keeps out.
    """
    return {
        "podSelector": {"matchLabels": selector(ENGINE_COMPONENT, ENGINE)},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [
            {"ports": [{"protocol": "TCP", "port": port} for port in (HTTPS_PORT, HOOKS_PORT)]},
            {"from": [{"namespaceSelector": _SCRAPERS}], "ports": [{"protocol": "TCP", "port": HTTP_PORT}]},
            {"from": [{"podSelector": _CALLING_STEPS}], "ports": [{"protocol": "TCP", "port": STEPS_PORT}]},
        ],
        "egress": [{}],
    }
