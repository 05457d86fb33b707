"""`stepdistill run`: the whole way, from one file to measured students."""

from __future__ import annotations

import typer

from stepdistill.cli.options import File, Json, Quiet, Reopen, Set, opened, speaks


def run(
    file: File, set_: Set = None, quiet: Quiet = False, json: Json = False, reopen_test: Reopen = False
) -> None:
    """Annotate, train every method, measure all on the same test set; print the table.

    Started again after an interruption, it goes on where it was.
    """
    with opened(file, set_, quiet or json, reopen_test, test=True) as work:
        outcome = work.annotate()
        if outcome.tally.attempts:
            from stepdistill.cli.teaching import asked_lines

            typer.echo("\n".join(asked_lines(outcome)), err=True)
        work.train()
        records = work.evaluate()
    from stepdistill.cli.table import show

    if speaks():
        show(work, records, json)
