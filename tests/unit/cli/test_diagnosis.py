"""What `fairlead doctor` finds: guardrails that are missing, grants that are wide."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from fairlead import __version__
from fairlead.cli.diagnosis import (
    GUARDRAILS,
    POD_NAME,
    Finding,
    believe_pods_alone,
    guardrails,
    impersonators,
    objects,
    pins,
    unisolated,
    wide_grants,
)

CHART = Path(__file__).parents[3] / "charts/fairlead"
ADMISSION = CHART / "templates/admission"
BY_NAME = {"apiGroups": ["fairlead.dev"], "resources": ["tools"], "resourceNames": ["desk"], "verbs": ["invoke"]}
ALL_TOOLS = {"apiGroups": ["fairlead.dev"], "resources": ["tools"], "verbs": ["invoke"]}
EVERYTHING = {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}
WORKER = {"kind": "ServiceAccount", "name": "worker", "namespace": "team"}


def levels(found: Any) -> list[str]:
    return [finding.level for finding in found]


def installed(*left_out: str, actions: tuple[str, ...] = ("Deny",)) -> tuple[list[Any], list[Any]]:
    names = [name for name in GUARDRAILS if name not in left_out]
    bindings = [{"spec": {"policyName": name, "validationActions": list(actions)}} for name in names]
    return [admission_policy(name) for name in names], bindings


def admission_policy(name: str, *, version: str = __version__, **spec: Any) -> dict[str, Any]:
    rules = {"resourceRules": [{"resources": ["pods"]}]}
    good = {"failurePolicy": "Fail", "matchConstraints": rules, "validations": [{"expression": "object.spec.x > 1"}]}
    metadata = {"name": name, "labels": {"app.kubernetes.io/version": version}}
    return {"metadata": metadata, "spec": good | spec}


def test_the_guardrails_are_those_of_the_chart() -> None:
    texts = [path.read_text(encoding="utf-8") for path in ADMISSION.glob("*.yaml")]
    names = {re.findall(r"kind: ValidatingAdmissionPolicy\nmetadata:\n  name: (\S+)", text)[0] for text in texts}
    assert names == set(GUARDRAILS)


def test_a_chart_that_believes_the_engines_name_is_told_from_one_that_asks_for_its_pod() -> None:
    asks = {"validations": [{"expression": f"request.userInfo.extra['{POD_NAME}'].exists(pod, true)"}]}
    both = ("fairlead-engine-scope", "fairlead-status-writers")
    assert believe_pods_alone([admission_policy(name, **asks) for name in both])
    assert not believe_pods_alone([admission_policy(both[0], **asks), admission_policy(both[1])])
    assert not believe_pods_alone([])
    scope = (ADMISSION / "engine-scope.yaml").read_text(encoding="utf-8")
    assert 'include "fairlead.fromPod"' in scope and POD_NAME in (ADMISSION / "_binding.tpl").read_text(
        encoding="utf-8"
    )


@pytest.mark.requirement("F40")
def test_guardrails_that_are_missing_or_do_not_deny_are_problems() -> None:
    assert levels(guardrails(*installed())) == ["ok"]
    (found,) = guardrails(*installed("fairlead-approvals"))
    assert (found.level, found.what) == ("problem", "the admission policy fairlead-approvals is not installed")
    assert levels(guardrails(*installed(actions=("Audit",)))) == ["problem"] * len(GUARDRAILS)


@pytest.mark.requirement("F40")
@pytest.mark.parametrize(
    ("weak", "level", "words"),
    [
        ({"failurePolicy": "Ignore"}, "problem", "failurePolicy is Ignore, not Fail"),
        ({"validations": []}, "problem", "no validation that could fail"),
        ({"validations": [{"expression": "true"}]}, "problem", "no validation that could fail"),
        ({"matchConstraints": {}}, "problem", "no matchConstraints.resourceRules"),
        ({"version": "0.0.9"}, "warning", f"is of version 0.0.9, and this is fairlead {__version__}"),
    ],
)
def test_guardrails_that_are_less_than_the_charts_are_told(weak: dict[str, Any], level: str, words: str) -> None:
    policies, bindings = installed()
    (found,) = guardrails([admission_policy(GUARDRAILS[0], **weak), *policies[1:]], bindings)
    assert (found.level, f"the admission policy {GUARDRAILS[0]} " in found.what) == (level, True)
    assert words in found.what


def test_the_version_of_the_guardrails_is_the_charts() -> None:
    assert yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))["appVersion"] == __version__


def bound(rule: dict[str, Any], *subjects: dict[str, Any]) -> list[Finding]:
    binding = {
        "kind": "RoleBinding",
        "metadata": {"name": "b"},
        "roleRef": {"kind": "Role", "name": "r"},
        "subjects": list(subjects),
    }
    return [*wide_grants("team", [{"metadata": {"name": "r"}, "rules": [rule]}], [], [binding])]


@pytest.mark.parametrize(
    ("rule", "subject", "level"),
    [
        (BY_NAME, WORKER, "ok"),
        (ALL_TOOLS, WORKER, "warning"),
        (EVERYTHING, WORKER, "warning"),
        (EVERYTHING | {"verbs": ["get"]}, WORKER, "ok"),
        (EVERYTHING | {"apiGroups": [""]}, WORKER, "ok"),
        (ALL_TOOLS | {"resources": ["policies"]}, WORKER, "ok"),
        (ALL_TOOLS, WORKER | {"namespace": "other"}, "ok"),
        (ALL_TOOLS, {"kind": "User", "name": "alice"}, "ok"),
        (BY_NAME, {"kind": "Group", "name": "system:authenticated"}, "warning"),
        (BY_NAME, {"kind": "Group", "name": "system:serviceaccounts:team"}, "warning"),
    ],
)
def test_who_may_invoke_whatever_there_is_is_named(rule: Any, subject: Any, level: str) -> None:
    assert levels(bound(rule, subject)) == [level]


IMPERSONATE = {"apiGroups": [""], "resources": ["serviceaccounts"], "verbs": ["impersonate"]}
A_POD = {
    "apiGroups": ["authentication.k8s.io"],
    "resources": ["userextras/authentication.kubernetes.io/pod-name"],
    "verbs": ["impersonate"],
}


def writing_as_the_engine(rule: Any, kind: str, *, guarded: bool) -> Finding:
    role, subject = {"metadata": {"name": "r"}, "rules": [rule]}, {"kind": "User", "name": "alice"}
    binding = {"kind": kind, "metadata": {"name": "b"}, "subjects": [subject]}
    binding["roleRef"] = {"kind": "ClusterRole", "name": "r"}
    (found,) = impersonators([{"metadata": {"name": "r"}, "rules": []}], [role], [binding], guarded=guarded)
    assert ("User alice may impersonate fairlead-engine" in found.what) == (found.level == "warning")
    return found


@pytest.mark.parametrize(
    ("rule", "level"),
    [
        (IMPERSONATE, "warning"),
        (EVERYTHING, "warning"),
        (IMPERSONATE | {"resourceNames": ["fairlead-engine"]}, "warning"),
        (IMPERSONATE | {"resourceNames": ["worker"]}, "ok"),
        (IMPERSONATE | {"verbs": ["get"]}, "ok"),
        (IMPERSONATE | {"resources": ["users"]}, "ok"),
        (IMPERSONATE | {"apiGroups": ["fairlead.dev"]}, "ok"),
    ],
)
def test_without_guardrails_who_may_impersonate_the_engine_is_named(rule: Any, level: str) -> None:
    assert writing_as_the_engine(rule, "RoleBinding", guarded=False).level == level
    assert writing_as_the_engine(rule, "ClusterRoleBinding", guarded=False).level == "ok", "they administer the cluster"


@pytest.mark.parametrize(
    ("rule", "level"),
    [
        (A_POD, "warning"),
        (A_POD | {"resources": ["*"]}, "warning"),
        (A_POD | {"resourceNames": ["fairlead-engine-0"]}, "warning"),
        (A_POD | {"resourceNames": ["other"]}, "ok"),
        (A_POD | {"resources": ["userextras/scopes"]}, "ok"),
        (IMPERSONATE, "ok"),
        (EVERYTHING, "ok"),
    ],
)
def test_with_them_who_may_say_that_they_are_in_its_pod_is_named(rule: Any, level: str) -> None:
    assert writing_as_the_engine(rule, "ClusterRoleBinding", guarded=True).level == level
    assert writing_as_the_engine(rule, "RoleBinding", guarded=True).level == "ok", "no RoleBinding gives it"


def test_objects_are_believed_when_they_say_that_something_is_wrong() -> None:
    def tool(status: str, reason: str = "Drift") -> dict[str, Any]:
        condition = {"type": "Pinned", "status": status, "reason": reason, "message": "search is not as pinned"}
        return {"metadata": {"name": "desk"}, "status": {"conditions": [condition]}}

    (found,) = objects("Tool", [tool("False")], ("Pinned",))
    assert (found.level, found.what) == ("problem", "Tool desk: Pinned is False: search is not as pinned")
    assert levels(objects("Tool", [tool("True")], ("Pinned",))) == ["ok"]
    assert levels(objects("Tool", [tool("False")], ("Ready",))) == ["ok"]
    assert levels(objects("Tool", [tool("False", "Unpinned")], ("Pinned",))) == ["ok"]
    assert levels(objects("Tool", [tool("False", "UntrustedToExternal")], ("Pinned",))) == ["warning"]
    assert levels(objects("Tool", [], ("Pinned",))) == []


def test_what_nobody_knows_yet_is_not_ok() -> None:
    condition = {"type": "NetworkIsolation", "status": "Unknown", "reason": "Untried", "message": "no pod has tried"}
    engine = {"metadata": {"name": "default"}, "spec": {}, "status": {"conditions": [condition]}}
    (found,) = objects("Engine", [engine], ("Ready", "NetworkIsolation"))
    assert (found.level, found.what) == (
        "unknown",
        "Engine default: NetworkIsolation is not known yet: no pod has tried",
    )


def test_an_engine_that_does_not_wait_for_the_network_is_told() -> None:
    def engine(required: str) -> dict[str, Any]:
        return {"metadata": {"name": "default"}, "spec": {"security": {"requireNetworkIsolation": required}}}

    (found,) = unisolated([engine("NotRequired")])
    assert (found.level, "requireNetworkIsolation is NotRequired" in found.what) == ("warning", True)
    assert [*unisolated([engine("Required"), {"metadata": {"name": "default"}, "spec": {}}])] == []


def test_functions_without_a_pin_are_named_unless_a_policy_demands_pins() -> None:
    desk = {"metadata": {"name": "desk"}, "spec": {"functions": [{"name": "read"}, {"name": "send", "pin": "x"}]}}
    (found,) = pins([desk], [])
    assert found.what == "functions that nobody has reviewed may be called: desk.read"
    assert [*pins([desk], [{"spec": {"rules": {"pins": "Required"}}}])] == []
