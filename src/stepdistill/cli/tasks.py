"""`stepdistill tasks`: what can be asked without writing a task file."""

from __future__ import annotations

from typing import Annotated

import typer


def tasks(
    name: Annotated[str | None, typer.Argument(help="Print this task's file.")] = None,
) -> None:
    """List the built-in tasks, or print one to start your own from."""
    from stepdistill.errors import ConfigError, unknown
    from stepdistill.files import read_text
    from stepdistill.task.load import builtin_names, builtin_path, load_task

    if name is not None:
        if name not in builtin_names():
            raise ConfigError(unknown("task", name, builtin_names()))
        typer.echo(read_text(builtin_path(name)), nl=False)
        return
    for found in builtin_names():
        spec = load_task(found).spec
        first = spec.instruction.split(". ")[0].rstrip(".").strip()
        typer.echo(f"{found:<9} {spec.answer.kind:<9} {first}.")
