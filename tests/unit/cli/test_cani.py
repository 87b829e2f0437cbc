"""`fairlead can-i`: the decision of the engine, told stage by stage."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from fairlead.cli.__main__ import app
from fairlead.cli.exits import CommandFailed, Exit

FILES = """
apiVersion: fairlead.dev/v1alpha1
kind: Workflow
metadata: {name: triage, labels: {tier: prod}}
spec: {serviceAccountName: triage, steps: [{name: a, transform: {value: 1}}]}
---
apiVersion: fairlead.dev/v1alpha1
kind: Tool
metadata: {name: tickets}
spec:
  mcp: {url: "https://tickets.example.com/mcp"}
  functions: [{name: search, effect: Read}, {name: create, effect: Reversible}, {name: remove}]
---
apiVersion: fairlead.dev/v1alpha1
kind: Model
metadata: {name: embedder}
spec: {endpoint: {api: OpenAIEmbeddings, url: "https://models.example.com/v1", model: e}}
---
apiVersion: fairlead.dev/v1alpha1
kind: Policy
metadata: {name: triage}
spec:
  grants: {serviceAccounts: [triage], models: [embedder], tools: [{tool: tickets, functions: [search, create]}]}
  rules:
    dataFlow: {untrustedToExternal: Deny}
    calls:
    - {name: short, when: "call.tool != '' && size(call.arguments.title) > 5", message: a title is short}
    - name: people
      when: get(call.arguments, 'title') == 'ask'
      then: RequireApproval
      approval: {from: {groups: [oncall]}}
---
apiVersion: fairlead.dev/v1alpha1
kind: Policy
metadata: {name: watch}
spec:
  mode: Audit
  rules: {calls: [{name: effects, when: call.effect != 'Read'}]}
"""


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["--tool", "tickets.create", "--arguments", '{"title": "abc"}'], 0, "✔ 10 approval"),
        (
            ["--tool", "tickets.create", "--arguments", '{"title": "a"}', "--label", "Untrusted/Confidential"],
            4,
            "✖  7 data flow  FlowDenied: Policy triage, rule dataFlow",
        ),
        (
            ["--tool", "tickets.create", "--arguments", '{"title": "a"}', "--label", "Trusted/Confidential"],
            0,
            "✔  7 data flow",
        ),
        (["--tool", "tickets.create", "--arguments", '{"title": "abc"}'], 0, "audit: Policy watch, rule effects"),
        (
            ["--tool", "tickets.create", "--arguments", '{"title": "abcdef"}'],
            4,
            "✖  6 rules      PolicyDenied: Policy",
        ),
        (
            ["--tool", "tickets.create", "--arguments", '{"title": "ask"}'],
            4,
            "✖ 10 approval   ApprovalPending: Policy triage, rule people; people must approve",
        ),
        (["--tool", "tickets.remove"], 4, "✖  5 rbac       Forbidden: triage needs invoke"),
        (["--tool", "tickets.drop"], 4, "✖  4 contract   Invalid: drop is not in the contract"),
        (["--model", "embedder"], 0, "✔ 10 approval"),
        (["--model", "small"], 4, "✖  4 contract   Invalid: there is no Model small"),
    ],
)
def test_each_stage_is_told_up_to_the_first_objection(tmp_path: Path, words: list[str], code: int, told: str) -> None:
    file = tmp_path / "files.yaml"
    file.write_text(FILES, encoding="utf-8")
    said = CliRunner().invoke(app, ["can-i", str(file), "--workflow", "triage", *words])
    assert said.exit_code == code, said.output
    assert told in said.output


@pytest.mark.parametrize("label", ["Untrusted", "Trusted/Secret", "untrusted/Public"])
def test_a_label_that_is_none_is_said_to_be_wrong(tmp_path: Path, label: str) -> None:
    said = refused(tmp_path, "--tool=tickets.search", f"--label={label}")
    assert "one of Public, Internal, Confidential" in said


@pytest.mark.parametrize("words", [[], ["--tool", "tickets.search", "--image", "x"], ["--model", "m", "--image", "x"]])
def test_one_thing_is_asked_at_a_time(tmp_path: Path, words: list[str]) -> None:
    assert "say one of --tool TOOL.FUNCTION, --model NAME, --calls-workflow NAME" in refused(tmp_path, *words)


def refused(tmp_path: Path, *words: str) -> str:
    (tmp_path / "all.yaml").write_text(FILES, encoding="utf-8")
    result = CliRunner().invoke(app, ["can-i", str(tmp_path), "--workflow=triage", *words])
    assert isinstance(result.exception, CommandFailed) and result.exception.code is Exit.USAGE
    return str(result.exception)
