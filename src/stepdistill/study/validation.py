"""What a trial's student, and the teacher, answer on validation: by this a recipe is chosen, test unread."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stepdistill.errors import DataError, RunFolderError
from stepdistill.files import read_text, write_json

if TYPE_CHECKING:
    from stepdistill.records import Example
    from stepdistill.student.methods import Arm
    from stepdistill.study.run import Run

FILE = "validation.json"


@dataclass(frozen=True, slots=True)
class Validation:
    """Outcomes on the validation examples, as in a `Scorecard`, of one arm's kept student.

    `teacher`: those of the teacher on the same examples; None where it was not asked all of them.
    """

    arm: str
    outcomes: str
    teacher: str | None


def has_validation(folder: Path) -> bool:
    """Whether the trial in a folder has been measured on validation."""
    return (folder / FILE).exists()


def read_validation(folder: Path) -> Validation:
    """What `measure_validation` has written.

    Raises:
        DataError: it is not there, or damaged.
    """
    path = folder / FILE
    try:
        return Validation(**json.loads(read_text(path)))
    except (ValueError, TypeError) as error:
        raise DataError(f"{path}: damaged ({error}); delete it, and it is measured again") from None


def measure_validation(run: Run) -> Validation:
    """Have the trained student of a run's only arm answer validation, and write `validation.json`.

    Test is not read. Nothing is done where the file is there.

    Raises:
        DataError: no validation examples.
        RunFolderError: the student is not there.
    """
    from stepdistill.evaluate.predict import TeacherPredictor
    from stepdistill.evaluate.scorecards import score

    if has_validation(run.folder.path):
        return read_validation(run.folder.path)
    (arm,) = run.methods
    examples, kind = list(run.examples.get("validation", ())), run.task.kind
    if not examples:
        raise DataError(f"{run.task.spec.name}: no 'validation' examples to choose a recipe by")
    teacher = None
    asked = run.annotations.get("validation", {})
    modelled = any(teacher.modelled for teacher in run.config.asked)
    if asked and (modelled or all(example.id in asked for example in examples)):
        # As on test: what a teacher that was asked has not answered counts as wrong.
        teacher = score(kind, examples, TeacherPredictor(asked).predict(examples)).outcomes
    found = Validation(arm.name, _student(run, arm, examples), teacher)
    write_json(run.folder.path / FILE, asdict(found))
    return found


def _student(run: Run, arm: Arm, examples: Sequence[Example]) -> str:
    from stepdistill.evaluate.predict import StudentPredictor
    from stepdistill.evaluate.scorecards import score
    from stepdistill.student.model import load_student

    folder, config = run.folder.student(arm.name), run.config
    if not any(folder.glob("*.safetensors")):
        raise RunFolderError(
            f"{folder}: the student is not there any more, and validation is to be measured; delete the "
            "trial's folder, and it is trained again"
        )
    card = run.folder.card(arm.name)
    code, device = config.student.trust_remote_code, config.train.device
    student = load_student(str(folder), code, card["prefix"], device)
    given, form = run.matter.given(arm, "validation", student), arm.method.form
    predictor = StudentPredictor(
        student, run.task.kind, card["new_tokens"], watch=run.watch, form=form, given=given
    )
    return score(run.task.kind, examples, predictor.predict(examples)).outcomes
