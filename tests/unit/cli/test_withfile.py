"""The --with file and the options beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from fairlead.cli.exits import CommandFailed
from fairlead.cli.inputs import read_input
from fairlead.cli.withfile import expand, read_environment

FILE = """
models:
  small: {command: [serve, "--port=${PORT}"], port: 8081, path: /v1, ready: /health, env: {A: b}}
tools:
  tickets: {url: "http://127.0.0.1:9000/mcp"}
secrets:
  openai: {apiKey: {env: A_KEY}, allowed-hosts: {value: "api.example.com:443"}, other: {env: NOT_SET}}
hint: read the README
"""


def test_the_file_names_servers_secrets_and_where_commands_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "with.yaml"
    file.write_text(FILE, encoding="utf-8")
    monkeypatch.setenv("A_KEY", "s3cret")
    monkeypatch.delenv("NOT_SET", raising=False)
    found = read_environment(file, [])
    assert found.servers[("Model", "small")].port == 8081
    assert found.servers[("Tool", "tickets")].url == "http://127.0.0.1:9000/mcp"
    assert found.secrets == {("openai", "apiKey"): "s3cret", ("openai", "allowed-hosts"): "api.example.com:443"}
    assert (found.folder, found.hint) == (tmp_path, "read the README")


@pytest.mark.parametrize(
    "text",
    [
        "tools: {t: {}}",
        "tools: {t: {command: [x], url: 'http://h/mcp'}}",
        "tools: {t: {url: 'http://h/mcp', port: 1}}",
        "tools: {t: {command: []}}",
        "tools: {t: {command: [x], colour: red}}",
        "secrets: {s: {k: {}}}",
        "servers: {}",
        "a: [",
    ],
)
def test_a_wrong_file_is_a_usage_error_that_names_it(tmp_path: Path, text: str) -> None:
    file = tmp_path / "with.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(CommandFailed, match=r"with\.yaml") as failure:
        read_environment(file, [])
    assert failure.value.code == 2


def test_a_secret_option_reads_the_environment_and_a_missing_one_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERE", "x")
    monkeypatch.delenv("GONE", raising=False)
    assert read_environment(None, ["a/b=HERE", "a/c=GONE"]).secrets == {("a", "b"): "x"}
    with pytest.raises(CommandFailed, match="name/key=ENVVAR"):
        read_environment(None, ["a=HERE"])


def test_variables_have_defaults_or_must_be_set() -> None:
    assert expand("--port=${PORT}", {"PORT": "80"}) == "--port=80"
    assert expand("${X:-a b}/${Y:-}", {"Y": "y"}) == "a b/y"
    assert expand("${X:-~/models}", {}) == str(Path("~/models").expanduser())
    assert expand("$X {Y}", {}) == "$X {Y}"
    with pytest.raises(CommandFailed, match="NOWHERE"):
        expand("${NOWHERE}", {})


def test_inputs_are_text_unless_they_say_that_they_are_json(tmp_path: Path) -> None:
    file = tmp_path / "input.yaml"
    file.write_text("count: 1\nname: file\n", encoding="utf-8")
    value = read_input(["name=a=b", "number=3", "list:=[1, 2]"], file)
    assert value == {"count": 1, "name": "a=b", "number": "3", "list": [1, 2]}


@pytest.mark.parametrize("pair", ["name", "=x", "a:={", ":=1"])
def test_a_wrong_input_is_a_usage_error(pair: str) -> None:
    with pytest.raises(CommandFailed) as failure:
        read_input([pair], None)
    assert failure.value.code == 2
