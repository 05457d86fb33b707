"""A trained student as something to ask: texts in, labels and rationales out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from stepdistill.config import check
from stepdistill.errors import DataError, RunFolderError, unknown
from stepdistill.evaluate.predict import StudentPredictor
from stepdistill.files import read_jsonl, read_text
from stepdistill.records import Example, Prediction, Watcher, unwatched
from stepdistill.student.model import Student, load_student
from stepdistill.task.closed import options_in
from stepdistill.task.load import Task
from stepdistill.task.schema import TaskSpec
from stepdistill.weights import Device

_CARD = {"name", "task", "form", "prefix", "explains", "machine", "new_tokens", "validation"}
_CARD |= {"rationales", "test_rationales"}
"""What a student's card must say to be asked."""


@dataclass(frozen=True)
class Runtime:
    """A student with its task; loaded when it is first asked."""

    folder: Path
    card: Mapping[str, Any]
    watch: Watcher = unwatched

    @cached_property
    def task(self) -> Task:
        """The task as it was at training."""
        return Task(check(TaskSpec, self.card["task"], str(self.folder)))

    @cached_property
    def student(self) -> Student:
        """Model and tokenizer."""
        # On a CPU again where it was trained on one, also beside a GPU: the same numbers.
        device: Device = "cpu" if self.card["machine"]["device"] == "cpu" else "auto"
        return load_student(str(self.folder), prefix=self.card["prefix"], device=device)

    @property
    def explains(self) -> bool:
        """Whether the student was taught to write rationales."""
        return bool(self.card["explains"])

    @property
    def needs_rationales(self) -> bool:
        """Whether a rationale of somebody else's is part of the input that the student was trained on."""
        return bool(self.card.get("test_rationales") == "teacher")

    def predict(self, texts: Sequence[str | Example], explain: bool = False) -> list[Prediction]:
        """Labels for input texts, in order; with `explain`, the rationales too.

        Raises:
            RunFolderError: `explain` is asked of a student that was taught none, or the student answers
                with the help of a rationale and an example brings none.
        """
        if explain and not self.explains:
            raise RunFolderError(
                f"{self.folder}: '{self.card['name']}' was taught no rationales that explain its answers; "
                "ask a 'step-by-step' student"
            )
        examples = [self._example(text, index) for index, text in enumerate(texts)]
        if self.needs_rationales and not all(example.rationale for example in examples):
            raise RunFolderError(
                f"{self.folder}: '{self.card['name']}' answers with the help of the teacher's rationale, not "
                "from the text alone; give rows with a `rationale` column, or ask another student"
            )
        return self._predictor(explain).predict(examples)

    def _predictor(self, explain: bool) -> StudentPredictor:
        return StudentPredictor(
            student=self.student,
            kind=self.task.kind,
            new_tokens=self.card["new_tokens"],
            explain=explain,
            watch=self.watch,
            form=self.card["form"],
            given=(lambda example: example.rationale) if self.needs_rationales else None,
        )

    def explain(self, text: str | Example) -> str:
        """The student's rationale for one text; empty where it wrote none.

        Raises:
            RunFolderError: the student was taught none.
        """
        return self.predict([text], explain=True)[0].rationale or ""

    def read_input(self, rows: Iterable[Mapping[str, Any]], source: str) -> list[Example]:
        """Examples out of rows that have the task's columns, or a finished `text`.

        A column `rationale` is read for a student that answers with the help of one.

        Raises:
            DataError: a row has neither, or its rationale is no text.
        """
        return [self._row(row, f"{source}, row {i + 1}", str(i)) for i, row in enumerate(rows)]

    def _row(self, row: Mapping[str, Any], place: str, index: str) -> Example:
        try:
            options = self.task.options(row) if self.task.spec.answer.options in row else ()
            text = self._text(row)
        except KeyError as error:
            raise DataError(
                f"{place}: no column '{error.args[0]}' and no 'text'; the row has: {', '.join(row)}"
            ) from None
        except ValueError as error:
            raise DataError(f"{place}: {error}") from None
        if not isinstance(text, str) or not text.strip():
            raise DataError(f"{place}: the input text is empty or not text")
        # What others call so in their data may be anything, and is in nobody's way.
        rationale = row.get("rationale") if self.needs_rationales else None
        if not isinstance(rationale, str | None):
            raise DataError(f"{place}: the rationale is not text")
        reason = (rationale or "").strip() or None
        return Example(str(row.get("id", index)), text.strip(), options=options, rationale=reason)

    def _text(self, row: Mapping[str, Any]) -> Any:
        try:
            return self.task.render(row)
        except KeyError:
            if "text" not in row:
                raise
            return row["text"]

    def _example(self, text: str | Example, index: int) -> Example:
        example = Example(str(index), text.strip()) if isinstance(text, str) else text
        if self.task.spec.answer.kind == "choice" and not example.options:
            return replace(example, options=options_in(example.text))
        return example


def load(
    where: str | Path, student: str | None = None, explain: bool = False, watch: Watcher = unwatched
) -> Runtime:
    """A trained student out of a run folder or a student's own folder.

    Args:
        where: `runs/quickstart` or `runs/quickstart/students/distill`.
        student: which of a run's students; by default the best on validation, and of equals one
            that explains, a control only where there is nothing else.
        explain: choose among the students that explain only.
        watch: told of progress.

    Raises:
        RunFolderError: no trained student is there, or one of an earlier version.
    """
    path = Path(where)
    if (path / "student.json").exists():
        return Runtime(path, _card(path), watch)
    found = {p.parent.name: _card(p.parent) for p in path.glob("students/[!.]*/student.json")}
    if not found:
        raise RunFolderError(f"{path}: no trained student is there; run `stepdistill run` first")
    if student is not None and student not in found:
        raise RunFolderError(f"{path}: " + unknown("student", student, found))
    asked = [n for n in sorted(found) if found[n]["explains"] or not explain]
    # Where none explains, the best one is loaded, and says so when it is asked to.
    name = student or max(asked or sorted(found), key=lambda n: _rank(found[n]))
    return Runtime(path / "students" / name, found[name], watch)


def load_input(path: Path) -> list[dict[str, Any]]:
    """Rows of a JSONL file to predict.

    Raises:
        DataError: no such file, a malformed line, or no row.
    """
    rows = read_jsonl(path)
    if not rows:
        raise DataError(f"{path}: the file is empty; at least one row is expected")
    return rows


def _rank(card: Mapping[str, Any]) -> tuple[bool, bool, float, bool]:
    # Last of all what cannot be asked with a text alone, however good it is with the teacher's help; before
    # it the controls, which are there to be compared with.
    alone, real = card["test_rationales"] != "teacher", card["rationales"] in (None, "teacher", "human")
    return (alone, real, card["validation"] or 0.0, card["explains"])


def _card(folder: Path) -> dict[str, Any]:
    path = folder / "student.json"
    try:
        card = dict(json.loads(read_text(path)))
    except ValueError as error:
        raise DataError(f"{path}: malformed JSON ({error}); train again") from None
    if not _CARD.issubset(card):
        raise RunFolderError(f"{path}: made by an earlier version; train again")
    return card
