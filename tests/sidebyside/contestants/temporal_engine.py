"""Temporal's development server on SQLite, with one worker: the chain is a workflow, each call an activity.

Server and worker die together: what is examined is what both keep.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

sys.path.insert(0, os.path.dirname(__file__))
import httpx
from talk import Chain, main, request

SERVER = os.environ["TEMPORAL"]
QUEUE = "chains"
HEADERS = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2025-06-18"}
HTTP = httpx.AsyncClient(trust_env=False, timeout=60, limits=httpx.Limits(max_connections=64))
DIES_WITH_ITS_PARENT = 1  # PR_SET_PDEATHSIG


@activity.defn
async def call(url: str, number: int, function: str, key: str) -> None:
    (await HTTP.post(url, json=request(number, function, key), headers=HEADERS)).raise_for_status()


@workflow.defn
class ChainOfCalls:
    @workflow.run
    async def run(self, url: str, run: str, steps: int, function: str) -> str:
        for number in range(steps):
            await workflow.execute_activity(
                call, args=[url, number, function, f"{run}-s{number}"], start_to_close_timeout=timedelta(seconds=10)
            )
        return "Completed"


class Temporal:
    def __init__(self, client: Client, url: str) -> None:
        self._client = client
        self._url = url

    async def execute(self, chain: Chain) -> str:
        while True:  # a server that has just started, or is busy, lets requests time out
            try:
                return await self._execute(chain)
            except RPCError:
                await asyncio.sleep(0.1)

    async def _execute(self, chain: Chain) -> str:
        try:
            handle = await self._client.start_workflow(
                ChainOfCalls.run,
                args=[self._url, *chain],
                id=chain.run,
                task_queue=QUEUE,
                id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY,
            )
        except WorkflowAlreadyStartedError:  # it ended before anybody was told
            return str(await self._client.get_workflow_handle(chain.run).result())
        return str(await handle.result())


def _with_its_parent() -> None:
    ctypes.CDLL(None).prctl(DIES_WITH_ITS_PARENT, signal.SIGKILL)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


async def _connected(address: str) -> Client:
    while True:
        try:
            return await Client.connect(address)
        except (RPCError, RuntimeError):
            await asyncio.sleep(0.05)


@asynccontextmanager
async def opened(folder: Path, url: str, left: list[Chain]) -> AsyncIterator[Temporal]:
    port, metrics = _free_ports(2)
    options: list[Any] = ["--headless", f"--port={port}", f"--metrics-port={metrics}", "--log-level=error"]
    server = await asyncio.create_subprocess_exec(
        *(SERVER, "server", "start-dev", f"--db-filename={folder / 'temporal.sqlite'}", *options),
        stdout=asyncio.subprocess.DEVNULL,
        preexec_fn=_with_its_parent,
    )
    try:
        client = await _connected(f"127.0.0.1:{port}")
        worker = Worker(
            client,
            task_queue=QUEUE,
            workflows=[ChainOfCalls],
            activities=[call],
            workflow_runner=UnsandboxedWorkflowRunner(),
        )
        async with worker:
            yield Temporal(client, url)
    finally:
        server.terminate()
        await server.wait()


if __name__ == "__main__":
    main(opened)
