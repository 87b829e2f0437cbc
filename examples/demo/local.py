"""The demo in local mode: the same engine in one process, the same real models as local commands."""

from __future__ import annotations

import json
import os
import subprocess

from examples.demo.show import EXAMPLE, FAIRLEAD, REFUSED, ROOT, WORKFLOW, heading, messages, stage, verdict

STORE = ROOT / "build" / "demo"


def demo(count: int) -> int:
    """Answer `count` messages in local mode and show one refusal."""
    with stage("The models' weights and servers"):
        command = [str(ROOT / ".venv/bin/python"), "-m", "images", "models", "--json"]
        paths = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    os.environ.update({name: str(path) for name, path in paths.items()})
    right = 0
    for number, message in enumerate(messages(count), start=1):
        heading(number, message)
        result = _run(WORKFLOW, {"message": message["message"], "customer": message["customer"]}, trace=True)
        right += result.returncode == 0
    print("\n-- And one that is refused: a Workflow under the same account that asks for `remove`", flush=True)
    refused = _run(REFUSED, {"id": "T-1"}, trace=False)
    return verdict(right, count, refused=refused.returncode != 0)


def _run(workflow: str, values: dict[str, str], *, trace: bool) -> subprocess.CompletedProcess[bytes]:
    inputs = [part for name, value in values.items() for part in ("--input", f"{name}={value}")]
    options = ["--with", str(EXAMPLE / "local.yaml"), "--workflow", workflow, "--store", str(STORE)]
    return subprocess.run(
        [FAIRLEAD, "run", str(EXAMPLE), *options, *inputs, *(["--trace"] if trace else [])], check=False
    )
