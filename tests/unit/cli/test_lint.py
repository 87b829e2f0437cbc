"""Lint says what is wrong, where, and what it could not check."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from fairlead.cli import manifests
from fairlead.cli.__main__ import app
from fairlead.cli.lint import check, unchecked

EXAMPLES = Path(__file__).parents[3] / "examples"

WORKFLOW = """
apiVersion: fairlead.dev/v1alpha1
kind: Workflow
metadata: {name: w}
spec:
  steps:
  - {name: ask, generate: {model: small, prompt: hello}}
"""
MODEL = """
apiVersion: fairlead.dev/v1alpha1
kind: Model
metadata: {name: small}
spec: {endpoint: {api: OpenAIChat, url: "https://api.example.com/v1", model: x}}
"""
TOOL = """
apiVersion: fairlead.dev/v1alpha1
kind: Tool
metadata: {name: t}
spec: {mcp: {url: "https://t.example.com/mcp"}, functions: [{name: look, effect: Read}]}
"""
POLICY = """
apiVersion: fairlead.dev/v1alpha1
kind: Policy
metadata: {name: p}
spec: {grants: {serviceAccounts: [a], models: [small], tools: [{tool: t, functions: [look]}]}}
"""


def findings(folder: Path, *documents: str) -> list[str]:
    file = folder / "f.yaml"
    file.write_text("\n---\n".join(documents), encoding="utf-8")
    found = manifests.read([folder])
    return [f"{p.document} {p.path}: {p.message}" for p in found.problems + check(found)]


@pytest.mark.parametrize("example", [path.name for path in sorted(EXAMPLES.iterdir()) if list(path.glob("*.yaml"))])
def test_the_examples_have_no_findings(example: str) -> None:
    found = manifests.read([EXAMPLES / example])
    assert [str(p) for p in found.problems + check(found)] == []
    assert found.items


def test_whole_files_have_no_findings(tmp_path: Path) -> None:
    assert findings(tmp_path, WORKFLOW, MODEL, TOOL, POLICY) == []


def test_a_long_list_in_a_value_is_no_matter_of_the_rules_beside_it(tmp_path: Path) -> None:
    items = f"forEach: {{items: {[*range(1001)]}}}, limits: {{steps: 9}}, "
    assert findings(tmp_path, WORKFLOW.replace("{name: ask, ", f"{{name: ask, {items}"), MODEL, TOOL, POLICY) == []


@pytest.mark.parametrize(
    ("documents", "expected"),
    [
        (
            [TOOL.replace("effect: Read", "effect: Read, input: {schema: {type: objet}}")],
            "1 spec.functions[0].input.schema: /type: is none of array, boolean, integer, null, number, object, string",
        ),
        ([WORKFLOW.replace("prompt: hello", "promt: hello")], "1 spec.steps[0].generate.promt: there is no such field"),
        ([WORKFLOW.replace("steps:", "steps: 1\n  x:")], "1 spec.steps: "),
        ([WORKFLOW.replace("{name: w}", "{name: W.x}")], "1 metadata.name: "),
        ([WORKFLOW.replace("v1alpha1", "v9")], "1 apiVersion: fairlead.dev/v1alpha1 is the version that exists"),
        ([WORKFLOW.replace("kind: Workflow", "kind: Workflaw")], "1 kind: one of Workflow, "),
        ([WORKFLOW.replace("{name: ask, ", "{name: ask, transform: {value: 1}, ")], "1 spec.steps[0]: a step has "),
        ([WORKFLOW, MODEL.replace("name: small", "name: large")], "1 spec.steps[0]"),
        ([MODEL.replace("endpoint:", "credential:")], "1 spec.credential.api: there is no such field"),
        ([MODEL.replace("spec: {endpoint", "spec: {capabilities: [], x")], "1 spec.x: there is no such field"),
        ([TOOL.replace('{url: "https://t.example.com/mcp"}', "{}")], "1 spec.mcp: set exactly one of url and server"),
        ([TOOL, POLICY.replace("look", "erase")], "2 spec.grants.tools[0].functions: erase is not in the contract"),
        ([MODEL, POLICY.replace("[small]", "[big]")], "2 spec.grants.models[0]: no Model big in these files"),
        ([MODEL, MODEL], "2 metadata.name: Model small stands in "),
        ([WORKFLOW, MODEL.replace("OpenAIChat", "OpenAIEmbeddings")], "1 spec.steps[0].generate.model: Model 'small'"),
        (["a: [1"], "1 : no YAML"),
    ],
)
def test_a_finding_names_document_and_field(tmp_path: Path, documents: list[str], expected: str) -> None:
    found = findings(tmp_path, *documents)
    assert any(line.startswith(expected) for line in found), found


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        ("onError: Continue, transform: {value: 1}", "1 spec.steps[0].onError: write {action: Continue}"),
        ("parallel: {blocks: [b], join: Any}", "1 spec.steps[0].parallel.join: write {mode: Any}"),
        ("parallel: {blocks: [b], join: 1}", "1 spec.steps[0].parallel.join: write {succeeded: 1}"),
        ("validate: {value: 1, onFailure: Fail}", "1 spec.steps[0].validate.onFailure: write {action: Fail}"),
        ("onError: b, transform: {value: 1}", "1 spec.steps[0].onError: an object is needed, with the fields of"),
    ],
)
def test_a_word_instead_of_an_object_is_told_how_to_write_it(tmp_path: Path, step: str, expected: str) -> None:
    (found,) = findings(tmp_path, WORKFLOW.replace("generate: {model: small, prompt: hello}", step))
    assert found.startswith(expected)


def test_workflows_of_the_files_that_always_run_each_other_are_found(tmp_path: Path) -> None:
    first = WORKFLOW.replace("generate: {model: small, prompt: hello}", "workflow: {workflow: x}")
    found = findings(tmp_path, first, first.replace("{name: w}", "{name: x}").replace("workflow: x", "workflow: w"))
    assert len(found) == 2 and "always runs itself again: w -> x -> w;" in found[0]


def test_arguments_are_held_against_the_contract_of_a_tool_of_the_files(tmp_path: Path) -> None:
    tool = TOOL.replace("effect: Read", "effect: Read, input: {schema: {required: [q]}}")
    call = WORKFLOW.replace("generate: {model: small, prompt: hello}", "tool: {tool: t, function: look}")
    (found,) = findings(tmp_path, call, tool)
    assert found == '1 spec.steps[0].tool.arguments: does not fit t.look: "q" is a required property'


def test_what_is_not_of_our_group_is_counted_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_text("apiVersion: v1\nkind: Secret\n---\n- a list\n---\n", encoding="utf-8")
    found = manifests.read([tmp_path])
    assert (found.items, found.problems, found.skipped) == ([], [], 2)
    assert unchecked(found) == ["2 documents of other kinds"]


def test_without_models_and_tools_their_existence_is_named_as_unchecked(tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_text(WORKFLOW.replace("spec:", "spec:\n  serviceAccountName: bob"), encoding="utf-8")
    found = manifests.read([tmp_path])
    assert check(found) == []
    notes = " ".join(unchecked(found))
    assert "Models" in notes and "Tools" in notes and "account bob" in notes


def test_the_exit_code_tells_findings_from_missing_files(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text(WORKFLOW, encoding="utf-8")
    bad.write_text(WORKFLOW.replace("prompt", "promt"), encoding="utf-8")
    runner = CliRunner()
    assert runner.invoke(app, ["lint", str(good)]).exit_code == 0
    result = runner.invoke(app, ["lint", str(bad)])
    assert result.exit_code == 1
    assert f"{bad}:1 spec.steps[0].generate.promt: there is no such field" in result.output
    missing = runner.invoke(app, ["lint", str(tmp_path / "none.yaml")]).exception
    assert missing is not None and getattr(missing, "code", None) == 5
