"""The engine's part of a Workflow's status: Authorized, the runs, the revision that runs get now."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from fairlead.api.canonical import digest
from fairlead.api.conditions import only_condition, timestamp
from fairlead.api.policy import Policy
from fairlead.api.reasons import AuthorizedReason, DataFlowReason, TriggersReason
from fairlead.api.workflow import Workflow
from fairlead.engine.authorized import Authorizations
from fairlead.engine.credentials import triggers_ready
from fairlead.engine.dataflows import DataFlows, told
from fairlead.engine.roster import Roster
from fairlead.engine.schedules import next_schedule_ms
from fairlead.engine.seams import Resources
from fairlead.engine.status import StatusWriter
from fairlead.flow.worst import Leak
from fairlead.policy.decision import Authorization
from fairlead.policy.rules import binding

_AUTHORIZED = {
    "Allowed": (True, AuthorizedReason.GRANTED),
    "Denied": (False, AuthorizedReason.MISSING_GRANTS),
    "Unavailable": (None, AuthorizedReason.AUTHORIZER_UNAVAILABLE),
}

_CONDITIONS = ("Authorized", "DataFlowSafe", "TriggersReady")
_READY = {TriggersReason.READY: True, TriggersReason.KEY_PENDING: None, TriggersReason.KEY_UNUSABLE: False}
_OWN = ("runs", "revision", "nextScheduleTime", "effectivePolicies")


def workflow_status(
    workflow: Workflow,
    authorization: Authorization,
    runs: Mapping[str, int],
    *,
    policies: Iterable[Policy] = (),
    leaks: tuple[Leak, ...] = (),
    triggers: tuple[TriggersReason, str] | None = None,
    previous: Mapping[str, Any],
    now_ms: int,
) -> dict[str, Any]:
    """Return all fields of a Workflow's status that the engine owns.

    Args:
        workflow: as it stands now.
        authorization: what was found out about its account.
        runs: `status.runs`.
        policies: those of the namespace.
        leaks: where its data may leave.
        triggers: whether its HTTP triggers have their keys; None if they need none.
        previous: the status as it stands; the transition time is kept from it.
        now_ms: Unix ms.
    """
    status, reason = _AUTHORIZED[authorization.verdict]
    conditions = only_condition(
        previous,
        "Authorized",
        status,
        reason=reason,
        message=authorization.message,
        now=timestamp(now_ms),
        observed_generation=workflow.metadata.generation,
    )
    flow_reason = DataFlowReason.UNTRUSTED_TO_EXTERNAL if leaks else DataFlowReason.NOTHING_LEAKS
    conditions += only_condition(
        previous,
        "DataFlowSafe",
        not leaks,
        reason=flow_reason.value,
        message=told(leaks),
        now=timestamp(now_ms),
        observed_generation=workflow.metadata.generation,
    )
    if triggers is not None:
        conditions += only_condition(
            previous,
            "TriggersReady",
            _READY[triggers[0]],
            reason=triggers[0].value,
            message=triggers[1],
            now=timestamp(now_ms),
            observed_generation=workflow.metadata.generation,
        )
    next_ms = next_schedule_ms(workflow, now_ms=now_ms)
    bound = binding(policies, workflow.metadata.labels)
    effective = [{"name": policy.metadata.name, "mode": policy.spec.mode or "Enforce"} for policy in bound]
    return {
        "conditions": conditions,
        "runs": dict(runs),
        "revision": revision_of(workflow),
        **({"effectivePolicies": effective} if effective else {}),
    } | ({"nextScheduleTime": timestamp(next_ms)} if next_ms is not None else {})


def frozen_spec(workflow: Workflow) -> dict[str, Any]:
    """Return a Workflow's spec as it was written: what is frozen, and what the revision is the digest of."""
    return workflow.spec.model_dump(mode="json", by_alias=True, exclude_unset=True)


def revision_of(workflow: Workflow) -> str:
    """Return the digest of the Workflow's spec."""
    return digest(frozen_spec(workflow))


class WorkflowStatuses:
    """Marks Workflows whose status is out of date."""

    def __init__(
        self,
        resources: Resources,
        roster: Roster,
        authorizations: Authorizations,
        flows: DataFlows,
        statuses: StatusWriter,
        *,
        clock: Callable[[], int],
    ) -> None:
        """Take what a status is made of, and who writes it; `clock` gives Unix ms."""
        self._resources = resources
        self._roster = roster
        self._authorizations = authorizations
        self._flows = flows
        self._statuses = statuses
        self._clock = clock

    def mark_touched(self) -> None:
        """Mark every Workflow whose run counts changed, and those whose keys may have."""
        names, self._roster.touched = self._roster.touched, set()
        keyed = {
            name for name, one in self._resources.workflows.items() if one.spec.triggers and one.spec.triggers.http
        }
        for name in names | keyed:
            self.mark(name)

    def mark(self, name: str) -> None:
        """Mark one Workflow, if it exists and its account was looked at."""
        workflow = self._resources.workflows.get(name)
        if workflow is None or self._authorizations.of(name) is None:
            return
        published = workflow.status.model_dump(by_alias=True, exclude_none=True) if workflow.status else {}
        engines: dict[str, Any] = {key: published[key] for key in _OWN if key in published}
        engines["conditions"] = [c for c in published.get("conditions", ()) if c["type"] in _CONDITIONS]

        def compose(previous: Mapping[str, Any]) -> dict[str, Any]:
            current = self._resources.workflows.get(name, workflow)
            found = self._authorizations.of(name) or Authorization("Unavailable", message="being looked up again")
            runs, now_ms = self._roster.status(name), self._clock()
            policies = self._resources.policies.values()
            return workflow_status(
                current,
                found,
                runs,
                policies=policies,
                leaks=self._flows.leaks(current),
                triggers=triggers_ready(self._resources, current),
                previous=previous,
                now_ms=now_ms,
            )

        self._statuses.mark(workflow.metadata.uid, name, compose, published=engines)
