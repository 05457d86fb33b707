"""Progress bars on stderr, with rate and time left."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from stepdistill.records import Watcher, unwatched


class _Rate(ProgressColumn):
    """Examples a second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.1f}/s" if speed else "", style="cyan")


@contextlib.contextmanager
def bars(quiet: bool) -> Iterator[Watcher]:
    """A `Watcher` that draws a bar for each thing that it is told of."""
    if quiet:
        yield unwatched
        return
    columns = (
        TextColumn("{task.description:<24}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        known: dict[str, TaskID] = {}

        def watch(what: str, done: int, total: int, note: str = "", /) -> None:
            if what not in known:
                known[what] = progress.add_task(what, total=total, note="")
            progress.update(known[what], completed=done, total=total, note=note)

        yield watch
