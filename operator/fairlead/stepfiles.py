"""What stands beside a step's container in its pod: it brings the input, and takes the output out.

The pod has no network and no token: the input comes in the environment of the first container, in pieces, because no
piece may have more than 128 KiB; the output goes out as a line of the last one's log, which only the engine reads. Both
see the step's /work and nothing else of it. What lies there is a stranger's: no link is followed, no pipe waited for.
"""

from __future__ import annotations

import base64
import os
import signal
import stat
import sys
from collections.abc import Mapping
from pathlib import Path

WORK = Path("/work")
PIECE = 98_304
"""Characters of base64 in one variable."""
MOST_INPUT = 786_432
"""Bytes of input and script together: a pod is an object, and has at most 1.5 MiB."""
MOST_OUTPUT = 1_048_576
SAID, REFUSED, NOTHING = "fairlead-output:", "fairlead-refused:", "fairlead-nothing:"
END = "."
"""Ends a line that is whole: a process that is killed may have written half of one."""


def pieces(name: str, content: bytes) -> list[dict[str, str]]:
    """Return content as environment variables `name_0`, `name_1`, ..."""
    text = base64.b64encode(content).decode()
    parts = [text[at : at + PIECE] for at in range(0, len(text), PIECE)] or [""]
    return [{"name": f"{name}_{number}", "value": part} for number, part in enumerate(parts)]


def joined(name: str, environment: Mapping[str, str]) -> bytes | None:
    """Return the content of `name_0`, `name_1`, ...; None if there is none."""
    parts: list[str] = []
    while (part := environment.get(f"{name}_{len(parts)}")) is not None:
        parts.append(part)
    return base64.b64decode("".join(parts)) if parts else None


def put(environment: Mapping[str, str], work: Path = WORK) -> None:
    """Write input.json, and the script if there is one."""
    for name, file in (("FAIRLEAD_INPUT", "input.json"), ("FAIRLEAD_SCRIPT", "script")):
        content = joined(name, environment)
        if content is not None:
            (work / file).write_bytes(content)


def take(work: Path = WORK) -> str:
    """Return the line that tells what output.json holds, or why it is not taken, or that there is none."""
    try:
        file = os.open(work / "output.json", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return f"{NOTHING} {END}"
    except OSError as error:
        return f"{REFUSED} output.json cannot be opened: {error.strerror} {END}"
    try:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode):
            return f"{REFUSED} output.json is no file {END}"
        content = b""
        while len(content) <= MOST_OUTPUT and (part := os.read(file, MOST_OUTPUT + 1 - len(content))):
            content += part
    finally:
        os.close(file)
    if len(content) > MOST_OUTPUT:
        return f"{REFUSED} output.json has more than {MOST_OUTPUT} bytes {END}"
    return f"{SAID} {base64.b64encode(content).decode()} {END}"


class NothingSaid(Exception):
    """The log tells neither of an output nor that there is none: who should have said so was killed."""


def read_back(log: str) -> tuple[bytes | None, str]:
    """Return the output that a log tells of, or why it was not taken; neither when the container left none.

    Raises:
        NothingSaid: there is no whole line.
    """
    for line in log.splitlines():
        word, _, rest = line.strip().partition(" ")
        content, _, end = rest.rpartition(END)
        if not end and rest and word == SAID:
            return base64.b64decode(content.strip()), ""
        if not end and rest and word in (REFUSED, NOTHING):
            return None, content.strip()
    raise NothingSaid


def main(argv: list[str]) -> int:
    """Do `put` once, after the network has locked the pod in; or wait to be told to end, and `take`."""
    if argv == ["take"]:
        told = signal.sigwait({signal.SIGTERM, signal.SIGINT})
        print(take(), flush=True)
        return 0 if told else 1
    if os.environ.get("FAIRLEAD_ISOLATION") == "Required":
        from fairlead.isolation import main as isolated

        if code := isolated():
            return code
    put(os.environ)
    return 0


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT} if sys.argv[1:] == ["take"] else set())
    sys.exit(main(sys.argv[1:]))
