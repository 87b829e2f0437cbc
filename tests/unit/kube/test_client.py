from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest
from aiohttp import web
from tests.unit.kube.api_server import FakeApiServer, answer, config_map, failure, page, serving, stream

from fairlead.api.canonical import MAX_SPEC_DEPTH, too_deep
from fairlead.errors import Conflict, KubeError, NotFound, Unreachable
from fairlead.kube.client import Kube
from fairlead.kube.pace import TokenBucket
from fairlead.kube.types import CONFIG_MAPS, LOCAL_SUBJECT_ACCESS_REVIEWS, WORKFLOWS

PATH = "/api/v1/namespaces/team/configmaps"


async def test_a_list_is_read_in_chunks_and_its_items_say_what_they_are() -> None:
    api = FakeApiServer()
    bare = {"metadata": {"name": "c"}}
    api.answers(page([config_map("a", 1)], "7", "t1"), page([config_map("b", 2)], "7", "t2"), page([bare], "7"))
    async with serving(api) as kube:
        items = await kube.list(CONFIG_MAPS, "team", label_selector="x=y")
    assert [item["metadata"]["name"] for item in items] == ["a", "b", "c"]
    assert items[2]["kind"] == "ConfigMap"
    assert [asked.query.get("continue") for asked in api.asked] == [None, "t1", "t2"]
    assert {(asked.path, asked.query["limit"], asked.query["labelSelector"]) for asked in api.asked} == {
        (PATH, "500", "x=y")
    }


async def test_a_list_that_expires_between_chunks_is_read_again_from_the_start() -> None:
    api = FakeApiServer()
    api.answers(page([config_map("old", 1)], "7", "t1"), failure(410), page([config_map("new", 9)], "9"))
    async with serving(api) as kube:
        items, version = await kube.snapshot(CONFIG_MAPS)
    assert [item["metadata"]["name"] for item in items] == ["new"]
    assert version == "9"


@pytest.mark.parametrize(
    ("status", "error", "retryable"),
    [
        (400, KubeError, False),
        (401, KubeError, False),
        (403, KubeError, False),
        (404, NotFound, False),
        (409, Conflict, True),
        (410, KubeError, False),
        (422, KubeError, False),
        (429, Unreachable, True),
        (500, Unreachable, True),
        (503, Unreachable, True),
    ],
)
async def test_each_status_is_one_of_our_errors(status: int, error: type[KubeError], retryable: bool) -> None:
    api = FakeApiServer()
    api.answers(failure(status, "because"))
    async with serving(api) as kube:
        with pytest.raises(KubeError) as raised:
            await kube.get(CONFIG_MAPS, "a", "team")
    assert type(raised.value) is error
    assert (raised.value.status, raised.value.message, raised.value.retryable) == (status, "because", retryable)


@pytest.mark.requirement("F16")
async def test_a_retry_after_is_told_and_slows_every_later_write_down() -> None:
    api = FakeApiServer()
    api.answers(failure(429, headers={"Retry-After": "7"}))
    writes = TokenBucket(per_second=10, burst=10, clock=lambda: 0.0)
    async with serving(api, writes=writes) as kube:
        with pytest.raises(Unreachable) as raised:
            await kube.create(CONFIG_MAPS, config_map("a", 1))
    assert raised.value.retry_after_seconds == 7
    assert writes.reserve() == pytest.approx(7.1)


@pytest.mark.parametrize("after", ["soon", "-1", "Wed, 21 Oct 2026 07:28:00 GMT", ""])
async def test_a_retry_after_that_is_no_number_is_none(after: str) -> None:
    api = FakeApiServer()
    api.answers(failure(503, headers={"Retry-After": after}))
    async with serving(api) as kube:
        with pytest.raises(Unreachable) as raised:
            await kube.get(CONFIG_MAPS, "a", "team")
    assert raised.value.retry_after_seconds is None


async def test_a_server_that_is_not_there_is_unreachable() -> None:
    async with serving(FakeApiServer()) as kube:
        pass
    with pytest.raises(Unreachable) as raised:
        await kube.get(CONFIG_MAPS, "a", "team")
    assert raised.value.status == 0
    await kube.close()


async def test_a_server_that_does_not_answer_is_unreachable() -> None:
    api = FakeApiServer()
    api.answers(stream(then="hang"))
    async with serving(api, timeout_seconds=0.05) as kube:
        with pytest.raises(Unreachable):
            await kube.get(CONFIG_MAPS, "a", "team")


@pytest.mark.requirement("F15")
async def test_a_no_counts_once_the_server_is_ready() -> None:
    api, no = FakeApiServer(), failure(403, "no RBAC policy matched")
    obj = {"metadata": {"name": "a"}}
    async with serving(api) as kube:
        create = partial(kube.create, CONFIG_MAPS, obj, "team")
        api.answers(no, text("ok", "text/plain"), answer(obj))
        assert await kube.once_ready(create) == obj
        assert [asked.path for asked in api.asked] == [PATH, "/readyz", PATH]
        api.answers(no, no, answer(obj))
        with pytest.raises(Unreachable, match="not ready"):
            await kube.once_ready(create)
        api.answers(no, text("ok", "text/plain"), no)
        with pytest.raises(KubeError, match="no RBAC"):
            await kube.once_ready(create)
        api.answers(failure(409), answer(obj))
        with pytest.raises(Conflict):
            await kube.once_ready(create)


def text(body: str, content_type: str = "application/json") -> Any:
    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response(body=body.encode("latin-1"), content_type=content_type)

    return handler


