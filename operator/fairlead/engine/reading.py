"""A run read back from its journal: after a restart, at the end of a park, or to say again how it ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fairlead.engine.plans import Plans
from fairlead.engine.store import Store
from fairlead.flow.journal import Entry, RunUid
from fairlead.flow.plan import Plan
from fairlead.flow.state import RunState, apply, new_state


@dataclass(frozen=True, slots=True)
class ReadBack:
    """What the store knows of a run. `plan` is None when the run was never accepted."""

    entries: Sequence[Entry]
    state: RunState
    plan: Plan | None


def folded(entries: Sequence[Entry]) -> RunState:
    """Return the state after these entries."""
    state = new_state()
    for entry in entries:
        state = apply(state, entry)
    return state


async def read_back(store: Store, plans: Plans, uid: RunUid) -> ReadBack:
    """Load and fold a run's journal.

    Raises:
        StoreError: the store cannot be read, or a payload is missing.
        InvalidSpec: the frozen revision is missing.
        ValueError: the journal holds what this version does not know.
    """
    entries = await store.load(uid)
    state = folded(entries)
    accepted = state.accepted
    return ReadBack(entries, state, await plans.of(accepted.workflow, accepted.revision) if accepted else None)
