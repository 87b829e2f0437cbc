"""Which keys a change concerns: the one table of who depends on whom. Pure."""

from __future__ import annotations

from pydantic import ValidationError

from fairlead.api.workflow import WorkflowSpec
from fairlead.controllers.children import COMPONENT, ENGINE_COMPONENT, OBJECT_NAME
from fairlead.controllers.clusterpolicy import reported
from fairlead.controllers.engine_objects import ENGINE
from fairlead.controllers.observed import Observed, name_of
from fairlead.controllers.plan import Object, conditions_of
from fairlead.controllers.queue import Key
from fairlead.flow.children import workflows_of
from fairlead.kube.types import (
    CLUSTER_POLICIES,
    DEPLOYMENTS,
    ENGINES,
    MODELS,
    NAMESPACES,
    NETWORK_POLICIES,
    POLICIES,
    STATEFUL_SETS,
    TOOLS,
    WORKFLOWS,
    ResourceType,
)

_COMPONENTS = {"tool": TOOLS, "model": MODELS, ENGINE_COMPONENT: ENGINES}


def affected(rt: ResourceType, before: Object | None, after: Object | None, observed: Observed) -> set[Key]:
    """Return the keys to reconcile when an object changed.

    Status changes of declared kinds do not count, but for which of an Engine's pods serves: the operator wrote them, or
    the engine did. What a status lost otherwise comes back with the next resync.

    Args:
        rt: the object's type.
        before: the object before, None if it is new.
        after: the object now, None if it was deleted.
        observed: what else there is.
    """
    obj = after or before
    if obj is None:
        return set()
    namespace, name = name_of(obj)
    if rt == NAMESPACES:
        return _labelled(before, after, observed)
    if rt == STATEFUL_SETS:
        return _owner(obj, namespace)
    if rt in (DEPLOYMENTS, NETWORK_POLICIES):  # the Engine tells how far its pods are locked in
        has_engine = observed.get(ENGINES, namespace, ENGINE) is not None
        owners = _owner(obj, namespace) | _owner(before or obj, namespace)  # labels may go with the change
        return owners | ({Key(ENGINES.plural, namespace, ENGINE)} if has_engine else set())
    if rt == ENGINES:
        changed = _declaration(before) != _declaration(after)
        return (
            ({Key(rt.plural, namespace, name), *_servers(observed, namespace)} if changed else set())
            | (_all(WORKFLOWS, observed, namespace) if _readiness(before) != _readiness(after) else set())
            | ({Key(rt.plural, namespace, name)} if _serving(before) != _serving(after) else set())
        )
    if _declaration(before) == _declaration(after):
        return set()
    if rt == CLUSTER_POLICIES:
        return {Key(rt.plural, "", name), *_engines(observed)}
    keys = {Key(rt.plural, namespace, name), Key(ENGINES.plural, namespace, ENGINE)}
    if rt == WORKFLOWS:
        return keys | _callers(observed, namespace, name)
    return keys | (_all(WORKFLOWS, observed, namespace) if rt in (TOOLS, MODELS) else set())


def counted(rt: ResourceType, before: Object | None, after: Object | None) -> set[Key]:
    """Return the ClusterPolicies of which an Engine counted more, or counts no more: they can wait a while."""
    if rt != ENGINES:
        return set()
    rows = [{row["uid"]: row for row in reported(side)} for side in (before, after)]
    changed = (uid for uid in rows[0].keys() | rows[1].keys() if rows[0].get(uid) != rows[1].get(uid))
    return {Key(CLUSTER_POLICIES.plural, "", (rows[1].get(uid) or rows[0][uid])["name"]) for uid in changed}


def all_keys(observed: Observed) -> set[Key]:
    """Return every key there is, and the Engine of every namespace that has a Fairlead object."""
    keys: set[Key] = set()
    for _, name in observed.names(CLUSTER_POLICIES):
        keys.add(Key(CLUSTER_POLICIES.plural, "", name))
    for rt in (WORKFLOWS, TOOLS, MODELS, POLICIES, ENGINES):
        for namespace, name in observed.names(rt):
            keys |= {Key(rt.plural, namespace, name), Key(ENGINES.plural, namespace, ENGINE)}
    return keys


def _owner(child: Object, namespace: str) -> set[Key]:
    """Return the key of what a StatefulSet or Deployment was made for."""
    labels = child["metadata"].get("labels") or {}
    rt = _COMPONENTS.get(labels.get(COMPONENT, ""))
    name = labels.get(OBJECT_NAME)
    return {Key(rt.plural, namespace, name)} if rt is not None and name else set()


def _engines(observed: Observed) -> set[Key]:
    return {Key(ENGINES.plural, namespace, name) for namespace, name in observed.names(ENGINES)}


def _labelled(before: Object | None, after: Object | None, observed: Observed) -> set[Key]:
    """Return what a namespace's labels matter to: its Engine, and how many namespaces a ClusterPolicy binds."""
    obj = after or before
    labels = [(side or {}).get("metadata", {}).get("labels") for side in (before, after)]
    if obj is None or labels[0] == labels[1]:
        return set()
    policies = {Key(CLUSTER_POLICIES.plural, "", name) for _, name in observed.names(CLUSTER_POLICIES)}
    return policies | {Key(ENGINES.plural, obj["metadata"]["name"], ENGINE)}


def _servers(observed: Observed, namespace: str) -> set[Key]:
    """Return what may have a server: the Engine says how servers start."""
    return _all(TOOLS, observed, namespace) | _all(MODELS, observed, namespace)


def _all(rt: ResourceType, observed: Observed, namespace: str) -> set[Key]:
    return {Key(rt.plural, namespace, found["metadata"]["name"]) for found in observed.of(rt, namespace)}


def _callers(observed: Observed, namespace: str, name: str) -> set[Key]:
    """Return the Workflows that run this one as a child. What is not well-formed runs nothing."""
    return {
        Key(WORKFLOWS.plural, namespace, found["metadata"]["name"])
        for found in observed.of(WORKFLOWS, namespace)
        if name in _children(found)
    }


def _children(workflow: Object) -> set[str]:
    try:
        return workflows_of(WorkflowSpec.model_validate(workflow.get("spec")))
    except ValidationError:
        return set()


def _declaration(obj: Object | None) -> tuple[object, ...]:
    """Return what tells whether a person changed the object."""
    if obj is None:
        return ()
    metadata = obj["metadata"]
    return (metadata.get("uid"), metadata.get("generation"), metadata.get("deletionTimestamp"))


def _serving(engine: Object | None) -> str:
    """Return the pod that owns an Engine's store, as it said."""
    return str(((engine or {}).get("status") or {}).get("owner") or "")


def _readiness(obj: Object | None) -> tuple[object, ...]:
    if obj is None:
        return ()
    ready = (condition for condition in conditions_of(obj) if condition.type == "Ready")
    return (
        obj["metadata"].get("generation"),
        *((condition.status, condition.message, condition.observed_generation) for condition in ready),
    )
