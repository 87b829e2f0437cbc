"""Step pods: how they are built, and what their status says."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.unit.controllers.restricted import violations
from tests.unit.engine.gateworld import STEP
from tests.unit.engine.podworld import BESIDE, ENGINE, IMAGE, asked, exited, status

from fairlead.engine.pods.build import Owner, build, pod_name, too_large
from fairlead.engine.pods.reading import LOST_SECONDS, ended, failure, succeeded, waits
from fairlead.flow.calls import Call, CallId, CallIndex, CallKind
from fairlead.flow.journal import RunUid
from fairlead.stepfiles import MOST_INPUT, joined

OWNER = Owner("run-1", RunUid("u-1"), "team-a", "triage", 60)
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_a_pod_passes_pod_security_restricted() -> None:
    assert violations(build(asked(script={"source": "x"}), OWNER, BESIDE)["spec"]) == []


def test_a_pod_holds_nothing_that_its_code_could_misuse() -> None:
    pod = build(asked(script={"source": "echo $(HOME)"}, env=[{"name": "A", "value": "$(B)"}]), OWNER, BESIDE)
    spec = pod["spec"]
    assert spec["automountServiceAccountToken"] is False and spec["serviceAccountName"] == "triage"
    assert spec["dnsPolicy"] == "None" and spec["activeDeadlineSeconds"] == 60
    assert all(list(volume) == ["name", "emptyDir"] for volume in spec["volumes"])
    for container in (*spec["initContainers"], *spec["containers"]):
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["limits"]
    (step,) = spec["containers"]
    assert step["command"] == ["sh", "/work/script"]
    assert step["env"] == [{"name": "A", "value": "$$(B)"}], "the kubelet expands nothing"
    variables = {one["name"]: one["value"] for one in spec["initContainers"][0]["env"]}
    assert joined("FAIRLEAD_SCRIPT", variables) == b"echo $(HOME)"
    assert joined("FAIRLEAD_INPUT", variables) == b'{"a":1}'
    assert variables["FAIRLEAD_ISOLATION"] == "Required"


@pytest.mark.requirement("A54")
def test_only_the_sidecar_of_a_step_that_calls_has_its_token() -> None:
    may = {"models": ["small"], "env": [{"name": "OPENAI_API_KEY", "value": "mine"}]}
    pod = build(asked(**may), OWNER, replace(BESIDE, engine=ENGINE))
    spec = pod["spec"]
    assert violations(spec) == [] and spec["automountServiceAccountToken"] is False
    assert pod["metadata"]["labels"]["fairlead.dev/calls"] == "Allowed"
    waits = {"postStart": {"exec": {"command": ["python3", "-m", "fairlead.steplistens"]}}}
    assert pod["spec"]["initContainers"][-1]["lifecycle"] == waits, "the step begins when its calls are taken"
    (token,) = [volume for volume in spec["volumes"] if "projected" in volume]
    assert token["projected"]["sources"] == [
        {
            "serviceAccountToken": {
                "audience": "https://engine.team-a.fairlead.dev",
                "expirationSeconds": 600,
                "path": "token",
            }
        }
    ]
    mounting = [
        container["name"]
        for container in (*spec["initContainers"], *spec["containers"])
        if token["name"] in [mount["name"] for mount in container["volumeMounts"]]
    ]
    assert mounting == ["calls"]
    assert spec["hostAliases"] == [{"ip": "10.1.2.3", "hostnames": ["fairlead-engine.team-a.svc"]}]
    (step,) = spec["containers"]
    assert {one["name"]: one["value"] for one in step["env"]} == {
        "OPENAI_BASE_URL": "http://127.0.0.1:9911/v1",
        "OPENAI_API_KEY": "mine",
        "FAIRLEAD_MCP_URL": "http://127.0.0.1:9911/mcp",
    }
    closed = build(asked(), OWNER, BESIDE)
    assert "fairlead.dev/calls" not in closed["metadata"]["labels"] and "hostAliases" not in closed["spec"]


def test_an_image_runs_as_it_is_without_a_command() -> None:
    assert "command" not in build(asked(), OWNER, BESIDE)["spec"]["containers"][0]
    (step,) = build(asked(command=["a", "$(b)"]), OWNER, BESIDE)["spec"]["containers"]
    assert step["command"] == ["a", "$$(b)"]


def test_a_pod_has_the_runtime_class_that_its_step_names() -> None:
    assert build(asked(runtimeClassName="gvisor"), OWNER, BESIDE)["spec"]["runtimeClassName"] == "gvisor"
    assert "runtimeClassName" not in build(asked(), OWNER, BESIDE)["spec"]


def test_the_name_says_which_call_it_answers() -> None:
    other = Call(CallId(STEP, 2, CallIndex()), CallKind.CONTAINER, IMAGE, request={})
    assert pod_name(OWNER.uid, asked()) == pod_name(OWNER.uid, asked(input={"a": 2})) != pod_name(OWNER.uid, other)
    assert len(pod_name(OWNER.uid, asked())) <= 63


def test_an_input_that_no_pod_can_hold_is_told() -> None:
    assert too_large(asked(input="x" * MOST_INPUT)).endswith(f"at most {MOST_INPUT} are allowed")
    assert too_large(asked()) == ""


WAITS = {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}
HOOKED = {"waiting": {"reason": "PostStartHookError", "message": "exited with 137"}}
LOOPS = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}
UNSCHEDULED = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}
ENDS: dict[str, tuple[dict[str, Any], tuple[str, str] | None]] = {
    "it runs": (status({"running": {}}), None),
    "it ended well": (status(exited(0), phase="Succeeded"), None),
    "an exit code": (status(exited(3), phase="Failed"), ("ToolError", "ExitCode")),
    "too much memory": (status(exited(137, reason="OOMKilled"), phase="Failed"), ("ToolError", "OOMKilled")),
    "the deadline": (status(phase="Failed", reason="DeadlineExceeded"), ("Timeout", "Timeout")),
    "evicted": (status(phase="Failed", reason="Evicted", message="disk"), ("Unavailable", "Evicted")),
    "no name of an image": (status({"waiting": {"reason": "InvalidImageName"}}), ("Invalid", "InvalidImageName")),
    "an image that may not be fetched": (
        status({"waiting": {"reason": "ErrImageNeverPull"}}),
        ("Invalid", "ErrImageNeverPull"),
    ),
    "what cannot be made": (
        status({"waiting": {"reason": "CreateContainerConfigError", "message": "x"}}),
        ("Invalid", "CreateContainerConfigError"),
    ),
    "no isolation": (
        status(inits=[{"name": "input", "state": exited(1, message="could reach the API server")}], phase="Failed"),
        ("Unavailable", "NotIsolated"),
    ),
    "the helper was killed after it": (
        status(exited(0), inits=[{"name": "output", "state": exited(137)}], phase="Succeeded"),
        None,
    ),
}


@pytest.mark.requirement("F07", "F09")
@pytest.mark.parametrize(("pod", "expected"), ENDS.values(), ids=ENDS)
def test_what_cannot_go_on_fails_at_once(pod: dict[str, Any], expected: tuple[str, str] | None) -> None:
    error = failure(pod, NOW)
    assert (None if error is None else (error.error_class, error.reason)) == expected
    assert waits(pod) is None


MAKES = {"waiting": {"reason": "CreateContainerError", "message": "the runtime does not answer"}}
NEW_NODE = {
    "waiting": {"reason": "CreateContainerConfigError", "message": "services have not yet been read at least once"}
}
WAIT: dict[str, tuple[dict[str, Any], tuple[str, str] | None]] = {
    "it is being made": (status({"waiting": {"reason": "ContainerCreating"}}), None),
    "nobody has seen it": (status(), None),
    "an image on its way": (status(WAITS), ("Unavailable", "ImagePullBackOff")),
    "no node": (status(conditions=[UNSCHEDULED]), ("Unavailable", "Unschedulable")),
    "a node that has just begun": (status(NEW_NODE), ("Unavailable", "CreateContainerConfigError")),
    "a runtime that does not make it": (status(MAKES), ("Invalid", "CreateContainerError")),
    "a helper is started again beside it": (
        status({"running": {}}, inits=[{"name": "calls", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]),
        None,
    ),
    "a helper that does not start": (
        status({"waiting": {"reason": "PodInitializing"}}, inits=[{"name": "calls", "state": LOOPS}]),
        ("Unavailable", "CrashLoopBackOff"),
    ),
    "a helper that was killed while it began": (
        status({"waiting": {"reason": "PodInitializing"}}, inits=[{"name": "calls", "state": HOOKED}]),
        ("Unavailable", "PostStartHookError"),
    ),
}


@pytest.mark.requirement("F09")
@pytest.mark.parametrize(("pod", "expected"), WAIT.values(), ids=WAIT)
def test_what_may_pass_is_waited_for(pod: dict[str, Any], expected: tuple[str, str] | None) -> None:
    found = waits(pod)
    assert (None if found is None else (found.error.error_class, found.error.reason)) == expected
    assert failure(pod, NOW + timedelta(days=1)) is None


def taken(pod: dict[str, Any], *, by: str = "") -> dict[str, Any]:
    """Return the pod as one that had to end a minute after NOW; `by` is what the condition about it says."""
    pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:01:00Z"
    disruption = {"type": "DisruptionTarget", "status": "True", "reason": by, "message": ""}
    pod["status"] |= {"conditions": [disruption]} if by else {}
    return pod


RUNS: dict[str, Any] = {"running": {}}
TAKEN: dict[str, tuple[dict[str, Any], int, tuple[str, str] | None]] = {
    "its time to end": (taken(status(RUNS), by="DeletionByTaintManager"), 60 + LOST_SECONDS - 1, None),
    "its node is lost": (taken(status(RUNS)), 60 + LOST_SECONDS, ("Unavailable", "NodeLost")),
    "its node was given up": (
        taken(status(RUNS, phase="Running"), by="DeletionByTaintManager"),
        60 + LOST_SECONDS,
        ("Unavailable", "DeletionByTaintManager"),
    ),
    "it never began": (taken(status(phase="Pending")), 60 + LOST_SECONDS, ("Unavailable", "NodeLost")),
    "its output is on a lost node": (taken(status(exited(0))), 60 + LOST_SECONDS, ("Unavailable", "NodeLost")),
    "it ended well before": (taken(status(exited(0), phase="Succeeded")), 3600, None),
    "drained": (
        taken(status(exited(143), phase="Failed"), by="EvictionByEvictionAPI"),
        1,
        ("Unavailable", "EvictionByEvictionAPI"),
    ),
    "drained before its helpers had ended": (
        taken(status(exited(143), phase="Running"), by="PreemptionByScheduler"),
        1,
        ("Unavailable", "PreemptionByScheduler"),
    ),
    "ended with its node": (
        taken(status(phase="Failed"), by="TerminationByKubelet"),
        1,
        ("Unavailable", "TerminationByKubelet"),
    ),
    "deleted by hand": (taken(status(exited(143), phase="Failed")), 1, ("Unavailable", "PodLost")),
    "more memory than it has": (
        taken(status(exited(137, reason="OOMKilled"), phase="Failed")),
        1,
        ("ToolError", "OOMKilled"),
    ),
}


@pytest.mark.requirement("F06", "F10")
@pytest.mark.parametrize(("pod", "age", "expected"), TAKEN.values(), ids=TAKEN)
def test_a_pod_that_is_taken_from_its_step_is_one_failed_attempt(
    pod: dict[str, Any], age: int, expected: tuple[str, str] | None
) -> None:
    error = failure(pod, NOW + timedelta(seconds=age))
    assert (None if error is None else (error.error_class, error.reason)) == expected


def test_an_ended_pod_is_seen() -> None:
    assert ended(status(phase="Failed")) and not ended(status(phase="Running"))
    assert succeeded(status(exited(0))) and not succeeded(status(exited(1)))
