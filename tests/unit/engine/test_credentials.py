"""Where a call goes and with which secret: allowed private hosts, where a Secret lets its value go, what is hidden."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.responses import JSONResponse, Response
from tests.servers.serving import served
from tests.unit.engine.declared import Declared, tool
from tests.unit.engine.test_tools import answering, calling

from fairlead.api.workflow import Workflow
from fairlead.engine.credentials import destination, known_secrets, scrub
from fairlead.errors import CredentialMissing, EgressDenied

TOKEN = "tok-0123456789"
CREDENTIAL = {"secretRef": {"name": "tickets", "key": "token"}}


@pytest.mark.parametrize(
    ("url", "listed", "allowed"),
    [
        ("http://10.1.2.3:8080/mcp", "10.1.2.3:8080", True),
        ("http://10.1.2.3:8081/mcp", "10.1.2.3:8080", False),
        ("http://10.1.2.4:8080/mcp", "10.1.2.3:8080", False),
        ("https://10.1.2.3/mcp", "10.1.2.3:443", True),
        ("http://[fd00::1]:80/mcp", "[fd00::1]:80", True),
        ("http://TOOLS.internal/mcp", "tools.internal:80", True),
        ("http://tools.internal/mcp", "Tools.Internal:80", True),
    ],
)
def test_the_engine_allows_private_hosts_one_by_one(url: str, listed: str, allowed: bool) -> None:
    resources = Declared(tool(url), private=(listed,))
    if allowed:
        assert destination(resources, resources.tools["ledger"]).private
    else:
        with pytest.raises(EgressDenied):
            destination(resources, resources.tools["ledger"])


def test_our_own_server_may_have_a_private_address() -> None:
    resources = Declared(tool(), own=True)
    resources.addresses["ledger"] = "http://10.96.4.4:8080/mcp"
    assert destination(resources, resources.tools["ledger"]).private


HOSTS = [
    ("https://api.example.com/mcp", "api.example.com:443", True),
    ("https://API.Example.com/mcp", "other.example.com:1\n api.example.com:443 \n", True),
    ("https://api.example.com/mcp", "API.EXAMPLE.COM:443", True),
    ("https://api.example.com:8443/mcp", "api.example.com:443", False),
    ("https://api.example.com/mcp", "https://api.example.com:443", True),
    ("http://api.example.com/mcp", "api.example.com:443", False),
    ("http://api.example.com:443/mcp", "api.example.com:443", False),
    ("http://api.example.com:443/mcp", "https://api.example.com:443", False),
    ("http://api.example.com/mcp", "http://api.example.com:80", True),
    ("http://API.example.com:8080/mcp", "HTTP://api.example.com:8080", True),
    ("https://api.example.com:80/mcp", "http://api.example.com:80", False),
    ("https://api.example.com.evil.com/mcp", "api.example.com:443", False),
    ("https://evil.com/mcp", "api.example.com:443", False),
    ("https://api.example.com./mcp", "api.example.com:443", False),
    ("https://api.example.com/mcp", "*.example.com:443", False),
    ("https://api.example.com/mcp", "example.com:443", False),
    ("https://api.example.com/mcp", "api.example.com", False),
    ("https://api.example.com/mcp", "", False),
    ("https://xn--pi-7ka.example.com/mcp", "api.example.com:443", False),
]


@pytest.mark.requirement("A18")
@pytest.mark.requirement("A27")
@pytest.mark.parametrize(("url", "hosts", "allowed"), HOSTS)
def test_a_secret_goes_only_where_it_says_itself(url: str, hosts: str, allowed: bool) -> None:
    resources = Declared(tool(url, credential=CREDENTIAL))
    resources.secrets = {("tickets", "token"): TOKEN, ("tickets", "allowed-hosts"): hosts}
    if allowed:
        assert destination(resources, resources.tools["ledger"]).headers == {"Authorization": f"Bearer {TOKEN}"}
    else:
        with pytest.raises(EgressDenied):
            destination(resources, resources.tools["ledger"])


def test_who_lists_a_host_of_clear_text_is_told_how() -> None:
    resources = Declared(tool("http://api.example.com:443/mcp", credential=CREDENTIAL))
    resources.secrets = {("tickets", "token"): TOKEN, ("tickets", "allowed-hosts"): "api.example.com:443"}
    with pytest.raises(EgressDenied, match="an entry without http:// means https"):
        destination(resources, resources.tools["ledger"])


@pytest.mark.parametrize(
    ("entry", "allowed"),
    [
        ("tool:ledger@sha256:" + "a" * 64, True),
        ("tool:ledger@sha256:" + "b" * 64, False),
        ("tool:other@sha256:" + "a" * 64, False),
        ("model:ledger@sha256:" + "a" * 64, False),
        ("10.96.4.4:8080", False),
    ],
)
def test_a_secret_for_our_own_server_names_its_image(entry: str, allowed: bool) -> None:
    resources = Declared(tool(credential=CREDENTIAL), own=True)
    resources.addresses["ledger"] = "http://10.96.4.4:8080/mcp"
    resources.secrets = {("tickets", "token"): TOKEN, ("tickets", "allowed-hosts"): entry}
    if allowed:
        assert destination(resources, resources.tools["ledger"]).headers
    else:
        with pytest.raises(EgressDenied):
            destination(resources, resources.tools["ledger"])


@pytest.mark.requirement("A21")
@pytest.mark.parametrize("value", [None, "", "  \n", "two\nlines", "\x00", "ünï"])
def test_a_secret_that_cannot_be_sent_is_missing(value: str | None) -> None:
    resources = Declared(tool("https://api.example.com/mcp", credential=CREDENTIAL))
    resources.secrets = {("tickets", "allowed-hosts"): "api.example.com:443", ("other", "token"): TOKEN}
    if value is not None:
        resources.secrets[("tickets", "token")] = value
    with pytest.raises(CredentialMissing):
        destination(resources, resources.tools["ledger"])


@pytest.mark.parametrize(
    ("credential", "expected"),
    [
        (CREDENTIAL, {"Authorization": f"Bearer {TOKEN}"}),
        (CREDENTIAL | {"header": "X-Key", "scheme": ""}, {"X-Key": TOKEN}),
        (CREDENTIAL | {"scheme": "Token"}, {"Authorization": f"Token {TOKEN}"}),
    ],
)
def test_a_credential_is_one_header(credential: dict[str, str], expected: dict[str, str]) -> None:
    resources = Declared(tool("https://api.example.com/mcp", credential=credential))
    resources.secrets = {("tickets", "token"): f"{TOKEN}\n", ("tickets", "allowed-hosts"): "api.example.com:443"}
    found = destination(resources, resources.tools["ledger"])
    assert found.headers == expected and TOKEN not in repr(found)


@pytest.mark.requirement("A23")
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (TOKEN, "[redacted]"),
        ({"a": [f"x{TOKEN}y{TOKEN}", 1, None, True]}, {"a": ["x[redacted]y[redacted]", 1, None, True]}),
        ({TOKEN: {"b": TOKEN[:-1]}}, {"[redacted]": {"b": TOKEN[:-1]}}),
        (f"{TOKEN}-and-more", "[redacted]"),
    ],
)
def test_secrets_are_replaced_wherever_they_occur(value: object, expected: object) -> None:
    assert scrub(value, {TOKEN, f"{TOKEN}-and-more"}) == expected


@pytest.mark.requirement("A23")
def test_keys_of_triggers_are_secrets_too() -> None:
    resources = Declared(tool("https://a.example.com/mcp"))
    auth = {"hmac": {"secretRef": {"name": "hooks", "key": "secret"}, "header": "X-Signature"}}
    triggers = {"http": [{"name": "paid", "auth": auth, "input": {}}]}
    spec = {"steps": [{"name": "a", "transform": {"value": 1}}], "triggers": triggers}
    resources.workflows = {"w": Workflow.model_validate({"metadata": {"name": "w"}, "spec": spec})}
    resources.secrets = {("hooks", "secret"): "a-key-of-a-trigger"}
    assert known_secrets(resources) == {"a-key-of-a-trigger"}


def test_placeholders_are_no_secrets() -> None:
    resources = Declared(tool("https://a.example.com/mcp", credential=CREDENTIAL))
    resources.secrets = {("tickets", "token"): "EMPTY"}
    assert known_secrets(resources) == frozenset()


@pytest.mark.requirement("A23")
async def test_a_credential_that_a_server_lists_is_shown_to_nobody() -> None:
    key = "canary-8e1f6d2c"
    listed = [{"name": f"Bearer {key}", "description": f"asked with {key}"}, {"name": "read", key: [key]}]

    def respond(message: dict[str, Any]) -> Response:
        return JSONResponse({"jsonrpc": "2.0", "id": message["id"], "result": {"tools": listed}})

    credential = {"secretRef": {"name": "tickets", "key": "token"}}
    async with served(answering(respond)) as url, calling(f"{url}/mcp", credential=credential) as caller:
        caller.resources._own, caller.resources.engine = False, Declared(private=(url[7:],)).engine
        caller.resources.secrets = {("tickets", "token"): key, ("tickets", "allowed-hosts"): url}
        found = await caller.caller.discover("ledger", caller.tool)
        digests = (await caller.caller.definitions("ledger", caller.tool)).digests
    assert list(found.digests) == ["Bearer [redacted]", "read"] and key not in str(found.definitions)
    assert found.digests == digests, "what is shown is what a pin compares"
