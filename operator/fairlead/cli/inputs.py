"""The input of a run from the command line: `--input name=text`, `--input name:=JSON`, `--input-file FILE`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

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
            try:
                value[name[:-1]] = json.loads(text)
            except ValueError as error:
                raise CommandFailed(Exit.USAGE, f"--input {name}=: no JSON: {error}") from error
        else:
            value[name] = text
    return value


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
