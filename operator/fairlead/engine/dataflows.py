"""What the data of Workflows may come to, before anything runs: computed once, until something is declared anew."""

from __future__ import annotations

from fairlead.api.tool import Tool
from fairlead.api.workflow import Workflow
from fairlead.engine.seams import Resources
from fairlead.flow.worst import Leak, worst_of
from fairlead.policy.decision import Breach
from fairlead.policy.flows import forbidden_before
from fairlead.policy.rules import binding

SHOWN = 5

Declared = tuple[str, str, int]


class DataFlows:
    """Knows the leaks of each Workflow as it stands now."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._found: dict[str, tuple[Declared, tuple[Leak, ...]]] = {}
        self._all: frozenset[Declared] = frozenset()

    def changed(self) -> None:
        """Take note that something changed: a Tool or a Workflow may be part of any Workflow's flow, a status not."""
        declared: list[Tool | Workflow] = [*self._resources.tools.values(), *self._resources.workflows.values()]
        now = frozenset(_declaration(one) for one in declared)
        if now != self._all:
            self._all = now
            self._found.clear()

    def leaks(self, workflow: Workflow) -> tuple[Leak, ...]:
        """Return where untrusted and confidential data may leave together."""
        name, declared = workflow.metadata.name, _declaration(workflow)
        known = self._found.get(name)
        if known is None or known[0] != declared:
            found = worst_of(workflow, self._resources.tools, self._resources.workflows)
            known = self._found[name] = (declared, tuple(found.leaks))
        return known[1]

    def breaches(self, workflow: Workflow) -> list[Breach]:
        """Return the rules by which no run of a Workflow may begin, and the first leaks."""
        policies = binding(self._resources.policies.values(), workflow.metadata.labels)
        leaks = self.leaks(workflow) if forbidden_before(policies) else ()
        return forbidden_before(policies, told(leaks)) if leaks else []


def _declaration(obj: Workflow | Tool) -> Declared:
    """Return what tells whether a person changed an object; files have no generations, and do not change."""
    return type(obj).__name__, obj.metadata.uid or obj.metadata.name, obj.metadata.generation


def told(leaks: tuple[Leak, ...]) -> str:
    """Return leaks as one message."""
    more = f"; and {len(leaks) - SHOWN} more" if len(leaks) > SHOWN else ""
    return "; ".join(f"{leak.path}: {leak}" for leak in leaks[:SHOWN]) + more
