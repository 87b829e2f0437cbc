from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.kube.api_server import FakeApiServer, bookmark, config_map, event, failure, page, serving, stream

from fairlead.kube.client import Kube
from fairlead.kube.pace import Backoff
from fairlead.kube.types import CONFIG_MAPS
from fairlead.kube.watch import Informer, Key, Object

Change = tuple[str | None, str | None]


class Watched:
    """An informer at work, its changes as (old, new) of `name@version`, and why it started again."""

    def __init__(self, kube: Kube, *, on_change: Callable[[], None] = lambda: None, **options: Any) -> None:
        self.changes: asyncio.Queue[Change] = asyncio.Queue()
        self.restarts: asyncio.Queue[str] = asyncio.Queue()
        backoff = Backoff(first_seconds=0.001, longest_seconds=0.01)
        self.informer = Informer(
            kube,
            CONFIG_MAPS,
            on_change=lambda old, new: (self.changes.put_nowait((short(old), short(new))), on_change())[0],
            on_restart=self.restarts.put_nowait,
            **{"backoff": backoff, **options},
        )

    async def next(self, count: int) -> list[Change]:
        return [await self.changes.get() for _ in range(count)]


def short(obj: Object | None) -> str | None:
    return None if obj is None else f"{obj['metadata']['name']}@{obj['metadata']['resourceVersion']}"


@asynccontextmanager
async def watching(api: FakeApiServer, **options: Any) -> AsyncIterator[Watched]:
    async with serving(api) as kube:
        watched = Watched(kube, **options)
        task = asyncio.create_task(watched.informer.run())
        try:
            async with asyncio.timeout(10):
                yield watched
        finally:
            task.cancel()
            await asyncio.wait((task,))


def watches(api: FakeApiServer) -> list[str]:
    """From which version each watch was asked."""
    return [asked.query["resourceVersion"] for asked in api.asked if "watch" in asked.query]


def lists(api: FakeApiServer) -> int:
    return sum("watch" not in asked.query for asked in api.asked)


async def test_what_is_there_and_what_changes_is_reported_once() -> None:
    api = FakeApiServer()
    api.answers(
        page([config_map("a", 1), config_map("b", 2)], "5"),
        stream(
            event("ADDED", config_map("c", 6)),
            event("MODIFIED", config_map("a", 7)),
            event("DELETED", config_map("b", 8)),
        ),
    )
    async with watching(api) as watched:
        assert watched.informer.last_seen == -math.inf
        await watched.informer.synced.wait()
        assert set(watched.informer.objects) == {("team", "a"), ("team", "b")}
        changes = await watched.next(5)
        assert sorted(changes[:2], key=str) == [(None, "a@1"), (None, "b@2")]
        assert changes[2:] == [(None, "c@6"), ("a@1", "a@7"), ("b@2", None)]
        assert set(watched.informer.objects) == {("team", "a"), ("team", "c")}
        assert watched.informer.last_seen > -math.inf
    assert watches(api) == ["5"]


async def test_a_stream_asks_for_bookmarks_and_goes_on_where_the_last_one_stood() -> None:
    api = FakeApiServer()
    api.answers(page([], "5"), stream(bookmark(90), then="end"), stream())
    async with watching(api, label_selector="x=y", namespace="team") as watched:
        await watched.informer.synced.wait()
        while len(watches(api)) < 2:
            await asyncio.sleep(0)
    asked = api.asked[-1]
    assert watches(api) == ["5", "90"]
    assert asked.path == "/api/v1/namespaces/team/configmaps"
    assert (asked.query["allowWatchBookmarks"], asked.query["labelSelector"]) == ("true", "x=y")
    assert lists(api) == 1


EXPIRED = event("ERROR", {"kind": "Status", "code": 410, "message": "too old resource version"})


@pytest.mark.requirement("F20")
@pytest.mark.parametrize("gone", [failure(410), stream(EXPIRED)], ids=["status", "event"])
async def test_deletions_missed_by_an_expired_watch_are_made_up_for(gone: Any) -> None:
    api = FakeApiServer()
    api.answers(
        page([config_map("a", 1), config_map("b", 2)], "5"),
        gone,
        page([config_map("b", 2), config_map("c", 9)], "9"),
        stream(),
    )
    async with watching(api) as watched:
        changes = await watched.next(4)
        assert changes[2:] == [("a@1", None), (None, "c@9")]
        assert await watched.restarts.get() == "Expired"
        while len(watches(api)) < 2:
            await asyncio.sleep(0)
    assert watches(api) == ["5", "9"]


@pytest.mark.requirement("F19")
async def test_a_silent_stream_is_given_up_and_everything_is_listed_again() -> None:
    api = FakeApiServer()
    api.answers(page([config_map("a", 1)], "5"), stream(then="hang"), page([], "9"), stream())
    async with watching(api, inactivity_seconds=0.02) as watched:
        assert await watched.next(2) == [(None, "a@1"), ("a@1", None)]
        assert await watched.restarts.get() == "Silent"


async def test_a_dropped_stream_goes_on_where_it_stopped_without_a_list() -> None:
    api = FakeApiServer()
    api.answers(
        page([], "5"),
        stream(event("ADDED", config_map("a", 6)), then="drop"),
        stream(event("MODIFIED", config_map("a", 7))),
    )
    async with watching(api) as watched:
        assert await watched.next(2) == [(None, "a@6"), ("a@6", "a@7")]
        assert await watched.restarts.get() == "Dropped"
    assert (watches(api), lists(api)) == (["5", "6"], 1)


