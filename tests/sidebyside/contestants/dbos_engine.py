"""DBOS on SQLite: the chain is a workflow, each call a step. What was pending is recovered at launch."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
from dbos import DBOS, SetWorkflowID

sys.path.insert(0, os.path.dirname(__file__))
from talk import Chain, main, request

HTTP = httpx.AsyncClient(trust_env=False, timeout=60, limits=httpx.Limits(max_connections=64))
HEADERS = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2025-06-18"}


@DBOS.step()
async def call(url: str, number: int, function: str, key: str) -> None:
    (await HTTP.post(url, json=request(number, function, key), headers=HEADERS)).raise_for_status()


@DBOS.workflow()
async def chain_of_calls(url: str, run: str, steps: int, function: str) -> str:
    for number in range(steps):
        await call(url, number, function, f"{run}-s{number}")
    return "Completed"


class Dbos:
    def __init__(self, url: str, left: list[Chain]) -> None:
        self._url = url
        self._left = {chain.run for chain in left}

    async def execute(self, chain: Chain) -> str:
        if chain.run in self._left and await DBOS.get_workflow_status_async(chain.run) is not None:
            return str(await (await DBOS.retrieve_workflow_async(chain.run)).get_result(polling_interval_sec=0.05))
        with SetWorkflowID(chain.run):
            return await chain_of_calls(self._url, *chain)


@asynccontextmanager
async def opened(folder: Path, url: str, left: list[Chain]) -> AsyncIterator[Dbos]:
    database = f"sqlite:///{folder / 'dbos.sqlite'}"
    DBOS(
        config={"name": "sidebyside", "system_database_url": database, "application_version": "1", "log_level": "ERROR"}
    )
    DBOS.launch()
    try:
        yield Dbos(url, left)
    finally:
        DBOS.destroy()


if __name__ == "__main__":
    main(opened)
