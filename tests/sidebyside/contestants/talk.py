"""The contestant's end: read what to run, line by line, and say how each ended.

    python CONTESTANT FOLDER URL

FOLDER is where it keeps what must survive, URL an MCP server's. The first line of standard input lists the runs that an
earlier process may have left open; each further line is one run, also those: `{"run": "r1", "steps": 3, "function":
"read"}`. It says `{"ready": true}` once, and `{"run": "r1", "ended": "Completed"}` for each run. A run is a chain of
steps; step N calls `function` with the key `RUN-sN`.
"""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, NamedTuple, Protocol


class Chain(NamedTuple):
    """A run."""

    run: str
    steps: int
    function: str


class Contestant(Protocol):
    """A durable engine that is ready."""

    async def execute(self, chain: Chain) -> str:
        """Begin the run, or go on with it, and return how it ended: `Completed`, or the reason why not."""
        ...


class Opening(Protocol):
    """How to open one."""

    def __call__(self, folder: Path, url: str, left: list[Chain]) -> AbstractAsyncContextManager[Contestant]:
        """Open what is kept in `folder`, where these runs may have been left."""
        ...


def main(opening: Opening) -> None:
    """Be a contestant until standard input ends."""
    asyncio.run(_talk(opening, Path(sys.argv[1]), sys.argv[2]))


def request(number: int, function: str, key: str) -> dict[str, Any]:
    """Return the JSON-RPC request of a step, for those that have no MCP client of their own.

    What makes a repeated call harmless is here, where a careful author of a step would put it: the key is the token.
    """
    arguments = {"key": key} | ({"clientToken": key} if function == "append_keyed" else {})
    params = {"name": function, "arguments": arguments}
    return {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}


async def _talk(opening: Opening, folder: Path, url: str) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    left = [Chain(**one) for one in json.loads(await reader.readline())]
    async with opening(folder, url, left) as contestant, asyncio.TaskGroup() as group:
        _say({"ready": True})
        while line := await reader.readline():
            group.create_task(_execute(contestant, Chain(**json.loads(line))))


async def _execute(contestant: Contestant, chain: Chain) -> None:
    _say({"run": chain.run, "ended": await contestant.execute(chain)})


def _say(what: dict[str, Any]) -> None:
    print(json.dumps(what), flush=True)
