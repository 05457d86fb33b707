"""`stepdistill init`: a run file and a task file to start from, with a comment on each key."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Annotated

import typer


def init(
    folder: Annotated[Path, typer.Argument(help="Where to write run.yaml and task.yaml.")] = Path(),
) -> None:
    """Write a commented run file and task file to start from; nothing is overwritten."""
    from stepdistill.errors import RunFolderError
    from stepdistill.files import write_text

    templates = resources.files("stepdistill.cli") / "templates"
    names = ("run.yaml", "task.yaml")
    for name in names:
        if (folder / name).exists():
            raise RunFolderError(f"{folder / name}: is there already; choose another folder")
    for name in names:
        text = (templates / name).read_text(encoding="utf-8")
        # Paths of a run file start from where the command is called, as those of `--set` do.
        write_text(folder / name, text.replace("FOLDER/", "" if folder == Path() else f"{folder}/"))
        typer.echo(str(folder / name))
    typer.echo(f"Edit both, then: stepdistill run {folder / 'run.yaml'}")
