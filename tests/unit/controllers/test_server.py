from __future__ import annotations

from typing import Any

import pytest
from tests.unit.controllers.declared import Object, available, declared
from tests.unit.controllers.restricted import violations

from fairlead.api.reasons import ReadyReason
from fairlead.controllers import model, tool
from fairlead.controllers.engine import isolation_guard
from fairlead.controllers.plan import Plan, Verdict
from fairlead.controllers.settings import EngineImage

SERVER = {"image": "example.com/clock:1", "command": ["clock", "--home=$(HOME)"], "port": 9000}


def tool_with_server(**changes: Any) -> Object:
    return declared("Tool", "clock", changes={"spec.mcp": {"server": {**SERVER, **changes}}})


GUARD = EngineImage("example.com/fairlead:1", "Always")


def planned(
    obj: Object | None = None,
    *,
    guard: EngineImage | None = GUARD,
    deployment: Object | None = None,
    pods: tuple[Object, ...] = (),
) -> Plan:
    obj = obj or tool_with_server()
    plan = tool.plan if obj["kind"] == "Tool" else model.plan
    return plan(obj, guard=guard, deployment=deployment, pods=list(pods))


def one(plan: Plan, kind: str) -> Object:
    (obj,) = [obj for rt, obj in plan.apply if rt.kind == kind]
    return obj


def pod_of(plan: Plan) -> Object:
    spec: Object = one(plan, "Deployment")["spec"]["template"]["spec"]
    return spec


def verdict_of(plan: Plan) -> Verdict:
    assert plan.verdict is not None
    return plan.verdict


BOTH = pytest.mark.parametrize("obj", [tool_with_server(), declared("Model")], ids=["tool", "model"])


