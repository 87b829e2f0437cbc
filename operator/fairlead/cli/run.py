"""`fairlead run`: local mode. The same engine in this process, without a cluster.

Resources come from files, permissions from the Policies among them, servers from the `--with` file, and the journal
stands in `.fairlead/`: killed and run again with the same `--run` name, a run goes on where it was.
"""

from __future__ import annotations

import asyncio
import secrets
import shutil
import signal
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fairlead.cli.exits import CommandFailed, Exit
from fairlead.cli.output import Format, show

if TYPE_CHECKING:
    from fairlead.api.workflow import Workflow
    from fairlead.cli.localapprovals import LocalDesk
    from fairlead.cli.manifests import Manifests
    from fairlead.cli.withfile import Environment
    from fairlead.engine.engine import WorkflowEngine
    from fairlead.flow.journal import Entry
    from fairlead.flow.state import RunState


def run(
    path: Annotated[Path, typer.Argument(metavar="FILE|DIR", help="YAML with Workflow, Models, Tools, Policies.")],
    input_: Annotated[list[str] | None, typer.Option("--input", "-i", help="name=text or name:=JSON.")] = None,
    input_file: Annotated[Path | None, typer.Option("--input-file", "-f", help="YAML or JSON with an object.")] = None,
    workflow: Annotated[str, typer.Option("--workflow", "-w", help="Which one, where the files hold several.")] = "",
    with_: Annotated[Path | None, typer.Option("--with", help="Local commands that stand in for servers.")] = None,
    secret: Annotated[list[str] | None, typer.Option("--secret", help="name/key=ENVVAR")] = None,
    store: Annotated[Path, typer.Option("--store", help="Where journals and logs are kept.")] = Path(".fairlead"),
    name: Annotated[str, typer.Option("--run", help="The run's name; one that exists goes on.")] = "",
    signals: Annotated[list[str] | None, typer.Option("--signal", help="name or name=JSON, sent at the start.")] = None,
    approve: Annotated[list[str] | None, typer.Option("--approve", help="A step that people approve.")] = None,
    deny: Annotated[list[str] | None, typer.Option("--deny", help="A step that they do not approve.")] = None,
    trace: Annotated[bool, typer.Option("--trace", help="Show the waterfall at the end.")] = False,
    output: Annotated[Format, typer.Option("--output", "-o")] = Format.TABLE,
) -> None:
    """Run a workflow here, without a cluster: the same engine, a journal in .fairlead/, grants from the files."""
    from fairlead.cli.inputs import read_input, read_signals
    from fairlead.cli.localapprovals import LocalDesk
    from fairlead.cli.withfile import read_environment

    found = _read(path)
    chosen = _choose(found, workflow)
    value, sent = read_input(input_ or [], input_file), read_signals(signals or [])
    environment = read_environment(with_, secret or [])
    name = name or f"{chosen.metadata.name}-{secrets.token_hex(3)}"
    desk = LocalDesk(approve or [], deny or [])
    work = _run(found, chosen, environment, desk=desk, value=value, signals=sent, folder=store, name=name)
    entries = asyncio.run(_until_signalled(work))
    _report(name, entries, output, trace=trace)


def _read(path: Path) -> Manifests:
    from fairlead.cli import manifests
    from fairlead.cli.lint import check

    try:
        found = manifests.read([path])
    except FileNotFoundError as error:
        raise CommandFailed(Exit.NOT_FOUND, str(error)) from error
    problems = found.problems + check(found)
    if problems:
        raise CommandFailed(Exit.USAGE, "\n  ".join(["the files are wrong:", *map(str, problems)]))
    return found


def _choose(found: Manifests, name: str) -> Workflow:
    workflows: dict[str, Workflow] = found.of("Workflow")
    if name in workflows:
        return workflows[name]
    if not name and len(workflows) == 1:
        return next(iter(workflows.values()))
    if name or not workflows:
        raise CommandFailed(Exit.NOT_FOUND, f"there is no Workflow {name or 'at all'} in these files")
    raise CommandFailed(Exit.USAGE, f"--workflow: one of {', '.join(sorted(workflows))}")


