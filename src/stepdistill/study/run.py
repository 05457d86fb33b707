"""One run: annotate, train each arm, measure all on the same untouched test set."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch

from stepdistill.evaluate.predict import StudentPredictor
from stepdistill.evaluate.scorecards import score
from stepdistill.files import read_text, writing
from stepdistill.records import (
    Example,
    RunRecord,
    TaskName,
)
from stepdistill.student.card import LOG
from stepdistill.student.curve import CURVE, draw
from stepdistill.student.methods import Arm
from stepdistill.student.model import Student, new_student
from stepdistill.student.team import Team, join
from stepdistill.student.train import Lesson, forget_work, train
from stepdistill.study.evaluation import Evaluation
from stepdistill.study.job import Job
from stepdistill.study.lesson import Matter
from stepdistill.study.measure import Measures
from stepdistill.task.schema import Split
from stepdistill.task.stream import Examples
from stepdistill.teacher.annotate import Outcome
from stepdistill.teacher.annotations import count


@dataclass(frozen=True)
class Run(Job):
    """A whole run; each stage reads files, writes files, and is skipped when its files are there.

    Of several processes that a launcher has started, the first does all that is no training. `reopen`: test
    may be read again where it has been read for the same configuration, and is read again where it was here.
    """

    reopen: bool = False

    @cached_property
    def team(self) -> Team:
        """This process among those that train together."""
        return join(cpu=self.config.train.device == "cpu" or not torch.cuda.is_available())

    @cached_property
    def examples(self) -> Mapping[Split, Examples | Sequence[Example]]:
        """The examples by split: those of `train` are read anew in each pass, the others are lists."""
        return {split: s if split == "train" else list(s) for split, s in self.streams.items()}

    def check(self) -> None:
        """As `Job.check_run`."""
        self.check_run()

    def open(self, anew: bool = False, test: bool = False) -> None:
        """As `Job.open`; `test`: and `check_test`, before anything is written into a new folder."""
        is_new = not self.team.first(self.folder.mark.exists)
        if test and is_new:
            self.team.first(self.check)
            self.check_test()
        self.team.first(lambda: super(Run, self).open(anew))
        if test and not is_new:
            self.check_test()

    def check_test(self) -> None:
        """Refuse, before any work, what `evaluate` would have to refuse after it.

        Raises:
            RunFolderError: test has been read for one of the arms already, by the journal, and no result of
                it is in the folder; or there can be no journal.
        """
        self.team.first(Evaluation(self).check_test)

    def annotate(self, ask: bool = True) -> Outcome:
        """As `Job.annotate`, where that is not done yet."""
        outcome = Outcome()

        def work() -> None:
            nonlocal outcome
            if not self._is_annotated():
                outcome = super(Run, self).annotate(ask)

        self.team.first(work)
        return outcome

    def _is_annotated(self) -> bool:
        folder = self.folder
        if not folder.annotations.exists():
            return False
        # The report is written last: without it, an interruption may have left the other files behind.
        return folder.has_students() or (folder.parse_report.exists() and not self._unanswered())

    def _unanswered(self) -> bool:
        """Whether a teacher that can be asked owes an answer to some example."""
        rows = sum(len(self.annotations.get(split, {})) for split in self.asked.splits)
        return rows < self.asked.total and any(teacher.modelled for teacher in self.config.asked)

    def train(self) -> None:
        """Stage 3: a student for each arm, in `students/`."""
        self._use_threads()
        for arm in self.methods:
            # One answer for all: they must begin the same training, or none.
            folder = self.folder.student(arm.name)
            if not self.team.first(folder.exists):
                with self.folder.clock(f"train {arm.name}", note=self.team.is_first):
                    self._train(arm)
            # Also of a student that is there already: a run may have been killed before it got here.
            self.team.first(partial(_finish, folder))

    def evaluate(self) -> list[RunRecord]:
        """Stage 4: predictions and scores on the test split, the teacher's first; by the first process alone.

        What is recorded is not measured again, unless test is reopened. What is said of it besides is written
        where it is not there.

        Raises:
            RunFolderError: a student is not trained yet, or was by an earlier version; or test has been read
                for it already.
        """
        if not self.team.is_first:
            return []
        self._use_threads()
        return Evaluation(self).work()

    def teacher_is_measured(self) -> bool:
        """Whether the teacher was asked all of the test split; over a part, it would not compare."""
        asked = self.annotations.get("test", {})
        if any(teacher.modelled for teacher in self.config.asked):
            return bool(asked)  # what it did not answer counts as wrong
        return all(example.id in asked for example in self.examples["test"])

    def parse_report(self) -> dict[str, Any]:
        """How many of the teacher's answers could be read, and why others could not."""
        return count(self.annotations, self.streams)

    @cached_property
    def measures(self) -> Measures:
        """What is said of the predictions beside their accuracy."""
        return Measures(self.folder, self.task, self.config, list(self.examples["test"]))

    @property
    def matter(self) -> Matter:
        """What the arms' lessons are made of."""
        return Matter(self.config, self.task, self.examples, self.annotations)

    def _train(self, arm: Arm) -> None:
        # All processes prepare alike, and what is wrong is told by one.
        student, lesson = self.team.alike(lambda: self._lesson(arm))
        train(student, lesson, self.folder.student(arm.name), self.watch)

    def _lesson(self, arm: Arm) -> tuple[Student, Lesson]:
        """The student before training, and what it is to learn."""
        config, matter = self.config, self.matter
        student = new_student(config.student, config.seed, matter.texts(), config.train.device)
        student = replace(student, prefix=config.train.prefix)
        targets = matter.targets(arm, student)

        def validate(trained: Student, new_tokens: Mapping[TaskName, int]) -> float:
            examples = list(self.examples["validation"])
            predictor = self.predictor(arm, trained, new_tokens, "validation")
            return score(self.task.kind, examples, predictor.predict(examples)).value

        lesson = Lesson(
            name=arm.name,
            targets=targets,
            n=len(targets),
            validate=validate if self.examples.get("validation") else None,
            config=config.train,
            seed=config.seed,
            facts=matter.facts(arm, targets),
            asked=list(matter.asked(arm, student)),
            labels=self.task.spec.answer.labels,
            lora=config.student.lora,
        )
        return student, lesson

    def predictor(
        self, arm: Arm, student: Student, new_tokens: Mapping[TaskName, int], split: Split
    ) -> StudentPredictor:
        """Asks an arm's student, with the rationales of this split where its form wants them in the input."""
        given = self.matter.given(arm, split, student)
        form = arm.method.form
        return StudentPredictor(student, self.task.kind, new_tokens, form=form, given=given)

    def _use_threads(self) -> None:
        # In every stage: another number of threads is another order of sums.
        if self.config.train.threads:
            torch.set_num_threads(self.config.train.threads)


def _finish(folder: Path) -> None:
    """Forget how a student came about, and draw it."""
    forget_work(folder)
    # Drawn beside and moved in, last the file that is looked for: what is there is whole.
    draft = folder.with_name(f".{folder.name}.curve")
    shutil.rmtree(draft, ignore_errors=True)
    if (folder / CURVE).exists():
        return
    try:
        draw(json.loads(read_text(folder / LOG)), draft)
        with writing(folder):
            for path in sorted(draft.iterdir(), key=lambda path: path.name == CURVE):
                os.replace(path, folder / path.name)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
