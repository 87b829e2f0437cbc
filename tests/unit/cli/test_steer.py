"""Signals from the command line: how they are read, and how they get to the end of a list that others write too."""

from __future__ import annotations

from typing import Any, cast

import pytest
from tests.unit.flow.world import UID

from fairlead.cli.access import ATTEMPTS, Access
from fairlead.cli.exits import CommandFailed
from fairlead.cli.inputs import read_signals
from fairlead.cli.localengine import all_signals, run_object
from fairlead.cli.steer import _send
from fairlead.errors import Conflict
from fairlead.flow.journal import Entry, EntryKind, Path
from fairlead.kube.client import Kube

OLD = {"name": "old", "data": 1, "by": "bob"}


class FakeKube:
    """One WorkflowRun; `overtaken` says how often somebody else writes between our read and our write."""

    def __init__(self, overtaken: int) -> None:
        self.overtaken = overtaken
        self.signals: list[dict[str, Any]] = [OLD]
        self.version = 1

    async def request(self, method: str, path: str, *, body: Any) -> dict[str, Any]:
        assert (method, body["kind"]) == ("POST", "SelfSubjectReview")
        return {"status": {"userInfo": {"username": "alice"}}}

    async def get(self, rt: Any, name: str, namespace: str) -> dict[str, Any]:
        read = {"metadata": {"resourceVersion": str(self.version)}, "spec": {"signals": list(self.signals)}}
        if self.overtaken:
            self.overtaken -= 1
            self.version += 1
            self.signals.append(OLD)
        return read

    async def patch(self, rt: Any, name: str, namespace: str, body: dict[str, Any]) -> None:
        if body["metadata"]["resourceVersion"] != str(self.version):
            raise Conflict(409, "stale")
        self.signals = body["spec"]["signals"]


async def test_a_signal_goes_to_the_end_in_the_users_name_whoever_writes_meanwhile() -> None:
    kube = FakeKube(overtaken=2)
    await _send(Access(cast(Kube, kube), "team"), "r", {"name": "go", "data": 7})
    assert kube.signals == [OLD, OLD, OLD, {"name": "go", "data": 7, "by": "alice"}]


async def test_who_is_always_overtaken_is_told() -> None:
    with pytest.raises(Conflict):
        await _send(Access(cast(Kube, FakeKube(overtaken=ATTEMPTS)), "team"), "r", {"name": "go", "data": None})


def test_signals_are_read_with_or_without_data() -> None:
    assert read_signals(["go", 'say={"n": 1}']) == [{"name": "go", "data": None}, {"name": "say", "data": {"n": 1}}]


@pytest.mark.parametrize("wrong", ["", "Go", "a b=1", "go={"])
def test_what_is_no_signal_is_refused(wrong: str) -> None:
    with pytest.raises(CommandFailed, match="--signal"):
        read_signals([wrong])


def test_a_local_run_that_goes_on_keeps_what_it_was_told_before() -> None:
    told = {"index": 0, "name": "old", "data": 1, "by": "bob"}
    earlier = [Entry(UID, 1, 0, EntryKind.SIGNAL, Path(""), 0, told)]
    signals = all_signals(earlier, [{"name": "go", "data": 2}])
    assert [(one["name"], one["data"]) for one in signals] == [("old", 1), ("go", 2)]
    run = run_object(None, name="r", namespace="team", workflow="w", value={}, signals=signals)
    assert run["spec"]["signals"] == signals
