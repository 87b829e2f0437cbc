"""For all tests: `--requirement ID`; one that fails on a cluster shows its namespace; no property has to be fast."""

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


def pytest_addoption(parser: pytest.Parser) -> None:
    words = "run only tests that are marked with this requirement (A47) or with one of this kind (A: the attacks)"
    parser.addoption("--requirement", default="", metavar="ID", help=words)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    wanted = config.getoption("--requirement")
    if not wanted:
        return
    fits = [item for item in items if any(wanted in (name, name[0]) for name in _requirements(item))]
    if not fits:
        raise pytest.UsageError(f"no test is marked with the requirement {wanted}; see tests/requirements.yaml")
    config.hook.pytest_deselected(items=[item for item in items if item not in fits])
    items[:] = fits


def _requirements(item: pytest.Item) -> list[str]:
    return [name for marker in item.iter_markers("requirement") for name in marker.args]


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
