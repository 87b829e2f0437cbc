from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.controllers.declared import Object, available, declared
from tests.unit.controllers.restricted import violations

from fairlead.api.reasons import ReadyReason
from fairlead.controllers.engine import Secrets, gather_secrets, plan, plan_missing, wanted_secrets
from fairlead.controllers.engine_objects import mounted_secrets
from fairlead.controllers.plan import Plan
from fairlead.controllers.settings import EngineImage

IMAGE = EngineImage("example.com/fairlead:1")


def engine(changes: dict[str, Any] | None = None) -> Object:
    return declared("Engine", "default", changes=changes)


def planned(
    obj: Object | None = None,
    *,
    secrets: Secrets = Secrets(frozenset()),  # noqa: B008 - frozen
    stateful_set: Object | None = None,
    pods: tuple[Object, ...] = (),
) -> Plan:
    return plan(obj or engine(), image=IMAGE, secrets=secrets, stateful_set=stateful_set, pods=list(pods))


def named(plan: Plan, kind: str, name: str = "fairlead-engine") -> Object:
    (obj,) = [obj for rt, obj in plan.apply if rt.kind == kind and obj["metadata"]["name"] == name]
    return obj


def stateful_set(*secrets: str, generation: int = 1) -> Object:
    made = named(planned(secrets=Secrets(frozenset(secrets))), "StatefulSet")
    return {**made, "metadata": {**made["metadata"], "generation": generation}}


def test_an_engine_passes_pod_security_restricted() -> None:
    assert violations(stateful_set("a")["spec"]["template"]["spec"]) == []


def test_an_engine_is_a_pod_of_the_charts_image_with_a_volume_that_outlives_it() -> None:
    spec = stateful_set()["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    assert (container["image"], container["command"]) == (IMAGE.name, ["python3", "-m", "fairlead.engine"])
    (claim,) = spec["volumeClaimTemplates"]
    assert claim["spec"]["accessModes"] == ["ReadWriteOncePod"]
    assert claim["spec"]["storageClassName"] == "standard"
    assert set(spec["persistentVolumeClaimRetentionPolicy"].values()) == {"Retain"}
    assert spec["template"]["spec"]["terminationGracePeriodSeconds"] == 45


def alone() -> Object:
    obj = engine()
    del obj["spec"]["replicas"], obj["spec"]["database"]
    return obj


def env(obj: Object) -> dict[str, str]:
    (container,) = obj["spec"]["template"]["spec"]["containers"]
    return {variable["name"]: variable["value"] for variable in container["env"]}


def test_one_replica_keeps_its_journal_on_its_volume() -> None:
    made = planned(alone())
    assert named(made, "StatefulSet")["spec"]["replicas"] == 1
    assert "FAIRLEAD_DATABASE" not in env(named(made, "StatefulSet"))
    assert "topologySpreadConstraints" not in named(made, "StatefulSet")["spec"]["template"]["spec"]


def test_replicas_share_a_database_whose_secret_is_mounted_and_stand_on_different_nodes() -> None:
    made = named(planned(), "StatefulSet")
    assert made["spec"]["replicas"] == 2
    assert env(made)["FAIRLEAD_DATABASE"] == "/var/run/fairlead/secrets/journal/url"
    assert wanted_secrets([engine()]) == {"journal"}
    (spread,) = made["spec"]["template"]["spec"]["topologySpreadConstraints"]
    assert (spread["topologyKey"], spread["whenUnsatisfiable"]) == ("kubernetes.io/hostname", "ScheduleAnyway")


@pytest.mark.parametrize(("obj", "pod"), [(engine(), "fairlead-engine-1"), (alone(), None)], ids=["two", "one"])
def test_of_several_replicas_the_service_leads_to_the_one_that_serves(obj: Object, pod: str | None) -> None:
    obj = {**obj, "status": {"owner": "fairlead-engine-1"}}
    selector = named(planned(obj), "Service")["spec"]["selector"]
    assert selector.get("statefulset.kubernetes.io/pod-name") == pod
    assert selector["fairlead.dev/component"] == "engine"


def test_before_one_of_several_replicas_serves_the_service_leads_to_all() -> None:
    assert "statefulset.kubernetes.io/pod-name" not in named(planned(), "Service")["spec"]["selector"]


def test_an_engine_that_cannot_start_is_replaced_when_its_template_changes() -> None:
    assert stateful_set()["spec"]["podManagementPolicy"] == "Parallel"


def test_an_engine_has_its_own_account_and_the_two_without_rights_exist() -> None:
    made = planned()
    accounts = {obj["metadata"]["name"] for rt, obj in made.apply if rt.kind == "ServiceAccount"}
    assert accounts == {"fairlead-engine", "fairlead-viewer", "fairlead-none"}
    assert not any(obj["automountServiceAccountToken"] for rt, obj in made.apply if rt.kind == "ServiceAccount")
    binding = named(made, "RoleBinding")
    assert binding["roleRef"] == {
        "apiGroup": "rbac.authorization.k8s.io",
        "kind": "ClusterRole",
        "name": "fairlead-engine",
    }
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "fairlead-engine", "namespace": "team"}]
    assert stateful_set()["spec"]["template"]["spec"]["serviceAccountName"] == "fairlead-engine"


