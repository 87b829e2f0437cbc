"""Pins go into a file as a person would write them: every other character stays."""

from __future__ import annotations

import difflib

import pytest
import yaml

from fairlead.cli.exits import CommandFailed
from fairlead.cli.pinfile import with_pins

A = "sha256:" + "a" * 64
B = "sha256:" + "b" * 64
FILE = f"""\
# What we trust, and why.
apiVersion: v1
kind: Secret
metadata: {{name: tickets}}
---
apiVersion: fairlead.dev/v1alpha1
kind: Tool
metadata: {{name: tickets}}   # the old system
spec:
  mcp: {{url: "https://t.example.com/mcp"}}
  functions:
  - name: search     # reads

    effect: Read
  - {{name: create, effect: Reversible, }}   # keyed
  - effect: Irreversible
    pin: {A}   # reviewed in May
    name: "drop"
  -   name: wide
      input: {{schema: {{type: object}}}}
---
kind: Tool
metadata: {{name: other}}
spec:
  functions:
  - name: search
"""


def edited(text: str, pins: dict[str, str], tool: str = "tickets") -> list[str]:
    """The lines that differ: `- ` before, `+ ` after."""
    lines = difflib.ndiff(text.splitlines(), with_pins(text, tool, pins).splitlines())
    return [line for line in lines if line[:2] in ("- ", "+ ")]


@pytest.mark.parametrize(
    ("function", "difference"),
    [
        ("search", [f'+     pin: "{B}"']),
        (
            "create",
            [
                "-   - {name: create, effect: Reversible, }   # keyed",
                f'+   - {{name: create, effect: Reversible, pin: "{B}", }}   # keyed',
            ],
        ),
        ("drop", [f"-     pin: {A}   # reviewed in May", f'+     pin: "{B}"   # reviewed in May']),
        ("wide", [f'+       pin: "{B}"']),
        ("none", []),
    ],
)
def test_one_pin_changes_one_line(function: str, difference: list[str]) -> None:
    assert edited(FILE, {function: B}) == difference


def test_all_pins_of_a_tool_and_no_others_are_written() -> None:
    result = with_pins(FILE, "tickets", {"search": A, "create": B, "drop": B, "wide": A})
    documents = list(yaml.safe_load_all(result))
    assert [one.get("pin") for one in documents[1]["spec"]["functions"]] == [A, B, B, A]
    assert documents[2] == list(yaml.safe_load_all(FILE))[2]
    assert [line for line in result.splitlines() if "#" in line and "pin:" not in line] == [
        line for line in FILE.splitlines() if "#" in line and "pin:" not in line and "keyed" not in line
    ]


def test_a_file_without_a_last_line_break_and_one_of_another_system_are_kept_as_they_are() -> None:
    assert with_pins(FILE.rstrip("\n"), "other", {"search": A}).endswith(f'- name: search\n    pin: "{A}"')
    windows = FILE.replace("\n", "\r\n")
    result = with_pins(windows, "tickets", {"search": A, "wide": B})
    assert result.count("\r\n") == result.count("\n") == windows.count("\r\n") + 2


def test_json_is_yaml_too() -> None:
    text = '{"kind": "Tool", "metadata": {"name": "t"}, "spec": {"functions": [{"name": "f"}]}}'
    assert yaml.safe_load(with_pins(text, "t", {"f": A}))["spec"]["functions"] == [{"name": "f", "pin": A}]


def test_what_cannot_be_edited_safely_is_left_to_a_person() -> None:
    text = "kind: Tool\nmetadata: {name: t}\nspec:\n  common: &one {name: f}\n  functions:\n  - *one\n"
    with pytest.raises(CommandFailed, match='write yourself f: pin: "sha256:aaa'):
        with_pins(text, "t", {"f": A})
