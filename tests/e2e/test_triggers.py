"""HTTP triggers on a real cluster: signed requests, tokens of ServiceAccounts, one run for one key, signals."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from tests.e2e.installation import RUN, Fairlead, finished, ledger, until
from tests.e2e.kubectl import Kubectl
from tests.e2e.scenes import becomes, calls, engine, ledger_tool, manifest, outcome, policy, scene, workflow

from fairlead.errors import KubeError, Unreachable
from fairlead.kube.client import Kube

pytestmark = pytest.mark.cluster

KEY = "signed-by-the-pager"
HMAC = {"hmac": {"secretRef": {"name": "pager", "key": "secret"}, "header": "X-Signature", "prefix": "v1="}}
SECRET = {
    "apiVersion": "v1",
    "kind": "Secret",
    "metadata": {"name": "pager"},
    "stringData": {"secret": KEY, "allowed-use": "hmac"},
}
WAITING = {"name": "ask", "wait": {"signal": {"name": "done"}}}
INCIDENT = workflow(
    "incident",
    calls("append", "$( input.id )"),
    WAITING,
    triggers={
        "http": [
            {"name": "pager", "auth": HMAC, "input": {"id": "$( body.id )"}, "dedupeKey": "$( body.id )"},
            {"name": "till", "auth": {"kubernetes": {}}, "input": {"id": "$( body.id )"}},
            {
                "name": "solved",
                "auth": HMAC,
                "signal": {"run": "$( body.run )", "name": "done", "data": "$( body.how )"},
            },
        ]
    },
    retention={"ttlSecondsAfterFinished": 600},
)


@pytest.fixture(scope="module")
def team(administrator: Kubectl, chart: Fairlead) -> Iterator[Kubectl]:
    """A namespace whose Workflow is called by a pager."""
    caller = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "till"}}
    with scene(administrator, SECRET, caller, engine(), ledger_tool(), policy("worker", "append"), INCIDENT) as kubectl:
        becomes(kubectl, "workflow", "incident", "Authorized")
        becomes(kubectl, "tool", "ledger", "Reachable")
        until(
            "the key is mounted",
            lambda: "pager" in kubectl("get", "statefulset", "fairlead-engine", "--output=jsonpath={.spec.template}"),
        )
        kubectl("rollout", "status", "statefulset/fairlead-engine", "--timeout=120s")
        becomes(kubectl, "workflow", "incident", "TriggersReady")
        yield kubectl


class Outside:
    """Who calls from outside, through the API server's proxy, which leaves headers but `Authorization` as they are."""

    def __init__(self, kube: Kube, namespace: str) -> None:
        self._kube = kube
        self._path = f"/api/v1/namespaces/{namespace}/services/https:fairlead-engine:8444/proxy/hooks/incident/"

    async def post(self, trigger: str, body: Any, **headers: str) -> Any:
        signature = "v1=" + hmac.new(KEY.encode(), json.dumps(body).encode(), hashlib.sha256).hexdigest()
        sent = {"X-Signature": signature, "Content-Type": "application/json"} | headers
        for _ in range(20):  # as senders do: the engine may not have seen yet that the Workflow is ready
            try:
                return await self._kube.request("POST", self._path + trigger, body=body, headers=sent)
            except Unreachable as error:
                if "WorkflowNotReady" not in error.message:
                    raise
                await asyncio.sleep(0.5)
        raise AssertionError("the Workflow does not become ready")

    async def refusal(self, trigger: str, body: Any, **headers: str) -> tuple[int, str]:
        with pytest.raises(KubeError) as refused:
            await self.post(trigger, body, **headers)
        return refused.value.status, refused.value.message


@pytest.fixture
async def outside(
    team: Kubectl, cluster_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Outside]:
    monkeypatch.setenv("KUBECONFIG", cluster_environment["KUBECONFIG"])
    kube = await Kube.connect()
    yield Outside(kube, team.namespace)
    await kube.close()


async def test_a_signed_request_starts_one_run_however_often_it_comes_and_another_ends_it(
    team: Kubectl, outside: Outside
) -> None:
    first = await outside.post("pager", {"id": "i-1"})
    assert first["outcome"] == "Accepted"
    until("the step is done", lambda: [entry["key"] for entry in ledger(team)] == ["i-1"])
    team("delete", "pod", "fairlead-engine-0", "--grace-period=0", "--force")
    team("rollout", "status", "statefulset/fairlead-engine", "--timeout=120s")
    until("the engine is back", lambda: _ready(team))
    again = await outside.post("pager", {"id": "i-1"})
    assert again == first | {"outcome": "Exists"}
    run = team.get(RUN, first["run"])
    assert run["metadata"]["uid"] == first["uid"]
    assert run["metadata"]["labels"]["fairlead.dev/trigger"] == "pager"
    told = await outside.post("solved", {"run": first["run"], "how": "restarted"})
    assert told["outcome"] == "Signalled"
    ended = finished(team, first["run"])
    assert outcome(ended)[0] == "Completed"
    assert (ended["status"]["output"]["data"], ended["status"]["output"]["by"]) == ("restarted", "trigger:solved")
    assert [entry["key"] for entry in ledger(team)] == ["i-1"]


@pytest.mark.requirement("A06")
async def test_a_signature_of_something_else_starts_nothing(team: Kubectl, outside: Outside) -> None:
    before = team("get", RUN, "--output=name")
    assert (await outside.refusal("pager", {"id": "x"}, **{"X-Signature": "v1=00"}))[0] == 401
    assert (await outside.refusal("nothing", {"id": "x"}))[0] == 401
    assert team("get", RUN, "--output=name") == before


@pytest.mark.requirement("A59")
async def test_a_service_account_starts_a_run_only_with_invoke_and_a_token_for_this(
    team: Kubectl, outside: Outside
) -> None:
    audience = f"https://engine.{team.namespace}.fairlead.dev/hooks"
    token = team("create", "token", "till", f"--audience={audience}").strip()
    status, message = await outside.refusal("till", {"id": "i-2"}, **{"X-Fairlead-Token": token})
    assert status == 403, message
    grants = {"serviceAccounts": ["till"], "workflows": ["incident"]}
    team("annotate", "serviceaccount", "till", "fairlead.dev/adopt=true")
    team.create(manifest("Policy", "till", {"grants": grants}))
    becomes(team, "policy", "till", "Ready")
    for wrong in (team("create", "token", "till").strip(), "nothing"):
        assert (await outside.refusal("till", {"id": "i-2"}, **{"X-Fairlead-Token": wrong}))[0] == 401
    made = await outside.post("till", {"id": "i-2"}, **{"X-Fairlead-Token": token})
    run = team.get(RUN, made["run"])
    assert run["spec"]["requestedBy"] == f"system:serviceaccount:{team.namespace}:till"
    until("the step is done", lambda: "i-2" in [entry["key"] for entry in ledger(team)])


def _ready(team: Kubectl) -> bool:
    pod = team.get("pod", "fairlead-engine-0")
    conditions = {one["type"]: one["status"] for one in pod["status"].get("conditions", ())}
    return conditions.get("Ready") == "True" and "deletionTimestamp" not in pod["metadata"]
