"""The least Policy grants what a Workflow names, and nothing else."""

from __future__ import annotations

from pathlib import Path

import yaml

from fairlead.cli import manifests
from fairlead.cli.grants import least_policy

EXAMPLE = Path(__file__).parents[3] / "examples" / "support-triage"


def test_the_examples_policy_is_the_least_for_its_workflow() -> None:
    found = manifests.read([EXAMPLE])
    spec = found.of("Workflow")["support-triage"].spec
    grants = least_policy("support-triage", [spec], found.of("Tool"))["spec"]["grants"]
    written = yaml.safe_load((EXAMPLE / "policy.yaml").read_text(encoding="utf-8"))["spec"]["grants"]
    assert grants["serviceAccounts"] == written["serviceAccounts"]
    assert set(grants["models"]) == set(written["models"])
    assert {t["tool"]: set(t["functions"]) for t in grants["tools"]} == {
        t["tool"]: set(t["functions"]) for t in written["tools"]
    }


def test_an_agent_without_a_list_of_functions_needs_the_whole_tool(tmp_path: Path) -> None:
    (tmp_path / "w.yaml").write_text(
        """
apiVersion: fairlead.dev/v1alpha1
kind: Workflow
metadata: {name: w}
spec:
  defaults: {model: small}
  steps:
  - {name: a, tool: {tool: t, function: look}}
  - {name: b, agent: {prompt: hi, tools: [{tool: t}, {tool: u, functions: [y, x]}], output: {judge: {criteria: ok}}}}
  - {name: c, block: d}
  blocks:
  - {name: d, steps: [{name: e, validate: {value: 1, judge: {model: big, criteria: ok}}}]}
""",
        encoding="utf-8",
    )
    spec = manifests.read([tmp_path]).of("Workflow")["w"].spec
    assert least_policy("a", [spec], {})["spec"]["grants"] == {
        "serviceAccounts": ["a"],
        "models": ["big", "small"],
        "tools": [{"tool": "t"}, {"tool": "u", "functions": ["x", "y"]}],
    }


def test_images_of_container_steps_are_granted_as_they_are_written() -> None:
    example = EXAMPLE.parent / "container"
    found = manifests.read([example])
    spec = found.of("Workflow")["word-count"].spec
    written = yaml.safe_load((example / "policy.yaml").read_text(encoding="utf-8"))["spec"]["grants"]
    assert least_policy("word-count", [spec], {})["spec"]["grants"] == written
