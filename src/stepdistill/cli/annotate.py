"""`stepdistill annotate`: the teacher's rationales and labels."""

from __future__ import annotations

from stepdistill.cli.options import File, Json, Quiet, Set, opened


def annotate(file: File, set_: Set = None, quiet: Quiet = False, json: Json = False) -> None:
    """Collect the teacher's answers and read them; print how many could be read and why not."""
    with opened(file, set_, quiet or json) as work:
        work.annotate()
        report = work.parse_report()
    from stepdistill.cli.table import show_parse

    show_parse(report, work.folder.annotations, json)
