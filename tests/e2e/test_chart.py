"""What the chart installs, rendered: a change of any right or admission rule shows as a change of a golden file."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.cluster import CommandFailed
from tests.cluster.commands import run
from tests.unit.controllers.restricted import violations

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests/golden/permissions.yaml"
PERMISSIONS = {
    "ClusterRole": ("rules",),
    "Role": ("rules",),
    "ClusterRoleBinding": ("roleRef", "subjects"),
    "RoleBinding": ("roleRef", "subjects"),
    "ValidatingAdmissionPolicy": ("spec",),
    "ValidatingAdmissionPolicyBinding": ("spec",),
}
Render = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="session")
def render(cluster_environment: dict[str, str]) -> Render:
    """`helm template` with values set, parsed."""

    def template(*values: str) -> list[dict[str, Any]]:
        words = ["helm", "template", "fairlead", str(ROOT / "charts/fairlead"), "--namespace=fairlead-system"]
        words += ["--kube-version=1.34.0", *(f"--set={value}" for value in values)]
        return [obj for obj in yaml.safe_load_all(run(*words, env=cluster_environment)) if obj]

    return template


def rights(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Everything that says who may do what, by kind and name."""
    found = [
        {"kind": obj["kind"], "name": obj["metadata"]["name"]} | {part: obj[part] for part in PERMISSIONS[obj["kind"]]}
        for obj in objects
        if obj["kind"] in PERMISSIONS
    ]
    return sorted(found, key=lambda obj: (obj["kind"], obj["name"]))


@pytest.mark.requirement("A52")
def test_the_permissions_are_those_that_were_reviewed(render: Render) -> None:
    """After a review: `UPDATE_GOLDEN=1 pytest tests/e2e/test_chart.py`."""
    rendered = rights(render())
    if os.environ.get("UPDATE_GOLDEN") == "1":
        GOLDEN.write_text(yaml.safe_dump_all(rendered, sort_keys=True, width=120), encoding="utf-8")
    assert rendered == list(yaml.safe_load_all(GOLDEN.read_text(encoding="utf-8")))


def test_no_role_has_a_wildcard_and_none_reads_secrets(render: Render) -> None:
    for obj in rights(render()):
        for rule in obj.get("rules", []):
            assert "*" not in [*rule["verbs"], *rule["resources"], *rule["apiGroups"]], obj["name"]
            assert "secrets" not in rule["resources"], obj["name"]
            assert not [name for name in rule["resources"] if name.endswith(("/exec", "/attach", "/portforward"))]


@pytest.mark.requirement("A12")
def test_no_role_for_people_writes_status(render: Render) -> None:
    people = [obj for obj in rights(render()) if obj["name"] in ("fairlead-view", "fairlead-edit", "fairlead-admin")]
    assert len(people) == 3
    assert not [name for obj in people for rule in obj["rules"] for name in rule["resources"] if "/status" in name]


@pytest.mark.requirement("A52")
def test_the_chart_brings_no_secret_and_opens_no_port_but_the_operators_probes(render: Render) -> None:
    objects = render()
    assert [obj["kind"] for obj in objects if obj["kind"] in ("Secret", "Service", "Ingress")] == []
    (operator,) = [obj for obj in objects if obj["kind"] == "Deployment"]
    (container,) = operator["spec"]["template"]["spec"]["containers"]
    assert {port["name"] for port in container.get("ports", [])} <= {"http"}
    assert not [one for one in container.get("env", []) if re.search("(?i)password|token|secret", one["name"])]


@pytest.mark.requirement("A52")
def test_every_pod_of_the_chart_is_restricted_and_has_a_read_only_root(render: Render) -> None:
    pods = [obj["spec"]["template"]["spec"] for obj in render() if obj["kind"] in ("Deployment", "Job")]
    assert len(pods) == 2
    for pod in pods:
        assert violations(pod) == []
        assert all(container["securityContext"]["readOnlyRootFilesystem"] for container in pod["containers"])
        assert all("limits" in container["resources"] for container in pod["containers"])
        assert not [volume for volume in pod["volumes"] if "emptyDir" not in volume]


