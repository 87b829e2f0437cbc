"""One reconciliation: look at what was observed, let the kind's module plan, carry it out, write the status.

This is the only place of the operator that changes the cluster. Everything is idempotent and in an order that leaves
no gap: what must go goes first, rights and network rules come before the pods that they bind.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime

from fairlead.api.conditions import find_condition
from fairlead.api.reasons import NetworkReason, ReadyReason
from fairlead.controllers import clusterpolicy, engine, model, policy, tool, workflow
from fairlead.controllers.children import ENGINE_COMPONENT, selector
from fairlead.controllers.engine_objects import (
    ENGINE,
    ENGINE_NAME,
    mounted_secrets,
    networks,
)
from fairlead.controllers.network import isolation
from fairlead.controllers.observed import Observed, name_of
from fairlead.controllers.plan import MANAGER, Object, Plan, Said, Verdict, conditions_of, status_of
from fairlead.controllers.queue import Key
from fairlead.controllers.server import Component, is_available, is_server, network_of, server_name
from fairlead.controllers.settings import EngineImage, Settings
from fairlead.errors import Conflict, KubeError, NotFound, Unreachable
from fairlead.kube.client import Kube
from fairlead.kube.events import EventRecorder
from fairlead.kube.types import (
    CLUSTER_POLICIES,
    DEPLOYMENTS,
    ENGINES,
    MODELS,
    NAMESPACES,
    NETWORK_POLICIES,
    PODS,
    POLICIES,
    SERVICE_ACCOUNTS,
    STATEFUL_SETS,
    TOOLS,
    WORKFLOWS,
    ResourceType,
)
from fairlead.policy.clusterwide import copies

DECLARED = (WORKFLOWS, TOOLS, MODELS, POLICIES)
CHILDREN = (STATEFUL_SETS, DEPLOYMENTS)
WATCHED = (NAMESPACES, CLUSTER_POLICIES, *DECLARED, ENGINES, *CHILDREN, NETWORK_POLICIES)


class Reconciler:
    """Reconciles one key at a time; callers see to it that no two work on the same."""

    def __init__(
        self,
        kube: Kube,
        observed: Observed,
        settings: Settings,
        events: EventRecorder,
        *,
        clock: Callable[[], float],
    ) -> None:
        """Prepare.

        Args:
            kube: where changes go.
            observed: what reconciliations read; changed only by what is written here.
            settings: the operator's.
            events: for transitions.
            clock: monotonic seconds.
        """
        self.namespaces_with_runs: set[str] = set()
        self._kube = kube
        self._observed = observed
        self._settings = settings
        self._events = events
        self._clock = clock
        self._secrets_changed_at: dict[str, float] = {}
        self._planners: dict[str, tuple[ResourceType, Callable[[Object], Awaitable[Plan]]]] = {
            WORKFLOWS.plural: (WORKFLOWS, self._plan_workflow),
            TOOLS.plural: (TOOLS, self._plan_tool),
            MODELS.plural: (MODELS, self._plan_model),
            POLICIES.plural: (POLICIES, self._plan_policy),
            CLUSTER_POLICIES.plural: (CLUSTER_POLICIES, self._plan_cluster_policy),
            ENGINES.plural: (ENGINES, self._plan_engine),
        }

    async def reconcile(self, key: Key) -> float | None:
        """Make it so, and return after how many seconds to look again even if nothing changes.

        Raises:
            KubeError: it could not be done now; the status says so where the server refused it.
        """
        rt, planner = self._planners[key.kind]
        obj = self._observed.get(rt, key.namespace, key.name)
        if obj is None:
            if rt is ENGINES and key.name == ENGINE and self._needs_engine(key.namespace):
                await self._carry_out(plan=engine.plan_missing(key.namespace, defaults=self._settings.engine_defaults))
            return None
        if obj["metadata"].get("deletionTimestamp"):
            return None  # what belongs to it goes with it
        if rt.namespaced and not self._settings.serves(key.namespace):
            message = "Fairlead builds nothing in this namespace; use another"
            await self._write_status(
                rt, obj, Verdict(False, ReadyReason.RECONCILE_FAILED, message, stalled=True), Plan()
            )
            return None
        plan = await planner(obj)
        try:
            settled = await self._carry_out(plan)
        except (Conflict, Unreachable):
            raise
        except KubeError as error:
            failed = Verdict(False, ReadyReason.RECONCILE_FAILED, error.message)
            await self._write_status(rt, obj, failed, plan)
            raise
        if not settled:
            return None  # the verdict is about what stood there before; the change brings the key back
        if plan.verdict is not None:
            await self._write_status(rt, obj, plan.verdict, plan)
        return plan.again_seconds

    def _needs_engine(self, namespace: str) -> bool:
        return self._settings.serves(namespace) and (
            namespace in self.namespaces_with_runs or any(self._observed.of(rt, namespace) for rt in DECLARED)
        )

    async def _plan_workflow(self, obj: Object) -> Plan:
        namespace = obj["metadata"]["namespace"]
        return workflow.plan(
            obj,
            models=self._observed.of(MODELS, namespace),
            tools=self._observed.of(TOOLS, namespace),
            workflows=self._observed.of(WORKFLOWS, namespace),
            engine=self._observed.get(ENGINES, namespace, ENGINE),
        )

    async def _plan_tool(self, obj: Object) -> Plan:
        deployment = self._deployment("tool", obj)
        pods = await self._server_pods("tool", obj, deployment)
        return tool.plan(obj, guard=self._guard(obj), deployment=deployment, pods=pods)

    async def _plan_model(self, obj: Object) -> Plan:
        deployment = self._deployment("model", obj)
        pods = await self._server_pods("model", obj, deployment)
        return model.plan(obj, guard=self._guard(obj), deployment=deployment, pods=pods)

    async def _plan_policy(self, obj: Object) -> Plan:
        namespace = obj["metadata"]["namespace"]
        accounts = await self._kube.list(SERVICE_ACCOUNTS, namespace)
        return policy.plan(
            obj,
            policies=self._observed.of(POLICIES, namespace),
            accounts={account["metadata"]["name"]: account for account in accounts},
        )

    async def _plan_cluster_policy(self, obj: Object) -> Plan:
        named = {namespace for namespace, _ in self._observed.names(ENGINES)}
        labels = {name: await self._labels(name) for name in named}
        engines = [engine for name in named for engine in self._observed.of(ENGINES, name)]
        return clusterpolicy.plan(obj, namespaces=labels, engines=engines)

    async def _labels(self, namespace: str) -> Mapping[str, str]:
        """Return a namespace's labels. One that no watch has told of yet is asked for: who has none may be bound."""
        known = self._observed.get(NAMESPACES, "", namespace)
        if known is None:
            known = await self._kube.get(NAMESPACES, namespace)
            self._observed.put(NAMESPACES, known)
        return known["metadata"].get("labels") or {}

    async def _plan_engine(self, obj: Object) -> Plan:
        namespace = obj["metadata"]["namespace"]
        stateful_set = self._observed.get(STATEFUL_SETS, namespace, ENGINE_NAME)
        users = [found for rt in (TOOLS, MODELS, WORKFLOWS) for found in self._observed.of(rt, namespace)]
        secrets = engine.gather_secrets(
            engine.wanted_secrets([*users, obj]),
            stateful_set=stateful_set,
            changed_seconds_ago=self._clock() - self._secrets_changed_at.get(namespace, float("-inf")),
        )
        if secrets.names != mounted_secrets(stateful_set):
            self._secrets_changed_at[namespace] = self._clock()
        starting = stateful_set is not None and not engine.is_ready(stateful_set)
        found = engine.plan(
            obj,
            image=self._settings.engine_image,
            secrets=secrets,
            stateful_set=stateful_set,
            pods=await self._pods(namespace, selector(ENGINE_COMPONENT, ENGINE)) if starting else [],
        )
        bound = copies(self._observed.of(CLUSTER_POLICIES, ""), await self._labels(namespace))
        return replace(found, status={"clusterPolicies": bound}, said=(await self._network(namespace),))

    async def _network(self, namespace: str) -> Said:
        """Return whether the pods of the namespace are locked in."""
        servers = [obj for obj in self._observed.of(DEPLOYMENTS, namespace) if is_server(obj)]
        waiting = [obj for obj in servers if not is_available(obj)]
        pods = [pod for obj in waiting for pod in await self._pods(namespace, obj["spec"]["selector"]["matchLabels"])]
        ours = networks() | {obj["metadata"]["name"]: network_of(obj) for obj in servers}
        return isolation(self._observed.of(NETWORK_POLICIES, namespace), servers, pods, ours=ours)

    def _guard(self, obj: Object) -> EngineImage | None:
        declared = self._observed.get(ENGINES, obj["metadata"]["namespace"], ENGINE)
        return engine.isolation_guard(declared, self._settings.engine_image)

    def _deployment(self, component: Component, obj: Object) -> Object | None:
        metadata = obj["metadata"]
        return self._observed.get(DEPLOYMENTS, metadata["namespace"], server_name(component, metadata["name"]))

    async def _server_pods(self, component: Component, obj: Object, deployment: Object | None) -> list[Object]:
        if deployment is None or is_available(deployment):
            return []
        metadata = obj["metadata"]
        return await self._pods(metadata["namespace"], selector(component, metadata["name"]))

    async def _pods(self, namespace: str, labels: dict[str, str]) -> list[Object]:
        wanted = ",".join(f"{key}={value}" for key, value in labels.items())
        return await self._kube.list(PODS, namespace, label_selector=wanted)

    async def _carry_out(self, plan: Plan) -> bool:
        """Change the cluster; return whether what the plan's verdict looked at still stands."""
        settled = True
        for doomed in plan.delete:
            try:
                await self._kube.delete(doomed.type, doomed.name, doomed.namespace, uid=doomed.uid)
            except NotFound:
                continue
        for rt, obj in plan.create:
            metadata = obj["metadata"]
            try:
                await self._kube.get(rt, metadata["name"], metadata["namespace"])
            except NotFound:
                made = await self._kube.create(rt, obj)
                if rt in WATCHED:
                    self._observed.put(rt, made)
        for rt, obj in plan.apply:
            made = await self._kube.apply(rt, obj, manager=MANAGER)
            if rt == NETWORK_POLICIES and (added := made["spec"].keys() - obj["spec"].keys()):
                made = await self._take_back(made, sorted(added))
            if rt in WATCHED:
                before = self._observed.put(rt, made)
                settled &= before is not None and _generation(before) == _generation(made)
        return settled

    async def _take_back(self, policy: Object, added: list[str]) -> Object:
        """Remove what somebody added to a NetworkPolicy of ours: an apply leaves alone what it never had."""
        message = f"somebody added {' and '.join(added)}; it is removed"
        self._events.emit(policy, reason=NetworkReason.WIDENED_BY_POLICY, message=message, warning=True)
        namespace, name = name_of(policy)
        return await self._kube.patch(NETWORK_POLICIES, name, namespace, {"spec": dict.fromkeys(added)})

    async def _write_status(self, rt: ResourceType, obj: Object, verdict: Verdict, plan: Plan) -> None:
        """Write the operator's part of the status if it changed, and say so in an Event if people should know."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        status = status_of(obj, verdict, more=plan.status, said=plan.said, now=now)
        if status is None:
            return
        head = ("name", "namespace", "resourceVersion")
        metadata = {key: value for key, value in obj["metadata"].items() if key in head}
        try:
            written = await self._kube.apply_status(rt, {"metadata": metadata, "status": status}, manager=MANAGER)
        except NotFound:
            self._observed.drop(rt, *name_of(obj))
            return
        self._observed.put(rt, written)
        before = find_condition(conditions_of(obj), "Ready")
        word = "True" if verdict.ready else "False"
        changed = before is None or (before.status, before.reason) != (word, verdict.reason)
        if changed and (verdict.ready or verdict.stalled):
            self._events.emit(written, reason=verdict.reason, message=verdict.message, warning=not verdict.ready)


def _generation(obj: Object) -> int:
    return int(obj["metadata"].get("generation", 0))
