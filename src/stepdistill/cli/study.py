"""`stepdistill study`: many trials from one file, and what they show together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stepdistill.cli.options import Json, Quiet, Reopen, Set

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stepdistill.config import StudyConfig
    from stepdistill.study.grid import Trial

File = Annotated[Path, typer.Argument(help="Study file (YAML); see docs/study.md.")]
PlanOnly = Annotated[bool, typer.Option("--plan", help="Print trials, time and money; do and write nothing.")]
Prepare = Annotated[bool, typer.Option("--prepare", help="Make the trials' folders and start none.")]
Minimum = Annotated[
    bool, typer.Option("--minimum", help="Only look for the least data that is enough (`minimum`).")
]
Jobs = Annotated[int | None, typer.Option(min=1, metavar="N", help="Trials side by side.")]


def study(
    file: File,
    set_: Set = None,
    plan: PlanOnly = False,
    prepare: Prepare = False,
    minimum: Minimum = False,
    jobs: Jobs = None,
    reopen_test: Reopen = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Run every trial of a study that is not done yet; print accuracies and the verdict.

    Started again after an interruption, it goes on where it was; failed trials are tried again.
    """
    from stepdistill.config import load_study
    from stepdistill.errors import ConfigError

    if sum((plan, prepare, minimum)) > 1:
        raise ConfigError("--plan, --prepare and --minimum exclude each other; give one")
    found = load_study(file, set_ or [])
    found = found.model_copy(update={"jobs": jobs}) if jobs else found
    if prepare:
        _prepare(found)
    elif minimum:
        _minimum(found, quiet or json, json)
    else:
        raise typer.Exit(carry_out(found, plan, quiet or json, json, reopen_test))


def carry_out(
    found: StudyConfig, plan: bool = False, quiet: bool = False, json: bool = False, reopen: bool = False
) -> int:
    """Run a study, or show its plan; the exit code: 1 if a trial failed."""
    from stepdistill.cli import studied
    from stepdistill.study.whole import check_study, open_study, run_study

    made = check_study(found)
    found = _told(found, made)
    if plan:
        from stepdistill.study.plan import plan as make_plan

        studied.show_plan(found, make_plan(found, made, found.jobs), json)
        return 0
    from stepdistill.cli.progress import bars
    from stepdistill.study.runner import Manner

    open_study(found, made)
    with bars(quiet) as watch:
        manner = Manner(found.jobs, found.keep_students, reopen=reopen, watch=watch)
        finished = run_study(found, made, manner)
    studied.show_finished(found, finished, json)
    if finished.rows:
        _report(finished.folder, json)
    return 1 if finished.failures else 0


def _prepare(found: StudyConfig) -> None:
    from shlex import quote

    from stepdistill.study.trial import is_done
    from stepdistill.study.whole import check_study, open_study

    made = check_study(found)
    open_study(_told(found, made), made)
    for trial in made:
        if not is_done(trial.folder):
            typer.echo(f"stepdistill trial {quote(str(trial.folder))}")


def _minimum(found: StudyConfig, quiet: bool, json: bool) -> None:
    from dataclasses import asdict
    from json import dumps

    from stepdistill.cli.progress import bars
    from stepdistill.study.contestants import contestants
    from stepdistill.study.minimum import MINIMUM, find
    from stepdistill.study.runner import Manner, run_trials
    from stepdistill.study.whole import check_study, gathered, open_study

    # Each student is searched by itself, so that two of one name are no matter.
    made = check_study(found, compared=False)
    given = contestants(found, made)
    folder = open_study(_told(found, made), made)
    with bars(quiet) as watch:
        # Students are kept until the search has read what it needs.
        certificate = find(
            found,
            lambda some, measure: (run_trials(some, Manner(found.jobs, True, measure, watch=watch)), None)[1],
            given,
        )
    rows = gathered(folder, made)
    for sentence in () if json else (*certificate.sentences, *certificate.notes):
        typer.echo(sentence)
    typer.echo(dumps(asdict(certificate)) if json else f"The certificate is in {folder / MINIMUM}")
    if rows:
        _report(folder, json)


def _told(found: StudyConfig, made: Sequence[Trial]) -> StudyConfig:
    """The study with the sides that are compared; says which, where the file does not."""
    from stepdistill.study.whole import with_sides

    study, note = with_sides(found, made)
    if note:
        typer.echo(f"Note: {note}", err=True)
    return study


def _report(folder: Path, json: bool) -> None:
    # Matplotlib is imported here: what has been found is shown first.
    from stepdistill.study.report import write_report

    typer.echo(f"The report is {write_report(folder)}", err=json)
