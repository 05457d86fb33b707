"""`stepdistill evaluate`: all students and the teacher on the same test set."""

from __future__ import annotations

from stepdistill.cli.options import File, Json, Quiet, Reopen, Set, opened, speaks


def evaluate(
    file: File, set_: Set = None, quiet: Quiet = False, json: Json = False, reopen_test: Reopen = False
) -> None:
    """Measure the trained students and the teacher on the test split; print the table.

    What is measured already is shown, and not measured again.
    """
    with opened(file, set_, quiet or json, reopen_test) as work:
        records = work.evaluate()
    from stepdistill.cli.table import show

    if speaks():
        show(work, records, json)
