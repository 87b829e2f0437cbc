from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from fairlead import isolation
from fairlead.isolation import ENOUGH, PATIENCE_SECONDS, closes, main, reaches


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def seen(way: Iterator[bool]) -> tuple[bool, float]:
    """Return what was found about a way out, and after how many seconds."""
    time = Time()
    found = closes(lambda: next(way), clock=time.clock, sleep=time.sleep)
    return found, time.now - 100.0


@pytest.mark.requirement("A13")
def test_the_server_starts_when_the_way_out_has_closed() -> None:
    way = iter([True] * 7 + [False] * ENOUGH)
    assert seen(way)[0] is True
    assert list(way) == [], "and not before"


@pytest.mark.requirement("F43")
def test_one_lost_attempt_is_no_closed_way_out() -> None:
    way = iter([False] * (ENOUGH - 1) + [True] + [False] * ENOUGH)
    assert seen(way)[0] is True
    assert list(way) == []


@pytest.mark.requirement("F43")
@pytest.mark.requirement("A13")
def test_a_way_out_that_stays_open_keeps_the_server_from_starting() -> None:
    found, seconds = seen(iter(lambda: True, False))
    assert found is False
    assert PATIENCE_SECONDS <= seconds <= PATIENCE_SECONDS + 1


def test_a_way_out_that_flickers_is_given_up_too() -> None:
    found, _ = seen(iter([True, False] * 1000))
    assert found is False


def test_a_connection_that_can_be_made_is_a_way_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert reaches("127.0.0.1", port)
    assert not reaches("127.0.0.1", port)


def test_who_is_not_isolated_is_told_what_would_be_right(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(isolation, "PATIENCE_SECONDS", 0.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(port))
        assert main() == 1
    told = capsys.readouterr().err
    assert f"127.0.0.1:{port}" in told
    assert "requireNetworkIsolation" in told
    assert main() == 0, "closed now"
