"""What `stepdistill annotate --until-flat` shows: the parts, their accuracy, the gain that is expected."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict
from pathlib import Path

from rich import box
from rich.table import Table

from stepdistill.cli.console import console
from stepdistill.errors import ConfigError
from stepdistill.study.flat import UNTIL_FLAT, Flat, Step, annotate_until_flat, check_flat
from stepdistill.study.job import Job


def check(job: Job, points: float) -> None:
    """Refuse before anything is written what could not be done.

    Raises:
        StepdistillError: no number of points; as `study.flat.check_flat`.
    """
    if not 0 < points < 100:
        raise ConfigError(
            f"--until-flat {points:g}: give points of accuracy above 0 and below 100, such as 0.5"
        )
    check_flat(job)


def grow(job: Job, points: float) -> Flat:
    """Annotate until the next part is expected to gain less than that many points."""
    *_, last = annotate_until_flat(job, points / 100)
    return last


def show_flat(job: Job, found: Flat, given: tuple[Path, list[str]], as_json: bool) -> None:
    """Print the parts and what they led to; `given` are the run file and its overrides."""
    command = ready_command(found, *given)
    if as_json:
        print(json.dumps({**asdict(found), "stopped": found.stopped, "command": command}))
        return
    out = console()
    title = f"{job.task.spec.name}: validation accuracy of {found.method}, by annotated training examples"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("examples", "accuracy", "95 % interval", "cost", "the next gains", "95 % interval"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for step in found.steps:
        table.add_row(*_cells(step))
    out.print(table)
    for line in (_verdict(found), f"To go on with them: {command}", _where(job)):
        out.print(line, soft_wrap=True, highlight=False, markup=False)


def ready_command(found: Flat, file: Path, overrides: list[str]) -> str:
    """The command that trains and measures all methods on what has been annotated."""
    fraction = [] if found.steps[-1].fraction == 1 else [f"data.fraction={found.steps[-1].fraction!r}"]
    flags = [part for text in (*overrides, *fraction) for part in ("--set", text)]
    return shlex.join(["stepdistill", "run", str(file), *flags])


def _cells(step: Step) -> list[str]:
    gain = ("", "")
    if step.gain:
        low, high = 100 * step.gain.low, 100 * step.gain.high
        gain = (f"{100 * step.gain.value:+.1f} (to {step.next_n:,})", f"{low:+.1f} to {high:+.1f}")
    return [
        f"{step.n:,}",
        f"{100 * step.accuracy:.1f} %",
        f"{100 * step.low:.1f} - {100 * step.high:.1f}",
        _dollars(step.cost_usd),
        *gain,
        step.why,
    ]


def _verdict(found: Flat) -> str:
    last, wanted = found.steps[-1], f"{100 * found.gain_wanted:g} points"
    if not found.stopped:
        return f"Not flat: all {found.total:,} examples are annotated, and none was left to stop before"
    rest, gain = found.total - last.n, last.gain
    expected = f"{100 * gain.value:.1f}" if gain else ""
    cost = f", which would have cost about {_dollars(found.rest_usd)}" if found.rest_usd else ""
    if not rest:
        return f"Flat at all {found.total:,} examples: twice as many are expected to gain {expected} points"
    return (
        f"Flat: from {last.n:,} to {last.next_n:,} examples {expected} points are expected, fewer than "
        f"{wanted}; {rest:,} of {found.total:,} are left without answers{cost}"
    )


def _dollars(amount: float | None) -> str:
    return "unknown" if amount is None else f"${amount:,.4f}" if amount else "-"


def _where(job: Job) -> str:
    return f"Everything is in {job.folder.path / UNTIL_FLAT}; test was not read"
