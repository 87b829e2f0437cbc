"""`fairlead submit`, `retry` and `watch`: start a run on the cluster, anew or from where another ended; follow it."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fairlead.cli.access import Context, Namespace
from fairlead.cli.exits import CommandFailed, Exit
from fairlead.cli.output import Format, show

if TYPE_CHECKING:
    from fairlead.cli.access import Access
    from fairlead.cli.runs import Run

Timeout = Annotated[int, typer.Option("--timeout", min=0, help="Seconds to wait at most; 0: as long as it takes.")]
Output = Annotated[Format, typer.Option("--output", "-o")]
Inputs = Annotated[list[str] | None, typer.Option("--input", "-i", help="name=text or name:=JSON.")]
InputFile = Annotated[Path | None, typer.Option("--input-file", "-f", help="YAML or JSON with an object.")]
Wait = Annotated[bool, typer.Option("--wait", help="Show the steps until the run has ended.")]


def submit(
    workflow: Annotated[str, typer.Argument(help="The Workflow's name.")],
    input_: Inputs = None,
    input_file: InputFile = None,
    wait: Wait = False,
    timeout: Timeout = 0,
    output: Output = Format.TABLE,
    namespace: Namespace = "",
    context: Context = "",
) -> None:
    """Start a run; with --wait the exit code tells how it ended."""
    from fairlead.cli.access import on_cluster
    from fairlead.cli.inputs import read_input

    spec: dict[str, Any] = {"workflow": workflow}
    if value := read_input(input_ or [], input_file):
        spec["input"] = value

    async def work(access: Access) -> Run:
        return await _start(access, spec, wait=wait, timeout_seconds=timeout)

    _report(on_cluster(context, namespace, work), output, ended=wait)


def retry(
    run: Annotated[str, typer.Argument(help="The ended run to go on from.")],
    step: Annotated[str, typer.Option("--step", help="Do this step and those after it again in any case.")] = "",
    input_: Inputs = None,
    input_file: InputFile = None,
    wait: Wait = False,
    timeout: Timeout = 0,
    output: Output = Format.TABLE,
    namespace: Namespace = "",
    context: Context = "",
) -> None:
    """Start a run that goes on from an ended one: what had succeeded and is the same is not done again."""
    from fairlead.cli.access import on_cluster
    from fairlead.cli.inputs import read_input
    from fairlead.kube.types import WORKFLOW_RUNS

    spec: dict[str, Any] = {"retryFrom": {"run": run} | ({"step": step} if step else {})}
    if value := read_input(input_ or [], input_file):
        spec["input"] = value

    async def work(access: Access) -> Run:
        earlier = await access.kube.get(WORKFLOW_RUNS, run, access.namespace)
        again = {"workflow": earlier["spec"]["workflow"], **spec}
        return await _start(access, again, wait=wait, timeout_seconds=timeout)

    _report(on_cluster(context, namespace, work), output, ended=wait)


def watch(
    run: Annotated[str, typer.Argument(help="The run's name.")],
    timeout: Timeout = 0,
    output: Output = Format.TABLE,
    namespace: Namespace = "",
    context: Context = "",
) -> None:
    """Show the steps of a run until it has ended; the exit code tells how."""
    from fairlead.cli.access import on_cluster

    async def work(access: Access) -> Run:
        return await follow(access, run, timeout_seconds=timeout)

    _report(on_cluster(context, namespace, work), output, ended=True)


async def _start(access: Access, spec: dict[str, Any], *, wait: bool, timeout_seconds: int) -> Run:
    """Create a run in the name of who is connected; with `wait`, return it as it ended."""
    from fairlead.kube.types import WORKFLOW_RUNS

    metadata = {"generateName": f"{spec['workflow']}-", "namespace": access.namespace}
    manifest = {"metadata": metadata, "spec": spec | {"requestedBy": await access.user()}}
    run = await access.kube.create(WORKFLOW_RUNS, manifest, access.namespace)
    return await follow(access, run["metadata"]["name"], timeout_seconds=timeout_seconds) if wait else run


async def follow(access: Access, name: str, *, timeout_seconds: int) -> Run:
    """Show a run's steps until it has ended, and return it as it stands then.

    Raises:
        CommandFailed: it was deleted meanwhile, or takes longer than `timeout_seconds` (0 for no limit).
    """
    import asyncio

    from fairlead.cli import runs, tree
    from fairlead.kube.types import WORKFLOW_RUNS
    from fairlead.kube.watch import Informer

    changed = asyncio.Event()
    informer = Informer(
        access.kube,
        WORKFLOW_RUNS,
        namespace=access.namespace,
        on_change=lambda old, new: changed.set() if name in {_name(old), _name(new)} else None,
    )
    await access.kube.get(WORKFLOW_RUNS, name, access.namespace)
    progress = tree.Progress(f"run {name}")
    watching = asyncio.create_task(informer.run())
    try:
        async with asyncio.timeout(timeout_seconds or None):
            await informer.synced.wait()
            while True:
                changed.clear()
                run = informer.objects.get((access.namespace, name))
                if run is None:
                    raise CommandFailed(Exit.NOT_FOUND, f"the run {name} was deleted")
                rows = run.get("status", {}).get("steps", ())
                progress.update(tree.from_status(rows), now_ms=int(time.time() * 1000))
                if runs.finished(run):
                    return run
                await changed.wait()
    except TimeoutError as error:
        raise CommandFailed(Exit.UNFINISHED, f"the run {name} goes on after {timeout_seconds} s") from error
    finally:
        progress.close()
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


def _name(run: Run | None) -> str:
    return run["metadata"]["name"] if run is not None else ""


def _report(run: Run, output: Format, *, ended: bool) -> None:
    from fairlead.cli import exits, runs

    name = f"workflowrun.fairlead.dev/{run['metadata']['name']}"
    width = shutil.get_terminal_size().columns
    now_ms = int(time.time() * 1000)

    def as_table() -> str:
        return runs.description(run, now_ms=now_ms, width=width) if ended else f"{name} created"

    print(show(run, output, as_table=as_table, name=name))
    if ended:
        code = exits.of_run(runs.succeeded(run), runs.condition(run, "Succeeded")["reason"])
        if code is not Exit.OK:
            raise typer.Exit(code)
