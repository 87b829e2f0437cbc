"""Readers get journals for a viewer's token and the same refusal for anything else; probes need none."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from fairlead.api.canonical import digest
from fairlead.api.reasons import ErrorClass
from fairlead.engine import endpoints
from fairlead.engine.endpoints import probes, readers
from fairlead.engine.store import Store
from fairlead.engine.tokens import Unauthenticated
from fairlead.engine.tools import Discovery
from fairlead.errors import StepError, Unreachable
from fairlead.flow.journal import Draft, EntryKind, RunUid

UID = RunUid("7f0c6c1e-0000-4000-8000-000000000001")
LARGE = "x" * 5000
DIGEST = digest(LARGE)


class Tokens:
    async def verify(self, token: str) -> None:
        if token == "away":
            raise Unreachable(503, "no answer")
        if token != "good":
            raise Unauthenticated("no")


LOOK = {"name": "look", "description": "\u202eodd", "inputSchema": {"type": "object"}}


async def discover(name: str) -> Discovery | None:
    if name == "away":
        raise StepError(ErrorClass.UNAVAILABLE, "Tool away: no answer")
    return Discovery("2026-07-28", (LOOK,)) if name == "tickets" else None


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = await Store.open(tmp_path / "journal.db", clock=lambda: 1000)
    store.begin(UID, namespace="team", name="w-1", workflow="w")
    store.append(
        UID,
        [
            Draft(EntryKind.RUN_ACCEPTED, data={"workflow": "w", "name": "w-1"}),
            Draft(EntryKind.RUN_SUCCEEDED, data={"output": LARGE}),
        ],
    )
    yield store
    await store.close()


@pytest.fixture
async def client(store: Store) -> AsyncIterator[httpx.AsyncClient]:
    app = readers(store, Tokens(), discover)  # type: ignore[arg-type]  # only verify() is used
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="https://engine") as found:
        yield found


async def get(client: httpx.AsyncClient, path: str, token: str = "good") -> httpx.Response:
    return await client.get(path, headers={"X-Fairlead-Token": token})


async def test_a_reader_gets_the_journal_with_payloads_put_back(client: httpx.AsyncClient) -> None:
    entries = (await get(client, f"/v1/runs/{UID}/journal")).json()["entries"]
    assert [entry["kind"] for entry in entries] == ["RunAccepted", "RunSucceeded"]
    assert entries[1]["data"]["output"] == LARGE


async def test_a_reader_gets_the_definitions_of_a_tool_as_its_server_wrote_them(client: httpx.AsyncClient) -> None:
    assert (await get(client, "/v1/tools/tickets/definitions")).json() == {"definitions": [LOOK]}
    assert (await get(client, "/v1/tools/none/definitions")).status_code == 404
    away = await get(client, "/v1/tools/away/definitions")
    assert (away.status_code, away.json()["message"]) == (503, "Tool away: no answer")
    assert (await get(client, "/v1/tools/tickets/definitions", token="bad")).status_code == 401


async def test_a_reader_gets_runs_and_spans(client: httpx.AsyncClient) -> None:
    runs = (await get(client, "/v1/runs")).json()["runs"]
    assert [(run["uid"], run["state"]) for run in runs] == [(UID, "RunSucceeded")]
    spans = (await get(client, f"/v1/runs/{UID}/spans")).json()["spans"]
    assert [span["name"] for span in spans] == ["run started", "invoke_workflow w"]


async def test_a_reader_gets_the_audit_of_a_run_of_all_runs_page_by_page_and_the_anchors(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoints, "AUDIT_PAGE", 1)
    chain = (await get(client, f"/v1/runs/{UID}/audit")).json()["records"]
    assert [record["event"] for record in chain] == ["RunAccepted", "RunSucceeded"]
    (anchor,) = (await get(client, "/v1/audit/anchors")).json()["anchors"]
    assert (anchor["run"], anchor["records"]) == (UID, 2)
    found, after = [], "0,,0"
    while after:
        page = (await get(client, f"/v1/audit?after={after}")).json()
        found += page["records"]
        after = page["after"]
    assert found == chain
    assert (await get(client, "/v1/audit?after=1001,~,0")).json() == {"records": [], "after": None}
    assert (await get(client, "/v1/runs/none/audit")).status_code == 404


NO_PLACE = [
    *("soon", "", ",,", "0,0", "0,,0,0", "-1,,0", "0,,-1", "1_0,,0", " 1,,0", "\u0661,,0", "1e3,,0", "0,\0,0"),
    *(f"{2**63},,0", f"0,,{2**63}", f"{10**40},,0", f"0,,{'9' * 5000}"),
]


@pytest.mark.parametrize("after", NO_PLACE, ids=[place[:20].encode("unicode-escape").decode() for place in NO_PLACE])
async def test_a_place_that_no_answer_named_is_refused_and_the_range_is_told(
    client: httpx.AsyncClient, after: str
) -> None:
    answer = await client.get("/v1/audit", params={"after": after}, headers={"X-Fairlead-Token": "good"})
    assert (answer.status_code, answer.json()["error"]) == (400, "Invalid")
    assert re.match(r"after: .* from 0 to 9223372036854775807$", answer.json()["message"])


async def test_the_largest_place_is_one(client: httpx.AsyncClient) -> None:
    answer = await get(client, f"/v1/audit?after={endpoints.LARGEST},~,{endpoints.LARGEST}")
    assert (answer.status_code, answer.json()) == (200, {"records": [], "after": None})


@pytest.mark.requirement("A06")
@pytest.mark.parametrize("path", ["/v1/runs", f"/v1/runs/{UID}/journal", "/v1/nothing", "/"])
@pytest.mark.parametrize("token", ["", "nothing"])
async def test_without_the_token_every_path_says_the_same(client: httpx.AsyncClient, path: str, token: str) -> None:
    answer = await get(client, path, token)
    assert (answer.status_code, answer.json()) == (401, {"error": "Unauthenticated"})


async def test_when_nobody_can_verify_nobody_reads(client: httpx.AsyncClient) -> None:
    assert (await get(client, f"/v1/runs/{UID}/journal", "away")).status_code == 503


async def test_an_unknown_run_is_not_found(client: httpx.AsyncClient) -> None:
    assert (await get(client, "/v1/runs/none/journal")).status_code == 404


OF_THE_STORE = [
    "runs",
    f"runs/{UID}/journal",
    f"runs/{UID}/spans",
    f"runs/{UID}/audit",
    f"runs/{UID}/payloads/{DIGEST}",
]
OF_THE_STORE += ["audit", "audit/anchors"]


NOBODYS = ["runs/%00/journal", f"runs/{UID}%00/spans", "runs/%00/audit"]
NOBODYS += [f"runs/%00/payloads/{DIGEST}", f"runs/{UID}/payloads/%00"]


@pytest.mark.parametrize("path", NOBODYS)
async def test_a_name_with_nul_is_nothing_s(client: httpx.AsyncClient, path: str) -> None:
    answer = await get(client, f"/v1/{path}")
    assert (answer.status_code, answer.content) == (404, b'{"error":"NotFound"}')
    assert (await get(client, f"/v1/{path}", token="bad")).status_code == 401


async def test_a_reader_gets_a_payload_of_the_run_that_has_it(client: httpx.AsyncClient) -> None:
    assert (await get(client, f"/v1/runs/{UID}/payloads/{DIGEST}")).json() == LARGE
    for run, of in ((UID, "sha256:none"), ("none", DIGEST)):
        assert (await get(client, f"/v1/runs/{run}/payloads/{of}")).status_code == 404


@pytest.mark.parametrize("path", OF_THE_STORE)
async def test_a_store_that_cannot_be_read_is_told_without_details(
    client: httpx.AsyncClient, store: Store, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    await store.close()
    answer = await get(client, f"/v1/{path}")
    assert (answer.status_code, answer.content) == (503, b'{"error":"Unavailable"}')
    assert "the store is closed" in caplog.text


@pytest.mark.parametrize("path", ["/v1/runs/", "/v1/nothing", "/"])
async def test_where_nothing_is_a_reader_is_sent_nowhere(client: httpx.AsyncClient, path: str) -> None:
    answer = await get(client, path)
    assert (answer.status_code, answer.content) == (404, b'{"error":"NotFound"}')


async def test_nothing_can_be_changed(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/runs", headers={"X-Fairlead-Token": "good"})
    assert (answer.status_code, answer.content) == (405, b'{"error":"MethodNotAllowed"}')


async def test_a_mistake_of_ours_is_told_without_details() -> None:
    def broken() -> bytes:
        raise RuntimeError("what nobody shall read")

    app = probes(alive=lambda: True, ready=lambda: True, metrics=broken)
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://engine") as client:
        answer = await client.get("/metrics")
        slashed = await client.get("/healthz/")
    assert (answer.status_code, answer.content) == (500, b'{"error":"Internal"}')
    assert (slashed.status_code, slashed.content) == (404, b'{"error":"NotFound"}')


@pytest.mark.parametrize(("state", "status"), [(True, 200), (False, 503)])
async def test_probes_say_what_holds(state: bool, status: int) -> None:
    app = probes(alive=lambda: state, ready=lambda: state, metrics=lambda: b"fairlead_runs 1\n")
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://engine") as client:
        assert (await client.get("/healthz")).status_code == status
        assert (await client.get("/readyz")).status_code == status
        assert (await client.get("/metrics")).text == "fairlead_runs 1\n"
