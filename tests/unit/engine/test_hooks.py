"""HTTP triggers: who may call, what a request must be, and that the same request makes one run."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.unit.engine.fakes import tool_step, workflow
from tests.unit.engine.hookworld import BODY, CALLED, KEY, SCHEMA, Resources, World, signed

from fairlead.engine import bodies, hooks
from fairlead.engine.acceptance import INPUT_BYTES
from fairlead.engine.bodies import MAX_BYTES
from fairlead.engine.credentials import triggers_ready
from fairlead.engine.definitions import workflow_status
from fairlead.engine.hooks import TRIGGER_LABEL
from fairlead.errors import AuthorizerUnavailable, KubeError, Unreachable
from fairlead.policy.decision import Authorization
from fairlead.policy.permission import Permission


@pytest.fixture
async def world() -> AsyncIterator[World]:
    found = World()
    yield found
    await found.client.aclose()


async def test_a_signed_request_makes_a_run(world: World) -> None:
    answer = await world.post("incident")
    assert (answer.status_code, answer.json()) == (
        202,
        {"run": world.run["metadata"]["name"], "uid": "uid-0", "outcome": "Accepted"},
    )
    assert world.run["spec"] == {"workflow": "w", "input": {"text": "it burns", "n": 3}}
    assert world.run["metadata"]["labels"] == {TRIGGER_LABEL: "incident"}
    assert world.run["metadata"]["generateName"] == "w-"


async def test_the_same_key_again_is_answered_with_the_run_that_exists(world: World) -> None:
    first = (await world.post("incident")).json()
    again = await world.post("incident", BODY | {"text": "it still burns"})
    assert (again.status_code, again.json()) == (200, first | {"outcome": "Exists"})
    assert (await world.post("incident", BODY | {"id": "i-2"})).status_code == 202
    assert len(world.cluster.objects) == 2


async def test_without_a_key_every_request_makes_a_run(world: World) -> None:
    for _ in range(2):
        assert (await world.post("open", {})).status_code == 202
    assert len(world.cluster.objects) == 2


async def test_a_run_of_that_name_that_no_trigger_made_is_not_taken_for_its_own(world: World) -> None:
    await world.post("incident")
    world.run["metadata"]["labels"] = {}
    assert (await world.post("incident")).status_code == 409


@pytest.mark.parametrize("headers", [{}, {"X_Event": "ping"}])
async def test_what_when_does_not_hold_for_is_answered_and_ignored(world: World, headers: dict[str, str]) -> None:
    body = BODY if headers else BODY | {"kind": "closed"}
    answer = await world.post("incident", body, **headers)
    assert (answer.status_code, answer.json(), world.cluster.objects) == (200, {"outcome": "Ignored"}, {})


NOBODY: dict[str, dict[str, Any]] = {
    "no signature": {"X_Signature": ""},
    "another key": {"X_Signature": signed(json.dumps(BODY).encode(), "another")},
    "another body": {"X_Signature": signed(b"{}")},
    "no prefix": {"X_Signature": signed(json.dumps(BODY).encode()).removeprefix("v1=")},
    "upper case": {"X_Signature": signed(json.dumps(BODY).encode()).upper()},
    "not ASCII": {"X_Signature": "v1=é".encode("latin-1").decode("latin-1")},
    "no such trigger": {"trigger": "other"},
    "no such workflow": {"workflow": "other"},
    "no such workflow, no JSON": {"workflow": "other", "body": b"{"},
    "several, none right": {"X_Signature": ",".join([signed(b"{}"), signed(json.dumps(BODY).encode(), "another")])},
    "a right one among parts of others": {"X_Signature": signed(json.dumps(BODY).encode()).replace("=", "=,")},
    "more signatures than are looked at": {"X_Signature": ",".join([signed(json.dumps(BODY).encode())] * 11)},
    "nothing between commas": {"X_Signature": ",,"},
    "unsigned, no JSON": {"body": b"{", "X_Signature": "v1=0"},
    "unsigned, another type": {"Content_Type": "text/plain", "X_Signature": "v1=0"},
    "no token": {"trigger": "called"},
    "a wrong token": {"trigger": "called", "Authorization": "Bearer nothing"},
}


@pytest.mark.requirement("A06")
@pytest.mark.parametrize("request_", NOBODY.values(), ids=NOBODY.keys())
async def test_nobody_learns_anything(world: World, request_: dict[str, Any]) -> None:
    given = {"trigger": "incident"} | request_
    headers = {key: value.encode("latin-1").decode("latin-1") for key, value in given.items() if key[0].isupper()}
    raw = given.get("body", json.dumps(BODY).encode())
    sent = {"Content-Type": "application/json", "X-Signature": signed(raw)}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    answer = await world.client.post(
        f"/hooks/{given.get('workflow', 'w')}/{given['trigger']}",
        content=raw,
        headers=[(name.encode(), value.encode("latin-1")) for name, value in sent.items()],
    )
    assert (answer.status_code, answer.json()) == (401, {"error": "Unauthenticated"})
    assert world.cluster.objects == {}


@pytest.mark.parametrize("place", range(10))
async def test_one_right_signature_among_several_counts(world: World, place: int) -> None:
    raw = json.dumps(BODY).encode()
    given = [signed(raw, f"another {n}") for n in range(9)]
    given.insert(place, signed(raw))
    assert (await world.post("incident", raw, X_Signature=", ".join(given))).status_code == 202


@pytest.mark.requirement("A06")
async def test_two_headers_with_signatures_are_none(world: World) -> None:
    raw = json.dumps(BODY).encode()
    headers = [("Content-Type", "application/json"), ("X-Signature", signed(raw)), ("X-Signature", signed(raw))]
    assert (await world.client.post("/hooks/w/incident", content=raw, headers=headers)).status_code == 401


@pytest.mark.parametrize("use", ["", "tls", "HMAC"])
async def test_a_secret_that_was_made_for_something_else_signs_nothing(
    world: World, use: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert world.resources.secret is not None
    world.resources.secret["allowed-use"] = use
    assert (await world.post("incident")).status_code == 401
    assert "the key allowed-use of Secret hooks is not hmac" in caplog.text and KEY not in caplog.text


@pytest.mark.parametrize("secret", [{"allowed-use": "hmac"}, {"allowed-use": "hmac", "secret": " "}])
async def test_an_empty_key_signs_nothing(world: World, secret: dict[str, str]) -> None:
    world.resources.secret = secret
    raw = json.dumps(BODY).encode()
    assert (await world.post("incident", raw, X_Signature=signed(raw, ""))).status_code == 401


CLAIMS: dict[str, dict[str, str]] = {
    "nothing": {"X_Signature": ""},
    "a signature": {},
    "a wrong signature": {"X_Signature": signed(b"{}")},
    "a wrong token": {"X_Signature": "", "Authorization": "Bearer nothing"},
    "a token that cannot be verified": {"X_Signature": "", "Authorization": "Bearer away"},
    "another one": {"X_Signature": "", "X_Fairlead_Token": "away"},
}


@pytest.mark.requirement("A06")
@pytest.mark.parametrize("trigger", ["incident", "paid", "called"])
@pytest.mark.parametrize("claim", CLAIMS.values(), ids=CLAIMS)
async def test_nobody_learns_which_triggers_exist_whatever_is_away(
    world: World, trigger: str, claim: dict[str, str]
) -> None:
    world.resources.secret = None  # not mounted yet: no signature can be verified
    there, nowhere = [await world.post(name, **claim) for name in (trigger, "other")]
    assert (there.status_code, there.content, there.headers.raw) == (401, nowhere.content, nowhere.headers.raw)
    assert (await world.post(trigger, workflow="other", **claim)).headers.raw == there.headers.raw
    assert world.cluster.objects == {}


async def test_a_key_that_is_not_mounted_yet_is_told_in_the_log(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.resources.secret = None
    await world.post("incident")
    assert "trigger w/incident cannot be used: not mounted yet" in caplog.text
    await world.post("called", Authorization="Bearer away")
    assert "callers of triggers cannot be verified: 503: no answer" in caplog.text


@pytest.mark.parametrize("header", ["Authorization", "X_Fairlead_Token"])
async def test_a_service_account_with_invoke_starts_a_run_in_its_name(world: World, header: str) -> None:
    answer = await world.post("called", **{header: "Bearer good" if header == "Authorization" else "good"})
    assert answer.status_code == 202
    assert world.run["spec"]["requestedBy"] == "system:serviceaccount:shop:till"
    assert world.asked == [("system:serviceaccount:shop:till", Permission("workflows", "w"))]


@pytest.mark.requirement("A59")
async def test_without_invoke_a_trigger_is_refused(world: World) -> None:
    world.may = False
    answer = await world.post("called", Authorization="Bearer good")
    assert (answer.status_code, world.cluster.objects) == (403, {})
    assert "system:serviceaccount:shop:till needs invoke on workflows/w" in answer.json()["message"]


@pytest.mark.requirement("A59")
async def test_when_nobody_can_tell_nothing_is_started(world: World) -> None:
    world.may = AuthorizerUnavailable("no answer")
    assert (await world.post("called", Authorization="Bearer good")).status_code == 503
    assert world.cluster.objects == {}


WRONG: dict[str, tuple[Any, int, str]] = {
    "no JSON": (b"{", 400, "no JSON"),
    "not UTF-8": (b'"\xff"', 400, "no JSON"),
    "a key twice": (b'{"kind": 1, "kind": "opened"}', 400, "says a key twice"),
    "NaN": (b'{"kind": NaN}', 400, "no JSON"),
    "too deep": (b"[" * 100_000, 400, "no JSON"),
    "nested": (json.loads("[" * 80 + "]" * 80), 400, "nested deeper than 64"),
    "a large number": (b'{"kind": 123456789012345678901234567890}', 400, "no JSON"),
    "an infinite number": (b'{"kind": 1e999}', 400, "no JSON"),
    "half a character": (b'{"kind": "\\ud800"}', 400, "no JSON"),
    "too large": (b" " * (MAX_BYTES + 1), 413, f"at most {MAX_BYTES} bytes"),
    "when has no value": ({"text": "x"}, 422, "incident.when"),
    "input has no value": ({"kind": "opened", "id": "1"}, 422, "incident.input"),
    "does not fit": (BODY | {"n": "three"}, 422, "/n"),
    "an input too large": (BODY | {"text": "x" * INPUT_BYTES}, 413, f"at most {INPUT_BYTES} are allowed"),
}


@pytest.mark.requirement("A25", "A28")
@pytest.mark.parametrize(("body", "status", "words"), WRONG.values(), ids=WRONG.keys())
async def test_a_wrong_body_is_refused_and_says_what_is_wrong(world: World, body: Any, status: int, words: str) -> None:
    answer = await world.post("incident", body)
    assert (answer.status_code, world.cluster.objects) == (status, {})
    assert words in answer.json()["message"]


async def test_a_body_that_does_not_come_to_its_end_is_not_waited_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def drips() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    monkeypatch.setattr(bodies, "BODY_SECONDS", 0.01)
    answer = await world.client.post("/hooks/w/incident", content=drips())
    assert (answer.status_code, world.cluster.objects) == (408, {})


@pytest.mark.requirement("A30")
@pytest.mark.parametrize("content_type", ["text/plain", "multipart/form-data; boundary=x", "", "application/jsonp"])
async def test_another_content_type_is_refused(world: World, content_type: str) -> None:
    assert (await world.post("incident", Content_Type=content_type)).status_code == 415


@pytest.mark.requirement("A30")
@pytest.mark.parametrize(
    "types",
    [
        ["application/json", "text/plain"],
        ["text/plain", "application/json"],
        ["application/json", "application/json"],
        ["application/json, text/plain"],
        [],
    ],
    ids=str,
)
async def test_two_content_types_are_none(world: World, types: list[str]) -> None:
    raw = json.dumps(BODY).encode()
    headers = [("X-Signature", signed(raw)), *(("Content-Type", said) for said in types)]
    answer = await world.client.post("/hooks/w/incident", content=raw, headers=headers)
    assert (answer.status_code, answer.json()["error"], world.cluster.objects) == (415, "UnsupportedMediaType", {})


NOWHERE = ["/", "/hooks/w/incident/", "/hooks/w/other/", "/hooks/w/incident/more", "//hooks/w/incident"]


@pytest.mark.requirement("A06")
@pytest.mark.parametrize("path", NOWHERE)
async def test_where_nothing_is_everybody_hears_the_same_and_is_sent_nowhere(world: World, path: str) -> None:
    answer = await world.client.post(path, headers={"Host": "elsewhere.example"})
    assert (answer.status_code, answer.content) == (404, b'{"error":"NotFound"}')
    assert set(answer.headers) == {"content-length", "content-type"}


@pytest.mark.parametrize("trigger", ["incident", "other"])
async def test_only_posts_are_answered(world: World, trigger: str) -> None:
    answer = await world.client.get(f"/hooks/w/{trigger}")
    assert (answer.status_code, answer.content) == (405, b'{"error":"MethodNotAllowed"}')
    assert answer.headers["allow"] == "POST"


async def test_expressions_do_not_see_what_proves_who_calls(world: World) -> None:
    await world.post("shown", {}, Authorization="Bearer x", Cookie="c", X_More="shown")
    shown = json.loads(world.run["spec"]["input"]["text"])
    assert shown["x-more"] == "shown"
    assert {"authorization", "cookie", "x-signature"}.isdisjoint(shown)


async def test_a_workflow_that_is_not_ready_is_asked_for_later(world: World) -> None:
    world.resources.workflows["w"] = world.resources.workflows["w"].model_copy(update={"status": None})
    answer = await world.post("incident")
    assert (answer.status_code, answer.headers["Retry-After"], world.cluster.objects) == (503, "5", {})


@pytest.mark.parametrize("error", [Unreachable(0, "no answer"), KubeError(403, "quota")])
async def test_when_the_run_cannot_be_made_the_sender_shall_come_again(world: World, error: KubeError) -> None:
    world.cluster.error = error
    assert (await world.post("incident")).status_code == 503
    world.cluster.error = None
    assert (await world.post("incident")).status_code == 202


async def test_a_signal_goes_to_the_run_that_the_request_names(world: World) -> None:
    answer = await world.post("paid", {"run": "w-1", "n": 7})
    assert (answer.status_code, answer.json()) == (202, {"outcome": "Signalled", "run": "w-1"})
    assert world.cluster.signals == [("w-1", "w", {"name": "paid", "by": "trigger:paid", "data": {"n": 7}})]
    assert (await world.post("paid", {"run": "gone", "n": 7})).status_code == 404
    world.cluster.error = KubeError(422, "at most 50")
    answer = await world.post("paid", {"run": "w-1", "n": 7})
    assert (answer.status_code, answer.json()["message"]) == (422, "at most 50")


async def test_a_key_without_a_value_makes_no_run(world: World) -> None:
    answer = await world.post("incident", BODY | {"id": None})
    assert (answer.status_code, world.cluster.objects) == (422, {})
    assert "incident.dedupeKey" in answer.json()["message"]


async def test_a_run_of_another_workflow_is_not_the_run_of_this_key(world: World) -> None:
    await world.post("incident")
    world.run["spec"]["workflow"] = "other"
    assert (await world.post("incident")).status_code == 409


@pytest.mark.parametrize("run", ["", None, ".", "../x", "A", "x" * 64])
async def test_a_signal_goes_to_what_can_be_a_run_alone(world: World, run: Any) -> None:
    assert (await world.post("paid", {"run": run, "n": 1})).status_code == 422
    assert world.cluster.signals == []


async def test_a_signal_that_nobody_would_take_is_refused(world: World) -> None:
    assert (await world.post("paid", {"run": "w-1", "n": "x" * 20_000})).status_code == 413
    assert world.cluster.signals == []


async def test_more_than_can_be_at_work_are_told_to_come_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks, "AT_ONCE", 0)
    answer = await world.post("incident")
    assert (answer.status_code, answer.headers["Retry-After"], world.cluster.objects) == (503, "5", {})
    monkeypatch.setattr(hooks, "AT_ONCE", 1)
    assert [(await world.post("incident")).status_code for _ in range(2)] == [202, 200]


STATES: dict[str, tuple[dict[str, str] | None, str, str]] = {
    "all is well": ({"allowed-use": "hmac", "secret": KEY}, "Ready", ""),
    "not mounted yet": (None, "KeyPending", "trigger incident: Secret hooks is not mounted yet"),
    "for something else": (
        {"allowed-use": "database", "secret": KEY},
        "KeyUnusable",
        "trigger incident: the key allowed-use of Secret hooks is not hmac",
    ),
    "no key": ({"allowed-use": "hmac"}, "KeyUnusable", "trigger incident: Secret hooks has no key secret"),
}


@pytest.mark.parametrize(("secret", "reason", "message"), STATES.values(), ids=STATES)
def test_a_workflow_says_whether_its_triggers_have_their_keys(
    secret: dict[str, str] | None, reason: str, message: str
) -> None:
    resources = Resources()
    resources.secret = secret
    assert triggers_ready(resources, resources.workflows["w"]) == (reason, message)
    status = workflow_status(
        resources.workflows["w"],
        Authorization("Allowed"),
        {},
        triggers=triggers_ready(resources, resources.workflows["w"]),
        previous={},
        now_ms=0,
    )
    found = {condition["type"]: condition for condition in status["conditions"]}
    expected = {"Ready": "True", "KeyPending": "Unknown", "KeyUnusable": "False"}[reason]
    assert (found["TriggersReady"]["status"], found["TriggersReady"]["reason"]) == (expected, reason)


def test_a_workflow_whose_triggers_need_no_key_says_nothing_of_them() -> None:
    plain = workflow(tool_step("a"), triggers={"http": [CALLED]}, input={"schema": SCHEMA})
    assert triggers_ready(Resources(), plain) is None
    status = workflow_status(plain, Authorization("Allowed"), {}, previous={}, now_ms=0)
    assert "TriggersReady" not in {condition["type"] for condition in status["conditions"]}
