"""What a test set can show, before it is paid for."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated

import typer

from stepdistill.cli.options import Json
from stepdistill.errors import ConfigError

ASSUMED = (0.1, 0.2, 0.3, 0.4)
"""Disagreements of the table where none is given."""
SHARED = 0.5
"""Part of the variance that is assumed to be the examples' own, the same under every seed."""


def power(
    n: Annotated[int | None, typer.Option("--n", help="Test examples.")] = None,
    difference: Annotated[float | None, typer.Option(help="A wished difference, in points.")] = None,
    disagreement: Annotated[
        float | None, typer.Option(help="Share of examples on which exactly one of two is right.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="Seeds of each method.")] = 1,
    power: Annotated[float, typer.Option(help="Probability of showing the difference.")] = 0.8,
    alpha: Annotated[float, typer.Option(help="Level of the test.")] = 0.05,
    run: Annotated[Path | None, typer.Option(help="Run or study to take n and disagreement from.")] = None,
    task: Annotated[str | None, typer.Option(help="Which task of the run's, where it has several.")] = None,
    as_json: Json = False,
) -> None:
    """Say which difference a test set can show, and how many examples a wished difference needs."""
    measured: dict[str, float | int] = {}
    if run:
        from stepdistill.study.pairs import measured_disagreement

        measured = measured_disagreement(run, task)
        n = int(measured["n"]) if n is None else n
        disagreement = measured["disagreement"] if disagreement is None else disagreement
    elif task is not None:
        raise ConfigError(f"--task {task} says which task of a run or study: give --run DIR, too")
    _check(n, difference, disagreement, seeds)
    for name, value in (("--power", power), ("--alpha", alpha)):
        _between(name, value)
    rows = [
        _row(n, difference, share, seeds, (power, alpha))
        for share in (ASSUMED if disagreement is None else [disagreement])
    ]
    if as_json:
        print(json.dumps({"n": n, "seeds": seeds, "power": power, "alpha": alpha, "rows": rows}))
        return
    _show(n, difference, rows, f"at {100 * power:g} % power, alpha {alpha:g}")
    for line in _notes(n, seeds, measured):
        typer.echo(line)


def _row(
    n: int | None, difference: float | None, share: float, seeds: int, levels: tuple[float, float]
) -> dict[str, float | int | None]:
    from stepdistill.evaluate.power import counted, needed, smallest_difference

    row: dict[str, float | int | None] = {"disagreement": share}
    if n:
        found = smallest_difference(counted(n, seeds, SHARED), share, *levels)
        row["smallest_difference"] = None if found is None else round(100 * found, 2)
    if difference:
        row["possible"] = difference / 100 <= share
        wanted = needed(difference / 100, share, *levels) if row["possible"] else None
        row["needed"] = None if wanted is None else math.ceil(wanted * (SHARED + (1 - SHARED) / seeds))
    return row


def _show(
    n: int | None, difference: float | None, rows: list[dict[str, float | int | None]], levels: str
) -> None:
    from rich import box
    from rich.table import Table

    from stepdistill.cli.console import console

    about = f"What {n:,} test examples can show" if n else "How many test examples it takes"
    title = f"{about}: exact McNemar test, two-sided, {levels}"
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("disagreement", justify="right")
    if n:
        table.add_column("smallest difference", justify="right")
    if difference:
        table.add_column(f"examples for {difference:g} points", justify="right")
    for row in rows:
        cells = [f"{100 * (row['disagreement'] or 0):.3g} %"]
        if n:
            found = row["smallest_difference"]
            cells.append("none" if found is None else f"{found:.1f} points")
        if difference:
            wanted = row["needed"]
            cells.append(f"{wanted:,}" if wanted is not None else _none(bool(row["possible"])))
        table.add_row(*cells)
    typer.echo(title)
    console().print(table)


def _none(possible: bool) -> str:
    """Why there is no number of examples."""
    from stepdistill.evaluate.power import MOST

    # The difference is made by the examples on which exactly one is right, so it cannot be above their share.
    return f"more than {MOST:,}" if possible else "not possible: above the disagreement"


def _notes(n: int | None, seeds: int, measured: dict[str, float | int]) -> list[str]:
    if measured:
        lines = [
            f"Disagreement: measured, the mean over {measured['pairs']} pairs of students in these results."
        ]
    else:
        lines = [
            "Disagreement: the share of test examples on which exactly one of the two is right; a finished "
            "run of yours tells it (--run DIR)."
        ]
    if seeds > 1:
        from stepdistill.evaluate.power import counted

        size = n or 100
        lines.append(
            f"{seeds} seeds on the same {size:,} examples count as {counted(size, seeds, SHARED):,} of one "
            "seed: half of the variance is assumed to be the examples' own. Seeds whose means differ "
            "beyond that show less."
        )
    return lines


def _check(n: int | None, difference: float | None, disagreement: float | None, seeds: int) -> None:
    from stepdistill.evaluate.power import MOST

    if n is None and difference is None:
        raise ConfigError(
            "give --n (test examples), --difference (points) or --run DIR; both --n and --difference may be"
        )
    if n is not None and not 1 <= n <= MOST:
        raise ConfigError(f"--n {n}: give a number of test examples from 1 to {MOST:,}")
    if difference is not None and not 0 < difference <= 100:
        raise ConfigError(f"--difference {difference:g}: give points, above 0 and at most 100, such as 3")
    if disagreement is not None:
        _between("--disagreement", disagreement, 1.0)
    if not 1 <= seeds <= 1000:
        raise ConfigError(f"--seeds {seeds}: give a number from 1 to 1000")


def _between(name: str, value: float, most: float = 0.999999) -> None:
    if not 0 < value <= most:
        raise ConfigError(f"{name} {value:g}: give a share between 0 and 1, such as 0.25")
