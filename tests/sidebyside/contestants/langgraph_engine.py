"""LangGraph with its SQLite checkpointer: the chain is a graph, each call a node, saved before the next one starts."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypedDict

import httpx
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, StateGraph

sys.path.insert(0, os.path.dirname(__file__))
from talk import Chain, main, request

HEADERS = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2025-06-18"}


class State(TypedDict):
    run: str
    function: str


class LangGraph:
    def __init__(self, url: str, saver: AsyncSqliteSaver, http: httpx.AsyncClient) -> None:
        self._url = url
        self._saver = saver
        self._http = http
        self._graph = cache(self._compiled)

    async def execute(self, chain: Chain) -> str:
        graph = self._graph(chain.steps)
        config = {"configurable": {"thread_id": chain.run}, "recursion_limit": chain.steps + 10}
        known = (await graph.aget_state(config)).created_at is not None
        start = None if known else State(run=chain.run, function=chain.function)
        await graph.ainvoke(start, config, durability="sync")
        return "Completed"

    def _compiled(self, steps: int) -> Any:
        graph = StateGraph(State)
        names = [f"s{number}" for number in range(steps)]
        for number, name in enumerate(names):
            graph.add_node(name, self._call(number))
        for before, after in zip([START, *names], [*names, END], strict=True):
            graph.add_edge(before, after)
        return graph.compile(checkpointer=self._saver)

    def _call(self, number: int) -> Callable[[State], Any]:
        async def call(state: State) -> dict[str, Any]:
            body = request(number, state["function"], f"{state['run']}-s{number}")
            (await self._http.post(self._url, json=body, headers=HEADERS)).raise_for_status()
            return {}

        return call


@asynccontextmanager
async def opened(folder: Path, url: str, left: list[Chain]) -> AsyncIterator[LangGraph]:
    async with (
        AsyncSqliteSaver.from_conn_string(str(folder / "langgraph.sqlite")) as saver,
        httpx.AsyncClient(trust_env=False, timeout=60) as http,
    ):
        yield LangGraph(url, saver, http)


if __name__ == "__main__":
    main(opened)
