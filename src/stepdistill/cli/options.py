"""What the verbs that work on a run file have in common."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stepdistill.errors import StepdistillError

if TYPE_CHECKING:
    from stepdistill.study.job import Job
    from stepdistill.study.run import Run

File = Annotated[Path, typer.Argument(help="Run file (YAML); `stepdistill init` writes one.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override a key, e.g. --set train.epochs=2 (repeatable)."
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars.")]
Reopen = Annotated[
    bool,
    typer.Option("--reopen-test", help="Measure on test again where it has been read already; it is noted."),
]
Json = Annotated[bool, typer.Option("--json", help="Print results as JSON, nothing else.")]

_RANKS = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")
"""Where launchers say which process of several this is."""


def speaks() -> bool:
    """Whether this process holds the folder and shows what comes out: the first of those that a launcher
    has started together.
    """
    return all(os.environ.get(name, "0") == "0" for name in _RANKS)


@contextlib.contextmanager
def opened(
    file: Path, overrides: list[str] | None, quiet: bool, reopen: bool = False, test: bool = False
) -> Iterator[Run]:
    """The run of a file, checked, its folder held, with progress bars; `reopen`, `test`: see `Run`."""
    from stepdistill.cli.progress import bars
    from stepdistill.config import load_run

    config = load_run(file, overrides or [])
    with bars(quiet or not speaks()) as watch:
        # Torch is imported here: configuration errors come at once, not after seconds.
        from stepdistill.study.run import Run

        run = Run(config, watch, reopen=reopen)
        with _held(run, partial(run.open, test=test)):
            yield run


@contextlib.contextmanager
def opened_job(file: Path, overrides: list[str] | None, quiet: bool, anew: bool = False) -> Iterator[Job]:
    """The same without what trains and measures, and so without torch; `anew` as in `Job.open`."""
    from stepdistill.cli.progress import bars
    from stepdistill.config import load_run
    from stepdistill.study.job import Job

    config = load_run(file, overrides or [])
    with bars(quiet) as watch:
        job = Job(config, watch)
        with _held(job, partial(job.open, anew)):
            yield job


def looked_at(file: Path, overrides: list[str] | None) -> Job:
    """The job of a file, checked; its folder is neither held nor written to."""
    from stepdistill.config import load_run
    from stepdistill.records import unwatched
    from stepdistill.study.job import Job

    job = Job(load_run(file, overrides or []), unwatched)
    job.check()
    return job


@contextlib.contextmanager
def _held(job: Job, take: Callable[[], None]) -> Iterator[None]:
    from stepdistill.files import lock

    _ = job.methods
    with lock(job.folder.path) if speaks() else contextlib.nullcontext():
        take()
        try:
            yield
        except StepdistillError:
            raise
        except BaseException:  # Ctrl-C and SIGTERM: what was paid until then is said before the end
            if job.tally.attempts:
                from stepdistill.cli.teaching import asked_line

                typer.echo(asked_line(job.tally), err=True)
            raise
