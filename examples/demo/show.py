"""What both demos share: the messages, the headings, the verdict."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "support-triage"
FAIRLEAD = str(ROOT / ".venv/bin/fairlead")
WORKFLOW = "support-triage"
REFUSED = "support-cleanup"

Message = dict[str, str]


def messages(count: int) -> list[Message]:
    """Return the first `count` customer messages: {message, customer, expect}."""
    lines = (EXAMPLE / "messages.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines][:count]


@contextmanager
def stage(title: str) -> Iterator[None]:
    """Say what happens now, and how long it took."""
    began = time.monotonic()
    print(f"\n== {title}", flush=True)
    yield
    print(f"   {time.monotonic() - began:.1f} s", flush=True)


def heading(number: int, message: Message) -> None:
    """Print which message comes now."""
    print(f"\n-- {number}. {message['customer']}: {message['message']}", flush=True)


def verdict(right: int, total: int, *, refused: bool) -> int:
    """Print how it went and return the exit code."""
    print(f"\n{right} of {total} messages answered and routed as a person would; the forbidden call was", end=" ")
    print("refused." if refused else "NOT refused.", flush=True)
    return 0 if right == total and refused else 1
