"""An MCP server of the kind a support team has: a handbook to search and tickets to open.

It shows a tool with functions of every kind: `search` only reads, `create` has an effect that a client token makes
idempotent, `remove` takes an effect back. Searching ranks the sections of a Markdown file by BM25; tickets are lines of
a JSON-lines file, so that they outlive the process. MCP is spoken over HTTP at `/mcp`, stateless, with JSON answers.
`GET /tickets` shows the open tickets to people.

    python handbook.py --port 8083 --data FOLDER
"""

from __future__ import annotations

import argparse
import json
import os
import re
import tempfile
import threading
from collections import Counter
from dataclasses import dataclass
from math import log
from pathlib import Path
from typing import Annotated, Any

import uvicorn
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import ToolAnnotations
from pydantic import BaseModel, Field
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse

HANDBOOK = Path(__file__).with_name("handbook.md")
STOP_WORDS = frozenset(
    re.findall(
        r"\w+",
        """a an and are as at be but by can do does for from has have how i if in is it its me my no not of on or our
        so that the their then there they this to us was we were what when where which who why will with you your""",
    )
)


class Item(BaseModel):
    """A section of the handbook."""

    id: str
    text: str


class Items(BaseModel):
    """What a search found, best first."""

    items: list[Item]


class Ticket(BaseModel):
    """A ticket as it is stored."""

    id: str
    title: str
    body: str
    customer: str


class Removed(BaseModel):
    """A ticket that is gone."""

    id: str


@dataclass(frozen=True, slots=True)
class Section:
    """A section and how often each of its words occurs; a word in the title counts three times."""

    item: Item
    counts: Counter[str]


class Handbook:
    """The sections of a Markdown file, ranked for a query by BM25: rare words count most, long sections less."""

    def __init__(self, markdown: str) -> None:
        self._sections = [_section(*part.split("\n", 1)) for part in re.split(r"^## ", markdown, flags=re.M)[1:]]
        self._occurrences = Counter(word for section in self._sections for word in section.counts)
        self._mean_length = sum(s.counts.total() for s in self._sections) / max(1, len(self._sections))

    def search(self, query: str, limit: int) -> list[Item]:
        """Return at most `limit` sections that share a word with `query`, best first."""
        words = _words(query)
        scored = [(self._score(section, words), section.item) for section in self._sections]
        found = sorted((pair for pair in scored if pair[0] > 0), key=lambda pair: -pair[0])
        return [item for _, item in found[:limit]]

    def _score(self, section: Section, words: list[str]) -> float:
        length = 1.2 * (0.25 + 0.75 * section.counts.total() / self._mean_length)
        return sum(
            self._rarity(word) * section.counts[word] * 2.2 / (section.counts[word] + length)
            for word in words
            if word in section.counts
        )

    def _rarity(self, word: str) -> float:
        occurrences = self._occurrences[word]
        return log(1 + (len(self._sections) - occurrences + 0.5) / (occurrences + 0.5))


def _section(title: str, body: str) -> Section:
    text = " ".join(body.split())
    slug = "-".join(re.findall(r"[a-z0-9]+", title.lower()))
    return Section(Item(id=slug, text=f"{title}: {text}"), Counter(_words(title) * 3 + _words(text)))


def _words(text: str) -> list[str]:
    """Lower-case words without endings, so that "charged" finds "charges"."""
    words = re.findall(r"[a-z0-9]+", text.lower())
    return [re.sub(r"(?<=\w{3})(ing|ed|es|s)$", "", word) for word in words if word not in STOP_WORDS]


