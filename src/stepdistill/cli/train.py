"""`stepdistill train`: a student for each method."""

from __future__ import annotations

import typer

from stepdistill.cli.options import File, Quiet, Set, opened, speaks


def train(file: File, set_: Set = None, quiet: Quiet = False) -> None:
    """Train the students from the teacher's answers of `stepdistill annotate`."""
    with opened(file, set_, quiet) as work:
        work.train()
        folders = [str(work.folder.student(method.name)) for method in work.methods]
    if speaks():
        typer.echo("\n".join(folders))
