"""The entries that begin a run's journal, or end it from outside. Pure.

Ends from outside: the store does not know what the cluster says has happened (StateLost), or the object is finished
already and wins.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from fairlead.api.canonical import canonical_json
from fairlead.api.meta import Condition
from fairlead.api.reasons import RunReason
from fairlead.api.run import WorkflowRun
from fairlead.engine.acceptance import Accept
from fairlead.engine.schedules import scheduled_ms
from fairlead.flow.journal import SEMANTICS, Draft, EntryKind, RunUid
from fairlead.flow.labels import Label, of_input
from fairlead.flow.plan import Plan

NO_ACCOUNT = "fairlead-none"
"""Who a Workflow without an account acts as: an account without permissions."""


def accepted_draft(
    run: WorkflowRun, accept: Accept, plan: Plan, *, goes_on_from: tuple[RunUid | None, Label], now_ms: int
) -> Draft:
    """Return the entry that freezes what the run executes, with what, as whom, until when.

    Args:
        run: the object.
        accept: the Workflow and the input.
        plan: its revision.
        goes_on_from: the UID of the run that it goes on from, where its spec names one, and the label of what it takes
            over from that as its input.
        now_ms: Unix ms.
    """
    workflow, (earlier, taken) = accept.workflow, goes_on_from
    seconds = min(run.spec.timeout_seconds or plan.limits.timeout_seconds, plan.limits.timeout_seconds)
    parent = run.spec.parent
    seconds = min(seconds, parent.limits.timeout_seconds) if parent is not None else seconds
    created = run.metadata.creation_timestamp
    data: dict[str, Any] = {
        "workflow": workflow.metadata.name,
        "namespace": run.metadata.namespace,
        "name": run.metadata.name,
        "revision": plan.revision,
        "generation": workflow.metadata.generation,
        "semantics": SEMANTICS,
        "input": accept.value,
        "account": workflow.spec.service_account_name or NO_ACCOUNT,
        "createdAt": int(datetime.fromisoformat(created).timestamp() * 1000) if created else now_ms,
        "deadline": now_ms + seconds * 1000,
    }
    due_ms = scheduled_ms(run, workflow)
    if due_ms is not None:
        data["scheduledAt"] = due_ms
    if workflow.metadata.labels:
        data["workflowLabels"] = dict(workflow.metadata.labels)
    if accept.key:
        data["concurrencyKey"] = accept.key
    if run.spec.requested_by:
        data["requestedBy"] = run.spec.requested_by
    data["inputLabel"] = str(of_input(workflow, parent.label if parent is not None else None).join(taken))
    if parent is not None:
        data["parent"] = parent.to_yaml_dict()
    if run.spec.retry_from is not None:
        data["retryFrom"] = run.spec.retry_from.to_yaml_dict() | {"uid": earlier}
    return Draft(EntryKind.RUN_ACCEPTED, data=data)


def lost_draft(published: Mapping[str, Any], *, store_id: str, sequence: int | None) -> Draft | None:
    """Return the end of a run of which the cluster knows more than this store; None when it does not.

    Args:
        published: the run's status in the cluster.
        store_id: this store.
        sequence: how far this store knows the run; None if not at all.
    """
    store = published.get("store")
    if not store:
        return None
    if store["id"] != store_id:
        message = f"the run was recorded in store {store['id']}, which is not this one ({store_id})"
    elif sequence is None or store["sequence"] > sequence:
        message = f"{store['sequence']} entries were recorded, the store has {sequence or 0}"
    else:
        return None
    return Draft(EntryKind.RUN_FAILED, data={"reason": RunReason.STATE_LOST.value, "message": message})


def mirrored_draft(published: Mapping[str, Any]) -> Draft:
    """Return the terminal entry that says what a finished object says, without an output that cannot be recorded."""
    conditions = [Condition.model_validate(condition) for condition in published.get("conditions", ())]
    succeeded = next((condition for condition in conditions if condition.type == "Succeeded"), None)
    if succeeded is not None and succeeded.status == "True":
        output = published.get("output")
        try:
            canonical_json({"data": {"output": output}})
        except TypeError:
            output = None
        return Draft(EntryKind.RUN_SUCCEEDED, data={"output": output})
    if succeeded is not None and succeeded.reason == RunReason.CANCELLED:
        return Draft(EntryKind.RUN_CANCELLED, data={"message": succeeded.message})
    reason = succeeded.reason if succeeded is not None else RunReason.STATE_LOST.value
    message = succeeded.message if succeeded is not None else "the object says that the run is finished"
    return Draft(EntryKind.RUN_FAILED, data={"reason": reason, "message": message})


def cancel_draft(why: str) -> Draft:
    """Return the entry after which a run starts nothing more."""
    return Draft(EntryKind.CLOSING, data={"reason": RunReason.CANCELLED.value, "message": why})


def never_begun_draft(why: str) -> Draft:
    """Return the end of a child run that nobody waits for any more before it was accepted."""
    return Draft(EntryKind.RUN_CANCELLED, data={"message": why})


def overdue_draft() -> Draft:
    """Return the end of a run that met internal errors until its deadline had passed."""
    message = "past its deadline after internal errors; see the engine's log"
    return Draft(EntryKind.RUN_FAILED, data={"reason": RunReason.TIMEOUT.value, "message": message})