class Tickets:
    """Tickets as a journal of two kinds of lines, `created` and `removed`. An id is never given twice."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "tickets.jsonl"
        self._lock = threading.Lock()  # functions run in threads; a ticket is numbered, written and known in one go
        self._open: dict[str, Ticket] = {}
        self._by_token: dict[str, Ticket] = {}
        self._count = 0
        with self._path.open("a+", encoding="utf-8") as file:
            file.seek(0)
            text = file.read()
            whole = text[: text.rfind("\n") + 1]
            file.truncate(len(whole.encode()))  # a line that a crash has cut off was never answered
        for line in whole.splitlines():
            self._take(json.loads(line))

    def create(self, *, title: str, body: str, customer: str, token: str | None) -> Ticket:
        """Open a ticket. The same token gives the same ticket, also after a restart."""
        with self._lock:
            if token is not None and token in self._by_token:
                return self._by_token[token]
            ticket = Ticket(id=f"T-{self._count + 1}", title=title, body=body, customer=customer)
            self._write({"event": "created", "ticket": ticket.model_dump(), "token": token})
            return ticket

    def remove(self, ticket_id: str) -> None:
        """Remove an open ticket.

        Raises:
            KeyError: no ticket of this id is open.
        """
        with self._lock:
            if ticket_id not in self._open:
                raise KeyError(ticket_id)
            self._write({"event": "removed", "id": ticket_id})

    def all(self) -> list[Ticket]:
        """Return the open tickets, oldest first."""
        with self._lock:
            return list(self._open.values())

    def _write(self, event: dict[str, Any]) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(event) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._take(event)

    def _take(self, event: dict[str, Any]) -> None:
        if event["event"] == "removed":
            del self._open[event["id"]]
            return
        ticket = Ticket.model_validate(event["ticket"])
        self._count += 1
        self._open[ticket.id] = ticket
        if event["token"] is not None:
            self._by_token[event["token"]] = ticket


def create_server(handbook: Handbook, tickets: Tickets) -> MCPServer[Any]:
    """Build the MCP server around its data."""
    server: MCPServer[Any] = MCPServer("handbook", version="1.0", log_level="WARNING")

    @server.tool(annotations=ToolAnnotations(read_only_hint=True))
    def search(
        query: Annotated[str, Field(max_length=500, description="what to look for, in plain words")],
        limit: Annotated[int, Field(ge=1, le=20, description="how many sections at most")] = 3,
    ) -> Items:
        """Find the sections of the support handbook that fit a question best."""
        return Items(items=handbook.search(query, limit))

    @server.tool(annotations=ToolAnnotations(read_only_hint=False, destructive_hint=False, idempotent_hint=False))
    def create(
        title: Annotated[str, Field(min_length=1, max_length=200)],
        body: Annotated[str, Field(max_length=10_000)],
        customer: Annotated[str, Field(max_length=200)],
        clientToken: Annotated[
            str | None, Field(max_length=200, description="calls with the same token open one ticket")
        ] = None,
    ) -> Ticket:
        """Open a ticket for a customer."""
        return tickets.create(title=title, body=body, customer=customer, token=clientToken)

    @server.tool(annotations=ToolAnnotations(read_only_hint=False, destructive_hint=True, idempotent_hint=False))
    def remove(id: Annotated[str, Field(max_length=50, description='the id of a ticket, such as "T-1"')]) -> Removed:
        """Remove a ticket."""
        try:
            tickets.remove(id)
        except KeyError:
            raise ToolError(f"no open ticket {id}") from None
        return Removed(id=id)

    @server.custom_route("/tickets", methods=["GET"])
    async def show(_: Request) -> JSONResponse:
        return JSONResponse({"tickets": [ticket.model_dump() for ticket in tickets.all()]})

    @server.custom_route("/health", methods=["GET"])
    async def health(_: Request) -> JSONResponse:
        return JSONResponse({"status": "ok"})

    return server


def create_app(folder: Path, *, host: str = "127.0.0.1") -> Starlette:
    """Build the HTTP application; tickets are kept in `folder`.

    On a loopback address the Host header must name it, so that no web page can reach the server through a browser. In
    a pod any Host is taken: it is a Service name or an address that the server cannot know.
    """
    server = create_server(Handbook(HANDBOOK.read_text(encoding="utf-8")), Tickets(folder))
    return server.streamable_http_app(json_response=True, stateless_http=True, host=host)


def main() -> None:
    parser = argparse.ArgumentParser(description="a support handbook and tickets, as an MCP server")
    parser.add_argument("--host", default=os.environ.get("SERVER_HOST", "127.0.0.1"), help="address ($SERVER_HOST)")
    parser.add_argument("--port", type=int, default=8083)
    parser.add_argument("--data", type=Path, default=None, help="folder of the tickets (a temporary one by default)")
    options = parser.parse_args()
    folder = options.data or Path(tempfile.mkdtemp(prefix="handbook-"))
    print(f"handbook listens on http://{options.host}:{options.port}/mcp, tickets in {folder}", flush=True)
    uvicorn.run(create_app(folder, host=options.host), host=options.host, port=options.port, log_level="warning")


if __name__ == "__main__":
    main()
