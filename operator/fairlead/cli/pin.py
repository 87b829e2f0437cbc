"""`fairlead pin`: show a person how functions are defined now, and write the digests of what they have seen."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fairlead.cli.access import Context, Namespace
from fairlead.cli.exits import CommandFailed, Exit

if TYPE_CHECKING:
    from fairlead.api.tool import Function, Tool
    from fairlead.cli.definitions import Definition

TokenEnv = Annotated[
    str, typer.Option("--token-env", metavar="NAME", help="With a URL: the environment variable with a bearer token.")
]


def pin(
    file: Annotated[Path, typer.Option("--file", "-f", help="YAML with Tools; the pins are written into it.")],
    tool: Annotated[str, typer.Option("--tool", help="Only this Tool of the file.")] = "",
    url: Annotated[str, typer.Option("--from", metavar="URL", help="Ask this MCP server, and no cluster.")] = "",
    token_env: TokenEnv = "",
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Write without asking: somebody has looked already.")
    ] = False,
    namespace: Namespace = "",
    context: Context = "",
) -> None:
    r"""Show how a Tool's functions are defined now, and pin what you approve.

    The server is asked by the engine of the namespace, or directly with --from. What it says is shown beside what the
    contract says; characters that would hide or steer show as \u{...}. To apply a changed pin takes the verb approve
    on the Tool.
    """
    from fairlead.cli import definitions
    from fairlead.cli.pinfile import with_pins

    tools = _tools(file, tool)
    if url and len(tools) > 1:
        raise CommandFailed(
            Exit.USAGE, f"--from is one server, the file has several Tools; say --tool {next(iter(tools))}"
        )
    if url:
        live = {name: definitions.at(url, token_env=token_env) for name in tools}
    else:
        live = definitions.of_tools(list(tools), namespace=namespace, context=context)
    complete = True
    for name, declared in tools.items():
        text = _read(file)
        pins, whole = _review(name, declared, live[name])
        complete = complete and whole
        if pins and (yes or typer.confirm(f"Pin {', '.join(pins)} of Tool {name} as shown?")):
            with file.open("w", encoding="utf-8", newline="") as opened:
                opened.write(with_pins(text, name, pins))
            print(f"{file}: {len(pins)} pinned")
        elif pins:
            complete = False
    if not complete:
        raise typer.Exit(Exit.FAILED)


def changes(function: Function, definition: Definition) -> list[str]:
    """Return the lines that tell how the server's definition differs from what the contract says of it."""
    from fairlead.cli.output import visible

    told: dict[str, Any] = {"name": function.name}
    told |= {"description": function.description} if function.description is not None else {}
    told |= {"inputSchema": function.input.schema_} if function.input is not None else {}
    contract, server = (visible(_pretty(value)).splitlines() for value in (told, definition))
    return list(difflib.unified_diff(contract, server, "the contract", "the server", lineterm="", n=1000))


def _review(name: str, tool: Tool, live: Sequence[Definition]) -> tuple[dict[str, str], bool]:
    """Show every function; return the digests to write, and whether each function can be pinned."""
    from fairlead.engine.tools.listing import digests_of

    digests, by_name = digests_of(live), {one["name"]: one for one in live}
    pins: dict[str, str] = {}
    for function in tool.spec.functions:
        digest, where = digests.get(function.name), f"{name}.{function.name}"
        if not digest:
            print(f"✖ {where}: {_obstacle(function.name, digests)}")
        elif digest == function.pin:
            print(f"✔ {where}: as it is pinned")
        else:
            print(f"● {where}: {'not pinned' if function.pin is None else 'not as it is pinned'}; it would be {digest}")
            print("\n".join(f"    {line}" for line in changes(function, by_name[function.name])))
            pins[function.name] = digest
    return pins, all(digests.get(function.name) for function in tool.spec.functions)


def _obstacle(name: str, digests: Mapping[str, str]) -> str:
    return "the server lists it more than once" if name in digests else "the server does not list it"


def _tools(file: Path, only: str) -> dict[str, Tool]:
    from fairlead.cli import manifests

    try:
        found = manifests.read([file])
    except FileNotFoundError as error:
        raise CommandFailed(Exit.NOT_FOUND, str(error)) from error
    tools: dict[str, Tool] = found.of("Tool")
    if file.is_dir() or not tools or (only and only not in tools):
        wanted = f"Tool {only}" if only else "Tool"
        raise CommandFailed(Exit.NOT_FOUND, f"{file} is no file with a {wanted} that can be read; see fairlead lint")
    return {only: tools[only]} if only else tools


def _read(file: Path) -> str:
    with file.open(encoding="utf-8", newline="") as opened:
        return opened.read()


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True)
