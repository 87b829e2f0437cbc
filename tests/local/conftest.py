"""The command line as a user starts it: a process of its own, in a folder of its own."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "support-triage"
SERVERS = ROOT / "examples" / "servers"
MODELS = Path("~/.cache/fairlead/models").expanduser()
"""Where `python -m images models` lays out the weights and an environment for their servers."""

COMMAND = (sys.executable, "-m", "fairlead.cli")


@dataclass(frozen=True, slots=True)
class Said:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """Return what it printed as JSON."""
        return json.loads(self.out)


class Cli:
    """Starts `fairlead` in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "PYTHON"))}
        self._environment = inherited | {
            "PYTHONPATH": str(ROOT / "operator"),
            "PYTHON": sys.executable,
            "PYTHONPYCACHEPREFIX": str(ROOT / "build" / "bytecode"),  # a dozen processes start: compile once
            "COLUMNS": "80",
        }

    async def start(self, *arguments: str | Path) -> asyncio.subprocess.Process:
        """Start a command and return at once."""
        return await asyncio.create_subprocess_exec(
            *COMMAND,
            *map(str, arguments),
            cwd=self.folder,
            env=self._environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def run(self, *arguments: str | Path) -> Said:
        """Run a command to its end."""
        process = await self.start(*arguments)
        out, err = await process.communicate()
        assert process.returncode is not None
        return Said(process.returncode, out.decode(), err.decode())

    def write(self, name: str, *documents: dict[str, Any]) -> Path:
        """Write a YAML file into the folder."""
        path = self.folder / name
        path.write_text(yaml.safe_dump_all(documents), encoding="utf-8")
        return path


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path)


def ours(kind: str, name: str, **spec: Any) -> dict[str, Any]:
    """Return an object of our group."""
    return {"apiVersion": "fairlead.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def ledger_tool(name: str) -> dict[str, Any]:
    """Return a Tool whose server is tests/servers/ledger.py."""
    return ours(
        "Tool",
        name,
        mcp={"url": f"https://{name}.example.com/mcp"},
        functions=[
            {"name": "read", "effect": "Read"},
            {"name": "append"},
            {"name": "append_keyed", "effect": "Reversible", "idempotency": {"argument": "clientToken"}},
        ],
    )


def ledger_policy(*functions: str) -> dict[str, Any]:
    """Return a Policy that lets `worker` call these functions, each written as tool.function."""
    tools: dict[str, list[str]] = {}
    for tool, _, function in (name.partition(".") for name in functions):
        tools.setdefault(tool, []).append(function)
    grants = {"serviceAccounts": ["worker"], "tools": [{"tool": t, "functions": names} for t, names in tools.items()]}
    return ours("Policy", "worker", grants=grants)


def ledger_calls(*functions: str) -> dict[str, Any]:
    """Return a Workflow that calls functions (tool.function) one after the other with the keys k1, k2, ..."""
    steps = []
    for number, (tool, _, function) in enumerate((name.partition(".") for name in functions), start=1):
        call = {"tool": tool, "function": function, "arguments": {"key": f"k{number}"}}
        steps.append({"name": f"s{number}", "tool": call})
    return ours("Workflow", "calls", serviceAccountName="worker", steps=steps, output="$( steps.s1.output )")
