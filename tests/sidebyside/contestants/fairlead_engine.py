"""Fairlead: the engine of local mode on one store, with grants, contract and journal as always."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.bench.engines import NAMESPACE, Bench, serving
from tests.sidebyside.contestants.talk import Chain, main

from fairlead.flow.journal import RunUid

LENGTHS = (3, 10, 20)
FUNCTIONS: dict[str, dict[str, Any]] = {
    "read": {"effect": "Read"},
    "append": {"effect": "Irreversible"},
    "append_keyed": {"effect": "Irreversible", "idempotency": {"header": "Idempotency-Key"}},
}
TOOL, ACCOUNT = "ledger", "worker"


class Fairlead:
    def __init__(self, bench: Bench) -> None:
        self._engine = bench.engine

    async def execute(self, chain: Chain) -> str:
        run = _run(chain)
        row = await self._engine.store.run(RunUid(run["metadata"]["uid"]))
        if row is not None and not row.open:
            entries = await self._engine.store.load(row.uid)
            return str(entries[-1].data.get("reason", "Completed"))
        state = await self._engine.submit(run)
        assert state.terminal is not None
        return state.terminal.reason


@asynccontextmanager
async def opened(folder: Path, url: str, left: list[Chain]) -> AsyncIterator[Fairlead]:
    chains = [_workflow(function, steps) for function in FUNCTIONS for steps in LENGTHS]
    functions = [{"name": name} | contract for name, contract in FUNCTIONS.items()]
    tool = _object("Tool", TOOL, {"mcp": {"url": url}, "functions": functions})
    grants = {"serviceAccounts": [ACCOUNT], "tools": [{"tool": TOOL}]}
    declared = [*chains, tool, _object("Policy", ACCOUNT, {"grants": grants})]
    objects = {RunUid(run["metadata"]["uid"]): run for run in map(_run, left)}
    path = folder / "journal.sqlite"
    async with serving(folder, declared, addresses={("Tool", TOOL): url}, store=path, left=objects) as bench:
        yield Fairlead(bench)


def _workflow(function: str, steps: int) -> dict[str, Any]:
    calls = [
        {"name": f"s{n}", "tool": {"tool": TOOL, "function": function, "arguments": {"key": f"$( run.name )-s{n}"}}}
        for n in range(steps)
    ]
    return _object("Workflow", _name(function, steps), {"serviceAccountName": ACCOUNT, "steps": calls})


def _name(function: str, steps: int) -> str:
    return f"{function.replace('_', '-')}-{steps}"


def _run(chain: Chain) -> dict[str, Any]:
    """Return the WorkflowRun, the same again after a crash."""
    run = _object("WorkflowRun", chain.run, {"workflow": _name(chain.function, chain.steps), "input": {}})
    run["metadata"] |= {
        "namespace": NAMESPACE,
        "uid": str(uuid.uuid5(uuid.NAMESPACE_URL, chain.run)),
        "generation": 1,
        "creationTimestamp": datetime.now(UTC).isoformat(),
    }
    return run


def _object(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "fairlead.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


if __name__ == "__main__":
    main(opened)
