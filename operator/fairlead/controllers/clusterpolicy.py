"""ClusterPolicies: looked at, and counted where they bind. Their copies are part of each Engine's status.

What their rules did, each Engine's status says of its namespace. Here it is summed up, by what is new in there: so the
sum keeps what Engines said that are gone, and does not fall when one begins anew.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from fairlead.api.clusterpolicy import MOST_NAMESPACES, ClusterPolicy
from fairlead.api.policy import PolicyCalls
from fairlead.api.reasons import ReadyReason
from fairlead.controllers.plan import Object, Plan, Verdict, invalid, listed, parse
from fairlead.errors import InvalidSpec
from fairlead.policy.clusterwide import as_policy, selects
from fairlead.policy.rules import problems

COUNTS_SECONDS = 10.0
"""Counts that changed wait so long for others: a ClusterPolicy's status is not written for each of its Engines."""

COUNTED = tuple(field.alias or name for name, field in PolicyCalls.model_fields.items())
A_LOT = 10**15
"""No honest count is larger; what a stolen engine says never becomes what the API server cannot hold."""


def plan(obj: Object, *, namespaces: Mapping[str, Mapping[str, str]], engines: Iterable[Object]) -> Plan:
    """Return what a ClusterPolicy's status says.

    Args:
        obj: the ClusterPolicy.
        namespaces: the labels of each namespace that has an Engine.
        engines: these Engines.
    """
    status: dict[str, Any] = counts(obj, engines)
    try:
        policy = parse(ClusterPolicy, obj)
    except InvalidSpec as error:
        return Plan(verdict=invalid(error), status=status)
    count = sum(selects(policy.spec.namespace_selector, labels) for labels in namespaces.values())
    status["namespaces"] = count
    if wrong := problems(as_policy(policy)):
        message = listed([f"{finding.path}: {finding.message}" for finding in wrong])
        return Plan(verdict=Verdict(False, ReadyReason.INVALID_SPEC, message, stalled=True), status=status)
    mode = " in Audit mode: nothing is denied" if policy.spec.mode == "Audit" else ""
    return Plan(verdict=Verdict(True, ReadyReason.READY, f"binds {count} namespaces{mode}"), status=status)


def counts(obj: Object, engines: Iterable[Object]) -> dict[str, Any]:
    """Return {calls, byNamespace}: what stands in the status, and what Engines have counted since.

    An Engine that says less than it did has begun anew: all that it says is new.
    """
    status = obj.get("status") or {}
    known = {row["engine"]: row for row in status.get("byNamespace") or ()}
    total, rows = Counter(status.get("calls") or {}), []
    said = sorted(_said(obj, engines, known), key=lambda row: (row["engine"] not in known, row["namespace"]))
    for row in said[:MOST_NAMESPACES]:
        before = known.get(row["engine"], {})
        if any(row[what] < before.get(what, 0) for what in COUNTED):
            before = {}
        total.update({what: row[what] - before.get(what, 0) for what in COUNTED})
        rows.append(row)
    rows.sort(key=lambda row: str(row["namespace"]))
    return {"calls": {what: min(total[what], A_LOT) for what in COUNTED}, "byNamespace": rows}


def _said(obj: Object, engines: Iterable[Object], known: Mapping[str, Object]) -> Iterator[Object]:
    """Yield a row of each Engine: what it says now, else what it said last."""
    for engine in engines:
        head = engine["metadata"]
        rows = (row for row in reported(engine) if row["uid"] == obj["metadata"]["uid"])
        if row := next(rows, known.get(head["uid"])):
            found = {what: min(row.get(what, 0), A_LOT) for what in COUNTED}
            yield {"namespace": head["namespace"], "engine": head["uid"]} | found


def reported(engine: Object | None) -> list[Object]:
    """Return what an Engine says that ClusterPolicies did."""
    return list(((engine or {}).get("status") or {}).get("clusterPolicyCalls") or ())
