"""`fairlead import-tool`: a first draft of a Tool from what a server lists; what a person must decide is marked."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fairlead.cli.pin import TokenEnv

if TYPE_CHECKING:
    from fairlead.cli.definitions import Definition

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./-]{0,63}")
LONGEST_DESCRIPTION = 4096


def import_tool(
    url: Annotated[str, typer.Argument(metavar="URL", help="An MCP server, for example https://mcp.example.com/mcp.")],
    name: Annotated[str, typer.Option("--name", help="What the Tool shall be called.")] = "imported",
    token_env: TokenEnv = "",
) -> None:
    """Print a Tool for the functions of an MCP server, to be reviewed before it is applied.

    Every effect is Irreversible until you say otherwise. What the server says of its functions becomes what a model is
    told: read it, and then pin it with `fairlead pin`.
    """
    from fairlead.cli import definitions

    print("\n".join(draft(url, name, definitions.at(url, token_env=token_env))))


def draft(url: str, name: str, live: Iterable[Definition]) -> Iterator[str]:
    """Yield the lines of the Tool. Texts of the server stand in quotes, and what does not show in them is escaped."""
    from fairlead.api import API_VERSION

    yield f"apiVersion: {API_VERSION}"
    yield "kind: Tool"
    yield f"metadata: {{name: {_quoted(name)}}}"
    yield "spec:"
    yield f"  mcp: {{url: {_quoted(url)}}}"
    yield "  functions:"
    known: set[str] = set()
    for definition in live:
        function, description = str(definition["name"]), definition.get("description")
        if not NAME.fullmatch(function) or function in known:
            yield f"  # left out, because of its name: {_quoted(function)}"
            continue
        known.add(function)
        yield f"  - name: {_quoted(function)}"
        yield "    effect: Irreversible  # review: Read, Reversible or Irreversible"
        if isinstance(description, str) and description:
            too_long = "# too long: " if len(description) > LONGEST_DESCRIPTION else ""
            yield f"    {too_long}description: {_quoted(description)}  # review: a model reads this"
        if isinstance(definition.get("inputSchema"), dict):
            yield f"    input: {{schema: {_quoted(definition['inputSchema'])}}}  # review: so do these texts"
    yield "# Once reviewed: fairlead pin --file THIS_FILE"


def _quoted(value: Any) -> str:
    """Return JSON, which is YAML too, on one line, with every character escaped that is not plain to see."""
    import json

    from fairlead.cli.output import visible

    return "".join(char if visible(char) == char else _escaped(char) for char in json.dumps(value, ensure_ascii=False))


def _escaped(char: str) -> str:
    return f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}"
