"""All kinds, and the files of their CRDs: `python -m fairlead.api.crds OUT_DIR`.

The files are committed (crds/) because people, the chart and GitOps tools read them; a test compares them with this.
"""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

from fairlead.api import GROUP
from fairlead.api.approval import Approval
from fairlead.api.clusterpolicy import ClusterPolicy
from fairlead.api.crd import crd
from fairlead.api.engine import Engine
from fairlead.api.meta import Resource
from fairlead.api.model import Model
from fairlead.api.policy import Policy
from fairlead.api.run import WorkflowRun
from fairlead.api.tool import Tool
from fairlead.api.toolfunction import ToolFunction
from fairlead.api.workflow import Workflow

KINDS: tuple[type[Resource], ...] = (
    Workflow,
    WorkflowRun,
    Tool,
    ToolFunction,
    Model,
    Policy,
    ClusterPolicy,
    Approval,
    Engine,
)
_HEADER = "# Generated from operator/fairlead/api by `python -m fairlead.api.crds crds`. Do not edit.\n"


def render() -> dict[str, str]:
    """Return the text of each CRD file by its name."""
    return {
        f"{GROUP}_{kind.crd.plural}.yaml": _HEADER
        + yaml.safe_dump(crd(kind), sort_keys=False, allow_unicode=True, width=120)
        for kind in KINDS
    }


def main(argv: list[str]) -> int:
    """Write the files; those of kinds that no longer exist go."""
    if len(argv) != 1:
        print("usage: python -m fairlead.api.crds OUT_DIR", file=sys.stderr)
        return 2
    directory = Path(argv[0])
    directory.mkdir(parents=True, exist_ok=True)
    files = render()
    for stale in directory.glob(f"{GROUP}_*.yaml"):
        if stale.name not in files:
            stale.unlink()
    for name, text in files.items():
        (directory / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
