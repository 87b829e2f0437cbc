from __future__ import annotations

from typing import Any

import kopf
import pytest
from kopf._core.intents.registries import OperatorRegistry
from tests.unit.controllers.declared import NAMESPACE, declared

from fairlead.controllers.handlers import enqueue_affected, kopf_registry, kopf_settings
from fairlead.controllers.observed import Observed
from fairlead.controllers.queue import Key, WorkQueue
from fairlead.kube.types import TOOLS


def handlers(registry: OperatorRegistry) -> dict[str, Any]:
    return {handler.id: handler for handler in registry._watching.get_all_handlers()}


async def test_an_event_becomes_knowledge_and_keys_and_nothing_else() -> None:
    observed, queue = Observed(), WorkQueue(clock=lambda: 0.0)
    enqueue_affected(observed, queue)
    handle = handlers(kopf_registry(observed))[TOOLS.plural].fn
    tool = declared("Tool")
    assert await handle(event={"type": None, "object": tool}) is None
    assert observed.get(TOOLS, NAMESPACE, "tickets") == tool
    assert {queue.take(), queue.take()} == {Key("tools", NAMESPACE, "tickets"), Key("engines", NAMESPACE, "default")}
    assert await handle(event={"type": "DELETED", "object": tool}) is None
    assert observed.get(TOOLS, NAMESPACE, "tickets") is None


@pytest.mark.requirement("A11")
def test_nothing_is_stored_in_annotations_and_nothing_is_read_from_them() -> None:
    registry = kopf_registry(Observed())
    assert not list(registry._changing.get_all_handlers()), "no handler keeps progress"
    assert not list(registry._spawning.get_all_handlers()), "no timers and daemons"
    assert not list(registry._indexing.get_all_handlers())
    settings = kopf_settings()
    body = kopf.Body({"metadata": {"annotations": {"kopf.zalando.org/tools": '{"success": true}'}}})
    patch = kopf.Patch()
    progress, diff_base = settings.persistence.progress_storage, settings.persistence.diffbase_storage
    assert progress.fetch(key="tools", body=body) is None  # type: ignore[arg-type]
    assert diff_base.fetch(body=body) is None
    progress.store(key="tools", record={}, body=body, patch=patch)  # type: ignore[arg-type,typeddict-item]
    diff_base.store(body=body, patch=patch, essence={})  # type: ignore[typeddict-item]
    assert dict(patch) == {}


def test_kopf_only_watches() -> None:
    settings = kopf_settings()
    assert settings.peering.standalone
    assert settings.scanning.disabled
    assert not settings.posting.enabled
    assert settings.networking.enforce_retry_after
