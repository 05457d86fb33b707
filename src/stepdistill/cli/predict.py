"""`stepdistill predict`: ask a trained student."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stepdistill.cli.options import Quiet

if TYPE_CHECKING:
    from stepdistill.deploy.runtime import Runtime
    from stepdistill.records import Example


def predict(
    run: Annotated[Path, typer.Argument(help="Run folder, or the folder of one student.")],
    text: Annotated[str | None, typer.Argument(help="Input text; `-` reads it from stdin.")] = None,
    input_: Annotated[
        str | None,
        typer.Option("--input", metavar="FILE", help="JSONL of inputs; `-` reads it from stdin."),
    ] = None,
    student: Annotated[
        str | None, typer.Option("--student", help="Which student; default: best on validation.")
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Print the rationale too.")] = False,
    quiet: Quiet = False,
) -> None:
    """Print the label of a text, or answer a file of texts as JSONL."""
    if (text is None) == (input_ is None):
        raise typer.BadParameter("give either a TEXT or --input FILE")
    from stepdistill.cli.progress import bars

    with bars(quiet or input_ is None) as watch:
        from stepdistill.deploy.runtime import load

        runtime = load(run, student, explain, watch)
        examples = _examples(runtime, text, input_)
        found = runtime.predict(examples, explain)
    for prediction in found:
        if input_ is not None:
            row = {"id": prediction.example_id, "label": prediction.label, "text": prediction.text}
            print(json.dumps({**row, **({"rationale": prediction.rationale} if explain else {})}))
        else:
            unread = f"(no answer could be read: {prediction.reason}) {prediction.text}"
            print(unread if prediction.label is None else prediction.label)
            if explain:
                print(prediction.rationale or "(no rationale was written)")


def _examples(runtime: Runtime, text: str | None, input_: str | None) -> list[Example]:
    from stepdistill.deploy.runtime import load_input
    from stepdistill.errors import DataError
    from stepdistill.records import Example

    if input_ is None:
        words = (sys.stdin.read() if text == "-" else str(text)).strip()
        if not words:
            raise DataError("TEXT: the input text is empty")
        return [Example("0", words)]
    path = Path("/dev/stdin") if input_ == "-" else Path(input_)
    return runtime.read_input(load_input(path), "stdin" if input_ == "-" else input_)
