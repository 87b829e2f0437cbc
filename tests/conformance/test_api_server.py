"""The real API server takes every valid object and refuses wrong ones with the words that we meant.

There is no webhook: what these tests show is all that stands between a typing error and etcd. Nothing is stored but
where a rule is about a change.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.e2e.kubectl import Kubectl
from tests.specimens import REMOVED, changed, specimen, status_of
from tests.wrong_objects import INPUT_FROM, WRONG

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("crds")]

ROOT = Path(__file__).resolve().parents[2]
GROUP = "fairlead.dev/"
KINDS = ("Workflow", "WorkflowRun", "Tool", "Model", "Policy", "Approval", "Engine")


def example_objects() -> list[Any]:
    """Our objects among the examples, one parameter each."""
    return [
        pytest.param(obj, id=f"{path.relative_to(ROOT)}:{obj['kind']}")
        for path in sorted((ROOT / "examples").rglob("*.yaml"))
        for obj in yaml.safe_load_all(path.read_text(encoding="utf-8"))
        if isinstance(obj, dict) and str(obj.get("apiVersion", "")).startswith(GROUP)
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_an_object_that_uses_every_field_is_accepted_and_kept_whole(administrator: Kubectl, kind: str) -> None:
    obj = specimen(kind)
    stored = administrator.create(obj, "--dry-run=server")
    assert stored["spec"] == obj["spec"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_status_that_uses_every_field_is_accepted_and_kept_whole(kubectl: Kubectl, kind: str) -> None:
    obj = kubectl.create(specimen(kind))
    patch = yaml.safe_dump({"status": status_of(kind)})
    where = (f"{kind.lower()}.fairlead.dev", obj["metadata"]["name"])
    kubectl("patch", *where, "--subresource=status", "--type=merge", f"-p={patch}")
    assert kubectl.get(*where)["status"] == status_of(kind)


@pytest.mark.parametrize("obj", example_objects())
def test_every_example_is_accepted(administrator: Kubectl, obj: Mapping[str, Any]) -> None:
    metadata = {key: value for key, value in obj["metadata"].items() if key != "namespace"}
    administrator.create({**obj, "metadata": metadata}, "--dry-run=server")


@pytest.mark.parametrize(("kind", "changes", "words"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_what_is_wrong_is_refused_in_our_words(
    administrator: Kubectl, kind: str, changes: Mapping[str, Any], words: str
) -> None:
    assert words in refused(administrator, changed(specimen(kind), changes))


@pytest.mark.requirement("A20")
@pytest.mark.parametrize(("kind", "path"), [("Tool", "spec.credential"), ("Model", "spec.credential")])
def test_a_secret_of_another_namespace_cannot_even_be_said(administrator: Kubectl, kind: str, path: str) -> None:
    credential = {"secretRef": {"name": "theirs", "key": "token", "namespace": "kube-system"}}
    message = refused(administrator, changed(specimen(kind), {path: credential}))
    assert f'strict decoding error: unknown field "{path}.secretRef.namespace"' in message


def test_no_tool_function_can_exist(administrator: Kubectl) -> None:
    obj = {"apiVersion": "fairlead.dev/v1alpha1", "kind": "ToolFunction", "metadata": {"name": "search"}}
    assert "permissions only: a ToolFunction cannot be created, grant `invoke` on it" in refused(administrator, obj)


def test_discovery_knows_tool_functions_so_that_can_i_answers(administrator: Kubectl) -> None:
    assert administrator("auth", "can-i", "invoke", "toolfunctions.fairlead.dev/tickets.search").strip() == "yes"


RUN_CHANGES: list[tuple[str, dict[str, Any], str]] = [
    ("workflow", {"workflow": "other"}, "workflow is immutable; create another run"),
    ("input", {"input": {"more": [2]}}, "input is immutable; create another run"),
    ("no input", {"input": None}, "input is immutable; create another run"),
    (
        "inputFrom",
        {"input": None, "inputFrom": INPUT_FROM, "retryFrom": None},
        "inputFrom is immutable; create another run",
    ),
    ("retryFrom", {"retryFrom": {"step": "other"}}, "retryFrom is immutable; create another run"),
    ("requestedBy", {"requestedBy": "mallory"}, "requestedBy is immutable; create another run"),
    ("timeoutSeconds", {"timeoutSeconds": 1}, "timeoutSeconds is immutable; create another run"),
]


@pytest.mark.parametrize(("patch", "words"), [row[1:] for row in RUN_CHANGES], ids=[row[0] for row in RUN_CHANGES])
def test_a_run_cannot_be_made_another(kubectl: Kubectl, patch: Mapping[str, Any], words: str) -> None:
    run = kubectl.create(specimen("WorkflowRun"))
    assert words in refused_patch(kubectl, run, patch)


SENT = {"name": "go", "data": {"ok": True}, "by": "bob@example.com"}


def test_a_signal_is_added_at_the_end(kubectl: Kubectl) -> None:
    run = kubectl.create(specimen("WorkflowRun"))
    patch = json.dumps({"spec": {"signals": [SENT, SENT | {"data": 2}]}})
    kubectl("patch", "workflowrun", run["metadata"]["name"], "--type=merge", f"-p={patch}")


@pytest.mark.parametrize("signals", [None, [], [SENT | {"data": 1}], [SENT | {"name": "new"}, SENT]])
def test_a_signal_that_was_sent_stays(kubectl: Kubectl, signals: Any) -> None:
    run = kubectl.create(specimen("WorkflowRun"))
    assert "a signal that was sent stays as it is" in refused_patch(kubectl, run, {"signals": signals})


def test_a_cancelled_run_stays_cancelled(kubectl: Kubectl) -> None:
    run = kubectl.create(specimen("WorkflowRun"))
    kubectl("patch", "workflowrun", run["metadata"]["name"], "--type=merge", '-p={"spec":{"desiredState":"Cancelled"}}')
    for state in ("Running", None):
        assert "Cancelled is final; create another run" in refused_patch(kubectl, run, {"desiredState": state})


@pytest.mark.parametrize(
    ("storage", "words"),
    [
        ({"size": "2Gi"}, "storage.size is immutable"),
        ({"size": None}, "storage.size is immutable"),
        ({"storageClassName": "other"}, "storage.storageClassName is immutable"),
        (None, "storage.size is immutable"),
    ],
)
def test_an_engine_cannot_change_its_volume(kubectl: Kubectl, storage: Mapping[str, Any] | None, words: str) -> None:
    engine = kubectl.create(specimen("Engine"))
    assert words in refused_patch(kubectl, engine, {"storage": storage})


def test_an_engine_without_storage_may_say_the_default(kubectl: Kubectl) -> None:
    kubectl.create(changed(specimen("Engine"), {"spec.storage": REMOVED}))
    kubectl("patch", "engine", "default", "--type=merge", '-p={"spec":{"storage":{"size":"10Gi"}}}')


@pytest.mark.parametrize("prefix", ["triage-", "x" * 62 + "-"])
def test_a_generated_name_of_a_run_fits(kubectl: Kubectl, prefix: str) -> None:
    run = kubectl.create({**specimen("WorkflowRun"), "metadata": {"generateName": prefix}})
    assert run["metadata"]["name"].startswith(prefix[:50])


def test_status_is_written_only_through_its_own_door(kubectl: Kubectl) -> None:
    status = {"progress": "6/6", "denials": 0}
    run = kubectl.create({**specimen("WorkflowRun"), "status": status})
    assert "status" not in run
    patch = yaml.safe_dump({"status": status})
    kubectl("patch", "workflowrun", "triage-1", "--subresource=status", "--type=merge", f"-p={patch}")
    assert kubectl.get("workflowrun", "triage-1")["status"] == status


def test_runs_are_selected_by_workflow_on_the_server(kubectl: Kubectl) -> None:
    kubectl.create(specimen("WorkflowRun"))
    kubectl.create(changed(specimen("WorkflowRun"), {"metadata.name": "other-1", "spec.workflow": "other"}))
    found = kubectl.get("workflowruns", "--field-selector=spec.workflow=other")
    assert [run["metadata"]["name"] for run in found["items"]] == ["other-1"]


def test_the_category_lists_our_objects(kubectl: Kubectl) -> None:
    for kind in ("Workflow", "Policy"):
        kubectl.create(specimen(kind))
    listed = kubectl("get", "fairlead", "--output=name").split()
    assert sorted(listed) == ["policy.fairlead.dev/triage", "workflow.fairlead.dev/triage"]


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("workflow.spec.steps", "One step: exactly one kind"),
        ("workflow.spec.steps.retry.errorClasses", "Error classes that are tried again"),
        ("tool.spec.functions.effect", "Only Read may be repeated after a crash"),
        ("policy.spec.grants", "What these accounts may invoke"),
        ("workflowrun.status.conditions.reason", "one stable word"),
    ],
)
def test_explain_explains(administrator: Kubectl, field: str, words: str) -> None:
    assert words in " ".join(administrator("explain", field).split())


def refused(kubectl: Kubectl, obj: Mapping[str, Any]) -> str:
    """What the API server says to an object; it must not be accepted."""
    words = ("create", "--dry-run=server", "--validate=strict", "--filename=-")
    return kubectl.refusal(*words, stdin=yaml.safe_dump(dict(obj)))


def refused_patch(kubectl: Kubectl, obj: Mapping[str, Any], spec: Mapping[str, Any]) -> str:
    """What the API server says to a change of a spec; it must not be accepted."""
    patch = yaml.safe_dump({"spec": dict(spec)})
    return kubectl.refusal("patch", obj["kind"].lower(), obj["metadata"]["name"], "--type=merge", f"-p={patch}")
