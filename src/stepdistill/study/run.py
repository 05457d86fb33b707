"""One run: annotate, train each arm, measure all on the same untouched test set."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch

from stepdistill.errors import DataError, RunFolderError
from stepdistill.evaluate.predict import StudentPredictor, TeacherPredictor
from stepdistill.evaluate.scorecards import score
from stepdistill.files import digest_file, read_text, writing
from stepdistill.records import (
    Example,
    Prediction,
    Predictor,
    RunRecord,
    Scorecard,
    TaskName,
    Watcher,
)
from stepdistill.student.card import LOG
from stepdistill.student.curve import CURVE, draw
from stepdistill.student.machine import versions
from stepdistill.student.methods import Arm
from stepdistill.student.model import Student, load_student, new_student
from stepdistill.student.team import Team, join
from stepdistill.student.train import Lesson, forget_work, train
from stepdistill.study.folder import TEACHER
from stepdistill.study.job import Job
from stepdistill.study.lesson import Matter
from stepdistill.task.schema import Split
from stepdistill.task.stream import Examples, digest_examples
from stepdistill.teacher.annotate import Outcome
from stepdistill.teacher.annotations import count

_FACTS = ["labels", "student", "parameters", "n_train", "n_left_out", "validation", "loss"]
_FACTS += ["precision", "versions", "rationales", "n_rationales", "n_unlabelled_left_out"]
_CARD = {*_FACTS, "prefix", "new_tokens", "limits"}
"""What a student's card must say to be measured and shown."""


@dataclass(frozen=True)
class Run(Job):
    """A whole run; each stage reads files, writes files, and is skipped when its files are there.

    Of several processes that a launcher has started, the first does all that is no training.
    """

    @cached_property
    def team(self) -> Team:
        """This process among those that train together."""
        return join(cpu=self.config.train.device == "cpu" or not torch.cuda.is_available())

    @cached_property
    def examples(self) -> Mapping[Split, Examples | Sequence[Example]]:
        """The examples by split: those of `train` are read anew in each pass, the others are lists.

        Raises:
            DataError: nothing to train on, or nothing to measure on.
        """
        found = {split: s if split == "train" else list(s) for split, s in self.streams.items()}
        for split in ("train", "test"):
            if not found.get(split):
                raise DataError(
                    f"{self.task.spec.name}: no '{split}' examples; a run trains on 'train' and "
                    "measures on 'test'"
                )
        for split, examples in found.items():
            if split != "train" and examples and all(example.label is None for example in examples):
                raise DataError(
                    f"{self.task.spec.name}: no '{split}' example has a gold label to measure by; name "
                    "their column as `answer.column` in the task file"
                )
        return found

    def check(self) -> None:
        """As `Job.check`; a run needs examples to train on and gold labels to measure by, too."""
        _ = self.methods, self.task.kind, self.examples
        super().check()

    def open(self, anew: bool = False) -> None:
        """As `Job.open`."""
        self.team.first(lambda: super(Run, self).open(anew))

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

        Raises:
            RunFolderError: a student is not trained yet, or was by an earlier version.
        """
        if not self.team.is_first:
            return []
        self._use_threads()
        if self.teacher_is_measured() and TEACHER not in self.folder.records():
            self._measure(TEACHER, TeacherPredictor(self.annotations["test"]), self._teacher_facts())
        for arm in self.methods:
            folder = self.folder.student(arm.name)
            if not folder.exists():
                raise RunFolderError(f"{folder}: not there yet; run `stepdistill train` first")
            card = self._card(arm)
            if arm.name not in self.folder.records():
                with self.folder.clock(f"predict {arm.name}"):
                    code, device = self.config.student.trust_remote_code, self.config.train.device
                    student = load_student(str(folder), code, card["prefix"], device)
                    predictor = self._predictor(arm, student, card["new_tokens"], "test")
                    watched = replace(predictor, watch=self._renamed(arm.name))
                    self._measure(arm.name, watched, _student_facts(card))
        found = self.folder.records()
        names = [TEACHER, *(arm.name for arm in self.methods)]
        return [found[name] for name in names if name in found]

    def teacher_is_measured(self) -> bool:
        """Whether the teacher was asked all of the test split; over a part, it would not compare."""
        asked = self.annotations.get("test", {})
        if any(teacher.modelled for teacher in self.config.asked):
            return bool(asked)  # what it did not answer counts as wrong
        return all(example.id in asked for example in self.examples["test"])

    def parse_report(self) -> dict[str, Any]:
        """How many of the teacher's answers could be read, and why others could not."""
        return count(self.annotations, self.streams)

    @property
    def matter(self) -> Matter:
        """What the arms' lessons are made of."""
        return Matter(self.config, self.task, self.examples, self.annotations)

    def _card(self, arm: Arm) -> dict[str, Any]:
        card = self.folder.card(arm.name)
        if not _CARD.issubset(card):
            raise RunFolderError(
                f"{self.folder.student(arm.name)}: made by an earlier version; train again in another `out`"
            )
        return card

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
            predictor = self._predictor(arm, trained, new_tokens, "validation")
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

    def _predictor(
        self, arm: Arm, student: Student, new_tokens: Mapping[TaskName, int], split: Split
    ) -> StudentPredictor:
        given = self.matter.given(arm, split, student)
        form = arm.method.form
        return StudentPredictor(student, self.task.kind, new_tokens, form=form, given=given)

    def _measure(self, name: str, predictor: Predictor, facts: Mapping[str, Any]) -> None:
        examples = list(self.examples["test"])
        predictions = predictor.predict(examples)
        rows = [{"name": name, "gold": e.label, **asdict(p)} for e, p in _pairs(examples, predictions)]
        record = self._record(name, score(self.task.kind, examples, predictions), facts)
        self.folder.add(record, rows)

    def _record(self, name: str, card: Scorecard, facts: Mapping[str, Any]) -> RunRecord:
        return RunRecord(
            name=name,
            task=self.task.spec.name,
            scorecard=card,
            seed=self.config.seed,
            config=self.config.digest(),
            data=digest_examples(self.examples),
            annotations=digest_file(self.folder.annotations),
            **facts,
        )

    def _teacher_facts(self) -> dict[str, Any]:
        keys = ("student", "parameters", "n_train", "n_left_out", "validation", "loss", "precision")
        names = " + ".join(str(teacher.model or teacher.backend) for teacher in self.config.asked)
        return {"labels": names, "versions": versions(), **dict.fromkeys(keys)}

    def _use_threads(self) -> None:
        # In every stage: another number of threads is another order of sums.
        if self.config.train.threads:
            torch.set_num_threads(self.config.train.threads)

    def _renamed(self, name: str) -> Watcher:
        return lambda _, done, total, note="", /: self.watch(f"predict {name}", done, total, note)


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


def _student_facts(card: Mapping[str, Any]) -> dict[str, Any]:
    return {key: card[key] for key in _FACTS}


def _pairs(
    examples: Sequence[Example], predictions: Sequence[Prediction]
) -> list[tuple[Example, Prediction]]:
    return list(zip(examples, predictions, strict=True))
