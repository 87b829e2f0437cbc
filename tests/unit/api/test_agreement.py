"""What the API server refuses is refused without a cluster too, in the same words where the words are ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from pydantic import ValidationError
from tests.specimens import changed, specimen
from tests.wrong_objects import WRONG

from fairlead.api.crds import KINDS
from fairlead.cli.crdrules import broken_rules

# Said elsewhere without a cluster: names by the CLI's own check, duplicates by flow/checks.py.
ELSEWHERE = ("a name has", "Duplicate value", "spec.steps[7]: Duplicate")
ROWS = [row for row in WRONG if not row[3].startswith(ELSEWHERE)]
MODELS = {kind.crd.kind: kind for kind in KINDS}


@pytest.mark.parametrize("kind", ["Workflow", "WorkflowRun", "Tool", "Model", "Policy", "Approval", "Engine"])
def test_a_valid_object_breaks_no_rule(kind: str) -> None:
    assert list(broken_rules(MODELS[kind].model_validate(specimen(kind)))) == []


@pytest.mark.parametrize(("kind", "changes", "words"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_what_the_api_server_refuses_is_refused_without_it(kind: str, changes: Mapping[str, Any], words: str) -> None:
    obj = changed(specimen(kind), changes)
    try:
        resource = MODELS[kind].model_validate(obj)
    except ValidationError:
        return  # pydantic's own words
    messages = [message for _, message in broken_rules(resource)]
    assert any(words in message for message in messages), messages
