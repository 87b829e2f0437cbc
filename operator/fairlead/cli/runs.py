"""WorkflowRuns as people read them: one line in a list, or everything about one. Plain dicts in, text out. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from fairlead.cli import tree
from fairlead.cli.output import age, plain, table

Run = Mapping[str, Any]


def condition(run: Run, type_: str) -> Mapping[str, str]:
    """Return a condition; one that is not there yet is Unknown."""
    found = (c for c in run.get("status", {}).get("conditions", ()) if c["type"] == type_)
    return next(found, {"type": type_, "status": "Unknown", "reason": "", "message": ""})


def finished(run: Run) -> bool:
    """Tell whether the run has ended."""
    return condition(run, "Finished")["status"] == "True"


def succeeded(run: Run) -> bool:
    """Tell whether it ended well."""
    return condition(run, "Succeeded")["status"] == "True"


def listing(runs: Sequence[Run], *, now_ms: int) -> str:
    """Return the table of runs, newest last."""
    if not runs:
        return "no runs"
    ordered = sorted(runs, key=lambda run: (str(run["metadata"].get("creationTimestamp", "")), run["metadata"]["name"]))
    headers = ("NAME", "WORKFLOW", "FINISHED", "SUCCEEDED", "REASON", "PROGRESS", "AGE")
    return table(headers, [_row(run, now_ms) for run in ordered])


def _row(run: Run, now_ms: int) -> list[str]:
    created = tree.milliseconds(run["metadata"].get("creationTimestamp"))
    outcome = condition(run, "Succeeded")
    return [
        run["metadata"]["name"],
        run["spec"]["workflow"],
        condition(run, "Finished")["status"],
        outcome["status"],
        outcome["reason"],
        run.get("status", {}).get("progress", ""),
        age((now_ms - created) / 1000) if created is not None else "",
    ]


def description(run: Run, *, now_ms: int, width: int) -> str:
    """Return everything that is to know about one run."""
    status = run.get("status", {})
    lines = [f"Run        {run['metadata']['name']}", f"Workflow   {run['spec']['workflow']}"]
    if status.get("traceID"):
        lines.append(f"Trace      {status['traceID']}")
    lines += ["", "Conditions"]
    for item in status.get("conditions", ()):
        lines.append(f"  {item['type']:<10} {item['status']:<8} {item['reason']}")
        lines += [f"    {plain(line)}" for line in item.get("message", "").splitlines()]
    if status.get("steps"):
        lines += ["", f"Steps      {status.get('progress', '')}".rstrip()]
        lines += [
            f"  {line}" for line in tree.render(tree.from_status(status["steps"]), now_ms=now_ms, width=width - 2)
        ]
    lines += ["", *result(output=status.get("output"), usage=status.get("usage") or {})]
    if status.get("outputRef"):
        lines.append(f"Output     {status['outputRef']['bytes']} bytes, {status['outputRef']['digest']}")
    if status.get("denials"):
        lines.append(f"Denials    {status['denials']}")
        for row in status.get("steps", ()):
            if denial := row.get("denial"):
                said = [denial["reason"], denial.get("policy", ""), denial.get("rule", "")]
                lines.append(plain(f"  {row['path']}: {', '.join(filter(None, said))}"))
    return "\n".join(lines).rstrip()


def result(*, output: Any, usage: Mapping[str, Any]) -> list[str]:
    """Return the lines about usage and output."""
    lines = []
    if usage:
        calls = f"{usage.get('modelCalls', 0)} model calls, {usage.get('toolCalls', 0)} tool calls"
        tokens = f"{usage.get('inputTokens', 0)} tokens in, {usage.get('outputTokens', 0)} out"
        cost = f", ${usage['costUSD']}" if "costUSD" in usage else ""
        lines.append(f"Usage      {calls}, {tokens}{cost}")
    if output is not None:
        lines.append("Output")
        text = output if isinstance(output, str) else json.dumps(output, indent=2, ensure_ascii=False)
        lines += [f"  {line}" for line in plain(text).splitlines()]
    return lines


def verdict(*, succeeded: bool, reason: str, message: str) -> str:
    """Return how the run ended, in a line or two; a denial brings the command that shows the missing permission."""
    word = "Succeeded" if succeeded else f"Failed: {reason}"
    return plain(f"{word}\n  {message}" if message and not succeeded else word)
