"""Which statuses are news."""

from __future__ import annotations

from typing import Any

import pytest

from fairlead.engine.news import News, news


def status(*, denials: int = 0, **conditions: tuple[str, str, str]) -> dict[str, Any]:
    return {
        "traceID": "7f0c",
        "denials": denials,
        "workflow": {"revision": "sha256:abc"},
        "conditions": [
            {
                "type": type_,
                "status": word,
                "reason": reason,
                "message": text,
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }
            for type_, (word, reason, text) in conditions.items()
        ],
    }


WAITING = status(Accepted=("Unknown", "WorkflowNotReady", ""), Finished=("False", "Queued", ""))
ACCEPTED = {"Accepted": ("True", "Accepted", "")}
OPEN = status(**ACCEPTED, Finished=("False", "Executing", ""), Succeeded=("Unknown", "Executing", ""))
DONE = status(**ACCEPTED, Finished=("True", "Completed", ""), Succeeded=("True", "Completed", ""))
FAILED = status(**ACCEPTED, Finished=("True", "Timeout", ""), Succeeded=("False", "Timeout", "too late"))

BEGINS = News("Accepted", "revision sha256:abc; trace 7f0c")
ENDS = News("Timeout", "too late; trace 7f0c", warning=True)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ({}, WAITING, []),
        (WAITING, OPEN, [BEGINS]),
        (OPEN, OPEN, []),
        (OPEN, DONE, []),
        (OPEN, FAILED, [ENDS]),
        ({}, FAILED, [BEGINS, ENDS]),
        (FAILED, FAILED, []),
        (
            OPEN,
            OPEN | {"denials": 1},
            [News("Denied", "1 call was not permitted, see status.steps; trace 7f0c", True)],
        ),
        (OPEN | {"denials": 1}, OPEN | {"denials": 1}, []),
    ],
)
def test_only_transitions_that_a_person_wants_to_hear_of_are_news(
    before: dict[str, Any], after: dict[str, Any], said: list[News]
) -> None:
    assert list(news(before, after)) == said
