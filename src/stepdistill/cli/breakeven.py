"""`stepdistill breakeven`: after how many requests a student has paid for itself."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stepdistill.cli.options import Json

if TYPE_CHECKING:
    from stepdistill.deploy.breakeven import Breakeven


def breakeven(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    student: Annotated[
        str | None, typer.Option("--student", help="Which student; default: best on validation.")
    ] = None,
    bundle: Annotated[
        Path | None, typer.Option("--bundle", help="An export of it: its latency, and its threshold's share.")
    ] = None,
    coverage: Annotated[
        float | None,
        typer.Option(
            "--coverage", help="Share of requests that the student answers; the rest costs the teacher."
        ),
    ] = None,
    machine_usd_per_hour: Annotated[
        float, typer.Option("--machine-usd-per-hour", help="Price of the machine that trains and answers.")
    ] = 0.0,
    teacher_usd_per_1000: Annotated[
        float | None,
        typer.Option(
            "--teacher-usd-per-1000", help="Price of 1,000 teacher's answers; default: the ledger's."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Say after how many requests a student has paid for its annotation and training."""
    from stepdistill.deploy import breakeven as account

    terms = account.Terms(student, bundle, coverage, machine_usd_per_hour, teacher_usd_per_1000)
    found = account.breakeven(run, terms)
    if as_json:
        print(json.dumps(asdict(found) | {"requests": found.requests}))
        return
    for line in _lines(found):
        typer.echo(line)


def _lines(found: Breakeven) -> list[str]:
    each = "not measured" if found.student_seconds is None else f"{1000 * found.student_seconds:.3g} ms"
    rows = [
        ("annotation", _usd(found.annotation_usd), ""),
        ("training", _usd(found.training_usd), f"{found.training_seconds:,.0f} s"),
        ("1,000 answers of the teacher", _usd(1000 * found.teacher_usd), ""),
        ("1,000 answers of the student", _usd(1000 * found.student_usd), f"{each} each"),
    ]
    if found.coverage < 1:
        rows.append(("left to the teacher", f"{100 * (1 - found.coverage):.1f} %", "of the requests"))
    lines = [f"{name:<28}  {value:>14}  {more}".rstrip() for name, value, more in rows]
    return [*lines, _verdict(found), *(f"Note: {note}." for note in found.notes)]


def _verdict(found: Breakeven) -> str:
    name, requests = f"'{found.student}'", found.requests
    if requests is None:
        return f"{name} never pays for itself: a request costs as much as the teacher's, or more."
    return f"{name} has paid for itself after {requests:,} requests."


def _usd(amount: float) -> str:
    return f"{amount:,.2f} USD" if amount >= 1 or not amount else f"{amount:.3g} USD"