async def _run(
    found: Manifests,
    workflow: Workflow,
    environment: Environment,
    *,
    desk: LocalDesk,
    value: dict[str, Any],
    signals: list[dict[str, Any]],
    folder: Path,
    name: str,
) -> list[Entry]:
    """Bring the run to its end, unless it has ended already, and return its journal."""
    from fairlead.cli import local, localengine, localstore, standins
    from fairlead.engine.store.rows import OPEN

    namespace = workflow.metadata.namespace or local.DEFAULT_NAMESPACE
    resources = local.resources_of(found, environment, namespace=namespace)
    async with localengine.opened(localstore.path_of(folder, name), resources, desk) as engine:
        known = await localstore.find(engine.store, name)
        if known is not None and known.workflow != workflow.metadata.name:
            raise CommandFailed(Exit.USAGE, f"the run {name} is one of Workflow {known.workflow}")
        earlier = await engine.store.load(known.uid) if known is not None else []
        if known is not None and known.state != OPEN:
            print(f"run {name} has ended before; it is not executed again", file=sys.stderr)
            return earlier
        wanted = local.servers_of(workflow, found)
        local.refuse_containers(workflow)
        local.refuse_unreachable(wanted, found, environment)
        async with standins.running(environment, wanted=wanted, store=folder) as addresses:
            resources.use(addresses, environment)
            run = localengine.run_object(
                known,
                name=name,
                namespace=namespace,
                workflow=workflow.metadata.name,
                value=value,
                signals=localengine.all_signals(earlier, signals),
            )
            with _Shown(engine, name, run["metadata"]["uid"], earlier):
                return await localengine.execute(engine, run, begin=known is None)


class _Shown:
    """Shows the steps of one run of an engine while they happen."""

    def __init__(self, engine: WorkflowEngine, name: str, uid: str, earlier: list[Entry]) -> None:
        from fairlead.cli.tree import Progress
        from fairlead.flow.state import apply, new_state

        self._apply = apply
        self._uid = uid
        self._state = new_state()
        for entry in earlier:
            self._state = apply(self._state, entry)
        self._progress = Progress(f"run {name}" + (" goes on" if earlier else ""))
        engine.subscribe(self._committed)
        self._show(self._state.steps)

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None:
        self._progress.close()

    def _committed(self, entries: Any) -> None:
        mine = [entry for entry in entries if entry.run_uid == self._uid]
        for entry in mine:
            self._state = self._apply(self._state, entry)
        ended = self._progress.open if self._state.terminal is not None else []
        self._show(dict.fromkeys([*(entry.path for entry in mine), *ended]))

    def _show(self, paths: Iterable[str]) -> None:
        from fairlead.cli.localstore import clock_ms
        from fairlead.cli.tree import from_state

        self._progress.update(from_state(self._state, paths), now_ms=clock_ms())


async def _until_signalled(work: Any) -> list[Entry]:
    """Let SIGTERM end the work as Ctrl-C does, so that stand-ins are ended with it."""
    task: asyncio.Task[list[Entry]] = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


def _report(name: str, entries: list[Entry], output: Format, *, trace: bool) -> None:
    from fairlead.cli import exits, runs, waterfall
    from fairlead.engine.reading import folded

    state = folded(entries)
    end = state.terminal
    if end is None or not entries:
        raise CommandFailed(Exit.UNFINISHED, f"the run {name} has not ended; run it again with --run {name}")
    succeeded = end.reason == "Completed"
    usage = _usage(state)
    summary = {
        "name": name,
        "uid": entries[0].run_uid,
        "succeeded": succeeded,
        "reason": end.reason,
        "message": end.message,
        "output": end.output,
        "usage": usage,
        "denials": state.denials,
    }

    def as_table() -> str:
        lines = [runs.verdict(succeeded=succeeded, reason=end.reason, message=end.message)]
        lines += runs.result(output=end.output, usage=usage)
        if trace:
            spans = waterfall.spans_of(entries[0].run_uid, entries)
            lines += ["", *waterfall.render(spans, width=shutil.get_terminal_size().columns)]
        return "\n".join(lines)

    print(show(summary, output, as_table=as_table, name=f"run/{name}"))
    code = exits.of_run(succeeded, end.reason)
    if code is not Exit.OK:
        raise typer.Exit(code)


def _usage(state: RunState) -> dict[str, Any]:
    from fairlead.flow.spending import format_usd

    used = state.usage
    return {
        "modelCalls": used.model_calls,
        "toolCalls": used.tool_calls,
        "inputTokens": used.input_tokens,
        "outputTokens": used.output_tokens,
    } | ({"costUSD": format_usd(used.cost)} if used.cost else {})
