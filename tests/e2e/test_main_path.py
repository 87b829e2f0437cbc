"""A run on a real cluster, from its creation to its status, journal and trace; and every other way that it can end."""

from __future__ import annotations

import asyncio
import gzip
import json
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from tests.bench.submitting import submitting
from tests.cluster import Cluster
from tests.cluster.commands import run as run_program
from tests.e2e.installation import RUN, Fairlead, create_run, finished, ledger, until
from tests.e2e.kubectl import Kubectl
from tests.e2e.scenes import (
    ACCOUNT,
    HELD,
    Listener,
    becomes,
    calls,
    declare,
    engine,
    ledger_tool,
    listening,
    manifest,
    outcome,
    play,
    policy,
    scene,
    scripted_model,
    workflow,
)

from fairlead.cli.access import ENGINE_SERVICE, TOKEN_HEADER, Access
from fairlead.errors import KubeError
from fairlead.flow.journal import Entry, EntryKind
from fairlead.kube.client import Kube
from fairlead.telemetry.ids import trace_id
from fairlead.telemetry.spans import SpanFold

pytestmark = pytest.mark.cluster

GREETING = {
    "content": "Good morning.",
    "usage": {"promptTokens": 40, "completionTokens": 8},
}
GREET = workflow(
    "greet",
    {"name": "ask", "generate": {"model": "scripted", "prompt": "Greet $( input.key )"}},
    calls("append_keyed", "$( input.key )", name="note"),
    calls("read", "$( input.key )", name="count"),
    input={
        "schema": {
            "type": "object",
            "required": ["key"],
            "additionalProperties": False,
            "properties": {"key": {"type": "string", "maxLength": 20}},
        }
    },
    output={"text": "$( steps.ask.output.text )", "count": "$( steps.count.output.count )"},
)
STEPS = ("ask", "note", "count")
WRITES_OF_A_SHORT_RUN = 4


@pytest.fixture(scope="module")
def collector() -> Iterator[Listener]:
    """An OpenTelemetry collector outside the cluster."""
    with listening(Cluster().host_address, status=200) as listener:
        yield listener


@pytest.fixture(scope="module")
def team(administrator: Kubectl, chart: Fairlead, collector: Listener) -> Iterator[Kubectl]:
    """A namespace with everything that the runs need."""
    held = workflow("hold", HELD)
    traced = engine(telemetry={"endpoint": f"http://{collector.authority}"})
    grants = policy("worker", "read", "append_keyed", "slow")
    with scene(administrator, traced, grants, ledger_tool(), scripted_model(), GREET, held) as kubectl:
        becomes(kubectl, "model", "scripted", "Ready")
        becomes(kubectl, "tool", "ledger", "Reachable")
        for name in ("greet", "hold"):
            becomes(kubectl, "workflow", name, "Authorized")
        play(kubectl, GREETING)
        yield kubectl


@pytest.fixture
async def access(
    team: Kubectl, cluster_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Access]:
    """Our own client, as the command line uses it."""
    monkeypatch.setenv("KUBECONFIG", cluster_environment["KUBECONFIG"])
    kube = await Kube.connect()
    yield Access(kube, team.namespace)
    await kube.close()


@pytest.fixture(scope="module")
def greeted(team: Kubectl) -> dict[str, Any]:
    """A run that has succeeded."""
    return finished(team, create_run(team, "greet", key="ada"))


def held_run(team: Kubectl, **spec: Any) -> str:
    """Start a run that waits in a call, and return its name."""
    before = len(ledger(team))
    body = {
        "apiVersion": "fairlead.dev/v1alpha1",
        "kind": "WorkflowRun",
        "metadata": {"generateName": "hold-"},
        "spec": {"workflow": "hold", **spec},
    }
    name = str(team.create(body)["metadata"]["name"])
    until("the call has arrived", lambda: len(ledger(team)) > before)
    return name


