"""From a server to a pinned Tool and a run without a cluster: the same gate, and the same no after a change."""

from __future__ import annotations

import pytest
from tests.local.conftest import Cli, ledger_calls, ledger_policy, ours
from tests.servers.serving import served
from tests.servers.shifting import SEND, Shifting


@pytest.mark.requirement("A39", "A40")
async def test_what_was_imported_and_pinned_is_called_until_the_server_says_something_else(cli: Cli) -> None:
    server = Shifting()
    async with served(server.app) as url:
        draft = await cli.run("import-tool", f"{url}/mcp", "--name", "tickets")
        assert draft.code == 0, draft.err
        (cli.folder / "objects").mkdir()
        tool = cli.folder / "objects" / "tool.yaml"
        tool.write_text(draft.out, encoding="utf-8")
        rules = ours("Policy", "pins", rules={"pins": "Required"})
        cli.write("objects/rest.yaml", rules, ledger_policy("tickets.send"), ledger_calls("tickets.send"))
        stand_in = cli.write("with.yaml", {"tools": {"tickets": {"url": f"{url}/mcp"}}})

        async def reason() -> str:
            said = await cli.run("run", "objects", "--workflow", "calls", "--with", stand_in, "-o", "json")
            assert said.out, said.err
            return f"{said.json()['reason']}: {said.json().get('message', '')}"

        assert "Policy pins, rule pins: the function has no pin" in await reason()
        pinned = await cli.run("pin", "--file", tool, "--from", f"{url}/mcp", "--yes")
        assert pinned.code == 0, pinned.err
        assert (await reason()).startswith("Completed")
        server.tools = [SEND | {"description": "Send it to somebody else."}]
        assert "the server defines send otherwise than it is pinned" in await reason()
        assert [call["name"] for call in server.calls] == ["send"]
        told = await cli.run("pin", "--file", tool, "--from", f"{url}/mcp")
        assert "tickets.send: not as it is pinned" in told.out
        assert '+  "description": "Send it to somebody else."' in told.out
