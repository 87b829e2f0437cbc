"""Frozen revisions: what a run executes is the Workflow as it stood at acceptance, found by its digest (G6)."""

from __future__ import annotations

from collections import OrderedDict

from fairlead.api.canonical import digest
from fairlead.api.workflow import Workflow, WorkflowSpec
from fairlead.engine.definitions import frozen_spec
from fairlead.engine.store import Store
from fairlead.errors import InvalidSpec
from fairlead.flow.plan import Plan, compile_plan

CACHED_PLANS = 256


class Plans:
    """Compiled plans by revision; the store keeps their text."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._plans: OrderedDict[str, Plan] = OrderedDict()
        self._latest: dict[str, tuple[Workflow, Plan]] = {}

    async def freeze(self, workflow: Workflow) -> Plan:
        """Return the plan of a Workflow as it stands, and keep its revision for as long as the store lives."""
        name = workflow.metadata.name
        known = self._latest.get(name)
        if known is not None and known[0] is workflow:
            return known[1]
        spec = frozen_spec(workflow)
        revision = digest(spec)
        await self._store.put_revision(revision, spec)
        plan = self._compiled(name, revision, workflow.spec)
        self._latest[name] = (workflow, plan)
        return plan

    async def of(self, workflow: str, revision: str) -> Plan:
        """Return the plan of a frozen revision.

        Raises:
            InvalidSpec: the store does not have it, or its text means nothing to this version.
        """
        if revision in self._plans:
            return self._plans[revision]
        spec = await self._store.revision(revision)
        if spec is None:
            raise InvalidSpec("", f"the revision {revision} is missing")
        return self._compiled(workflow, revision, WorkflowSpec.model_validate(spec))

    def _compiled(self, name: str, revision: str, spec: WorkflowSpec) -> Plan:
        plan = self._plans[revision] = compile_plan(name, revision, spec)
        while len(self._plans) > CACHED_PLANS:
            self._plans.popitem(last=False)
        return plan
