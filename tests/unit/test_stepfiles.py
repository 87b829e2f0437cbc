"""What stands beside a step's container: what it brings in, and what it takes out of a stranger's directory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.stepfiles import MOST_OUTPUT, PIECE, NothingSaid, joined, pieces, put, read_back, take


@given(st.binary(max_size=PIECE * 2))
def test_what_is_taken_apart_is_put_together(content: bytes) -> None:
    found = pieces("X", content)
    assert all(len(one["value"]) <= PIECE for one in found)
    assert joined("X", {one["name"]: one["value"] for one in found}) == content


def test_the_input_and_the_script_are_written(tmp_path: Path) -> None:
    given_ = [*pieces("FAIRLEAD_INPUT", b'{"a":1}'), *pieces("FAIRLEAD_SCRIPT", b"echo $(x)")]
    put({one["name"]: one["value"] for one in given_}, tmp_path)
    assert (tmp_path / "input.json").read_bytes() == b'{"a":1}'
    assert (tmp_path / "script").read_bytes() == b"echo $(x)"


def test_without_a_script_there_is_none(tmp_path: Path) -> None:
    put({one["name"]: one["value"] for one in pieces("FAIRLEAD_INPUT", b"null")}, tmp_path)
    assert not (tmp_path / "script").exists()


@given(st.binary(max_size=2000))
def test_what_is_left_comes_out(content: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "output.json").write_bytes(content)
        assert read_back(f"noise\n{take(Path(directory))}\n") == (content, "")


def test_nothing_left_is_nothing(tmp_path: Path) -> None:
    assert read_back(take(tmp_path)) == (None, "")


@given(st.binary(max_size=200) | st.none(), st.integers(0, 400))
def test_half_a_word_is_none(content: bytes | None, cut: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        if content is not None:
            (Path(directory) / "output.json").write_bytes(content)
        line = take(Path(directory))
    if cut < len(line):
        with pytest.raises(NothingSaid):
            read_back(f"noise\n{line[:cut]}")


@pytest.mark.requirement("A31")
@pytest.mark.parametrize("trap", ["a link", "a link to a link", "a pipe", "a directory", "too much", "a device"])
def test_nothing_else_than_a_small_file_is_taken(tmp_path: Path, trap: str) -> None:
    secret = tmp_path / "secret"
    secret.write_text("not yours")
    work = tmp_path / "work"
    work.mkdir()
    output = work / "output.json"
    match trap:
        case "a link":
            output.symlink_to(secret)
        case "a link to a link":
            (work / "x").symlink_to("/proc/self/environ")
            output.symlink_to(work / "x")
        case "a pipe":
            os.mkfifo(output)
        case "a directory":
            output.mkdir()
        case "a device":
            output.symlink_to("/dev/zero")
        case _:
            with output.open("wb") as file:
                file.truncate(MOST_OUTPUT + 1)
    content, refused = read_back(take(work))
    assert content is None and refused


def test_it_waits_to_be_told_to_end(tmp_path: Path) -> None:
    program = "import fairlead.stepfiles as s, pathlib, signal, sys; s.WORK = pathlib.Path(sys.argv[1]);"
    program += (
        "s.take.__defaults__ = (s.WORK,); signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT});"
    )
    program += "print('ready', flush=True); s.main(['take'])"
    beside = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert beside.stdout is not None
    try:
        assert beside.stdout.readline() == "ready\n"
        (tmp_path / "output.json").write_text("[1]")
        beside.send_signal(signal.SIGTERM)
        assert read_back(beside.stdout.read()) == (b"[1]", "")
        assert beside.wait(10) == 0
    finally:
        beside.kill()
        beside.stdout.close()
        beside.wait()
