"""Manifests: the YAML files that lint and local mode read, as the models of `api/`.

What is not of our API group is left alone, so that a folder may hold other things too. Everything that is wrong is
collected with its file, document and field path, as the API server would say it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from fairlead.api import API_VERSION, GROUP
from fairlead.api.clusterpolicy import ClusterPolicy
from fairlead.api.engine import Engine
from fairlead.api.meta import LABEL, Resource
from fairlead.api.mistakes import mistakes
from fairlead.api.model import Model
from fairlead.api.policy import Policy
from fairlead.api.run import WorkflowRun
from fairlead.api.tool import Tool
from fairlead.api.workflow import Workflow
from fairlead.cli.crdrules import broken_rules
from fairlead.policy.clusterwide import as_policy

KINDS: Mapping[str, type[Resource]] = {
    kind.crd.kind: kind for kind in (Workflow, WorkflowRun, Tool, Model, Policy, ClusterPolicy, Engine)
}
SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding: where, and what would be right. `document` counts from 1; `path` is the field path."""

    file: Path
    document: int
    path: str
    message: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.document}"
        return f"{where} {self.path}: {self.message}" if self.path else f"{where}: {self.message}"


@dataclass(frozen=True, slots=True)
class Manifest:
    """One object of ours and where it stands."""

    file: Path
    document: int
    kind: str
    resource: Any

    @property
    def name(self) -> str:
        """Return the object's name."""
        return str(self.resource.metadata.name)

    def problem(self, path: str, message: str) -> Problem:
        """Return a finding about this object."""
        return Problem(self.file, self.document, path, message)


@dataclass(slots=True)
class Manifests:
    """All that was read.

    Attributes:
        items: objects of ours, in the order of files and documents.
        problems: what is wrong with the rest of ours.
        skipped: documents that are not of our API group.
    """

    items: list[Manifest] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    skipped: int = 0

    def policies(self) -> dict[str, Policy]:
        """Return the Policies by name; every ClusterPolicy is taken to bind, as one of the name ClusterPolicy/x."""
        cluster = (as_policy(policy) for policy in self.of("ClusterPolicy").values())
        return self.of("Policy") | {policy.metadata.name: policy for policy in cluster}

    def of(self, kind: str) -> dict[str, Any]:
        """Return the objects of one kind by name."""
        return {item.name: item.resource for item in self.items if item.kind == kind}


def read(paths: Sequence[Path]) -> Manifests:
    """Read files and folders (their YAML files, without those of sub-folders).

    Raises:
        FileNotFoundError: a path does not exist.
    """
    found = Manifests()
    for path in paths:
        for file in _files(path):
            _read_file(file, found)
    _refuse_twins(found)
    return found


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(file for file in path.iterdir() if file.suffix in SUFFIXES and file.is_file())
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    return [path]


def _read_file(file: Path, found: Manifests) -> None:
    try:
        documents = list(yaml.safe_load_all(file.read_text(encoding="utf-8")))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        found.problems.append(Problem(file, 1, "", f"no YAML: {' '.join(str(error).split())}"))
        return
    for number, document in enumerate(documents, start=1):
        if document is not None:
            _read_document(file, number, document, found)


def _read_document(file: Path, number: int, document: Any, found: Manifests) -> None:
    version = str(document.get("apiVersion", "")) if isinstance(document, dict) else ""
    if version.partition("/")[0] != GROUP:
        found.skipped += 1
        return
    kind = str(document.get("kind", ""))
    if version != API_VERSION:
        found.problems.append(Problem(file, number, "apiVersion", f"{API_VERSION} is the version that exists"))
    elif kind not in KINDS:
        found.problems.append(Problem(file, number, "kind", f"one of {', '.join(KINDS)}"))
    else:
        unknown = set(document) - {"apiVersion", "kind", "metadata", "spec", "status"}
        found.problems += [
            Problem(file, number, str(key), "there is no such field") for key in sorted(unknown, key=str)
        ]
        try:
            resource = KINDS[kind].model_validate(_named(document))
        except ValidationError as error:
            found.problems += [Problem(file, number, path, message) for path, message in mistakes(error)]
            return
        found.items.append(item := Manifest(file, number, kind, resource))
        found.problems += [
            item.problem(path, message) for path, message in (*_name_rules(item), *broken_rules(resource))
        ]


def _named(document: dict[str, Any]) -> dict[str, Any]:
    """A run made with generateName gets its name from the API server."""
    metadata = document.get("metadata")
    if isinstance(metadata, dict) and "name" not in metadata and "generateName" in metadata:
        return document | {"metadata": metadata | {"name": f"{metadata['generateName']}x"}}
    return document


def _name_rules(item: Manifest) -> Iterator[tuple[str, str]]:
    longest = item.resource.crd.name_max_length
    if not re.fullmatch(LABEL, item.name) or len(item.name) > longest:
        yield "metadata.name", f"a name has lower-case letters, digits and dashes, at most {longest}, and no dots"


def _refuse_twins(found: Manifests) -> None:
    seen: dict[tuple[str, str, str], Manifest] = {}
    for item in found.items:
        first = seen.setdefault((item.kind, item.resource.metadata.namespace, item.name), item)
        if first is not item:
            message = f"{item.kind} {item.name} stands in {first.file}:{first.document} already"
            found.problems.append(item.problem("metadata.name", message))
