"""The real API server takes every valid object and refuses wrong ones with the words that we meant.

There is no webhook: what these tests show is all that stands between a typing error and etcd. Nothing is stored but
where a rule is about a change.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.e2e.kubectl import Kubectl
from tests.specimens import REMOVED, changed, specimen, status_of

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("crds")]

ROOT = Path(__file__).resolve().parents[2]
GROUP = "fairlead.dev/"
KINDS = ("Workflow", "WorkflowRun", "Tool", "Model", "Policy", "Engine")


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


GENERATE = {"prompt": "Hello"}
TRANSFORM = {"value": 1}
ENDPOINT = {"api": "OpenAIChat", "url": "http://models.example", "model": "m"}
WRONG: list[tuple[str, str, dict[str, Any], str]] = [
    # what is wrong, kind, changes, words of the answer
    ("no kind in a step", "Workflow", {"spec.steps.4.transform": REMOVED}, "a step has exactly one of generate, agent"),
    ("two kinds in a step", "Workflow", {"spec.steps.4.generate": GENERATE}, "a step has exactly one of generate"),
    (
        "two kinds in a step of a block",
        "Workflow",
        {"spec.blocks.0.steps.1.transform": TRANSFORM},
        "a step has exactly one of generate",
    ),
    ("a dash in a step's name", "Workflow", {"spec.steps.4.name": "a-b"}, "spec.steps[4].name in body should match"),
    ("a step called null", "Workflow", {"spec.steps.4.name": "null"}, "mean something else in expressions"),
    ("a block called in", "Workflow", {"spec.blocks.0.name": "in"}, "mean something else in expressions"),
    ("a choice called true", "Workflow", {"spec.steps.0.route.choices.0.name": "true"}, "mean something else"),
    (
        "two steps of one name",
        "Workflow",
        {"spec.steps.6": {"name": "sum", "transform": TRANSFORM}},
        'spec.steps[6]: Duplicate value: {"name":"sum"}',
    ),
    ("needs in a Sequence", "Workflow", {"spec.steps.5.needs": ["sum"]}, "needs and join are for `order: Graph`"),
    (
        "needs in a block that is a Sequence by default",
        "Workflow",
        {"spec.blocks.0.order": REMOVED},
        "needs and join are for `order: Graph`",
    ),
    ("a step that needs itself", "Workflow", {"spec.blocks.0.steps.2.needs": ["both"]}, "a step cannot need itself"),
    ("join without needs", "Workflow", {"spec.blocks.0.steps.2.needs": REMOVED}, "which is missing"),
    ("otherwise is no choice", "Workflow", {"spec.steps.0.route.otherwise": "none"}, "the name of one of the choices"),
    ("a score without a model", "Workflow", {"spec.steps.0.route.model": REMOVED}, "minScorePercent is a score of"),
    ("action and block at once", "Workflow", {"spec.steps.1.onError.block": "diagnose"}, "exactly one of action"),
    ("prompt and messages", "Workflow", {"spec.steps.5.generate.prompt": "x"}, "exactly one of prompt and messages"),
    ("nothing to validate with", "Workflow", {"spec.steps.3.validate.rules": REMOVED}, "at least one of schema, rules"),
    ("null as a value", "Workflow", {"spec.steps.4.transform.value": None}, "transform.value: Required value"),
    ("a loop without a bound", "Workflow", {"spec.steps.2.repeat.maxIterations": REMOVED}, "maxIterations: Required"),
    ("retry of what never is", "Workflow", {"spec.steps.1.retry.on.0": "Denied"}, 'Unsupported value: "Denied"'),
    ("a number", "Workflow", {"spec.steps.1.agent.parameters.temperature": 0.2}, "must be of type string"),
    ("no steps", "Workflow", {"spec.steps": []}, "spec.steps in body should have at least 1 items"),
    ("an unknown field", "Workflow", {"spec.steps.4.forEach": {}}, 'unknown field "spec.steps[4].forEach"'),
    ("a status in disguise", "Workflow", {"spec.budget": {"costUSD": "1"}}, 'unknown field "spec.budget"'),
    ("a long name", "Workflow", {"metadata.name": "x" * 41}, "a name has at most 40 characters and no dots"),
    ("a dot in a name", "Tool", {"metadata.name": "a.b"}, "a name has at most 40 characters and no dots"),
    ("a long name of a run", "WorkflowRun", {"metadata.name": "x" * 64}, "a name has at most 63 characters"),
    ("an unknown state", "WorkflowRun", {"spec.desiredState": "Paused"}, 'Unsupported value: "Paused"'),
    ("a run without a workflow", "WorkflowRun", {"spec.workflow": REMOVED}, "spec.workflow: Required value"),
    ("url and server", "Tool", {"spec.mcp.server": {"image": "x"}}, "set exactly one of url and server"),
    ("neither url nor server", "Tool", {"spec.mcp.url": REMOVED}, "set exactly one of url and server"),
    ("a password in a URL", "Tool", {"spec.mcp.url": "https://me:pw@x.example"}, "a URL holds no user or password"),
    ("a file as URL", "Tool", {"spec.mcp.url": "file:///etc/passwd"}, "spec.mcp.url in body should match"),
    ("an unknown effect", "Tool", {"spec.functions.0.effect": "Write"}, 'Unsupported value: "Write"'),
    ("two keys", "Tool", {"spec.functions.1.idempotency.argument": "key"}, "exactly one of header and argument"),
    ("the hosts as credential", "Tool", {"spec.credential.secretRef.key": "allowed-hosts"}, "is no credential"),
    ("endpoint and server", "Model", {"spec.endpoint": ENDPOINT}, "exactly one of endpoint and server"),
    ("a price", "Model", {"spec.price": {"inputUSDPerMTok": "1"}}, 'unknown field "spec.price"'),
    ("a port of root", "Model", {"spec.server.port": 80}, "should be greater than or equal to 1024"),
    ("a second Engine", "Engine", {"metadata.name": "second"}, "a namespace has one Engine, and its name is default"),
    ("a private host without port", "Engine", {"spec.security.allowedPrivateHosts.0": "10.0.0.7"}, "should match"),
    ("grants to nobody", "Policy", {"spec.grants.serviceAccounts": []}, "should have at least 1 items"),
    ("an account twice", "Policy", {"spec.grants.serviceAccounts.1": "triage"}, "Duplicate value"),
    ("no function of a tool", "Policy", {"spec.grants.tools.0.functions": []}, "should have at least 1 items"),
]  # fmt: skip


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
    ("requestedBy", {"requestedBy": "mallory"}, "requestedBy is immutable; create another run"),
    ("timeoutSeconds", {"timeoutSeconds": 1}, "timeoutSeconds is immutable; create another run"),
]


@pytest.mark.parametrize(("patch", "words"), [row[1:] for row in RUN_CHANGES], ids=[row[0] for row in RUN_CHANGES])
def test_a_run_cannot_be_made_another(kubectl: Kubectl, patch: Mapping[str, Any], words: str) -> None:
    run = kubectl.create(specimen("WorkflowRun"))
    assert words in refused_patch(kubectl, run, patch)


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
        ("workflow.spec.steps.retry.on", "Error classes that are tried again"),
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
