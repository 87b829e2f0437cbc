"""The least Policy grants what a Workflow names, and nothing else."""

from __future__ import annotations

from pathlib import Path

import yaml

from fairlead.cli import manifests
from fairlead.cli.grants import least_policy

EXAMPLE = Path(__file__).parents[3] / "examples" / "support-triage"


def test_the_examples_policy_is_the_least_for_its_workflow() -> None:
    found = manifests.read([EXAMPLE])
    workflow = found.of("Workflow")["support-triage"]
    grants = least_policy("support-triage", [workflow], found.of("Tool"))["spec"]["grants"]
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
    workflow = manifests.read([tmp_path]).of("Workflow")["w"]
    assert least_policy("a", [workflow], {})["spec"]["grants"] == {
        "serviceAccounts": ["a"],
        "models": ["big", "small"],
        "tools": [{"tool": "t"}, {"tool": "u", "functions": ["x", "y"]}],
    }


def test_images_of_container_steps_are_granted_as_they_are_written() -> None:
    example = EXAMPLE.parent / "container"
    found = manifests.read([example])
    workflow = found.of("Workflow")["word-count"]
    written = yaml.safe_load((example / "policy.yaml").read_text(encoding="utf-8"))["spec"]["grants"]
    assert least_policy("word-count", [workflow], {})["spec"]["grants"] == written


RULES = """
apiVersion: fairlead.dev/v1alpha1
kind: Workflow
metadata: {name: w, labels: {tier: prod}}
spec:
  steps:
  - {name: a, tool: {tool: t, function: look}}
---
apiVersion: fairlead.dev/v1alpha1
kind: Policy
metadata: {name: asks}
spec:
  rules:
    calls:
    - name: writes
      when: "call.effect != 'Read'"
      then: RequireApproval
      approval: {from: {groups: [ops]}, notify: {tool: pager, function: page}}
    dataFlow:
      untrustedToExternal: RequireApproval
      approval: {from: {groups: [ops]}, notify: {tool: chat, function: post}}
---
apiVersion: fairlead.dev/v1alpha1
kind: Policy
metadata: {name: tries}
spec:
  mode: Audit
  rules:
    calls:
    - name: all
      when: "true"
      then: RequireApproval
      approval: {from: {groups: [ops]}, notify: {tool: siren, function: wail}}
---
apiVersion: fairlead.dev/v1alpha1
kind: Policy
metadata: {name: elsewhere}
spec:
  appliesTo: {workflows: {matchLabels: {tier: test}}}
  rules:
    calls:
    - name: all
      when: "true"
      then: RequireApproval
      approval: {from: {groups: [ops]}, notify: {tool: bell, function: ring}}
"""


def test_an_account_needs_what_the_rules_that_bind_it_have_it_call(tmp_path: Path) -> None:
    (tmp_path / "w.yaml").write_text(RULES, encoding="utf-8")
    found = manifests.read([tmp_path])
    assert found.problems == []
    least = least_policy("a", found.of("Workflow").values(), {}, found.policies().values())
    assert least["spec"]["grants"]["tools"] == [
        {"tool": "chat", "functions": ["post"]},
        {"tool": "pager", "functions": ["page"]},
        {"tool": "t", "functions": ["look"]},
    ]