class TestSuccess:
    def test_a_run_says_what_it_did(self, team: Kubectl, greeted: dict[str, Any]) -> None:
        status = greeted["status"]
        assert outcome(greeted)[0] == "Completed"
        assert status["output"] == {"text": "Good morning.", "count": 1}
        assert {row["path"]: (row["phase"], row["attempts"]) for row in status["steps"]} == dict.fromkeys(
            STEPS, ("Succeeded", 1)
        )
        assert status["progress"] == "3/3"
        assert status["denials"] == 0
        used = {name: status["usage"][name] for name in ("modelCalls", "toolCalls", "inputTokens", "outputTokens")}
        assert used == {"modelCalls": 1, "toolCalls": 2, "inputTokens": 40, "outputTokens": 8}
        assert status["traceID"] == greeted["metadata"]["uid"].replace("-", "")
        assert status["workflow"]["revision"] == team.get("workflow", "greet")["status"]["revision"]
        assert [entry["key"] for entry in ledger(team)].count("ada") == 1

    @pytest.mark.requirement("F35")
    @pytest.mark.requirement("G6")
    def test_a_run_keeps_the_revision_that_it_was_accepted_with(self, team: Kubectl) -> None:
        declare(team, workflow("changing", HELD | {"onError": {"action": "Continue"}}, output="before"))
        becomes(team, "workflow", "changing", "Authorized")
        before = len(ledger(team))
        name = create_run(team, "changing")
        until("the call has arrived", lambda: len(ledger(team)) > before)
        first = team.get("workflow", "changing")["status"]["revision"]
        declare(team, workflow("changing", calls("read", "x"), output="after"))
        second = until(
            "there is another revision",
            lambda: {team.get("workflow", "changing")["status"]["revision"]} - {first},
        )
        run = until("its status is written", lambda: team.get(RUN, name)["status"].get("workflow"))
        assert run["revision"] == first
        latest = finished(team, create_run(team, "changing"))
        assert latest["status"]["workflow"]["revision"] in second
        assert latest["status"]["output"] == "after"
        team("patch", RUN, name, "--type=merge", "-p", '{"spec": {"desiredState": "Cancelled"}}')

    async def test_a_short_run_costs_few_writes(
        self, team: Kubectl, cluster_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("KUBECONFIG", cluster_environment["KUBECONFIG"])
        async with submitting(team.namespace) as submitter:
            seen = await submitter.run("greet")
            assert 1 <= submitter.writes[seen.name] <= WRITES_OF_A_SHORT_RUN


class TestOtherEnds:
    def test_a_wrong_workflow_says_where_and_its_run_never_begins(self, team: Kubectl) -> None:
        declare(team, workflow("wrong", {"name": "a", "transform": {"value": "$( steps.nowhere.output )"}}))
        ready = becomes(team, "workflow", "wrong", "Ready", "False")
        assert ready["reason"] == "InvalidSpec"
        assert "spec.steps[0].transform.value" in ready["message"]
        reason, message = outcome(finished(team, create_run(team, "wrong")))
        assert reason == "InvalidWorkflow"
        assert "spec.steps[0].transform.value" in message

    @pytest.mark.parametrize(
        ("values", "named"),
        [
            ({}, "key"),
            ({"key": 1}, "/key"),
            ({"key": "bob", "more": 1}, "properties that the schema does not have"),
            ({"key": "x" * 21}, "/key"),
        ],
        ids=["missing", "wrong-type", "unknown", "too-long"],
    )
    def test_an_input_that_does_not_fit_the_schema_is_refused(
        self, team: Kubectl, values: dict[str, Any], named: str
    ) -> None:
        run = finished(team, create_run(team, "greet", **values))
        reason, message = outcome(run)
        assert reason == "InvalidInput"
        assert named in message
        assert "steps" not in run["status"]

    def test_a_run_of_no_workflow_waits_a_little_and_ends(self, team: Kubectl) -> None:
        assert outcome(finished(team, create_run(team, "nowhere")))[0] == "WorkflowNotFound"

    @pytest.mark.requirement("G4")
    @pytest.mark.requirement("G7")
    def test_a_signal_wakes_a_run_that_waits_and_a_pause_holds_one(
        self, team: Kubectl, cluster_environment: dict[str, str]
    ) -> None:
        def steer(command: str, *words: str) -> None:
            program = (sys.executable, "-m", "fairlead.cli", command, name, *words, f"--namespace={team.namespace}")
            run_program(*program, env=cluster_environment)

        signal = {"name": "ask", "wait": {"signal": {"name": "go"}}}
        done = {"name": "done", "transform": {"value": "$( steps.ask.output )"}}
        declare(team, workflow("signalled", signal, done))
        becomes(team, "workflow", "signalled", "Ready")
        name = create_run(team, "signalled")
        until("it waits", lambda: "kubectl fairlead signal" in team.get(RUN, name)["status"].get("waitingFor", ""))
        told = {"name": "go", "data": 7, "by": "mallory"}
        patch = json.dumps({"spec": {"signals": [told]}})
        assert "a new signal is by" in team.refusal("patch", RUN, name, "--type=merge", "-p", patch)
        steer("pause")
        steer("signal", "go", "--data=7")
        until("it is paused", lambda: outcome(team.get(RUN, name))[0] == "Paused")
        steer("resume")
        output = finished(team, name)["status"]["output"]
        assert (output["received"], output["data"]) == (True, 7)
        assert output["by"] == team.get(RUN, name)["spec"]["signals"][0]["by"]

    @pytest.mark.requirement("G1")
    def test_a_retry_goes_on_where_the_run_had_failed(self, team: Kubectl, cluster_environment: dict[str, str]) -> None:
        broken = {"name": "second", "transform": {"value": "$( input.missing )"}}
        declare(team, workflow("twosteps", calls("append_keyed", "$( input.key )", name="first"), broken))
        becomes(team, "workflow", "twosteps", "Authorized")
        name = create_run(team, "twosteps", key="once-only")
        assert outcome(finished(team, name))[0] == "StepFailed"
        mended = {"name": "second", "transform": {"value": "$( steps.first.output )"}}
        declare(team, workflow("twosteps", calls("append_keyed", "$( input.key )", name="first"), mended))
        becomes(team, "workflow", "twosteps", "Authorized")
        program = (sys.executable, "-m", "fairlead.cli", "retry", name, "--wait", "-o", "json")
        again = json.loads(run_program(*program, f"--namespace={team.namespace}", env=cluster_environment))
        assert outcome(again)[0] == "Completed"
        rows = {row["path"]: row.get("message") for row in again["status"]["steps"]}
        assert rows == {"first": f"done by run {name}", "second": None}
        assert [entry["key"] for entry in ledger(team)].count("once-only") == 1

    @pytest.mark.requirement("A49")
    def test_the_audit_of_a_run_is_read_verified_and_exported(
        self, team: Kubectl, cluster_environment: dict[str, str]
    ) -> None:
        def audit(*words: str) -> str:
            program = (sys.executable, "-m", "fairlead.cli", "audit", *words, f"--namespace={team.namespace}")
            return run_program(*program, env=cluster_environment)

        declare(team, workflow("audited", calls("append_keyed", "$( input.key )")))
        becomes(team, "workflow", "audited", "Authorized")
        name = create_run(team, "audited", key="for the record")
        run = finished(team, name)
        said = until("it is recorded", lambda: team.get(RUN, name)["status"].get("audit"))
        assert f"{name}: {said['records']} records, as they were written" in audit("verify", name)
        assert ", as they were written" in audit("verify").splitlines()[-1]
        events = [json.loads(line) for line in audit("export", name, "--format=cloudevents").splitlines()]
        assert [event["type"].rpartition(".")[2] for event in events] == ["admin", "intent", "outcome", "admin"]
        assert events[1]["data"]["who"]["account"] == ACCOUNT
        assert events[1]["data"]["why"]["rbac"].startswith("RBAC: allowed by RoleBinding")
        assert events[1]["source"].endswith(f"/namespaces/{team.namespace}/workflowruns/{run['metadata']['uid']}")
        everything = [json.loads(line) for line in audit("export").splitlines()]
        assert [r for r in everything if r["run"] == run["metadata"]["uid"]] == [event["data"] for event in events]
        assert "for the record" not in str(everything)

    def test_a_child_runs_as_its_own_account_and_nobody_else_makes_one(self, team: Kubectl) -> None:
        child = {"name": "ask", "workflow": {"workflow": "greet", "input": {"key": "$( input.key )"}}}
        grants = {"serviceAccounts": [ACCOUNT], "workflows": ["greet"]}
        declare(team, workflow("parent", child), manifest("Policy", "parent", {"grants": grants}))
        becomes(team, "workflow", "parent", "Authorized")
        play(team, GREETING)
        name = create_run(team, "parent", key="child")
        parent = finished(team, name)
        assert outcome(parent) == ("Completed", "")
        (made,) = [one for one in team.get(RUN)["items"] if one["spec"].get("parent", {}).get("name") == name]
        assert parent["status"]["output"] == made["status"]["output"]
        assert made["metadata"]["ownerReferences"][0]["uid"] == parent["metadata"]["uid"]
        forged = {"kind": "WorkflowRun", "apiVersion": made["apiVersion"], "metadata": {"name": "forged"}}
        spec = made["spec"] | {"requestedBy": None}
        refusal = team.refusal("create", "--filename=-", stdin=json.dumps(forged | {"spec": spec}))
        assert "set by the engine alone" in refusal

    def test_a_cancelled_run_ends_while_its_call_goes_on(self, team: Kubectl) -> None:
        name = held_run(team)
        team("patch", RUN, name, "--type=merge", "-p", '{"spec": {"desiredState": "Cancelled"}}')
        cancelled = finished(team, name, timeout_seconds=40)
        assert outcome(cancelled)[0] == "Cancelled"
        refusal = team.refusal("patch", RUN, name, "--type=merge", "-p", '{"spec": {"desiredState": "Running"}}')
        assert "Cancelled is final" in refusal

    @pytest.mark.requirement("G4")
    def test_a_run_is_over_by_its_deadline_and_a_little(self, team: Kubectl) -> None:
        name = held_run(team, timeoutSeconds=3)
        assert outcome(finished(team, name, timeout_seconds=45))[0] == "Timeout"
        said = until("Events tell the end", lambda: {"Timeout", "Accepted"} <= set(told := events(team, name)) and told)
        assert said["Timeout"] == "Warning"


class TestReading:
    async def test_the_journal_is_read_with_a_viewers_token(self, access: Access, greeted: dict[str, Any]) -> None:
        entries = await access.journal(greeted["metadata"]["uid"])
        assert entries[0].kind is EntryKind.RUN_ACCEPTED
        assert entries[-1].kind is EntryKind.RUN_SUCCEEDED
        assert [entry.seq for entry in entries] == list(range(1, greeted["status"]["store"]["sequence"] + 1))

    @pytest.mark.requirement("A06")
    async def test_nothing_else_reads_it(self, team: Kubectl, access: Access, greeted: dict[str, Any]) -> None:
        namespace, uid = team.namespace, greeted["metadata"]["uid"]
        path = f"/api/v1/namespaces/{namespace}/services/{ENGINE_SERVICE}/proxy/v1/runs/{uid}/journal"
        ours, other = (f"https://engine.{name}.fairlead.dev/view" for name in (namespace, "elsewhere"))

        def token(account: str, *options: str) -> str:
            return team("create", "token", account, *options).strip()

        tokens = {
            "none": "",
            "nonsense": "nothing",
            "for the API server": token("fairlead-viewer"),
            "for another namespace": token("fairlead-viewer", f"--audience={other}"),
            "another account's": token("fairlead-none", f"--audience={ours}"),
        }
        for whose, value in tokens.items():
            with pytest.raises(KubeError) as refused:
                await access.kube.request("GET", path, headers={TOKEN_HEADER: value})
            assert refused.value.status == 401, whose
            assert "RunAccepted" not in str(refused.value)

    def test_the_command_line_shows_the_trace(
        self, team: Kubectl, cluster_environment: dict[str, str], greeted: dict[str, Any]
    ) -> None:
        words = ("trace", greeted["metadata"]["name"], f"--namespace={team.namespace}", "--output=json")
        spans = json.loads(run_program(sys.executable, "-m", "fairlead.cli", *words, env=cluster_environment))
        assert {span["traceID"] for span in spans} == {greeted["status"]["traceID"]}
        assert {span["attributes"].get("fairlead.step.path") for span in spans} >= set(STEPS)


class TestTracing:
    async def test_spans_arrive_with_the_ids_that_the_journal_predicts(
        self, collector: Listener, access: Access, greeted: dict[str, Any]
    ) -> None:
        uid = greeted["metadata"]["uid"]
        predicted = ids_of(uid, await access.journal(uid))
        assert len(predicted) > len(STEPS)
        await asyncio.to_thread(
            until, "all spans have arrived", lambda: arrived(collector, uid) >= predicted, timeout_seconds=30
        )
        assert arrived(collector, uid) == predicted

    def test_the_run_says_that_it_is_traced(self, team: Kubectl, greeted: dict[str, Any]) -> None:
        traced = becomes(team, RUN, greeted["metadata"]["name"], "Traced", "True", timeout_seconds=30)
        assert traced["reason"] == "Exported"


def events(team: Kubectl, run: str) -> dict[str, str]:
    """Return the type of each Event about a run, by reason."""
    about = team.get("events", f"--field-selector=involvedObject.kind=WorkflowRun,involvedObject.name={run}")
    return {event["reason"]: event["type"] for event in about["items"]}


def ids_of(uid: str, entries: list[Entry]) -> set[tuple[str, str]]:
    """Return id and parent of every span that a journal makes."""
    fold = SpanFold(uid)
    return {(span.span_id, span.parent_id) for entry in entries for span in fold.add(entry)}


def arrived(collector: Listener, uid: str) -> set[tuple[str, str]]:
    """Return id and parent of the spans of a run that the collector got."""
    found = set()
    for path, headers, body in list(collector.requests):
        assert path == "/v1/traces"
        data = gzip.decompress(body) if headers.get("content-encoding") == "gzip" else body
        for resource in ExportTraceServiceRequest.FromString(data).resource_spans:
            spans = [span for scope in resource.scope_spans for span in scope.spans]
            found |= {
                (span.span_id.hex(), span.parent_span_id.hex())
                for span in spans
                if span.trace_id.hex() == trace_id(uid)
            }
    return found
