"""The audit against the ledger: what was done and is not on record, and what is on record as done and was not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tests.cluster.commands import run
from tests.e2e.kubectl import Kubectl

LEDGER = "ledger"
READS = ("read", "echo_headers", "fail")
LONGEST_SECONDS = 900

Record = Mapping[str, Any]
Step = tuple[str, str]
"""The UID of a run and the path of one of its steps."""


def verified(team: Kubectl) -> list[str]:
    """Return what `fairlead audit verify` finds wrong with all runs and the anchors."""
    done = subprocess.run(
        _command(team, "verify"), env=_environment(team), timeout=LONGEST_SECONDS, capture_output=True, text=True
    )
    found = [line.strip() for line in done.stdout.splitlines() if line.startswith("  ")]
    return found or ([done.stderr.strip() or "no word"] if done.returncode else [])


def exported(team: Kubectl) -> list[Record]:
    """Return the records of all runs, by `fairlead audit export`."""
    said = run(*_command(team, "export"), env=_environment(team), timeout_seconds=LONGEST_SECONDS)
    return [json.loads(line) for line in said.splitlines()]


def acknowledged(records: Sequence[Record]) -> set[Step]:
    """Return the steps of which the audit says that a call with an effect succeeded."""
    open_calls: dict[tuple[str, ...], Step] = {}
    found = set()
    for record in records:
        call = (record["run"], *(str(value) for value in record.get("where", {}).values()))
        if record["type"] == "INTENT" and _is_effect(record):
            open_calls[call] = _step(record)
        elif record["type"] == "OUTCOME" and record["result"]["status"] == "Succeeded" and call in open_calls:
            found.add(open_calls[call])
    return found


def gaps(effects: Sequence[Record], records: Sequence[Record], calls: Mapping[str, Step]) -> Iterator[str]:
    """Yield what the ledger has and the audit has not.

    Args:
        effects: what the ledger has done.
        records: of all runs, each run's in their order.
        calls: by key, which step must have made the effect.
    """
    intents = [record for record in records if record["type"] == "INTENT" and _is_effect(record)]
    asked = Counter(str(record["what"]["function"]) for record in intents)
    for function, count in Counter(str(effect["function"]) for effect in effects).items():
        if count > asked[function]:
            yield f"{count} effects of {function}, {asked[function]} intents"
    meant = {(*_step(record), record["what"]["function"]) for record in intents}
    for effect in effects:
        step = calls.get(effect["key"])
        if step is None:
            yield f"{effect['key']}: an effect of no run"
        elif (*step, effect["function"]) not in meant:
            yield f"{effect['key']}: an effect without an intent at {step[1]}"


def _is_effect(record: Record) -> bool:
    what = record["what"]
    return bool(what["target"] == LEDGER and what.get("function") not in READS)


def _step(record: Record) -> Step:
    return record["run"], record["where"]["path"]


def _command(team: Kubectl, word: str) -> list[str]:
    return [sys.executable, "-m", "fairlead.cli", "audit", word, f"--namespace={team.namespace}"]


def _environment(team: Kubectl) -> dict[str, str]:
    return {**os.environ, "KUBECONFIG": team.kubeconfig, "PATH": team.path}
