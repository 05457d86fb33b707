"""`stepdistill export`: a student in another library's form, proven."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stepdistill.cli.options import Quiet


def export(
    run: Annotated[Path, typer.Argument(help="Run folder, or the folder of one student in it.")],
    format_: Annotated[
        str, typer.Option("--format", metavar="NAME", help="huggingface, ctranslate2, onnx or gguf.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of the export.")],
    precision: Annotated[
        str | None,
        typer.Option(
            "--precision",
            help="huggingface: float32, bfloat16. ctranslate2: int8, bfloat16, float32. onnx: float32. gguf: "
            "f16, f32, q8_0. Default: the first, or a finer one where its proof fails.",
        ),
    ] = None,
    student: Annotated[
        str | None, typer.Option("--student", help="Which student; default: best on validation.")
    ] = None,
    target_accuracy: Annotated[
        float | None,
        typer.Option(
            "--target-accuracy",
            help="Abstain below the lowest threshold at which this share of the answers is right on "
            "validation, such as 0.9.",
        ),
    ] = None,
    target_share: Annotated[
        float | None,
        typer.Option(
            "--target-share",
            help="Abstain below the highest threshold at which this share of validation is answered.",
        ),
    ] = None,
    accept: Annotated[
        bool, typer.Option("--accept", help="Keep an export whose proof fails; the proof says so.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Export a student and prove it: it must answer as the trained one does.

    Both are measured with OMP_NUM_THREADS threads, by default one for each core.
    """
    from stepdistill.cli.exported import show
    from stepdistill.cli.progress import bars

    with bars(quiet) as watch:
        from stepdistill.deploy.export.tuning import Target
        from stepdistill.deploy.export.work import Order, export

        target = Target(target_accuracy, target_share)
        order = Order(run, format_, out, precision, student, target, accept)
        found = export(order, watch)
    show(found)
