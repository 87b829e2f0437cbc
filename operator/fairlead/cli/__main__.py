"""The command line, `fairlead` and `kubectl fairlead`: one typer app, a module per group of commands.

Only typer is imported up front; a command imports what it needs when it runs, so that `--help` stays quick.
"""

from __future__ import annotations

import sys

import typer

from fairlead.cli import (
    audit,
    cani,
    decide,
    doctor,
    exits,
    get,
    grants,
    importtool,
    lint,
    logs,
    pin,
    run,
    steer,
    submit,
    trace,
)
from fairlead.cli.exits import CommandFailed, Exit

app = typer.Typer(
    name="fairlead",
    help="Governed AI workflows on Kubernetes, and the same engine on this machine.",
    epilog="\n".join(("\b", "Exit codes:", *(f"{code:>5}  {meaning}" for code, meaning in exits.MEANING.items()))),
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run")(run.run)
app.command("lint")(lint.lint)
app.command("grants")(grants.grants)
app.command("can-i")(cani.can_i)
app.command("doctor")(doctor.doctor)
app.command("import-tool")(importtool.import_tool)
app.command("pin")(pin.pin)
app.command("submit")(submit.submit)
app.command("retry")(submit.retry)
app.command("watch")(submit.watch)
app.command("signal")(steer.signal)
app.command("pause")(steer.pause)
app.command("resume")(steer.resume)
app.command("cancel")(steer.cancel)
app.command("approve")(decide.approve)
app.command("deny")(decide.deny)
app.command("get")(get.get)
app.command("logs")(logs.logs)
app.command("trace")(trace.trace)
app.add_typer(audit.app, name="audit")


def main() -> None:
    """Run one command and exit with its code."""
    try:
        app(standalone_mode=True)
    except CommandFailed as failure:
        print(f"fairlead: {failure}", file=sys.stderr)
        sys.exit(failure.code)
    except KeyboardInterrupt:
        sys.exit(Exit.INTERRUPTED)


if __name__ == "__main__":
    main()
