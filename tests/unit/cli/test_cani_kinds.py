"""`fairlead can-i` about child runs and containers: the same stages, and what the engine would say."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from fairlead.cli.__main__ import app
from fairlead.cli.exits import CommandFailed, Exit

DIGEST = "sha256:" + "0" * 64
PYTHON, BUSYBOX = f"example.com/python@{DIGEST}", f"example.com/busybox@{DIGEST}"
FILES = f"""
apiVersion: fairlead.dev/v1alpha1
kind: Workflow
metadata: {{name: parent}}
spec:
  serviceAccountName: parent
  input: {{trust: Trusted}}
  steps:
  - {{name: small, container: {{image: {PYTHON!r}, command: [a], runtimeClassName: gvisor}}}}
  - {{name: wild, container: {{image: {BUSYBOX!r}, command: [a], resources: {{memory: 2Gi}}}}}}
  - {{name: run, block: more}}
  blocks:
  - name: more
    steps:
    - {{name: tame, container: {{image: {BUSYBOX!r}, command: [a], runtimeClassName: gvisor}}}}
---
apiVersion: fairlead.dev/v1alpha1
kind: Workflow
metadata: {{name: leaf}}
spec:
  limits: {{depth: 0}}
  input: {{schema: {{type: object, required: [topic], properties: {{topic: {{type: string}}}}}}}}
  steps: [{{name: a, transform: {{value: 1}}}}]
---
apiVersion: fairlead.dev/v1alpha1
kind: Workflow
metadata: {{name: secret}}
spec: {{steps: [{{name: a, transform: {{value: 1}}}}]}}
---
apiVersion: fairlead.dev/v1alpha1
kind: Policy
metadata: {{name: parent}}
spec:
  grants:
    serviceAccounts: [parent]
    workflows: [leaf, gone]
    images: ["example.com/python@sha256:*", {BUSYBOX!r}, "example.com/latest:1"]
  rules:
    containers: {{runtimeClassNames: [gvisor], maxResources: {{memory: 1Gi}}}}
    calls:
    - {{name: topics, when: "call.workflow == 'leaf' && call.input.topic == 'war'", message: not that}}
    - name: people
      when: call.effect == 'Irreversible' && call.input.topic == 'tax'
      then: RequireApproval
      approval: {{from: {{groups: [oncall]}}}}
---
apiVersion: fairlead.dev/v1alpha1
kind: Policy
metadata: {{name: watch}}
spec: {{mode: Audit, rules: {{calls: [{{name: all, when: call.kind != 'tool'}}]}}}}
"""
LOOSE = """
---
apiVersion: fairlead.dev/v1alpha1
kind: Engine
metadata: {name: default}
spec: {security: {imageTags: Allowed}}
"""


def told(tmp_path: Path, *words: str, more: str = "", workflow: str = "parent") -> tuple[int, str]:
    (tmp_path / "files.yaml").write_text(FILES + more, encoding="utf-8")
    said = CliRunner().invoke(app, ["can-i", str(tmp_path), f"--workflow={workflow}", *words])
    assert not isinstance(said.exception, CommandFailed), said.exception
    return said.exit_code, said.output


@pytest.mark.parametrize(
    ("name", "given", "code", "words"),
    [
        ("leaf", '{"topic": "tea"}', 0, "✔ 10 approval\n  audit: Policy watch, rule all"),
        ("leaf", "{}", 4, "✖  4 contract   Invalid: the input does not fit Workflow leaf"),
        ("gone", "{}", 4, "✖  4 contract   Invalid: there is no Workflow gone"),
        (
            "secret",
            "{}",
            4,
            "✖  5 rbac       Forbidden: parent needs invoke on workflows/secret; see: kubectl auth can-i",
        ),
        ("leaf", '{"topic": "war"}', 4, "✖  6 rules      PolicyDenied: Policy parent, rule topics: not that"),
        ("leaf", '{"topic": "tax"}', 4, "✖ 10 approval   ApprovalPending: Policy parent, rule people"),
    ],
)
def test_a_child_run_is_told_stage_by_stage(tmp_path: Path, name: str, given: str, code: int, words: str) -> None:
    ended, said = told(tmp_path, "--calls-workflow", name, "--arguments", given)
    assert ended == code, said
    assert words in said


def test_a_run_without_further_levels_has_no_children(tmp_path: Path) -> None:
    more = FILES.split("---")[3].replace("name: parent", "name: leaves").replace("[parent]", "[fairlead-none]")
    ended, said = told(
        tmp_path, "--calls-workflow=leaf", '--arguments={"topic": "tea"}', more=f"---{more}", workflow="leaf"
    )
    assert (ended, "✖  9 budget     BudgetExceeded: limits.depth" in said) == (4, True), said


@pytest.mark.parametrize(
    ("image", "code", "words"),
    [
        (PYTHON, 0, "✔ 10 approval"),
        (BUSYBOX, 4, "step wild"),
        (
            BUSYBOX,
            4,
            "✖  6 rules      PolicyDenied: Policy parent, rule containers.runtimeClassNames: the step names none",
        ),
        (BUSYBOX, 4, "step tame\n✔  4 contract\n✔  5 rbac\n✔  6 rules\n"),
        (f"example.com/other@{DIGEST}", 4, "✖  6 rules      Forbidden: no Policy grants the image example.com/other@"),
        ("example.com/latest:1", 4, "✖  4 contract   Invalid: example.com/latest:1 has no digest"),
    ],
)
def test_an_image_is_told_for_each_step_that_runs_it(tmp_path: Path, image: str, code: int, words: str) -> None:
    ended, said = told(tmp_path, "--image", image)
    assert ended == code, said
    assert words in said
    assert ("step " in said) == (image == BUSYBOX), "where it is one, nobody asks which"


def test_an_engine_in_the_files_allows_tags_and_an_account_is_needed(tmp_path: Path) -> None:
    _, said = told(tmp_path, "--image=example.com/latest:1", more=LOOSE)
    assert "✔  4 contract" in said
    _, said = told(tmp_path, f"--image={PYTHON}", workflow="secret")
    assert "✖  4 contract   Invalid: a container runs as the Workflow's account" in said


def test_what_is_no_image_is_said_to_be_wrong(tmp_path: Path) -> None:
    (tmp_path / "files.yaml").write_text(FILES, encoding="utf-8")
    said = CliRunner().invoke(app, ["can-i", str(tmp_path), "--workflow=parent", "--image=a b"])
    assert isinstance(said.exception, CommandFailed) and said.exception.code is Exit.USAGE