@BOTH
def test_a_server_is_a_deployment_a_service_and_a_network_policy_of_one_name(obj: Object) -> None:
    plan = planned(obj)
    name = f"fairlead-{obj['kind'].lower()}-{obj['metadata']['name']}"
    assert [rt.kind for rt, _ in plan.apply] == ["NetworkPolicy", "Service", "Deployment"], (
        "closed before there is a pod"
    )
    for _, made in plan.apply:
        assert made["metadata"]["name"] == name
        assert made["metadata"]["namespace"] == "team"
        assert made["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "fairlead"
        assert made["metadata"]["ownerReferences"][0]["uid"] == obj["metadata"]["uid"]


@BOTH
def test_a_server_passes_pod_security_restricted(obj: Object) -> None:
    assert violations(pod_of(planned(obj))) == []


@BOTH
def test_a_server_holds_no_token_no_secret_and_no_names(obj: Object) -> None:
    pod = pod_of(planned(obj))
    assert pod["automountServiceAccountToken"] is False
    assert "serviceAccountName" not in pod
    assert pod["enableServiceLinks"] is False
    assert [set(volume) for volume in pod["volumes"]] == [{"name", "emptyDir"}]
    assert (pod["dnsPolicy"], pod["dnsConfig"]) == ("None", {"nameservers": ["127.0.0.1"]})
    (container,) = pod["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    resources = container["resources"]
    assert set(resources["limits"]) == {"cpu", "memory"}
    assert resources["requests"]["memory"] == resources["limits"]["memory"]


@BOTH
def test_only_the_engine_reaches_a_server_on_one_port_and_the_server_reaches_nothing(obj: Object) -> None:
    plan = planned(obj)
    rules = one(plan, "NetworkPolicy")["spec"]
    port = one(plan, "Service")["spec"]["ports"][0]["port"]
    assert rules["policyTypes"] == ["Ingress", "Egress"]
    assert "egress" not in rules
    (way_in,) = rules["ingress"]
    assert way_in["from"] == [{"podSelector": {"matchLabels": {"fairlead.dev/component": "engine"}}}]
    assert way_in["ports"] == [{"protocol": "TCP", "port": port}]
    assert pod_of(plan)["containers"][0]["ports"][0]["containerPort"] == port
    labels = one(plan, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert rules["podSelector"]["matchLabels"].items() <= labels.items()
    assert one(plan, "Service")["spec"]["selector"].items() <= labels.items()


@BOTH
def test_nothing_that_is_applied_holds_an_empty_list(obj: Object) -> None:
    """The API server stores none of it, and takes the next apply for a change: an event, which brings the next one."""

    def empty(value: Any) -> bool:
        values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        return value == [] or any(empty(one) for one in values)

    assert [rt.kind for rt, made in planned(obj).apply if empty(made)] == []


@BOTH
@pytest.mark.requirement("A13")
def test_a_server_starts_after_the_isolation_of_its_pod(obj: Object) -> None:
    pod = pod_of(planned(obj))
    (guard,) = pod["initContainers"]
    assert (guard["image"], guard["imagePullPolicy"]) == (GUARD.name, GUARD.pull_policy)
    assert guard["command"] == ["python3", "-m", "fairlead.isolation"]
    assert "initContainers" not in pod_of(planned(obj, guard=None)), "the Engine may say that it is not required"


@pytest.mark.parametrize(
    ("engine", "expected"),
    [
        (None, GUARD),
        (declared("Engine", changes={"spec": {}}), GUARD),
        (declared("Engine", changes={"spec.security": {"requireNetworkIsolation": "Required"}}), GUARD),
        (declared("Engine", changes={"spec.security": {"requireNetworkIsolation": "NotRequired"}}), None),
        (declared("Engine", changes={"spec.security": {"requireNetworkIsolation": "notRequired"}}), GUARD),
    ],
)
def test_isolation_is_required_unless_the_engine_says_otherwise(
    engine: Object | None, expected: EngineImage | None
) -> None:
    assert isolation_guard(engine, GUARD) == expected


def test_the_kubelet_expands_nothing_in_what_the_user_wrote() -> None:
    (container,) = pod_of(planned(tool_with_server(env=[{"name": "A", "value": "$(B) $$(C)"}])))["containers"]
    assert container["command"] == ["clock", "--home=$$(HOME)"]
    assert container["env"] == [{"name": "A", "value": "$$(B) $$$(C)"}]


def failing(**waiting: str) -> Object:
    return {"status": {"containerStatuses": [{"ready": False, "state": {"waiting": waiting}}]}}


def unisolated(*, ready: bool) -> Object:
    ended = {"reason": "Error", "message": "does not enforce NetworkPolicies"}
    state = {"terminated": {"reason": "Completed"}} if ready else {"waiting": {"reason": "CrashLoopBackOff"}}
    guard = {"ready": ready, "state": state, "lastState": {"terminated": ended}}
    return {"status": {"initContainerStatuses": [guard]}}


def deployment(**status: Any) -> Object:
    return {"metadata": {"name": "fairlead-tool-clock", "generation": 2}, "status": status}


UP = {"observedGeneration": 2, "updatedReplicas": 1, "availableReplicas": 1}


@pytest.mark.parametrize(
    ("seen", "pods", "ready", "message"),
    [
        (None, (), False, "being made"),
        (deployment(), (), False, "does not answer"),
        (deployment(**UP), (), True, "answers"),
        (deployment(**UP | {"observedGeneration": 1}), (), False, "does not answer"),
        (deployment(**UP | {"unavailableReplicas": 1}), (), False, "does not answer"),
        (
            deployment(),
            (failing(reason="ImagePullBackOff", message="no such image"),),
            False,
            "ImagePullBackOff: no such",
        ),
        (deployment(), (failing(reason="ContainerCreating"),), False, "does not answer"),
        (deployment(), (unisolated(ready=False),), False, "Error: does not enforce NetworkPolicies"),
        (deployment(), (unisolated(ready=True),), False, "does not answer"),
        (deployment(), (failing(reason="CrashLoopBackOff"),), False, "CrashLoopBackOff"),
        (
            deployment(conditions=[{"type": "ReplicaFailure", "status": "True", "message": "exceeded quota"}]),
            (),
            False,
            "exceeded quota",
        ),
        (
            deployment(),
            (
                {
                    "status": {
                        "conditions": [
                            {
                                "type": "PodScheduled",
                                "status": "False",
                                "reason": "Unschedulable",
                                "message": "0/1 nodes",
                            }
                        ]
                    }
                },
            ),
            False,
            "Unschedulable: 0/1 nodes",
        ),
    ],
)
@pytest.mark.requirement("F09")
def test_a_server_that_does_not_run_says_why(
    seen: Object | None, pods: tuple[Object, ...], ready: bool, message: str
) -> None:
    plan = planned(deployment=seen, pods=pods)
    verdict = verdict_of(plan)
    assert (verdict.ready, verdict.reason) == (
        ready,
        ReadyReason.READY if ready else ReadyReason.SERVER_NOT_READY,
    )
    assert message in verdict.message
    assert (plan.again_seconds is None) is ready


@pytest.mark.parametrize("kind", ["Tool", "Model"])
def test_what_needs_no_server_is_ready_when_it_is_well_formed(kind: str) -> None:
    changes = {"spec.server": None, "spec.endpoint": {"api": "OpenAIChat", "url": "https://a.example/v1", "model": "m"}}
    obj = declared(kind, changes=changes if kind == "Model" else {})
    plan = planned(obj)
    assert verdict_of(plan).ready is True
    assert plan.apply == plan.delete == ()


def test_a_server_that_is_not_wanted_any_more_goes() -> None:
    plan = planned(declared("Tool"), deployment=available(deployment()))
    assert {(doomed.type.kind, doomed.name) for doomed in plan.delete} == {
        (kind, "fairlead-tool-tickets") for kind in ("Deployment", "Service", "NetworkPolicy")
    }


@pytest.mark.parametrize("kind", ["Tool", "Model"])
def test_a_malformed_object_gets_no_server(kind: str) -> None:
    plan = planned(declared(kind, changes={"spec.limits": "none"}))
    assert verdict_of(plan).reason == ReadyReason.INVALID_SPEC
    assert plan.apply == ()


def test_a_contract_that_cannot_be_right_is_told_before_anything_is_called() -> None:
    obj = tool_with_server()
    obj["spec"]["functions"] = [{"name": "f", "input": {"schema": {"type": "objet"}}}]
    verdict = verdict_of(planned(obj))
    assert (verdict.ready, verdict.reason) == (False, "InvalidSpec")
    assert verdict.message.startswith("spec.functions[0].input.schema: /type: is none of array,")
