"""ClusterPolicies on a real cluster: they bind by the namespace's labels, and nobody in it gets rid of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from tests.e2e.identities import bind, engine_of, someone, tries
from tests.e2e.installation import Fairlead, create_run, finished, ledger, until
from tests.e2e.kubectl import Kubectl
from tests.e2e.scenes import (
    Manifest,
    becomes,
    calls,
    engine,
    ledger_tool,
    manifest,
    outcome,
    policy,
    scene,
    scripted_model,
    workflow,
)

pytestmark = pytest.mark.cluster

RULES = {"calls": [{"name": "noWrites", "when": "call.function == 'append'", "message": "not in this namespace"}]}
LAXER = manifest("Policy", "laxer", {"rules": {"calls": [{"name": "never", "when": "false"}]}})


@contextmanager
def bound(administrator: Kubectl, team: Kubectl, **more: str) -> Iterator[str]:
    """Have a ClusterPolicy that selects a label which the namespace does not have yet; the context gives its name."""
    name = f"only-{team.namespace}"
    selector = {"matchLabels": {"bound-by": name}}
    declared: Manifest = manifest("ClusterPolicy", name, {"namespaceSelector": selector, "rules": RULES, **more})
    administrator.create(declared)
    try:
        yield name
    finally:
        administrator("delete", "clusterpolicy", name)


@pytest.mark.requirement("A14")
def test_they_bind_whoever_they_select_and_nobody_in_there_can_help_it(administrator: Kubectl, chart: Fairlead) -> None:
    objects = (engine(), ledger_tool(), scripted_model(), policy("worker", "append"), LAXER)
    with scene(administrator, *objects, workflow("writes", calls("append", "$( input.key )"))) as team:
        becomes(team, "workflow", "writes", "Authorized")
        becomes(team, "tool", "ledger", "Reachable")
        with bound(administrator, team) as name:
            becomes(team, "clusterpolicy", name, "Ready")
            assert outcome(finished(team, create_run(team, "writes", key="before")))[0] == "Completed"
            administrator("label", "namespace", team.namespace, f"bound-by={name}")
            effective = {"name": f"ClusterPolicy/{name}", "mode": "Enforce"}

            def shown() -> bool:
                return effective in team.get("workflow", "writes")["status"].get("effectivePolicies", [])

            until("the Workflow says that it is bound", shown)

            def refused(key: str) -> bool:
                reason, message = outcome(finished(team, create_run(team, "writes", key=key)))
                return reason == "Denied" and f"ClusterPolicy {name}, rule noWrites: not in this namespace" in message

            assert refused("bound")
            editor = someone(team, "mallory")
            bind(team, "mallory", "ClusterRole", "fairlead-admin")
            head = {"apiVersion": "fairlead.dev/v1alpha1", "kind": "Engine", "metadata": {"name": "default"}}
            none = json.dumps(head | {"status": {"clusterPolicies": []}})
            words = ("apply", "--server-side", "--force-conflicts", "--subresource=status", "--filename=-")
            assert "engines/status" in editor.refusal(*words, stdin=none)
            assert "cannot delete" in editor.refusal("delete", "clusterpolicy", name)
            assert "an engine does not say which ClusterPolicies bind it" in engine_of(team).refusal(*words, stdin=none)
            editor("delete", "engine", "default")
            until("there is an Engine again", lambda: _copies(team) == [name])
            assert refused("after")
            administrator("label", "namespace", team.namespace, "bound-by-")
            until("it is let go", lambda: not shown())
            assert outcome(finished(team, create_run(team, "writes", key="free")))[0] == "Completed"
        assert [entry["key"] for entry in ledger(team)] == ["before", "free"]


def test_what_it_would_deny_is_counted_whatever_restarts_or_goes(administrator: Kubectl, chart: Fairlead) -> None:
    objects = (engine(), ledger_tool(), scripted_model(), policy("worker", "append"))
    with scene(administrator, *objects, workflow("writes", calls("append", "$( input.key )"))) as team:
        becomes(team, "workflow", "writes", "Authorized")
        becomes(team, "tool", "ledger", "Reachable")
        with bound(administrator, team, mode="Audit") as name:
            administrator("label", "namespace", team.namespace, f"bound-by={name}")
            until("the Engine has a copy", lambda: _copies(team) == [name])
            _counted(team, name, 0)
            for number in (1, 2):
                assert outcome(finished(team, create_run(team, "writes", key=str(number))))[0] == "Completed"
                _counted(team, name, number, team.namespace)
                if number == 1:
                    team("delete", "pod", "fairlead-engine-0", "--grace-period=0", "--force")
                    becomes(team, "engine", "default", "Ready")
            administrator("delete", "namespace", team.namespace, "--wait=false")
            until("nobody says anything more", lambda: not _status(team, name)["byNamespace"])
            _counted(team, name, 2)


def _status(team: Kubectl, name: str) -> Manifest:
    found: Manifest = team.get("clusterpolicy", name).get("status", {})
    return found


def _counted(team: Kubectl, name: str, number: int, *namespaces: str) -> None:
    """Wait until so many calls would have been denied, in these namespaces."""
    calls = {"denied": 0, "wouldDeny": number, "asked": 0}
    until(f"{name} counts {number}", lambda: _status(team, name).get("calls") == calls)
    rows = [(row["namespace"], row["wouldDeny"]) for row in _status(team, name)["byNamespace"]]
    assert rows == [(namespace, number) for namespace in namespaces]


def _copies(team: Kubectl) -> list[str] | None:
    engines = team.get("engines")["items"]
    copies = engines[0].get("status", {}).get("clusterPolicies") if engines else None
    return None if copies is None else [copy["name"] for copy in copies]


def test_who_may_write_policies_of_a_namespace_writes_none_for_the_cluster(
    administrator: Kubectl, chart: Fairlead
) -> None:
    with scene(administrator, LAXER) as team:
        editor = someone(team, "mallory")
        bind(team, "mallory", "ClusterRole", "fairlead-admin")
        made = manifest("ClusterPolicy", "mine", {"mode": "Audit", "rules": RULES})
        assert "cannot create" in tries(editor, made)
