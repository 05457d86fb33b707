"""`stepdistill predict`: ask a trained student."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stepdistill.cli.options import Quiet

if TYPE_CHECKING:
    from stepdistill.deploy.answer import Answer
    from stepdistill.deploy.runtime import Runtime
    from stepdistill.records import Example


def predict(
    run: Annotated[Path, typer.Argument(help="Run folder, the folder of one student, or an export.")],
    text: Annotated[str | None, typer.Argument(help="Input text; `-` reads it from stdin.")] = None,
    input_: Annotated[
        str | None,
        typer.Option("--input", metavar="FILE", help="JSONL of inputs; `-` reads it from stdin."),
    ] = None,
    student: Annotated[
        str | None, typer.Option("--student", help="Which student; default: best on validation.")
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Print the rationale too.")] = False,
    threshold: Annotated[
        float | None,
        typer.Option(
            "--threshold", help="Give no label below this confidence, 0 to 1; default: the export's own."
        ),
    ] = None,
    route: Annotated[
        bool, typer.Option("--route", help="Ask the run's teacher for what is below the threshold.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Print the label of a text, or answer a file of texts as JSONL."""
    if (text is None) == (input_ is None):
        raise typer.BadParameter("give either a TEXT or --input FILE")
    from stepdistill.cli.progress import bars

    with bars(quiet or input_ is None) as watch:
        from stepdistill.deploy.runtime import load

        runtime = load(run, student, explain, watch, threshold, route=route)
        if runtime.router is not None:
            typer.echo(f"What is below the threshold goes to {runtime.router}.", err=True)
        examples = _examples(runtime, text, input_)
        found = runtime.predict(examples, explain)
    for answer in found:
        if input_ is not None:
            print(json.dumps(_row(answer, explain) | ({"by": answer.by} if route else {})))
        else:
            print(_line(answer))
            if explain:
                print(answer.rationale or "(no rationale was written)")


def _line(answer: Answer) -> str:
    if answer.label is not None:
        return answer.label
    if answer.abstained:
        return f"(abstained: {answer.reason}; the guess is: {answer.guess})"
    return f"(no answer could be read: {answer.reason}) {answer.text}".rstrip()


def _row(answer: Answer, explain: bool) -> dict[str, Any]:
    """A line of the output; what has no value for this student is left out, but for the label."""
    row: dict[str, Any] = {"id": answer.example_id, "label": answer.label, "text": answer.text}
    if answer.reason is not None:
        row["reason"] = answer.reason
    if answer.probabilities is not None:
        row |= {"probabilities": dict(answer.probabilities), "confidence": answer.confidence}
        row |= {"abstained": answer.abstained}
    return row | ({"rationale": answer.rationale} if explain else {})


def _examples(runtime: Runtime, text: str | None, input_: str | None) -> list[Example]:
    from stepdistill.deploy.inputs import load_input
    from stepdistill.errors import DataError
    from stepdistill.records import Example

    if input_ is None:
        words = (sys.stdin.read() if text == "-" else str(text)).strip()
        if not words:
            raise DataError("TEXT: the input text is empty")
        return [Example("0", words)]
    path = Path("/dev/stdin") if input_ == "-" else Path(input_)
    return runtime.read_input(load_input(path), "stdin" if input_ == "-" else input_)
