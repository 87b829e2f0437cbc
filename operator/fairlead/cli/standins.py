"""The processes of local mode: started before the run, waited for, and ended whatever happens.

Each is a process group of its own on 127.0.0.1; its output goes into a log beside the store. Where the system has
`setpriv`, a stand-in also ends when this process is killed.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from fairlead.cli.exits import CommandFailed, Exit
from fairlead.cli.withfile import Environment, StandIn, expand

HOST = "127.0.0.1"
READY_SECONDS = 60.0
PAUSE_SECONDS = 0.05
END_SECONDS = 5.0
TAIL_LINES = 8

Server = tuple[str, str]
"""Kind ("Tool" or "Model") and name."""


@asynccontextmanager
async def running(environment: Environment, *, wanted: set[Server], store: Path) -> AsyncIterator[dict[Server, str]]:
    """Start the stand-ins that are wanted and yield their base URLs; end them on the way out.

    Args:
        environment: of the `--with` file.
        wanted: the servers that the files declare; entries for others are left alone.
        store: the folder of the store; logs go to `logs/` in it.

    Raises:
        CommandFailed: one cannot be started or does not become ready.
    """
    processes: dict[Server, asyncio.subprocess.Process] = {}
    urls: dict[Server, str] = {}
    try:
        for server, entry in environment.servers.items():
            if server not in wanted:
                continue
            if entry.url is not None:
                urls[server] = entry.url
                continue
            port = entry.port or _free_port()
            processes[server] = await _start(server, entry, environment, port=port, store=store)
            path = entry.path or ("/mcp" if server[0] == "Tool" else "/v1")
            urls[server] = f"http://{HOST}:{port}{path}"
        await asyncio.gather(
            *(
                _ready(server, process, environment, url=urls[server], log=_log(store, server))
                for server, process in processes.items()
            )
        )
        yield urls
    finally:
        await asyncio.gather(*(_end(process) for process in processes.values()))


async def _start(
    server: Server, entry: StandIn, environment: Environment, *, port: int, store: Path
) -> asyncio.subprocess.Process:
    variables = {**os.environ, "PORT": str(port), "STORE": str(store.resolve())}
    words = [expand(word, variables) for word in entry.command or ()]
    extra = {name: expand(value, variables) for name, value in entry.env.items()}
    log = _log(store, server)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        try:
            return await asyncio.create_subprocess_exec(
                *_dies_with_us(),
                *words,
                cwd=environment.folder,
                env=_clean(os.environ) | extra,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            reason = f"cannot start {words[0]}: {error.strerror}"
            raise CommandFailed(Exit.FAILED, _explain(server, reason, environment)) from error


def _dies_with_us() -> tuple[str, ...]:
    setpriv = shutil.which("setpriv")
    return (setpriv, "--pdeathsig", "TERM", "--") if setpriv else ()


def _clean(environment: Mapping[str, str]) -> dict[str, str]:
    """Leave out what would send a stand-in's own spans somewhere, or make it speak to itself by a proxy."""
    return {name: value for name, value in environment.items() if not name.startswith("OTEL_")}


def _free_port() -> int:
    with socket.create_server((HOST, 0)) as listener:
        return int(listener.getsockname()[1])


async def _ready(
    server: Server, process: asyncio.subprocess.Process, environment: Environment, *, url: str, log: Path
) -> None:
    """Wait until the server answers.

    Raises:
        CommandFailed: it ended, or takes too long.
    """
    port = int(url.split(":")[2].partition("/")[0])
    path = environment.servers[server].ready
    deadline = asyncio.get_running_loop().time() + READY_SECONDS
    while not await _answers(port, path):
        if process.returncode is not None:
            reason = f"ended with {process.returncode} before it was ready{_tail(log)}"
            raise CommandFailed(Exit.FAILED, _explain(server, reason, environment))
        if asyncio.get_running_loop().time() > deadline:
            reason = f"is not ready after {READY_SECONDS:.0f} s{_tail(log)}"
            raise CommandFailed(Exit.FAILED, _explain(server, reason, environment))
        await asyncio.sleep(PAUSE_SECONDS)


async def _answers(port: int, path: str | None) -> bool:
    """Tell whether the port accepts a connection and, if there is a path, answers it with 2xx."""
    try:
        reader, writer = await asyncio.open_connection(HOST, port)
    except OSError:
        return False
    try:
        if path is None:
            return True
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {HOST}:{port}\r\nConnection: close\r\n\r\n".encode())
        status = await asyncio.wait_for(reader.readline(), timeout=READY_SECONDS)
        return status.split(b" ")[1:2] != [] and status.split(b" ")[1].startswith(b"2")
    except (OSError, TimeoutError):
        return False
    finally:
        writer.close()


async def _end(process: asyncio.subprocess.Process) -> None:
    """End a process group: politely, then whatever is left of it."""
    if process.returncode is None:
        _signal(process, signal.SIGTERM)
        with suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), timeout=END_SECONDS)
    _signal(process, signal.SIGKILL)
    await process.wait()


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):  # nobody of the group is left
        os.killpg(process.pid, number)


def _log(store: Path, server: Server) -> Path:
    return store / "logs" / f"{server[0].lower()}-{server[1]}.log"


def _tail(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL_LINES:]
    return "".join(f"\n    {line}" for line in lines) + f"\n    (all of it: {log})"


def _explain(server: Server, reason: str, environment: Environment) -> str:
    hint = f"\n  {environment.hint}" if environment.hint else ""
    return f"the stand-in for {server[0]} {server[1]} {reason}{hint}"
