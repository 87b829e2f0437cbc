"""The work that goes on while things break: Workflows whose every effect is counted by a witness, and the counting."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.e2e.installation import RUN, SERVERS_IMAGE, condition, ledger, until
from tests.e2e.kubectl import Kubectl

STEPS = 20
# A read, a slow effect, a pure step, a keyed effect and a plain one, in turn: s00, s01, ... s19.
ERRANDS = ("read", "slow", "", "append_keyed", "append")
EFFECTS = tuple(f"s{number:02}" for number in range(STEPS) if ERRANDS[number % 5] not in ("read", ""))


def declare(team: Kubectl) -> None:
    """Create two ledgers, `ledger` and `moody` (which refuses everything), the grant, and the Workflows.

    `errands` mixes all kinds of calls, `patience` takes at least twenty seconds, `waits` waits for `moody` between two
    effects. All of them take `{"run": name}` and use keys of that name.
    """
    tools = ("ledger", "moody")
    for name in tools:
        team.create(_ours("Tool", name, mcp={"server": server("refuse" if name == "moody" else "normal")}, **_CONTRACT))
    functions = [function["name"] for function in _CONTRACT["functions"]]
    grants = {"serviceAccounts": ["worker"], "tools": [{"tool": name, "functions": functions} for name in tools]}
    team.create(_ours("Policy", "worker", grants=grants))
    team.create(_workflow("errands", [_step(number, ERRANDS[number % 5]) for number in range(STEPS)]))
    team.create(_workflow("patience", [_step(number, "slow", seconds=1) for number in range(STEPS)]))
    retry = {"limit": 20, "backoffSeconds": 15, "factor": 1, "maxBackoffSeconds": 15}
    waits = _step(1, "append_keyed", tool="moody") | {"retry": retry | {"errorClasses": ["Unavailable", "ToolError"]}}
    team.create(_workflow("waits", [_step(0, "append"), waits, _step(2, "append")]))


def server(mode: str) -> dict[str, Any]:
    """Return `spec.mcp.server` of a ledger in this mode."""
    command = ["python3", "/opt/servers/ledger.py", "--port", "8080", "--mode", mode]
    return {"image": SERVERS_IMAGE, "command": command, "port": 8080, "resources": {"cpu": "1", "memory": "256Mi"}}


def accepts_runs(team: Kubectl) -> None:
    """Return when runs can begin at once."""

    def ready() -> bool:
        objects = team.get("workflows,tools")["items"]
        wanted = [(obj, type_) for obj in objects for type_ in _good(obj)]
        return all(condition(obj, type_).get("status") == "True" for obj, type_ in wanted)

    until("the engine reaches the Tools and the Workflows are authorized", ready, timeout_seconds=180)


def _good(obj: dict[str, Any]) -> tuple[str, ...]:
    if obj["kind"] == "Workflow":
        return ("Ready", "Authorized")
    # A pod that is ready may be out of reach for some moments more, until every node's rules know it.
    return ("Ready",) if obj["metadata"]["name"] == "moody" else ("Ready", "Reachable")


_KEYED = {"effect": "Reversible", "idempotency": {"header": "Idempotency-Key"}}
_CONTRACT: dict[str, Any] = {
    "functions": [
        {"name": "read", "effect": "Read"},
        {"name": "append"},
        {"name": "slow"},
        {"name": "append_keyed"} | _KEYED,
    ]
}


def _ours(kind: str, name: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "fairlead.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def _workflow(name: str, steps: list[dict[str, Any]]) -> dict[str, Any]:
    schema = {"type": "object", "required": ["run"], "properties": {"run": {"type": "string"}}}
    return _ours("Workflow", name, serviceAccountName="worker", input={"schema": schema}, steps=steps)


def _step(number: int, function: str, *, tool: str = "ledger", seconds: float = 0.2) -> dict[str, Any]:
    name = f"s{number:02}"
    if not function:
        return {"name": name, "transform": {"value": number}}
    arguments = {"key": f"$( input.run )-{name}"} | ({"seconds": seconds} if function == "slow" else {})
    return {"name": name, "tool": {"tool": tool, "function": function, "arguments": arguments}}


def effects(team: Kubectl, tool: str = "ledger") -> Counter[str]:
    """Count what a ledger has done, by key."""
    return Counter(entry["key"] for entry in ledger(team, f"fairlead-tool-{tool}"))


def runs(team: Kubectl) -> dict[str, dict[str, Any]]:
    """Return all runs by the name that they were given as input."""
    return {obj["spec"]["input"]["run"]: obj for obj in team.get(RUN)["items"]}


def accounted_for(team: Kubectl) -> int:
    """Assert of runs that have ended that nothing was lost and nothing done twice; return how many ended as unknown.

    What a step acknowledged has happened; a run that does not know what came of a call says so, and went no further.
    """
    done, unknown = effects(team), 0
    assert {key: count for key, count in done.items() if count > 1} == {}
    for run, obj in runs(team).items():
        succeeded = condition(obj, "Succeeded")
        rows = {row["path"]: row["phase"] for row in obj["status"]["steps"]}
        acknowledged = [step for step in EFFECTS if rows.get(step) == "Succeeded"]
        assert [step for step in acknowledged if not done[f"{run}-{step}"]] == []
        if succeeded["status"] == "True":
            assert acknowledged == list(EFFECTS)
            continue
        unknown += 1
        (failed,) = [step for step, phase in rows.items() if phase == "Failed"]
        assert succeeded["reason"] == "OutcomeUnknown", succeeded
        assert "unknown" in succeeded["message"]
        assert [step for step in EFFECTS if step > failed and done[f"{run}-{step}"]] == []
    return unknown


def kill(kubectl: Kubectl, pod: str, number: signal.Signals = signal.SIGKILL) -> None:
    """Send what runs Fairlead in a pod a signal, as the kernel would; one that is just starting is waited for."""
    kill_some(until(f"{pod} has a process", lambda: processes(kubectl, [pod], "fairlead.")), number)


def kill_some(found: Iterable[int], number: signal.Signals = signal.SIGKILL) -> int:
    """Send processes a signal; return how many were still there."""
    sent = 0
    for process in found:
        with suppress(ProcessLookupError):
            os.kill(process, number)
            sent += 1
    return sent


def processes(kubectl: Kubectl, pods: Iterable[str], program: str = "python3") -> list[int]:
    """Return the processes of pods whose command has a word: they are in the host's /proc, in a cgroup of the UID."""
    wanted = set(pods)
    uids = [obj["metadata"]["uid"] for obj in kubectl.get("pods")["items"] if obj["metadata"]["name"] in wanted]
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            cgroup = (directory / "cgroup").read_text().replace("_", "-")
            ours = program.encode() in (directory / "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if ours and any(uid in cgroup for uid in uids):
            found.append(int(directory.name))
    return found
