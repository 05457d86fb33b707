"""The `stepdistill` command."""

from __future__ import annotations

import io
import os
import signal
import sys
from types import FrameType
from typing import Any

import typer

import stepdistill
from stepdistill.cli import (
    annotate,
    breakeven,
    evaluate,
    export,
    init,
    power,
    predict,
    report,
    reproduce,
    run,
    serve,
    study,
    tasks,
    train,
    trial,
)
from stepdistill.errors import StepdistillError, extras_named

app = typer.Typer(
    name="stepdistill",
    help="Turn an LLM and a pile of text into a small model that does the same job, by teaching it "
    "the LLM's reasoning as well as its answers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run")(run.run)
app.command("study")(study.study)
app.command("trial")(trial.trial)
app.command("annotate")(annotate.annotate)
app.command("train")(train.train)
app.command("evaluate")(evaluate.evaluate)
app.command("predict")(predict.predict)
app.command("export")(export.export)
app.command("report")(report.report)
app.command("reproduce")(reproduce.reproduce)
app.command("tasks")(tasks.tasks)
app.command("power")(power.power)
app.command("serve")(serve.serve)
app.command("breakeven")(breakeven.breakeven)
app.command("init")(init.init)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"stepdistill {stepdistill.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    pass


# Typer brings a click of its own in newer releases; this is the root of its errors in either case.
_Misused: Any = typer.BadParameter.__mro__[2]


class _TerminatedError(BaseException):
    """SIGTERM, as an exception, so that it ends the work as orderly as Ctrl-C does."""


def _terminated(number: int, frame: FrameType | None) -> None:
    raise _TerminatedError


def main() -> None:
    """Run the command line.

    Codes: 0 done, 2 a user's error in one line, 3 the budget is reached, 130 interrupted, 143 terminated.
    """
    signal.signal(signal.SIGTERM, _terminated)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal without Unicode shows what it can
    try:
        with extras_named():
            code = app(standalone_mode=False)
    except StepdistillError as error:
        _say(f"Error: {error}")
        code = error.exit_code
    except _TerminatedError:
        _say("Terminated; finished work is kept. Run the same command to go on.")
        code = 143
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except BrokenPipeError:
        # Whoever read our output has gone (`| head`); nothing is wrong. Python would complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _say(f"Error: {where}{error.strerror or error}; give another path, or mend it, then run again")
        code = 2
    except _Misused as error:
        error.show()
        code = error.exit_code
    if code == 130:  # some releases of typer turn Ctrl-C into this code and say nothing
        _say("Interrupted; finished work is kept. Run the same command to go on.")
    sys.exit(code if isinstance(code, int) else 0)


def _say(line: str) -> None:
    # One line, whatever the message quotes; control characters of hostile text do not reach the terminal.
    clean = "".join(c if c.isprintable() else " " for c in " ".join(line.split()))
    print(clean, file=sys.stderr)
