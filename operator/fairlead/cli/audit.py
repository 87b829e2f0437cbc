"""`fairlead audit`: is the record of what happened as it was written? And the way out of it, for others."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fairlead.cli.access import Context, Namespace
from fairlead.cli.exits import CommandFailed, Exit

if TYPE_CHECKING:
    from fairlead.cli.access import Access
    from fairlead.engine.audit import AuditHead

app = typer.Typer(no_args_is_help=True, help="Verify or export the audit.")
Record = Mapping[str, Any]
Local = Annotated[bool, typer.Option("--local", help="A run of local mode.")]
StoreFolder = Annotated[Path, typer.Option("--store", help="The folder of local mode's store.")]


MARGIN_MS = 86_400_000
"""Records are let go a day late at most."""


class ExportFormat(StrEnum):
    """How records leave."""

    JSONL = "jsonl"
    CLOUDEVENTS = "cloudevents"


@dataclass(slots=True)
class Found:
    """What there is to verify: chains by run, how far the cluster says that each goes, and the anchors.

    `whole` says that these are all chains of the store, also of runs whose objects are gone.
    """

    namespace: str
    names: dict[str, str] = field(default_factory=dict)
    chains: Mapping[str, Sequence[Record]] = field(default_factory=dict)
    heads: dict[str, AuditHead] = field(default_factory=dict)
    anchors: Sequence[Record] = ()
    whole: bool = False


@app.command("verify")
def verify(
    run: Annotated[str, typer.Argument(help="The run's name; without it all runs, and the anchors.")] = "",
    local: Local = False,
    store: StoreFolder = Path(".fairlead"),
    namespace: Namespace = "",
    context: Context = "",
) -> None:
    """Say whether records were changed, moved, added or removed, and which calls have no outcome."""
    from fairlead.engine.audit import verify_anchors, verify_run
    from fairlead.engine.engine import AUDIT_MS

    found = _local(store, run) if local else _cluster(context, namespace, run)
    problems = 0
    for uid, name in found.names.items():
        chain = found.chains.get(uid, ())
        wrong = verify_run(uid, chain, found.heads.get(uid))
        problems += len(wrong)
        print(f"{name}: {len(chain)} records" + ("" if wrong else ", as they were written"))
        print("".join(f"  {problem}\n" for problem in wrong), end="")
    kept_since_ms = int(time() * 1000) - AUDIT_MS + MARGIN_MS if found.whole else None
    wrong = verify_anchors(found.anchors, found.chains, kept_since_ms=kept_since_ms)
    problems += len(wrong)
    print(f"anchors: {len(found.anchors)}" + ("" if wrong else ", as they were written"))
    print("".join(f"  {str(problem).replace('record', 'anchor', 1)}\n" for problem in wrong), end="")
    if problems:
        raise CommandFailed(Exit.FAILED, f"{problems} problems: the audit is not as it was written")


@app.command("export")
def export(
    run: Annotated[str, typer.Argument(help="The run's name; without it all runs, in the order of time.")] = "",
    form: Annotated[ExportFormat, typer.Option("--format", help="One JSON object a line, either way.")] = (
        ExportFormat.JSONL
    ),
    since: Annotated[str, typer.Option("--since", help="RFC 3339: only records from then on.")] = "",
    local: Local = False,
    store: StoreFolder = Path(".fairlead"),
    namespace: Namespace = "",
    context: Context = "",
) -> None:
    """Print records: as they are, or as CloudEvents."""
    since_ms = _unix_ms(since)
    if local or run:
        found = _local(store, run) if local else _cluster(context, namespace, run)
        records = [record for chain in found.chains.values() for record in chain]
        _print(records, form, found.namespace, since_ms)
        return
    from fairlead.cli.access import on_cluster

    async def work(access: Access) -> None:
        async for page in _pages(access, since_ms):
            _print(page, form, access.namespace, since_ms)

    on_cluster(context, namespace, work)


def cloud_event(record: Record, namespace: str) -> dict[str, Any]:
    """Return a record as a CloudEvent 1.0."""
    from fairlead.api.conditions import timestamp

    source = f"/apis/fairlead.dev/namespaces/{namespace}/workflowruns/{record['run']}"
    subject = (record.get("where") or {}).get("path")
    event = {
        "specversion": "1.0",
        "id": f"{record['run']}/{record['n']}",
        "source": source,
        "type": f"dev.fairlead.audit.{record['type'].lower()}",
        "time": timestamp(record["at"]),
        "datacontenttype": "application/json",
        "data": record,
    }
    return event | ({"subject": subject} if subject else {})


def _print(records: Sequence[Record], form: ExportFormat, namespace: str, since_ms: int) -> None:
    from fairlead.api.canonical import canonical_json

    for record in records:
        if record["at"] >= since_ms:
            line = record if form is ExportFormat.JSONL else cloud_event(record, namespace)
            print(canonical_json(line).decode())


def _local(folder: Path, run: str) -> Found:
    """Return the audit of one local run; there is no cluster that knows how far it should go."""
    import asyncio

    from fairlead.cli.localstore import audit_of

    if not run:
        raise CommandFailed(Exit.USAGE, "a run of local mode has a store of its own: say which")
    rows, chains, anchors = asyncio.run(audit_of(folder, run))
    return Found("local", names=rows, chains=chains, anchors=anchors)


def _cluster(context: str, namespace: str, run: str) -> Found:
    from fairlead.cli.access import on_cluster

    async def work(access: Access) -> Found:
        return await _read(access, run)

    return on_cluster(context, namespace, work)


async def _read(access: Access, run: str) -> Found:
    from fairlead.engine.audit import AuditHead
    from fairlead.errors import NotFound
    from fairlead.kube.types import WORKFLOW_RUNS

    found, token = Found(access.namespace), await access.viewer_token()
    chains: dict[str, Sequence[Record]] = {}
    if run:
        objects = [await access.kube.get(WORKFLOW_RUNS, run, access.namespace)]
    else:
        objects = await access.kube.list(WORKFLOW_RUNS, access.namespace)
    for obj in objects:
        uid, said = obj["metadata"]["uid"], (obj.get("status") or {}).get("audit")
        if said is None:
            continue
        found.names[uid] = obj["metadata"]["name"]
        found.heads[uid] = AuditHead(said["records"], said["head"])
        try:
            chains[uid] = (await access.engine(f"/v1/runs/{uid}/audit", token))["records"]
        except NotFound:
            chains[uid] = []
    if not run:
        found.whole = True
        by_run: dict[str, list[Record]] = {}
        async for page in _pages(access, 0):
            for record in page:
                by_run.setdefault(str(record.get("run")), []).append(record)
        for uid in by_run.keys() - chains.keys():
            found.names[uid] = f"{uid} (gone)"
            chains[uid] = sorted(by_run[uid], key=lambda record: int(record.get("n", 0)))
    found.chains = chains
    found.anchors = (await access.engine("/v1/audit/anchors", token))["anchors"]
    return found


async def _pages(access: Access, since_ms: int) -> AsyncIterator[Sequence[Record]]:
    after, token = f"{max(0, since_ms - 1)},~,0", await access.viewer_token()
    while after:
        page = await access.engine(f"/v1/audit?after={after}", token)
        yield page["records"]
        after = page["after"] or ""


def _unix_ms(time: str) -> int:
    from datetime import datetime

    if not time:
        return 0
    try:
        return int(datetime.fromisoformat(time).timestamp() * 1000)
    except ValueError as error:
        raise CommandFailed(Exit.USAGE, "--since: a time such as 2026-01-31T09:00:00Z") from error


__all__ = ["app", "cloud_event", "export", "verify"]