@pytest.mark.parametrize(
    "value",
    [
        "surprise=1",
        "operator.surprise=1",
        "engine.defaults.surprise=1",
        "image.tag=x",
        "operator.replicas=0",
        "image.name=",
        "image.name=x' || '",
    ],
)
def test_a_value_that_does_nothing_is_refused(render: Render, value: str) -> None:
    with pytest.raises(CommandFailed, match=r"(?i)schema"):
        render(value)


def test_the_crds_come_with_the_chart_as_generated_and_stay_without_it(render: Render) -> None:
    crds = {obj["metadata"]["name"]: obj for obj in render() if obj["kind"] == "CustomResourceDefinition"}
    generated = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in (ROOT / "crds").glob("*.yaml")]
    assert {crd["metadata"]["name"]: crd["spec"] for crd in generated} == {
        name: crd["spec"] for name, crd in crds.items()
    }, "run make crds"
    assert {crd["metadata"]["annotations"]["helm.sh/resource-policy"] for crd in crds.values()} == {"keep"}
    assert not [obj for obj in render("crds.enabled=false") if obj["kind"] == "CustomResourceDefinition"]


@pytest.mark.parametrize(
    ("value", "label", "role"),
    [
        ("roles.aggregate.view=true", "aggregate-to-view", "fairlead-view"),
        ("roles.aggregate.edit=true", "aggregate-to-edit", "fairlead-edit"),
        ("roles.aggregate.admin=true", "aggregate-to-admin", "fairlead-admin"),
    ],
)
def test_roles_become_part_of_kubernetes_own_only_when_asked(render: Render, value: str, label: str, role: str) -> None:
    def labels(*values: str) -> dict[str, str]:
        (found,) = [obj for obj in render(*values) if (obj["kind"], obj["metadata"]["name"]) == ("ClusterRole", role)]
        return dict(found["metadata"]["labels"])

    assert f"rbac.authorization.k8s.io/{label}" in labels(value)
    assert f"rbac.authorization.k8s.io/{label}" not in labels(value.replace("true", "false"))


def test_every_admission_policy_fails_closed_and_is_bound_to_deny(render: Render) -> None:
    objects = render()
    policies = {obj["metadata"]["name"]: obj["spec"] for obj in objects if obj["kind"] == "ValidatingAdmissionPolicy"}
    bindings = {
        obj["spec"]["policyName"]: obj["spec"] for obj in objects if obj["kind"] == "ValidatingAdmissionPolicyBinding"
    }
    assert policies
    assert set(policies) == set(bindings)
    assert {policy["failurePolicy"] for policy in policies.values()} == {"Fail"}
    assert all(binding["validationActions"] == ["Deny"] for binding in bindings.values())
    assert all("matchResources" not in binding for binding in bindings.values())
    # A policy without its parameters refuses everybody, whatever its conditions say: none may need any.
    assert not [name for name, policy in policies.items() if "paramKind" in policy]


def test_the_image_that_admission_allows_is_the_one_that_the_operator_uses(render: Render) -> None:
    for values in ((), ("engine.image.name=other:1",), ("image.name=mine:2",)):
        objects = render(*values)
        (policy,) = [
            obj
            for obj in objects
            if (obj["kind"], obj["metadata"]["name"]) == ("ValidatingAdmissionPolicy", "fairlead-operator-workloads")
        ]
        (expression,) = [v["expression"] for v in policy["spec"]["variables"] if v["name"] == "engineImage"]
        (operator,) = [obj for obj in objects if obj["kind"] == "Deployment"]
        env = {
            variable["name"]: variable.get("value")
            for variable in operator["spec"]["template"]["spec"]["containers"][0]["env"]
        }
        assert expression == f"'{env['FAIRLEAD_ENGINE_IMAGE']}'"