def test_telemetry_is_passed_on_by_the_standard_variable_and_only_when_declared() -> None:
    def variables(obj: Object) -> dict[str, str]:
        (container,) = named(planned(obj), "StatefulSet")["spec"]["template"]["spec"]["containers"]
        return {variable["name"]: variable["value"] for variable in container["env"]}

    assert variables(engine())["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://otel-collector:4318"
    always = {"FAIRLEAD_NAMESPACE", "FAIRLEAD_DATA", "FAIRLEAD_IMAGE", "FAIRLEAD_IMAGE_PULL_POLICY"}
    assert set(variables(engine({"spec": {}}))) == always
    assert variables(engine())["FAIRLEAD_NAMESPACE"] == "team"


def test_the_certificate_authority_is_made_empty_and_never_overwritten() -> None:
    made = planned()
    ((rt, config_map),) = made.create
    assert (rt.kind, config_map["metadata"]["name"]) == ("ConfigMap", "fairlead-engine-ca")
    assert set(config_map) == {"metadata"}
    assert not any(rt.kind == "ConfigMap" for rt, _ in made.apply)


def test_each_secret_is_mounted_by_its_name_and_may_be_missing() -> None:
    pod = stateful_set("openai", "with.dots." + "x" * 100)["spec"]["template"]["spec"]
    volumes = {volume["name"]: volume["secret"] for volume in pod["volumes"] if "secret" in volume}
    assert all(secret["optional"] for secret in volumes.values())
    assert all(len(name) <= 63 and "." not in name for name in volumes)
    paths = {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"] if mount["name"] in volumes}
    assert paths == {f"/var/run/fairlead/secrets/{secret['secretName']}" for secret in volumes.values()}


def test_secrets_come_from_the_credentials_of_tools_and_models() -> None:
    without = declared("Model", "plain")
    assert wanted_secrets([declared("Tool"), without, {"metadata": {}}]) == {"tickets"}


@pytest.mark.parametrize(
    ("mounted", "ago", "names", "again"),
    [
        (None, 0.0, {"a", "b"}, None),
        (("a",), 3.0, {"a"}, 7.0),
        (("a",), 10.0, {"a", "b"}, None),
        (("a",), float("inf"), {"a", "b"}, None),
        (("a", "b"), 1.0, {"a", "b"}, None),
        (("a", "b", "c"), 4.0, {"a", "b", "c"}, 6.0),
    ],
)
def test_new_names_change_the_engine_at_most_once_in_ten_seconds(
    mounted: tuple[str, ...] | None, ago: float, names: set[str], again: float | None
) -> None:
    seen = None if mounted is None else stateful_set(*mounted)
    gathered = gather_secrets(frozenset({"a", "b"}), stateful_set=seen, changed_seconds_ago=ago)
    assert (gathered.names, gathered.again_seconds) == (names, again)


@settings(deadline=None)
@given(st.frozensets(st.from_regex(r"[a-z0-9]([-a-z0-9.]{0,20}[a-z0-9])?", fullmatch=True), max_size=8))
def test_what_is_mounted_is_read_back_from_the_stateful_set(names: frozenset[str]) -> None:
    assert mounted_secrets(stateful_set(*names)) == names


def test_the_order_of_tools_does_not_restart_the_engine() -> None:
    assert stateful_set("b", "a") == stateful_set("a", "b")


@pytest.mark.parametrize(
    ("status", "ready"),
    [
        ({}, False),
        ({"observedGeneration": 1, "readyReplicas": 0}, False),
        ({"observedGeneration": 0}, False),
        ({"updateRevision": "b"}, False),
        ({"observedGeneration": 1}, True),
    ],
    ids=["no status", "not ready", "ready before the last change", "in the middle of an update", "ready"],
)
def test_an_engine_is_ready_when_the_newest_stateful_set_serves(status: dict[str, Any], ready: bool) -> None:
    seen = stateful_set()
    seen["status"] = available(seen)["status"] | status if status else {}
    made = planned(stateful_set=seen)
    assert made.verdict is not None
    assert (made.verdict.ready, made.verdict.reason) == (ready, ReadyReason.READY if ready else ReadyReason.PROGRESSING)
    assert not made.verdict.stalled


def test_an_engine_that_does_not_start_says_why() -> None:
    pods = ({"status": {"containerStatuses": [{"state": {"waiting": {"reason": "ImagePullBackOff"}}}]}},)
    made = planned(stateful_set=stateful_set(), pods=pods)
    assert made.verdict is not None
    assert made.verdict.message == "ImagePullBackOff"


def test_an_engine_of_another_name_gets_nothing() -> None:
    made = planned(declared("Engine", "second"))
    assert made.verdict is not None
    assert (made.verdict.reason, made.verdict.stalled) == (ReadyReason.NAME_NOT_ALLOWED, True)
    assert made.apply == made.create == ()


def test_a_missing_engine_is_made_with_the_charts_defaults_and_never_overwritten() -> None:
    made = plan_missing("team", defaults={"storage": {"size": "1Gi"}})
    ((rt, obj),) = made.create
    assert (rt.kind, obj["metadata"]["name"], obj["spec"]) == ("Engine", "default", {"storage": {"size": "1Gi"}})
    assert made.apply == ()


def test_keys_of_triggers_are_mounted_as_credentials_are() -> None:
    assert wanted_secrets([declared("Workflow"), declared("Tool")]) >= {"hooks", "tickets"}
    without = declared("Workflow", changes={"spec.triggers": {"http": [{"name": "a", "auth": {"kubernetes": {}}}]}})
    assert wanted_secrets([without]) == frozenset()


def test_triggers_have_a_port_of_their_own_that_is_open() -> None:
    (container,) = stateful_set()["spec"]["template"]["spec"]["containers"]
    assert {"name": "hooks", "containerPort": 8444, "protocol": "TCP"} in container["ports"]
    ports = named(planned(), "Service")["spec"]["ports"]
    assert {"name": "hooks", "port": 8444, "targetPort": "hooks", "protocol": "TCP"} in ports
    rule, *_ = named(planned(), "NetworkPolicy")["spec"]["ingress"]
    assert {"protocol": "TCP", "port": 8444} in rule["ports"] and "from" not in rule


@pytest.mark.requirement("A13")
def test_pods_of_steps_that_call_reach_one_port_of_their_engine_and_nobody_else_does() -> None:
    way = named(planned(), "NetworkPolicy", "fairlead-step-calls")["spec"]
    callers = {"matchLabels": {"fairlead.dev/component": "step", "fairlead.dev/calls": "Allowed"}}
    assert way["podSelector"] == callers and way["policyTypes"] == ["Egress"] and "ingress" not in way
    (rule,) = way["egress"]
    assert rule["ports"] == [{"protocol": "TCP", "port": 8445}]
    engine = named(planned(), "NetworkPolicy")["spec"]
    assert rule["to"] == [{"podSelector": engine["podSelector"]}]
    *others, mine = engine["ingress"]
    assert mine == {"from": [{"podSelector": callers}], "ports": [{"protocol": "TCP", "port": 8445}]}
    assert {"protocol": "TCP", "port": 8445} not in [port for rule in others for port in rule["ports"]]


@pytest.mark.requirement("A52")
def test_metrics_are_open_to_namespaces_that_may_scrape_and_to_nobody_else() -> None:
    rules = named(planned(), "NetworkPolicy")["spec"]["ingress"]
    (rule,) = [one for one in rules if {"protocol": "TCP", "port": 8080} in one["ports"]]
    scrapers = {"namespaceSelector": {"matchLabels": {"fairlead.dev/scrapes": "Allowed"}}}
    assert rule == {"from": [scrapers], "ports": [{"protocol": "TCP", "port": 8080}]}


def test_nothing_goes_into_pods_of_steps_and_nothing_out() -> None:
    closed = named(planned(), "NetworkPolicy", "fairlead-step")["spec"]
    assert closed["podSelector"] == {"matchLabels": {"fairlead.dev/component": "step"}}
    assert closed["policyTypes"] == ["Ingress", "Egress"] and not {"ingress", "egress"} & closed.keys()
