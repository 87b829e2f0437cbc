"""One run's way between its journal and its driver: begin it, read it back, drive it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from fairlead.api.policy import Policy
from fairlead.api.run import InputFrom, RetryFrom
from fairlead.api.workflow import Workflow
from fairlead.engine.acceptance import Accept
from fairlead.engine.approvals import Approvals
from fairlead.engine.beginning import accepted_draft
from fairlead.engine.children import Children
from fairlead.engine.counts import Counts
from fairlead.engine.dataflows import DataFlows
from fairlead.engine.demands import demanded
from fairlead.engine.driver import Caller, drive
from fairlead.engine.earlier import EarlierRuns
from fairlead.engine.inputs import read_input
from fairlead.engine.log import RunLog
from fairlead.engine.plans import Plans
from fairlead.engine.reading import ReadBack, read_back
from fairlead.engine.reporter import Reporter
from fairlead.engine.roster import Run
from fairlead.engine.seams import Cluster, Resources
from fairlead.engine.store import Store
from fairlead.errors import InvalidSpec
from fairlead.flow.children import bounded
from fairlead.flow.journal import Draft, Entry
from fairlead.flow.plan import Plan
from fairlead.flow.recover import open_calls, outcome_unknown, recover
from fairlead.flow.state import RunState, new_state
from fairlead.policy.budgets import runs_over, windows_of
from fairlead.policy.decision import Breach
from fairlead.policy.rules import binding

_log = logging.getLogger(__name__)


class Runner:
    """Knows how to begin, load and drive a run; `runs.py` knows when. `flows` is what data may come to."""

    def __init__(
        self,
        store: Store,
        *,
        resources: Resources,
        cluster: Cluster | None,
        gate: Caller,
        children: Children,
        approvals: Approvals,
        reporter: Reporter,
        clock: Callable[[], int],
        counts: Counts,
    ) -> None:
        self.flows = DataFlows(resources)
        self._cluster = cluster
        self._store = store
        self._resources = resources
        self._gate = gate
        self._children = children
        self._approvals = approvals
        self._reporter = reporter
        self._clock = clock
        self._counts = counts
        self._plans = Plans(store)
        self._earlier = EarlierRuns(store, self._plans)

    async def read_input(self, run: Run, source: InputFrom | RetryFrom, *, grace_ms: int) -> None:
        """Read the input from where it stands; what came of it is `run.given`."""
        if isinstance(source, RetryFrom):
            assert run.obj is not None
            run.given, run.retries, run.taken = await self._earlier.given(source, run.obj.spec)
            return
        until_ms = run.seen_at_ms + grace_ms
        run.given = await read_input(source, self._cluster, until_ms=until_ms, now_ms=self._clock())

    def over_budget(self, workflow: Workflow) -> str:
        """Return which Policy's budget leaves no room for one more run of a Workflow; "" when all do."""
        return _enforced(self._over(workflow))

    def unsafe(self, workflow: Workflow) -> str:
        """Return which Policy accepts no run of a Workflow because of where its data may go; "" for none."""
        return _enforced(self.flows.breaches(workflow))

    def _over(self, workflow: Workflow) -> Iterator[Breach]:
        return runs_over(self._binding(workflow), self._store.spent, self._clock())

    async def planned(self, run: Run, accept: Accept) -> tuple[Draft, Plan]:
        """Freeze the Workflow as it stands; return the run's first entry and its plan."""
        assert run.obj is not None
        plan = await self._plans.freeze(accept.workflow)
        goes_on = (run.retries, run.taken)
        first = accepted_draft(run.obj, accept, plan, goes_on_from=goes_on, now_ms=self._clock())
        return first, await self._bounded(plan, first.data.get("parent"), first.data.get("retryFrom"))

    def begin(self, run: Run, accept: Accept, first: Draft, plan: Plan) -> None:
        """Accept a run: it is known from now on, and that is in one commit with its first entry."""
        self._store.begin(
            run.uid,
            namespace=self._resources.namespace,
            name=run.name,
            workflow=run.workflow,
            key=accept.key,
            deadline_at=first.data["deadline"],
        )
        run.log = self._log(run, plan, account=first.data["account"], state=new_state())
        found = [*self._over(accept.workflow), *self.flows.breaches(accept.workflow)]
        audited = [breach for breach in found if not breach.enforced]
        would_deny = {"wouldDeny": [str(breach) for breach in audited]} if audited else {}
        run.log.append(replace(first, data={**first.data, **would_deny}))
        self._counts.audited(audited)
        for window in windows_of(self._binding(accept.workflow), self._clock()):
            self._store.spend(window, runs=1)
        run.key, run.deadline_ms = accept.key, first.data["deadline"]

    def _binding(self, workflow: Workflow) -> Sequence[Policy]:
        return binding(self._resources.policies.values(), workflow.metadata.labels)

    async def load(self, run: Run) -> RunLog:
        """Read a run back, and record what is unknown to be unknown, what became of its children and was decided.

        Raises:
            StoreError: the store cannot be read.
            InvalidSpec: the journal does not begin with an acceptance, or its revision is missing.
        """
        known = await read_back(self._store, self._plans, run.uid)
        accepted = known.state.accepted
        if accepted is None or known.plan is None:
            raise InvalidSpec("", "the journal does not begin with an acceptance")
        run.deadline_ms = accepted.deadline
        plan = await self._bounded(known.plan, accepted.parent, accepted.retry_from)
        log = run.log = self._log(run, plan, account=accepted.account, state=known.state)
        log.append(*recover(known.state))
        await self._children.settle(log)
        self._approvals.settle(log)
        self._reporter.recovered(known.entries)
        self._reporter.goes_on(run)
        return log

    async def drive(self, run: Run) -> tuple[int | None, RunLog]:
        """Drive a run until it ends (None) or parks (until which Unix ms)."""
        log = run.log or await self.load(run)
        self.heed(run, log)
        return await drive(log, gate=self._gate, resources=self._resources, clock=self._clock), log

    def heed(self, run: Run, log: RunLog) -> None:
        """Record what is asked of a run and the journal lacks: signals, a pause or its end, a cancellation."""
        run.heeded = self._children.asked_of(run)
        drafts = demanded(run.heeded, log.state, cancel=run.cancel)
        if drafts:
            log.append(*drafts)

    async def end(self, run: Run, draft: Draft) -> Sequence[Entry]:
        """End a run by one entry, whatever it was doing; durable on return. A run that ended stays as it is.

        Of calls that were under way it is recorded that nobody knows what came of them.
        """
        unknown = await self._unknown(run) if self._store.knows(run.uid) else []
        if not self._store.knows(run.uid):  # no await from here to its first entry
            self._store.begin(run.uid, namespace=self._resources.namespace, name=run.name, workflow=run.workflow)
        entries = self._store.append(run.uid, [*unknown, draft])
        await self._store.durable()
        return entries

    async def _unknown(self, run: Run) -> list[Draft]:
        """Return the outcomes of a run's open calls; none of a journal that cannot be understood."""
        try:
            state = run.log.state if run.log is not None else (await self.read(run)).state
        except Exception:
            if self._store.failed.is_set():
                raise
            _log.exception("a journal cannot be read back", extra={"run": run.uid})
            return []
        if state.terminal is not None:
            return []
        return [outcome_unknown(path, state.steps[path].attempt, call) for path, call in open_calls(state)]

    async def read(self, run: Run) -> ReadBack:
        """Return what the store knows of a run."""
        return await read_back(self._store, self._plans, run.uid)

    async def _bounded(self, plan: Plan, parent: Mapping[str, Any] | None, retry: Mapping[str, Any] | None) -> Plan:
        """Return the plan of a run: within what its parent had left, and with what an earlier run has done."""
        plan = bounded(plan, parent)
        return plan if retry is None else await self._earlier.going_on(plan, retry)

    def _log(self, run: Run, plan: Plan, *, account: str, state: RunState) -> RunLog:
        namespace = self._resources.namespace
        return RunLog(
            self._store,
            uid=run.uid,
            namespace=namespace,
            name=run.name,
            account=account,
            plan=plan,
            state=state,
            on_told=lambda: self._reporter.goes_on(run),
        )


def _enforced(breaches: Iterable[Breach]) -> str:
    return next((str(breach) for breach in breaches if breach.enforced), "")
