"""The ended runs that others go on from (`retryFrom`): found by name at acceptance, by UID from then on.

Their journals are read again whenever a run that goes on from one is loaded, and kept for it (`retention.py`). Where
such a journal is gone all the same, nothing more is taken over: what is left of the run is done.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from fairlead.api.reasons import RunReason
from fairlead.api.run import RetryFrom, WorkflowRunSpec
from fairlead.engine.acceptance import Given, Refuse, refuse
from fairlead.engine.plans import Plans
from fairlead.engine.reading import read_back
from fairlead.engine.store import Store
from fairlead.errors import InvalidSpec
from fairlead.flow.journal import RunUid
from fairlead.flow.labels import TRUSTED, Label
from fairlead.flow.plan import Plan
from fairlead.flow.reuse import going_on, past_of

_log = logging.getLogger(__name__)


class EarlierRuns:
    """Reads them back from the store."""

    def __init__(self, store: Store, plans: Plans) -> None:
        self._store = store
        self._plans = plans

    async def given(self, source: RetryFrom, spec: WorkflowRunSpec) -> tuple[Given, RunUid | None, Label]:
        """Return the input of a run that goes on from another, that one's UID, and the label of what is taken over.

        Without an input why there is none.

        Raises:
            StoreError: the store cannot be read.
        """
        row = await self._store.run_named(source.run)
        if row is None:
            return _refused(f"the engine knows no run {source.run}, or its journal was deleted")
        if row.workflow != spec.workflow:
            return _refused(f"{source.run} is a run of Workflow {row.workflow}, not of {spec.workflow}")
        if row.open:
            return _refused(f"{source.run} has not ended; cancel it, or wait")
        accepted = (await read_back(self._store, self._plans, row.uid)).state.accepted
        if not self._store.ended(row.uid):
            return _refused(f"the journal of {source.run} was deleted")
        if accepted is None:
            return _refused(f"{source.run} was never accepted: it has done nothing to go on from")
        if spec.input is not None:
            return spec.input, row.uid, TRUSTED
        return accepted.input, row.uid, accepted.label or TRUSTED

    async def going_on(self, plan: Plan, retry: Mapping[str, Any]) -> Plan:
        """Return the plan of a run that goes on from another, with what that one did.

        Args:
            plan: the plan of the run.
            retry: as it was frozen at acceptance: {run, uid, step?}.

        Raises:
            StoreError: the store cannot be read.
        """
        try:
            known = await read_back(self._store, self._plans, RunUid(retry["uid"]))
        except InvalidSpec:
            known = None
        if known is None or known.plan is None:
            _log.warning("the journal of the run %s is gone: nothing of it is taken over", retry["run"])
            return plan
        return going_on(plan, past_of(retry["run"], known.entries, known.plan), retry.get("step"))


def _refused(message: str) -> tuple[Refuse, None, Label]:
    return refuse(RunReason.INVALID_INPUT, f"spec.retryFrom.run: {message}"), None, TRUSTED
