"""`stepdistill trial`: one trial of a study, started anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stepdistill.cli.options import Quiet, Reopen

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="A trial's folder: OUT/trials/NAME.")]


def trial(folder: Folder, reopen_test: Reopen = False, quiet: Quiet = False) -> None:
    """Run one trial of a study to its end, as `stepdistill study` would; a finished one is left alone.

    It goes on where it was interrupted, and writes how it ended to outcome.json.
    """
    from stepdistill.cli.progress import bars
    from stepdistill.study.trial import run_trial

    with bars(quiet) as watch:
        outcome = run_trial(folder, watch, reopen_test)
    if outcome.error is not None:
        typer.echo(outcome.traceback, err=True)
        typer.echo(f"Error: {outcome.error}", err=True)
        raise typer.Exit(outcome.exit)
