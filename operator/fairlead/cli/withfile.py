"""The `--with` file of local mode: which local commands or URLs stand in for the servers of Tools and Models.

    models:
      small:
        command: ["${PYTHON}", chat.py, "--port=${PORT}"]    # started in this file's folder
        port: 8081                   # default: a free one, given as ${PORT}
        path: /v1                    # default /v1 for models, /mcp for tools
        ready: /health               # a path that must answer; default: the port accepts connections
        env: {MODEL: big}
    tools:
      tickets: {url: "http://127.0.0.1:9000/mcp"}            # one that runs already
    secrets:
      openai: {apiKey: {env: OPENAI_API_KEY}, allowed-hosts: {value: "api.example.com:443"}}
    hint: how to get what the commands need

`${NAME}` is an environment variable, `${NAME:-default}` one with a default (a leading `~` is the home folder);
`${PORT}` and `${STORE}` (the folder of the store) are given.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from fairlead.api.meta import ApiModel
from fairlead.api.tool import HttpUrl, UrlPath
from fairlead.cli.exits import CommandFailed, Exit

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


class StandIn(ApiModel):
    """One server: a command to start, or a URL where one runs."""

    command: Annotated[list[str], Field(min_length=1)] | None = None
    url: HttpUrl | None = None
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    path: UrlPath | None = None
    ready: UrlPath | None = None
    env: Mapping[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.command is None) == (self.url is None):
            raise ValueError("set exactly one of command and url")
        if self.url is not None and (self.port or self.path or self.ready or self.env):
            raise ValueError("port, path, ready and env go with a command")
        return self


class SecretValue(ApiModel):
    """Where the value of a Secret's key comes from. `value` is for what is no secret, such as `allowed-hosts`."""

    env: str | None = None
    value: str | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.env is None) == (self.value is None):
            raise ValueError("set exactly one of env and value")
        return self


class _File(ApiModel):
    models: Mapping[str, StandIn] = Field(default_factory=dict)
    tools: Mapping[str, StandIn] = Field(default_factory=dict)
    secrets: Mapping[str, Mapping[str, SecretValue]] = Field(default_factory=dict)
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Environment:
    """What stands in for the cluster's servers and Secrets.

    Attributes:
        servers: stand-ins by kind ("Tool" or "Model") and name.
        secrets: values by Secret and key; a missing one is simply not there.
        folder: where commands start.
        hint: what to do when one does not.
    """

    servers: Mapping[tuple[str, str], StandIn] = field(default_factory=dict)
    secrets: Mapping[tuple[str, str], str] = field(default_factory=dict)
    folder: Path = Path()
    hint: str = ""


def read_environment(file: Path | None, secret_options: list[str]) -> Environment:
    """Return what the `--with` file and the `--secret name/key=ENVVAR` options say.

    Raises:
        CommandFailed: the file cannot be read or is wrong, or an option is.
    """
    content = _read(file) if file is not None else _File()
    secrets = {
        (name, key): text
        for name, keys in content.secrets.items()
        for key, source in keys.items()
        if (text := source.value if source.env is None else os.environ.get(source.env)) is not None
    }
    for option in secret_options:
        reference, equals, variable = option.partition("=")
        name, slash, key = reference.partition("/")
        if not (equals and slash and name and key and variable):
            raise CommandFailed(Exit.USAGE, f"--secret {option}: write name/key=ENVVAR")
        if variable in os.environ:
            secrets[(name, key)] = os.environ[variable]
    servers = {("Model", name): entry for name, entry in content.models.items()}
    servers |= {("Tool", name): entry for name, entry in content.tools.items()}
    folder = file.resolve().parent if file is not None else Path.cwd()
    return Environment(servers, secrets, folder, content.hint)


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Return `text` with its `${NAME}` and `${NAME:-default}` replaced.

    Raises:
        CommandFailed: a variable without a default is not set.
    """

    def value(match: re.Match[str]) -> str:
        name, default = match[1], match[2]
        found = variables.get(name) or default
        if found is None:
            raise CommandFailed(Exit.USAGE, f"the environment variable {name} is not set")
        return os.path.expanduser(found)

    return _VARIABLE.sub(value, text)


def _read(file: Path) -> _File:
    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
        return _File.model_validate(document or {})
    except OSError as error:
        raise CommandFailed(Exit.NOT_FOUND, f"{file}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CommandFailed(Exit.USAGE, f"{file} holds no YAML") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        path = ".".join(str(part) for part in first["loc"])
        raise CommandFailed(Exit.USAGE, f"{file} {path}: {first['msg']}") from error
