"""The input of a run from the command line: `--input name=text`, `--input name:=JSON`, `--input-file FILE`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from fairlead.api.canonical import strict_json
from fairlead.api.meta import IDENTIFIER
from fairlead.cli.exits import CommandFailed, Exit


def read_input(pairs: Sequence[str], file: Path | None) -> dict[str, Any]:
    """Return the input object; pairs win over the file.

    Args:
        pairs: `name=text` gives a string as it is, `name:=JSON` any JSON value.
        file: YAML or JSON with an object.

    Raises:
        CommandFailed: a pair or the file cannot be read.
    """
    value = _from_file(file) if file is not None else {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or name in ("", ":"):
            raise CommandFailed(Exit.USAGE, f"--input {pair}: write name=text or name:=JSON")
        if name.endswith(":"):
            value[name[:-1]] = read_json(f"--input {name}=", text)
        else:
            value[name] = text
    return value


def read_signals(pairs: Sequence[str]) -> list[dict[str, Any]]:
    """Return signals in the form of a WorkflowRun's, sent by nobody yet: `name` or `name=JSON`.

    Raises:
        CommandFailed: one cannot be read.
    """
    signals = []
    for pair in pairs:
        name, _, text = pair.partition("=")
        if re.fullmatch(IDENTIFIER, name) is None:
            raise CommandFailed(Exit.USAGE, f"--signal {pair}: write name or name=JSON; a name is {IDENTIFIER}")
        signals.append({"name": name, "data": read_json(f"--signal {name}", text or "null")})
    return signals


def read_json(option: str, text: str) -> Any:
    """Return the value that an option holds.

    Raises:
        CommandFailed: it is no JSON.
    """
    try:
        return strict_json(text)
    except ValueError as error:
        raise CommandFailed(Exit.USAGE, f"{option}: no JSON: {error}") from error


def _from_file(file: Path) -> dict[str, Any]:
    try:
        value = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise CommandFailed(Exit.NOT_FOUND, f"{file}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CommandFailed(Exit.USAGE, f"{file} holds no YAML or JSON") from error
    if not isinstance(value, dict):
        raise CommandFailed(Exit.USAGE, f"{file} must hold an object")
    return value
