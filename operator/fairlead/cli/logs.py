"""`fairlead logs`: what the containers of a run's steps said. The engine keeps the end of each log with the outcome."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fairlead.cli.access import Context, Namespace
from fairlead.cli.exits import CommandFailed, Exit

if TYPE_CHECKING:
    from fairlead.cli.access import Access
    from fairlead.flow.journal import Entry


@dataclass(frozen=True, slots=True)
class ContainerLog:
    """One container of a run: which attempt of which step, its pod, and its log; None while it runs."""

    path: str
    attempt: int
    pod: str = ""
    text: str | None = None
    ended: bool = False


def logs(
    run: Annotated[str, typer.Argument(help="The run's name.")],
    step: Annotated[str, typer.Argument(help="The step's path; absent: all steps with containers.")] = "",
    namespace: Namespace = "",
    context: Context = "",
) -> None:
    """Show the logs of a run's container steps: the last 64 KiB of each attempt."""
    from fairlead.cli.access import on_cluster
    from fairlead.cli.output import plain
    from fairlead.kube.types import WORKFLOW_RUNS

    async def read(access: Access) -> tuple[str, list[Any]]:
        found = await access.kube.get(WORKFLOW_RUNS, run, access.namespace)
        return access.namespace, await access.journal(found["metadata"]["uid"])

    where, entries = on_cluster(context, namespace, read)
    found = [one for one in container_logs(entries) if step in ("", one.path)]
    if not found:
        of = f"no container step {step}" if step else "no container steps"
        earlier = "".join(f"; see the logs of {name}, which did it" for name in earlier_runs(entries, step))
        raise CommandFailed(Exit.NOT_FOUND, f"the run {run} has {of}, or none has begun{earlier}")
    for one in found:
        if len(found) > 1 or not step:
            print(f"==> {one.path}, attempt {one.attempt}")
        if one.ended:
            print(plain(one.text or ""), end="" if (one.text or "").endswith("\n") else "\n")
        else:
            print(f"it still runs: kubectl logs --namespace {where} {one.pod} --container step --follow")


def earlier_runs(entries: Iterable[Entry], step: str) -> list[str]:
    """Return the runs that did a step, or steps, that this one took over: their logs stand there."""
    taken = (entry.data["reusedFrom"] for entry in entries if "reusedFrom" in entry.data and step in ("", entry.path))
    return list(dict.fromkeys(taken))


def container_logs(entries: Iterable[Entry]) -> Iterator[ContainerLog]:
    """Yield the containers of a journal, in the order in which they began."""
    from fairlead.flow.journal import EntryKind

    found: dict[tuple[str, int], ContainerLog] = {}
    for entry in entries:
        place = (str(entry.path), entry.attempt)
        if entry.kind is EntryKind.CALL_INTENT and entry.data["kind"] == "Container":
            found[place] = ContainerLog(*place)
        elif entry.kind is EntryKind.POD_STARTED and place in found:
            found[place] = ContainerLog(*place, pod=entry.data["name"])
        elif entry.kind is EntryKind.CALL_OUTCOME and place in found:
            text = (entry.data.get("result") or {}).get("logs")
            found[place] = ContainerLog(*place, pod=found[place].pod, text=text, ended=True)
    yield from found.values()
