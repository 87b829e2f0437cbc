"""Tools: is the contract well-formed, and does the server that was asked for run. Reachability is the engine's."""

from __future__ import annotations

from fairlead.api.reasons import ReadyReason
from fairlead.api.tool import Tool
from fairlead.controllers.plan import Object, Plan, Verdict, invalid, listed, parse
from fairlead.controllers.server import no_server, plan_server
from fairlead.controllers.settings import EngineImage
from fairlead.errors import InvalidSpec
from fairlead.policy.contract import contract_problems


def plan(obj: Object, *, guard: EngineImage | None, deployment: Object | None, pods: list[Object]) -> Plan:
    """Return what a Tool needs: its server, if it asks for one.

    Args:
        obj: the Tool.
        guard: what lets its server start, see `plan_server`.
        deployment: its Deployment as last seen.
        pods: the Deployment's pods, while it is not available.
    """
    try:
        tool = parse(Tool, obj)
    except InvalidSpec as error:
        return Plan(verdict=invalid(error))
    if problems := contract_problems(tool):
        return Plan(verdict=invalid(InvalidSpec("", listed([str(problem) for problem in problems]))))
    if tool.spec.mcp.server is not None:
        return plan_server("tool", obj, tool.spec.mcp.server, guard=guard, deployment=deployment, pods=pods)
    return Plan(
        verdict=Verdict(True, ReadyReason.READY, "the contract is well-formed"),
        delete=no_server("tool", obj, exists=deployment is not None),
    )
