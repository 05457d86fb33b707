"""What a deployed student is asked: rows and texts as examples of its task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from stepdistill.errors import DataError, brief
from stepdistill.files import read_jsonl
from stepdistill.records import Example
from stepdistill.task.closed import options_in
from stepdistill.task.load import Task


def load_input(path: Path) -> list[dict[str, Any]]:
    """Rows of a JSONL file to predict.

    Raises:
        DataError: no such file, a malformed line, or no row.
    """
    rows = read_jsonl(path)
    if not rows:
        raise DataError(f"{path}: the file is empty; at least one row is expected")
    return rows


def from_row(task: Task, row: Mapping[str, Any], place: str, index: str, helped: bool = False) -> Example:
    """An example out of a row that has the task's columns, or a finished `text`.

    Args:
        task: the student's.
        row: its columns.
        place: where it stands, for messages.
        index: its id, where it brings none.
        helped: whether its `rationale` is read, for a student that answers with the help of one.

    Raises:
        DataError: the row has neither, or something in it is not text.
    """
    try:
        options = task.options(row) if task.spec.answer.options in row else ()
        text = _text(task, row)
    except KeyError as error:
        raise DataError(
            f"{place}: no column '{error.args[0]}' and no 'text'; the row has: {', '.join(row)}"
        ) from None
    except ValueError as error:
        raise DataError(f"{place}: {error}") from None
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"{place}: the input text is empty or not text")
    # What others call so in their data may be anything, and is in nobody's way.
    rationale = row.get("rationale") if helped else None
    if not isinstance(rationale, str | None):
        raise DataError(f"{place}: the rationale is not text")
    reason = (rationale or "").strip() or None
    example = Example(str(row.get("id", index)), text.strip(), options=options, rationale=reason)
    _check_unicode(example, place)
    return example


def from_text(task: Task, text: str | Example, index: int) -> Example:
    """An example out of a text, with the options that stand in it as lines where its task needs some.

    Raises:
        DataError: it is not Unicode text.
    """
    if not isinstance(text, str | Example):
        raise DataError(f"input {index + 1}: a text is expected, not {brief(text)}")
    example = Example(str(index), text.strip()) if isinstance(text, str) else text
    _check_unicode(example, f"input {index + 1}")
    if task.spec.answer.kind == "choice" and not example.options:
        return replace(example, options=options_in(example.text))
    return example


def _text(task: Task, row: Mapping[str, Any]) -> Any:
    try:
        return task.render(row)
    except KeyError:
        if "text" not in row:
            raise
        return row["text"]


def _check_unicode(example: Example, place: str) -> None:
    # JSON can write half of a character ("\ud83d"), which no tokenizer reads.
    for part in (example.text, *example.options, example.rationale or ""):
        try:
            part.encode("utf-8")
        except UnicodeEncodeError as error:
            raise DataError(
                f"{place}: character {error.start + 1} is half of a surrogate pair, which is no text; "
                f"write it in UTF-8: {brief(part)}"
            ) from None
