"""The demo's way to a model endpoint outside the test cluster."""

from __future__ import annotations

import httpx
from examples.demo.forward import forwarder


def client_of(answer: httpx.MockTransport) -> httpx.AsyncClient:
    proxy = forwarder(httpx.AsyncClient(base_url="https://models.example", transport=answer))
    return httpx.AsyncClient(transport=httpx.ASGITransport(proxy), base_url="http://10.0.0.1:18080")


async def test_a_request_is_passed_on_with_its_key_and_nothing_that_is_not_needed() -> None:
    got: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        got.append(request)
        return httpx.Response(429, json={"error": "slow down"})

    async with client_of(httpx.MockTransport(answer)) as client:
        headers = {"authorization": "Bearer k", "x-fairlead-token": "t"}
        said = await client.post("/v1/chat/completions", json={"model": "m"}, headers=headers)
    assert (said.status_code, said.json()) == (429, {"error": "slow down"})
    (request,) = got
    assert str(request.url) == "https://models.example/v1/chat/completions"
    assert (request.headers["authorization"], request.content) == ("Bearer k", b'{"model":"m"}')
    assert "x-fairlead-token" not in request.headers


async def test_an_endpoint_that_is_away_is_a_bad_gateway() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    async with client_of(httpx.MockTransport(refuse)) as client:
        said = await client.get("/v1/models")
    assert said.status_code == 502
    assert "does not answer" in said.text
