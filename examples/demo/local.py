"""The demo in local mode: the same engine in one process, the same real models as local commands."""

from __future__ import annotations

import json
import os
import shutil
import subprocess

from examples.demo.show import EXAMPLE, FAIRLEAD, REFUSED, ROOT, WORKFLOW, heading, messages, stage, verdict

STORE = ROOT / "build" / "demo"


def demo(count: int) -> int:
    """Answer `count` messages in local mode and show one refusal."""
    with stage("The models' weights and servers"):
        command = [str(ROOT / ".venv/bin/python"), "-m", "images", "models", "--json"]
        paths = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    os.environ.update({name: str(path) for name, path in paths.items()})
    shutil.rmtree(STORE, ignore_errors=True)
    right = 0
    for number, message in enumerate(messages(count), start=1):
        heading(number, message)
        name = f"message-{number}"
        result = _run(WORKFLOW, name, {"message": message["message"], "customer": message["customer"]})
        right += result.returncode == 0 and _topic(name) == message["expect"]
    print("\n-- And one that is refused: a Workflow under the same account that asks for `remove`", flush=True)
    refused = _run(REFUSED, "refused", {"id": "T-1"})
    return verdict(right, count, refused=refused.returncode != 0)


def _command(workflow: str, name: str, values: dict[str, str]) -> list[str]:
    inputs = [part for key, value in values.items() for part in ("--input", f"{key}={value}")]
    options = ["--with", str(EXAMPLE / "local/servers.yaml"), "--workflow", workflow, "--store", str(STORE)]
    return [FAIRLEAD, "run", str(EXAMPLE), *options, "--run", name, *inputs]


def _run(workflow: str, name: str, values: dict[str, str]) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*_command(workflow, name, values), "--trace"], check=False)


def _topic(name: str) -> str | None:
    """Return the topic of a run that has ended: asked for again, it says the same and executes nothing."""
    told = subprocess.run([*_command(WORKFLOW, name, {}), "-o", "json"], check=True, stdout=subprocess.PIPE, text=True)
    output = json.loads(told.stdout)["output"]
    return str(output["topic"]) if output else None
