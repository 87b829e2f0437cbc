"""Exit codes: part of the interface, so that scripts and CI can act on them."""

from __future__ import annotations

from enum import IntEnum

FORBIDDEN = (401, 403)


class Exit(IntEnum):
    """What a command ends with."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    DENIED = 4
    NOT_FOUND = 5
    UNFINISHED = 6
    INTERRUPTED = 130


MEANING = {
    Exit.OK: "all went well; a run that was waited for succeeded",
    Exit.FAILED: "a run that was waited for failed, lint has findings, a pin is missing, or an audit is not sound",
    Exit.USAGE: "the command line, or a file that it names, is wrong",
    Exit.UNREACHABLE: "the cluster or the store cannot be reached",
    Exit.DENIED: "a permission is missing: yours, or the account's (the run ended with reason Denied)",
    Exit.NOT_FOUND: "there is no such run, workflow, file or namespace",
    Exit.UNFINISHED: "the run goes on; it was only not waited for any longer",
    Exit.INTERRUPTED: "interrupted",
}


class CommandFailed(Exception):
    """A command cannot go on; the message is for the person at the terminal."""

    def __init__(self, code: Exit, message: str) -> None:
        super().__init__(message)
        self.code = code


def of_run(succeeded: bool, reason: str) -> Exit:
    """Return the exit code for a run that has ended."""
    if succeeded:
        return Exit.OK
    return Exit.DENIED if reason == "Denied" else Exit.FAILED


def of_status(status: int) -> Exit:
    """Return the exit code for an HTTP status of the API server; 0 for no answer at all."""
    if status in FORBIDDEN:
        return Exit.DENIED
    if status == 404:
        return Exit.NOT_FOUND
    return Exit.UNREACHABLE if status == 0 or status == 429 or status >= 500 else Exit.FAILED
