"""`stepdistill run`: the whole way, from one file to measured students."""

from __future__ import annotations

from stepdistill.cli.options import File, Json, Quiet, Set, opened


def run(file: File, set_: Set = None, quiet: Quiet = False, json: Json = False) -> None:
    """Annotate, train every method, measure all on the same test set; print the table.

    Started again after an interruption, it goes on where it was.
    """
    with opened(file, set_, quiet or json) as work:
        work.annotate()
        work.train()
        records = work.evaluate()
    from stepdistill.cli.table import show

    show(work, records, json)
