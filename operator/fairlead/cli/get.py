"""`fairlead get`: the runs of a namespace, or one run with its steps."""

from __future__ import annotations

import shutil
import time
from typing import Annotated

import typer

from fairlead.cli.access import Context, Namespace
from fairlead.cli.output import Format, show


def get(
    run: Annotated[str, typer.Argument(help="A run; absent: list all.", show_default=False)] = "",
    workflow: Annotated[str, typer.Option("--workflow", "-w", help="Only runs of this Workflow.")] = "",
    output: Annotated[Format, typer.Option("--output", "-o")] = Format.TABLE,
    namespace: Namespace = "",
    context: Context = "",
) -> None:
    """Show the runs of a namespace, or one run: conditions, steps, usage, output."""
    from fairlead.cli import runs
    from fairlead.cli.access import Access, on_cluster
    from fairlead.kube.types import WORKFLOW_RUNS

    now_ms = int(time.time() * 1000)
    if run:

        async def one(access: Access) -> runs.Run:
            return await access.kube.get(WORKFLOW_RUNS, run, access.namespace)

        found = on_cluster(context, namespace, one)
        width = shutil.get_terminal_size().columns
        text = show(
            found,
            output,
            as_table=lambda: runs.description(found, now_ms=now_ms, width=width),
            name=f"workflowrun.fairlead.dev/{run}",
        )
    else:

        async def all_(access: Access) -> list[runs.Run]:
            return list(await access.kube.list(WORKFLOW_RUNS, access.namespace))

        listed = [item for item in on_cluster(context, namespace, all_) if workflow in ("", item["spec"]["workflow"])]
        names = "\n".join(f"workflowrun.fairlead.dev/{item['metadata']['name']}" for item in listed)
        text = show(
            {"apiVersion": "v1", "kind": "List", "items": listed},
            output,
            as_table=lambda: runs.listing(listed, now_ms=now_ms),
            name=names,
        )
    print(text)