@pytest.mark.requirement("A34")
async def test_what_is_nested_too_deep_is_read_as_far_as_checks_look() -> None:
    api = FakeApiServer()
    api.answers(
        text(
            '{"items": [{"spec": {"x": '
            + "[" * 2000
            + '"]"'
            + "]" * 2000
            + ', "y": "\\"["}}, {}], "metadata": {"resourceVersion": "7"}}'
        )
    )
    async with serving(api) as kube:
        (deep, _), version = await kube.snapshot(CONFIG_MAPS)
    assert (deep["spec"]["y"], version) == ('"[', "7")
    assert too_deep(deep["spec"], most=MAX_SPEC_DEPTH)


@pytest.mark.requirement("A34")
async def test_what_calls_itself_json_and_is_none_is_our_error() -> None:
    api = FakeApiServer()
    api.answers(text("[1,"))
    async with serving(api) as kube:
        with pytest.raises(KubeError, match="cannot be read"):
            await kube.get(CONFIG_MAPS, "a", "team")


async def test_a_log_that_is_no_utf_8_is_a_log() -> None:
    api = FakeApiServer()
    api.answers(text("\xff\xfe", "text/plain"))
    async with serving(api) as kube:
        assert await kube.request("GET", "/log") == "\ufffd\ufffd"


async def sent(call: Any) -> Any:
    """What one call of the client asks for."""
    api = FakeApiServer()
    api.answers(answer({"kind": "ConfigMap"}))
    async with serving(api) as kube:
        await call(kube)
    (asked,) = api.asked
    return asked


async def test_apply_is_server_side() -> None:
    obj = {"metadata": {"name": "a", "namespace": "team"}, "data": {"x": "1"}}
    asked = await sent(lambda kube: kube.apply(CONFIG_MAPS, obj, manager="me"))
    assert (asked.method, asked.path) == ("PATCH", f"{PATH}/a")
    assert asked.headers["Content-Type"] == "application/apply-patch+yaml"
    assert asked.query == {"fieldManager": "me", "force": "true"}
    assert asked.body == {"apiVersion": "v1", "kind": "ConfigMap", **obj}


async def test_a_status_goes_to_its_own_door() -> None:
    obj = {"metadata": {"name": "a", "namespace": "team", "resourceVersion": "7"}, "status": {}}
    asked = await sent(lambda kube: kube.apply_status(WORKFLOWS, obj, manager="me"))
    assert asked.path == "/apis/fairlead.dev/v1alpha1/namespaces/team/workflows/a/status"
    assert asked.body["metadata"]["resourceVersion"] == "7"


async def test_a_patch_is_a_merge_patch() -> None:
    asked = await sent(lambda kube: kube.patch(CONFIG_MAPS, "a", "team", {"data": None}, subresource="status"))
    assert (asked.method, asked.path) == ("PATCH", f"{PATH}/a/status")
    assert asked.headers["Content-Type"] == "application/merge-patch+json"
    assert asked.body == {"data": None}


async def test_a_create_goes_to_the_namespace_of_the_object() -> None:
    asked = await sent(lambda kube: kube.create(CONFIG_MAPS, {"metadata": {"namespace": "team", "name": "a"}}))
    assert (asked.method, asked.path, asked.body["kind"]) == ("POST", PATH, "ConfigMap")


async def test_a_delete_can_mean_this_very_object() -> None:
    asked = await sent(lambda kube: kube.delete(CONFIG_MAPS, "a", "team", uid="u1"))
    assert (asked.method, asked.path) == ("DELETE", f"{PATH}/a")
    assert asked.body["preconditions"] == {"uid": "u1"}


async def test_requests_carry_the_token() -> None:
    asked = await sent(lambda kube: kube.get(CONFIG_MAPS, "a", "team"))
    assert asked.headers["Authorization"] == "Bearer let-me-in"


@pytest.mark.parametrize(
    ("call", "waits"),
    [
        (lambda kube: kube.create(CONFIG_MAPS, config_map("a", 1)), True),
        (lambda kube: kube.apply(CONFIG_MAPS, config_map("a", 1), manager="me"), True),
        (lambda kube: kube.delete(CONFIG_MAPS, "a", "team"), True),
        (lambda kube: kube.get(CONFIG_MAPS, "a", "team"), False),
        (lambda kube: kube.create(LOCAL_SUBJECT_ACCESS_REVIEWS, {}, "team"), False),
        (lambda kube: kube.request("PUT", "/x", body={}, urgent=True), False),
    ],
)
async def test_only_writes_wait_for_the_bucket(call: Any, waits: bool) -> None:
    api = FakeApiServer()
    api.answers(answer({}))
    writes = TokenBucket(per_second=1, burst=1)
    writes.pause(3600)
    async with serving(api, writes=writes) as kube:
        asking = asyncio.ensure_future(call(kube))
        probe = asyncio.ensure_future(kube.get(CONFIG_MAPS, "probe", "team"))
        await probe
        if waits:
            assert [asked.path for asked in api.asked] == [f"{PATH}/probe"]
            asking.cancel()
        else:
            await asking


async def test_a_kubeconfig_says_where_and_as_whom(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "config"
    config.write_text(
        """{apiVersion: v1, kind: Config, current-context: b,
        contexts: [{name: a, context: {cluster: c, user: u}}, {name: b, context: {cluster: c, user: u, namespace: t}}],
        clusters: [{name: c, cluster: {server: "http://127.0.0.1:1"}}], users: [{name: u, user: {token: x}}]}"""
    )
    monkeypatch.setenv("KUBECONFIG", str(config))
    for context, namespace in ((None, "t"), ("a", "default")):
        kube = await Kube.connect(context=context)
        assert kube.namespace == namespace
        await kube.close()
