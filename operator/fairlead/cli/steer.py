"""`fairlead cancel`, `pause`, `resume` and `signal`: tell a run on the cluster what it shall do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from fairlead.cli.access import Context, Namespace

if TYPE_CHECKING:
    from fairlead.cli.access import Access

Run = Annotated[str, typer.Argument(help="The run's name.")]


def cancel(run: Run, namespace: Namespace = "", context: Context = "") -> None:
    """Cancel a run: no new calls; what is under way gets 20 seconds."""
    _become("Cancelled", run, namespace, context)
    print(f"workflowrun.fairlead.dev/{run} is being cancelled")


def pause(run: Run, namespace: Namespace = "", context: Context = "") -> None:
    """Pause a run and its child runs: no new calls, what is under way goes on; so does the deadline."""
    _become("Paused", run, namespace, context)
    print(f"workflowrun.fairlead.dev/{run} is being paused")


def resume(run: Run, namespace: Namespace = "", context: Context = "") -> None:
    """Let a paused run go on, and those of its child runs that were not paused themselves."""
    _become("Running", run, namespace, context)
    print(f"workflowrun.fairlead.dev/{run} goes on")


def signal(
    run: Run,
    name: Annotated[str, typer.Argument(help="What the wait calls it.")],
    data: Annotated[str, typer.Option("--data", help="JSON that comes with it.")] = "null",
    namespace: Namespace = "",
    context: Context = "",
) -> None:
    """Send a signal to a run; a step that waits for it, now or later, takes it once."""
    from fairlead.cli.access import on_cluster
    from fairlead.cli.inputs import read_json

    value = read_json("--data", data)

    async def work(access: Access) -> None:
        await _send(access, run, {"name": name, "data": value})

    on_cluster(context, namespace, work)
    print(f"workflowrun.fairlead.dev/{run} was sent {name}")


def _become(state: str, run: str, namespace: str, context: str) -> None:
    from fairlead.cli.access import on_cluster
    from fairlead.kube.types import WORKFLOW_RUNS

    async def work(access: Access) -> None:
        await access.kube.patch(WORKFLOW_RUNS, run, access.namespace, {"spec": {"desiredState": state}})

    on_cluster(context, namespace, work)


async def _send(access: Access, run: str, signal: dict[str, Any]) -> None:
    """Add a signal at the end of the list, in the name of who is connected."""
    from fairlead.kube.types import WORKFLOW_RUNS

    await access.append(WORKFLOW_RUNS, run, "signals", signal | {"by": await access.user()})
