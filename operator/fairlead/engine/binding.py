"""Which Policies bind an open run now, and what that leaves it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from fairlead.api.policy import Policy
from fairlead.api.workflow import Limits
from fairlead.engine.seams import Resources
from fairlead.flow.journal import Draft, EntryKind
from fairlead.flow.left import left_of
from fairlead.policy.budgets import limits_within
from fairlead.policy.rules import binding

if TYPE_CHECKING:
    from fairlead.engine.log import RunLog


def labels_now(log: RunLog, resources: Resources) -> Mapping[str, str] | None:
    """Return the labels of the run's Workflow as it stands now, None if it is gone."""
    name = log.state.accepted.workflow if log.state.accepted is not None else ""
    workflow = resources.workflows.get(name)
    return workflow.metadata.labels if workflow is not None else None


def policies_of(log: RunLog, resources: Resources) -> tuple[Policy, ...]:
    """Return the Policies whose rules bind the run, by the labels that its Workflow had, or has."""
    frozen = log.state.accepted.labels if log.state.accepted is not None else {}
    return binding(resources.policies.values(), labels_now(log, resources), frozen=frozen)


def limits_of(log: RunLog, resources: Resources) -> Limits:
    """Return what the run may use, by itself and by the Policies that bind it."""
    return limits_within(log.plan.limits, policies_of(log, resources))


def telling(log: RunLog, resources: Resources, drafts: Iterable[Draft]) -> list[Draft]:
    """Return entries of which those that ask people say what the run has left. It is no part of what they approve."""
    return [_with_budget(draft, log, resources) for draft in drafts]


def _with_budget(draft: Draft, log: RunLog, resources: Resources) -> Draft:
    if draft.kind is not EntryKind.APPROVAL_REQUESTED:
        return draft
    left = left_of(limits_of(log, resources), log.state.usage)
    return replace(draft, data={**draft.data, "spec": {**draft.data["spec"], "budgetLeft": left}})
