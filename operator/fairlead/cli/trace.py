"""`fairlead trace`: where the time and the tokens of a run went, without any tracing backend."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fairlead.cli.access import Context, Namespace
from fairlead.cli.output import Format

if TYPE_CHECKING:
    from fairlead.cli.access import Access
    from fairlead.telemetry.spans import Span


def trace(
    run: Annotated[str, typer.Argument(help="The run's name.")],
    local: Annotated[bool, typer.Option("--local", help="A run of local mode.")] = False,
    store: Annotated[Path, typer.Option("--store", help="The folder of local mode's store.")] = Path(".fairlead"),
    width: Annotated[int | None, typer.Option("--width", min=60, help="Columns; default: the terminal's.")] = None,
    output: Annotated[Format, typer.Option("--output", "-o")] = Format.TABLE,
    namespace: Namespace = "",
    context: Context = "",
) -> None:
    """Show a run as a waterfall of steps, model calls and tool calls."""
    from fairlead.cli import waterfall
    from fairlead.cli.output import show

    if local:
        import asyncio

        from fairlead.cli.localstore import journal_of

        uid, entries = asyncio.run(journal_of(store, run))
    else:
        from fairlead.cli.access import on_cluster
        from fairlead.kube.types import WORKFLOW_RUNS

        async def read(access: Access) -> tuple[str, list[Any]]:
            found = await access.kube.get(WORKFLOW_RUNS, run, access.namespace)
            uid = found["metadata"]["uid"]
            return uid, await access.journal(uid)

        uid, entries = on_cluster(context, namespace, read)
    spans = waterfall.spans_of(uid, entries)
    columns = width or shutil.get_terminal_size().columns
    print(
        show(
            [_plain(span) for span in spans],
            output,
            as_table=lambda: "\n".join(waterfall.render(spans, width=columns)),
            name=uid.replace("-", ""),
        )
    )


def _plain(span: Span) -> dict[str, Any]:
    """Return a span as JSON and YAML show it; times are Unix ms."""
    return {
        "traceID": span.trace_id,
        "spanID": span.span_id,
        "parentSpanID": span.parent_id,
        "name": span.name,
        "startMs": span.start_ms,
        "endMs": span.end_ms,
        "error": span.error,
        "attributes": dict(span.attributes),
    }
