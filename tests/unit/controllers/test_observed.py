from __future__ import annotations

import pytest
from tests.unit.controllers.declared import Object, declared

from fairlead.controllers.observed import Observed
from fairlead.kube.types import MODELS, TOOLS, ResourceType


def version(obj: Object, number: int, **metadata: object) -> Object:
    return {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(number), **metadata}}


TOOL = declared("Tool")


class Changes(list[tuple[str | None, str | None]]):
    """The resourceVersions before and after each change."""

    def __call__(self, rt: ResourceType, before: Object | None, after: Object | None) -> None:
        versions = [obj and obj["metadata"]["resourceVersion"] for obj in (before, after)]
        self.append((versions[0], versions[1]))


def watched() -> tuple[Observed, Changes]:
    observed, changes = Observed(), Changes()
    observed.subscribe(changes)
    return observed, changes


def test_a_change_is_told_once_however_often_it_is_heard() -> None:
    observed, changes = watched()
    for number in (1, 1, 2, 2):
        observed.put(TOOLS, version(TOOL, number))
    observed.drop(TOOLS, "team", "tickets")
    observed.drop(TOOLS, "team", "tickets")
    assert changes == [(None, "1"), ("1", "2"), ("2", None)]


@pytest.mark.requirement("F21")
def test_an_event_that_was_overtaken_by_our_own_write_is_not_believed() -> None:
    observed, changes = watched()
    observed.put(TOOLS, version(TOOL, 9))
    observed.put(TOOLS, version(TOOL, 10))
    observed.put(TOOLS, version(TOOL, 9))
    assert changes == [(None, "9"), ("9", "10")]


def test_an_object_that_was_made_again_is_another_one() -> None:
    observed, changes = watched()
    observed.put(TOOLS, version(TOOL, 10))
    observed.put(TOOLS, version(TOOL, 4, uid="another"))
    assert changes == [(None, "10"), ("10", "4")]


async def test_a_deletion_that_nobody_reported_is_found_by_the_next_list() -> None:
    observed, changes = watched()
    observed.put(TOOLS, version(TOOL, 1))
    observed.put(MODELS, declared("Model"))

    async def nothing() -> list[Object]:
        return []

    await observed.refresh(TOOLS, nothing)
    assert observed.get(TOOLS, "team", "tickets") is None
    assert changes[-1] == ("1", None)
    assert observed.get(MODELS, "team", "small") is not None, "other types are left alone"


async def test_what_changes_while_it_is_listed_is_newer_than_the_list() -> None:
    observed, _ = watched()
    observed.put(TOOLS, version(TOOL, 1))
    new = declared("Tool", "new")

    async def slow_list() -> list[Object]:
        observed.drop(TOOLS, "team", "tickets")
        observed.put(TOOLS, new)
        return [version(TOOL, 1)]

    await observed.refresh(TOOLS, slow_list)
    assert observed.names(TOOLS) == [("team", "new")]


def test_managed_fields_are_not_kept_and_objects_are_sorted_by_name() -> None:
    observed, _ = watched()
    for name in ("b", "a"):
        observed.put(TOOLS, version(declared("Tool", name), 1, managedFields=[{"manager": "x"}]))
    assert [obj["metadata"]["name"] for obj in observed.of(TOOLS, "team")] == ["a", "b"]
    assert all("managedFields" not in obj["metadata"] for obj in observed.of(TOOLS, "team"))
    assert observed.of(TOOLS, "other") == []
