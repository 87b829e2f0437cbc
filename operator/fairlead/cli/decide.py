"""`fairlead approve` and `fairlead deny`: decide what a run asks people for, in the name of who is connected."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fairlead.cli.access import Context, Namespace

if TYPE_CHECKING:
    from fairlead.cli.access import Access

Name = Annotated[str, typer.Argument(metavar="APPROVAL", help="See `kubectl get approvals`.")]
Reason = Annotated[str, typer.Option("--reason", "-r", help="Why: the run, and a model that asked, are told.")]


def approve(name: Name, reason: Reason = "", namespace: Namespace = "", context: Context = "") -> None:
    """Approve what a run asks for; it goes on when enough people have."""
    _decide("Approve", name, reason, namespace, context)
    print(f"approval.fairlead.dev/{name} approved")


def deny(name: Name, reason: Reason = "", namespace: Namespace = "", context: Context = "") -> None:
    """Deny what a run asks for; one denial is enough."""
    _decide("Deny", name, reason, namespace, context)
    print(f"approval.fairlead.dev/{name} denied")


def _decide(decision: Literal["Approve", "Deny"], name: str, reason: str, namespace: str, context: str) -> None:
    from fairlead.cli.access import on_cluster

    async def work(access: Access) -> None:
        from fairlead.kube.types import APPROVALS

        said = {"by": await access.user(), "decision": decision, "reason": reason}
        await access.append(APPROVALS, name, "decisions", said)

    on_cluster(context, namespace, work)
