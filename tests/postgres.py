"""A real PostgreSQL for tests: Debian's server in a folder of its own, on loopback, gone with the tests."""

from __future__ import annotations

import hashlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
from tests.cluster.commands import run

PACKAGE = "postgresql"
NO_SERVER = Path("/etc/postgresql-common/createcluster.conf")
NAMESPACE = "team"


@dataclass(frozen=True)
class Server:
    """A server that runs. `url` is of its superuser."""

    host: str
    port: int
    password: str

    @property
    def url(self) -> str:
        return f"postgresql://fairlead:{self.password}@{self.host}:{self.port}/postgres"

    def empty(self, name: str) -> str:
        """Return the URL of a schema of its own; the same for the same name."""
        schema = "s" + hashlib.sha256(name.encode()).hexdigest()[:16]
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
        return f"{self.url}?options={quote(f'-csearch_path={schema}')}"


def binaries() -> Path | None:
    """Return where the server's programs are, None if it is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    on_path = shutil.which("postgres")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


def missing() -> str:
    """Return why no server can run here, "" if one can."""
    if binaries() is None and not (os.geteuid() == 0 and shutil.which("apt-get")):
        return "PostgreSQL is not installed, and only root can install it with apt-get"
    return ""


def installed() -> Path:
    """Return where its programs are; install them first where they are not, without the server that Debian would start.

    Raises:
        CommandFailed: apt-get could not.
    """
    if binaries() is None:
        NO_SERVER.parent.mkdir(parents=True, exist_ok=True)
        if not NO_SERVER.exists():
            NO_SERVER.write_text("create_main_cluster = false\n", encoding="utf-8")
        env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        run("apt-get", "update", env=env, timeout_seconds=600)
        run("apt-get", "install", "--yes", "--no-install-recommends", PACKAGE, env=env, timeout_seconds=1200)
    found = binaries()
    assert found is not None, "apt-get installed no server"
    return found


@contextmanager
def server(*, host: str = "127.0.0.1") -> Iterator[Server]:
    """Run one on a free port of an address of this machine until the end of the context; nothing of it stays."""
    programs, folder = installed(), Path(tempfile.mkdtemp(prefix="fairlead-postgres-"))
    who: dict[str, Any] = {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}
    try:
        password, secret = secrets.token_hex(16), folder / "password"
        secret.write_text(password, encoding="utf-8")
        if who:
            nobody = pwd.getpwnam("nobody")
            for path in (folder, secret):
                os.chown(path, nobody.pw_uid, nobody.pw_gid)
        options = ("--username=fairlead", f"--pwfile={secret}", "--auth=scram-sha-256", "--encoding=UTF8", "--no-sync")
        made = subprocess.run(
            [programs / "initdb", f"--pgdata={folder / 'data'}", *options], capture_output=True, text=True, **who
        )
        assert made.returncode == 0, made.stderr
        with (folder / "data" / "pg_hba.conf").open("a", encoding="utf-8") as rules:
            rules.write("host all all all scram-sha-256\n")
        port = _free_port(host)
        settings = (f"-clisten_addresses={host}", f"-cport={port}", f"-cunix_socket_directories={folder}")
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [programs / "postgres", "-D", folder / "data", *settings, "-cmax_connections=200"],
                stdout=subprocess.DEVNULL,
                stderr=log,
                **who,
            )
        try:
            running = Server(host, port, password)
            _wait(running, process, folder / "log")
            yield running
        finally:
            process.send_signal(signal.SIGINT)  # fast: it disconnects its clients
            process.wait(30)
    finally:
        shutil.rmtree(folder)


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _wait(running: Server, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + 60
    while True:
        try:
            psycopg.connect(running.url, connect_timeout=2).close()
            return
        except psycopg.OperationalError:
            assert process.poll() is None and time.monotonic() < until, log.read_text(encoding="utf-8")
            time.sleep(0.1)
