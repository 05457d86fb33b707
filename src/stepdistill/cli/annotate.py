"""`stepdistill annotate`: the teacher's rationales and labels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stepdistill.cli.options import File, Json, Quiet, Set, looked_at, opened_job
from stepdistill.errors import ConfigError

Preview = Annotated[
    int | None,
    typer.Option("--preview", metavar="N", min=1, help="Show N prompts and the cost; ask nobody."),
]
Reparse = Annotated[bool, typer.Option("--reparse", help="Read the stored answers anew; ask nobody.")]
Repair = Annotated[bool, typer.Option("--repair", help="Salvage what a damaged ledger has; ask nobody.")]
Export = Annotated[
    Path | None,
    typer.Option("--export", metavar="FILE", help="Also write the annotations to a .jsonl or .parquet file."),
]
UntilFlat = Annotated[
    float | None,
    typer.Option(
        "--until-flat",
        metavar="POINTS",
        help="Annotate in growing parts; stop where, twice in a row, the next is to gain fewer points.",
    ),
]


def annotate(
    file: File,
    set_: Set = None,
    preview: Preview = None,
    reparse: Reparse = False,
    repair: Repair = False,
    export: Export = None,
    until_flat: UntilFlat = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Have the teacher answer, read its answers; print how many could be read and why not.

    Answers are paid once: started again, it asks only what the ledger has no answer for.
    """
    if sum((preview is not None, reparse, repair, until_flat is not None)) > 1:
        raise ConfigError("--preview, --reparse, --repair and --until-flat exclude each other; give one")
    if export is not None and (preview is not None or repair or until_flat is not None):
        raise ConfigError("--export goes with no flag but --reparse: the others annotate nothing")
    from stepdistill.cli import teaching

    if until_flat is not None:
        _until_flat(file, set_, until_flat, quiet, json)
        return
    if repair:
        teaching.repair(file, set_ or [], json)
        return
    if export is not None:
        teaching.check_export(export)
    if preview is not None:
        teaching.show_preview(looked_at(file, set_), preview, json)
        return
    with opened_job(file, set_, quiet or json, anew=reparse) as job:
        outcome = job.annotate(ask=not reparse)
        if export is not None:
            teaching.export(job, export)
    teaching.show_outcome(job, outcome, json)


def _until_flat(file: Path, set_: list[str] | None, points: float, quiet: bool, json: bool) -> None:
    from stepdistill.cli import growth

    growth.check(looked_at(file, set_), points)
    with opened_job(file, set_, quiet or json) as job:
        found = growth.grow(job, points)
    growth.show_flat(job, found, (file, set_ or []), json)
