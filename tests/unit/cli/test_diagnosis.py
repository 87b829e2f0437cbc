"""What `fairlead doctor` finds: guardrails that are missing, grants that are wide."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from fairlead.cli.diagnosis import GUARDRAILS, Finding, guardrails, objects, pins, wide_grants

ADMISSION = Path(__file__).parents[3] / "charts/fairlead/templates/admission"
BY_NAME = {"apiGroups": ["fairlead.dev"], "resources": ["tools"], "resourceNames": ["desk"], "verbs": ["invoke"]}
ALL_TOOLS = {"apiGroups": ["fairlead.dev"], "resources": ["tools"], "verbs": ["invoke"]}
EVERYTHING = {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}
WORKER = {"kind": "ServiceAccount", "name": "worker", "namespace": "team"}


def levels(found: Any) -> list[str]:
    return [finding.level for finding in found]


def installed(*left_out: str, actions: tuple[str, ...] = ("Deny",)) -> tuple[list[Any], list[Any]]:
    names = [name for name in GUARDRAILS if name not in left_out]
    bindings = [{"spec": {"policyName": name, "validationActions": list(actions)}} for name in names]
    return [{"metadata": {"name": name}} for name in names], bindings


def test_the_guardrails_are_those_of_the_chart() -> None:
    texts = [path.read_text(encoding="utf-8") for path in ADMISSION.glob("*.yaml")]
    names = {re.findall(r"kind: ValidatingAdmissionPolicy\nmetadata:\n  name: (\S+)", text)[0] for text in texts}
    assert names == set(GUARDRAILS)


@pytest.mark.requirement("F40")
def test_guardrails_that_are_missing_or_do_not_deny_are_problems() -> None:
    assert levels(guardrails(*installed())) == ["ok"]
    (found,) = guardrails(*installed("fairlead-approvals"))
    assert (found.level, found.what) == ("problem", "the admission policy fairlead-approvals is not installed")
    assert levels(guardrails(*installed(actions=("Audit",)))) == ["problem"] * len(GUARDRAILS)


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


def test_objects_are_believed_when_they_say_that_something_is_wrong() -> None:
    def tool(status: str, reason: str = "Drift") -> dict[str, Any]:
        condition = {"type": "Pinned", "status": status, "reason": reason, "message": "search is not as pinned"}
        return {"metadata": {"name": "desk"}, "status": {"conditions": [condition]}}

    (found,) = objects("Tool", [tool("False")], ("Pinned",))
    assert (found.level, found.what) == ("problem", "Tool desk: Pinned is False: search is not as pinned")
    assert levels(objects("Tool", [tool("True")], ("Pinned",))) == ["ok"]
    assert levels(objects("Tool", [tool("False")], ("Ready",))) == ["ok"]
    assert levels(objects("Tool", [tool("False", "Unpinned")], ("Pinned",))) == ["ok"]
    assert levels(objects("Tool", [], ("Pinned",))) == []


def test_functions_without_a_pin_are_named_unless_a_policy_demands_pins() -> None:
    desk = {"metadata": {"name": "desk"}, "spec": {"functions": [{"name": "read"}, {"name": "send", "pin": "x"}]}}
    (found,) = pins([desk], [])
    assert found.what == "functions that nobody has reviewed may be called: desk.read"
    assert [*pins([desk], [{"spec": {"rules": {"pins": "Required"}}}])] == []
