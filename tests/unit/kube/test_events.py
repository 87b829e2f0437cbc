from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.unit.kube.api_server import FakeApiServer, answer, config_map, failure, serving

from fairlead.kube.events import EventRecorder
from fairlead.kube.pace import TokenBucket

RUN = config_map("run-1", 1)


@asynccontextmanager
async def recording(api: FakeApiServer, **options: Any) -> AsyncIterator[EventRecorder]:
    async with serving(api) as kube:
        recorder = EventRecorder(kube, component="fairlead-engine", instance="engine-0", **options)
        task = asyncio.create_task(recorder.run())
        try:
            yield recorder
        finally:
            task.cancel()
            await asyncio.wait((task,))


async def test_an_event_says_what_happened_to_what() -> None:
    api = FakeApiServer()
    api.answers(answer({}))
    async with recording(api) as recorder:
        recorder.emit(RUN, reason="Denied", message="x" * 3000, warning=True)
        await recorder.flush()
    (asked,) = api.asked
    assert asked.path.startswith("/api/v1/namespaces/team/events/run-1.")
    assert asked.query["fieldManager"] == "fairlead-engine"
    assert {key: asked.body[key] for key in ("type", "reason", "count", "reportingInstance")} == {
        "type": "Warning",
        "reason": "Denied",
        "count": 1,
        "reportingInstance": "engine-0",
    }
    assert asked.body["involvedObject"]["uid"] == "uid-run-1"
    assert len(asked.body["message"]) == 1024


async def test_a_repetition_is_counted_and_written_only_after_a_while() -> None:
    api = FakeApiServer()
    api.answers(answer({}))
    now = [0.0]
    async with recording(api, clock=lambda: now[0], quiet_seconds=600) as recorder:
        for seconds in (0, 1, 300, 298, 10):
            now[0] += seconds
            recorder.emit(RUN, reason="Denied", message="no grant")
        recorder.emit(RUN, reason="Denied", message="another grant")
        await recorder.flush()
    assert [(asked.body["message"], asked.body["count"]) for asked in api.asked] == [
        ("no grant", 1),
        ("no grant", 5),
        ("another grant", 1),
    ]
    assert api.asked[0].path == api.asked[1].path != api.asked[2].path


async def test_what_the_server_refuses_is_dropped_and_the_next_one_written() -> None:
    api = FakeApiServer()
    api.answers(failure(403), answer({}))
    async with recording(api) as recorder:
        recorder.emit(RUN, reason="Denied", message="one")
        recorder.emit(RUN, reason="Denied", message="two")
        await recorder.flush()
    assert (len(api.asked), recorder.dropped) == (2, 1)


async def test_a_storm_neither_blocks_nor_piles_up() -> None:
    api = FakeApiServer()
    rate = TokenBucket(per_second=1, burst=1)
    rate.pause(3600)
    async with recording(api, rate=rate) as recorder:
        for number in range(5000):
            recorder.emit(RUN, reason="Denied", message=str(number))
    assert recorder.dropped == 4000
    assert api.asked == []
