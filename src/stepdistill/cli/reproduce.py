"""`stepdistill reproduce`: the paper's tables and figures, run again and set beside what it published."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stepdistill.cli.options import Quiet, Set

if TYPE_CHECKING:
    from stepdistill.config import StudyConfig
    from stepdistill.study.paper.judged import Judged

Name = Annotated[str, typer.Argument(help="table1, table2, or figure4 to figure9.")]
Scale = Annotated[
    str, typer.Option(help="small: two CPU cores and other students; paper: the paper's own recipe, on GPUs.")
]
Task = Annotated[list[str] | None, typer.Option(help="Only this task of the study (repeatable).")]
DataRoot = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Folder of the data: DIR/svamp/... and so on; weights too."),
]
Jobs = Annotated[int | None, typer.Option(min=1, help="Trials side by side.")]
PlanOnly = Annotated[bool, typer.Option("--plan", help="Print runs, time and money; run nothing.")]
Out = Annotated[Path | None, typer.Option(metavar="DIR", help="Folder of the study.")]


def reproduce(
    name: Name,
    scale: Scale = "small",
    task: Task = None,
    data_root: DataRoot = None,
    jobs: Jobs = None,
    plan: PlanOnly = False,
    set_: Set = None,
    out: Out = None,
    quiet: Quiet = False,
) -> None:
    """Run a table or figure of the paper again and judge the published numbers beside ours.

    Started again after an interruption, it goes on where it was. The study is one of the package's
    files, run as `stepdistill study` would run it.
    """
    from stepdistill.study.paper.deviations import deviations
    from stepdistill.study.paper.shipped import Wanted, load

    study = load(Wanted(name, scale, tuple(task or ()), data_root, jobs, out, tuple(set_ or ())))
    typer.echo(f"{study.title}\n{deviations(study, name)}", err=True)
    _need_everything(study, f"{name} at scale '{scale}'")
    from stepdistill.cli.study import carry_out

    code = carry_out(study, plan=plan, quiet=quiet)
    if not plan:
        _show_judged(Path(study.out), name)
    raise typer.Exit(code)


def _need_everything(study: StudyConfig, what: str) -> None:
    """Say all that is missing, in one message, before anything is run."""
    from stepdistill.study.paper.preflight import missing

    lacking = missing(study)
    if not lacking:
        return
    typer.echo(
        f"Error: {what} needs what is not there; put it in place, then run the same command:", err=True
    )
    for one in lacking:
        typer.echo(f"  {one}", err=True)
    raise typer.Exit(2)


def _show_judged(folder: Path, name: str) -> None:
    from stepdistill.study.paper.judge import judge
    from stepdistill.study.results import RESULTS, read_results

    path = folder.expanduser() / RESULTS
    if not path.exists():  # no trial has ended well, which has been said
        return
    for line in judged_lines(judge(read_results(path), name), name):
        typer.echo(line)


def judged_lines(found: Sequence[Judged], name: str) -> list[str]:
    """What is printed of the published numbers: those that ours stand beside, and how many have none."""
    from stepdistill.study.paper.judge import TWINS

    beside = [one.sentence for one in found if one.ours is not None or one.why_not == TWINS]
    without = len(found) - len(beside)
    lines = [f"Published for {name}, beside ours:", *(f"  {line}" for line in beside)] if beside else []
    if without:
        lines.append(f"{without} published numbers have nothing of ours beside them.")
    return lines
