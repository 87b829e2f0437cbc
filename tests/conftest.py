"""For all tests: one that fails on a cluster shows what its namespace looked like; no property has to be fast."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest
from hypothesis import settings
from tests.cluster import CommandFailed
from tests.e2e.kubectl import Kubectl

settings.register_profile("fairlead", deadline=None)
settings.load_profile("fairlead")

LOOKS = (
    ("get", "fairlead,statefulsets,deployments,pods", "--output=wide"),
    (
        "get",
        "workflowruns.fairlead.dev",
        "--output=jsonpath={range .items[*]}{.metadata.name}{' '}{.status}{'\\n'}{end}",
    ),
    ("get", "events", "--sort-by=.lastTimestamp"),
    ("logs", "fairlead-engine-0", "--tail=40"),
    ("logs", "fairlead-engine-0", "--tail=20", "--previous"),
)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    report = yield
    if report.failed and report.when == "call":
        for kubectl in getattr(item, "funcargs", {}).values():
            if isinstance(kubectl, Kubectl) and kubectl.namespace != "default":
                report.sections.append((f"namespace {kubectl.namespace}", "\n".join(_look(kubectl))))
    return report


def _look(kubectl: Kubectl) -> Generator[str]:
    for words in LOOKS:
        yield f"$ kubectl {' '.join(words)}"
        try:
            yield kubectl(*words, timeout_seconds=20)[-6000:]
        except CommandFailed as failed:
            yield str(failed)[-500:]