@pytest.mark.requirement("A34")
@pytest.mark.parametrize(
    ("poison", "seen"),
    [('{"type": "ADDED", "object": {"a": tru}}', ["a@7"]), (None, ["deep@6", "a@7"])],
    ids=["no JSON", "nested too deep"],
)
async def test_an_event_that_cannot_be_read_is_in_the_way_of_no_other(poison: str | None, seen: list[str]) -> None:
    deep = json.dumps(event("ADDED", config_map("deep", 6) | {"data": "@"})).replace('"@"', "[" * 2000 + "]" * 2000)

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(f"{poison or deep}\n{json.dumps(event('ADDED', config_map('a', 7)))}\n".encode())
        await asyncio.Event().wait()
        return response

    api = FakeApiServer()
    api.answers(page([], "5"), handler)
    async with watching(api) as watched:
        assert await watched.next(len(seen)) == [(None, one) for one in seen]
    assert watches(api) == ["5"]


@pytest.mark.requirement("F16")
async def test_a_stream_that_ends_at_once_is_not_asked_for_in_a_hot_loop() -> None:
    api = FakeApiServer()
    api.answers(page([], "5"), stream(then="end"))
    async with watching(api, backoff=Backoff(first_seconds=3600, longest_seconds=3600)) as watched:
        assert await watched.restarts.get() == "Dropped"
    assert watches(api) == ["5"]


@pytest.mark.parametrize("status", [403, 404, 429, 500])
async def test_a_server_that_refuses_is_asked_again(status: int) -> None:
    api = FakeApiServer()
    api.answers(failure(status), page([config_map("a", 1)], "5"), stream())
    async with watching(api) as watched:
        assert await watched.next(1) == [(None, "a@1")]
        assert await watched.restarts.get() == "Error"


async def test_a_resync_reports_every_object_whatever_the_watch_said() -> None:
    api = FakeApiServer()
    api.answers(
        page([config_map("a", 1), config_map("lost", 1)], "5"),
        stream(bookmark(6), then="end"),
        page([config_map("a", 1), config_map("new", 8)], "9"),
        stream(),
    )
    now = [100.0]

    def two_make_a_minute() -> None:
        now[0] += 30

    options = {"resync_seconds": 60, "clock": lambda: now[0], "on_change": two_make_a_minute}
    async with watching(api, **options) as watched:
        changes = await watched.next(5)
    assert changes[2:] == [("lost@1", None), ("a@1", "a@1"), (None, "new@8")]


async def test_an_object_that_was_replaced_is_deleted_then_added() -> None:
    api = FakeApiServer()
    api.answers(page([config_map("a", 1)], "5"), failure(410), page([config_map("a", 9, uid="other")], "9"), stream())
    async with watching(api) as watched:
        assert await watched.next(3) == [(None, "a@1"), ("a@1", None), (None, "a@9")]


async def test_nobody_pays_for_managed_fields() -> None:
    api = FakeApiServer()
    api.answers(page([config_map("a", 1, managedFields=[{"manager": "x"}])], "5"), stream())
    async with watching(api) as watched:
        await watched.next(1)
        assert "managedFields" not in watched.informer.objects["team", "a"]["metadata"]


async def test_what_a_listener_raises_ends_the_informer() -> None:
    api = FakeApiServer()
    api.answers(page([config_map("a", 1)], "5"))

    def on_change(old: Object | None, new: Object | None) -> None:
        raise ArithmeticError("a bug")

    async with serving(api) as kube:
        with pytest.raises(ArithmeticError):
            await Informer(kube, CONFIG_MAPS, on_change=on_change).run()


class Script:
    """What an Informer needs of a client: an empty list, then these events."""

    def __init__(self, events: list[dict[str, Any]]) -> None:
        self.events = events
        self.done = asyncio.Event()

    async def snapshot(self, *where: Any, **options: Any) -> tuple[list[Object], str]:
        return [], "0"

    async def watch(self, *where: Any, **options: Any) -> AsyncGenerator[dict[str, Any], None]:
        for one in self.events:
            yield one
        self.done.set()
        await asyncio.Event().wait()


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[dict[str, Any]], dict[Key, str]]:
    """Events of a few objects, late, twice and in any order, and which versions remain in the end."""
    names = draw(st.lists(st.sampled_from("abc"), min_size=1, max_size=12))
    events, living = [], {}
    for version, name in enumerate(names, start=1):
        deleted = ("team", name) in living and draw(st.booleans())
        kind = "DELETED" if deleted else "MODIFIED" if ("team", name) in living else "ADDED"
        events.append(event(kind, config_map(name, version)))
        if deleted:
            del living["team", name]
        else:
            living["team", name] = str(version)
    again = draw(st.lists(st.sampled_from(events), max_size=5))
    return draw(st.permutations([*events, *again])), living


@pytest.mark.requirement("F21")
@given(histories())
def test_late_reordered_and_repeated_events_come_to_the_same_end(
    history: tuple[list[dict[str, Any]], dict[Key, str]],
) -> None:
    events, living = history
    reported: dict[Key, str] = {}

    def on_change(old: Object | None, new: Object | None) -> None:
        either = cast(Object, new or old)
        key = (either["metadata"]["namespace"], either["metadata"]["name"])
        assert reported.get(key) == (old and old["metadata"]["resourceVersion"])
        if new is None:
            del reported[key]
        else:
            reported[key] = new["metadata"]["resourceVersion"]

    async def follow() -> None:
        script = Script(events)
        task = asyncio.create_task(Informer(cast(Kube, script), CONFIG_MAPS, on_change=on_change).run())
        await script.done.wait()
        task.cancel()
        await asyncio.wait((task,))

    asyncio.run(follow())
    assert reported == living
