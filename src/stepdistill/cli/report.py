"""`stepdistill report`: what a study or a run has found, as one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Folder = Annotated[Path, typer.Argument(help="Folder of a study or of a run (its `out`).")]
Out = Annotated[
    Path | None, typer.Option("--out", metavar="FILE", help="The HTML file; FOLDER/report.html by default.")
]


def report(folder: Folder, out: Out = None) -> None:
    """Write one HTML file with verdict, figures, tables and wrong answers; it needs no network.

    An unfinished study is shown as far as it is.
    """
    from stepdistill.study.report import write_report

    print(write_report(folder, out))
