"""One run: annotate, train each method, measure all on the same untouched test set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import torch

from stepdistill.errors import DataError, RunFolderError
from stepdistill.evaluate.predict import StudentPredictor, TeacherPredictor
from stepdistill.evaluate.scorecards import score
from stepdistill.files import digest_file
from stepdistill.records import Example, Prediction, Predictor, RunRecord, Scorecard, Watcher
from stepdistill.student.machine import versions
from stepdistill.student.methods import PREFIXES, Method, all_targets
from stepdistill.student.model import Student, load_student, new_student
from stepdistill.student.train import Lesson, forget_work, train
from stepdistill.study.folder import TEACHER
from stepdistill.study.job import Job
from stepdistill.task.schema import Split
from stepdistill.task.stream import digest_examples
from stepdistill.teacher.annotate import Outcome
from stepdistill.teacher.annotations import count


@dataclass(frozen=True)
class Run(Job):
    """A whole run; each stage reads files, writes files, and is skipped when its files are there."""

    @cached_property
    def examples(self) -> Mapping[Split, Sequence[Example]]:
        """The examples by split.

        Raises:
            DataError: nothing to train on, or nothing to measure on.
        """
        found = {split: list(examples) for split, examples in self.streams.items()}
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

    def annotate(self, ask: bool = True) -> Outcome:
        """As `Job.annotate`, where that is not done yet."""
        folder = self.folder
        # The report is written last: without it, an interruption may have left the other files behind.
        if folder.has_students() and folder.annotations.exists():
            return Outcome()
        if folder.parse_report.exists() and folder.annotations.exists() and not self._unanswered():
            return Outcome()
        return super().annotate(ask)

    def _unanswered(self) -> bool:
        """Whether a teacher that can be asked owes an answer to some example."""
        rows = sum(len(self.annotations.get(split, {})) for split in self.asked.splits)
        return rows < self.asked.total and any(teacher.modelled for teacher in self.config.asked)

    def train(self) -> None:
        """Stage 3: a student for each method, in `students/`."""
        self._use_threads()
        for method in self.methods:
            if self.folder.student(method.name).exists():
                forget_work(self.folder.student(method.name))
                continue
            with self.folder.clock(f"train {method.name}"):
                self._train(method)

    def evaluate(self) -> list[RunRecord]:
        """Stage 4: predictions and scores on the test split, the teacher's first.

        Raises:
            RunFolderError: a student is not trained yet.
        """
        self._use_threads()
        if self.teacher_is_measured() and TEACHER not in self.folder.records():
            self._measure(TEACHER, TeacherPredictor(self.annotations["test"]), self._teacher_facts())
        for method in self.methods:
            folder = self.folder.student(method.name)
            if not folder.exists():
                raise RunFolderError(f"{folder}: not there yet; run `stepdistill train` first")
            if method.name not in self.folder.records():
                with self.folder.clock(f"predict {method.name}"):
                    card = self.folder.card(method.name)
                    student = load_student(str(folder), self.config.student.trust_remote_code)
                    kind = self.task.kind
                    predictor = StudentPredictor(
                        student, kind, card["new_tokens"], watch=self._renamed(method.name)
                    )
                    self._measure(method.name, predictor, _student_facts(card))
        found = self.folder.records()
        names = [TEACHER, *(method.name for method in self.methods)]
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

    def _train(self, method: Method) -> None:
        config, examples = self.config, self.examples["train"]
        pairs = all_targets(method, config.train.labels, examples, self.annotations.get("train", {}))
        # One tokenizer for all methods: it is made of the same texts, whatever they learn from them.
        student = new_student(config.student, config.seed, self._texts())
        facts = {
            "method": method.name,
            "paper": method.paper,
            "labels": method.labels_from(config.train.labels),
            "rationales": method.rationales,
            "task": self.task.spec.model_dump(mode="json", by_alias=True),
            "student": config.student.model,
            "seed": config.seed,
            "n_left_out": len(examples) - len(pairs),
            "n_rationales": sum(len(targets) > 1 for targets in pairs),
        }
        validate = self._validate if self.examples.get("validation") else None
        asked = [
            PREFIXES["label"] + e.text
            for split in ("validation", "test")
            for e in self.examples.get(split, ())
        ]
        lesson = Lesson(method.name, pairs, validate, config.train, config.seed, facts, asked)
        train(student, lesson, self.folder.student(method.name), self.watch)

    def _texts(self) -> list[str]:
        """All training text: inputs with both prefixes, gold labels, the teacher's words."""
        texts: list[str] = []
        for example in self.examples["train"]:
            texts += [PREFIXES["label"] + example.text, PREFIXES["rationale"], example.label or ""]
        for read in self.annotations.get("train", {}).values():
            texts += [getattr(read, "rationale", ""), getattr(read, "label", "")]
        return texts

    def _validate(self, student: Student, new_tokens: int) -> float:
        predictor = StudentPredictor(student, self.task.kind, {"label": new_tokens})
        examples = self.examples["validation"]
        return score(self.task.kind, examples, predictor.predict(examples)).value

    def _measure(self, name: str, predictor: Predictor, facts: Mapping[str, Any]) -> None:
        examples = self.examples["test"]
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


def _student_facts(card: Mapping[str, Any]) -> dict[str, Any]:
    keys = ["labels", "student", "parameters", "n_train", "n_left_out", "validation", "loss"]
    keys += ["precision", "versions"]
    return {key: card[key] for key in keys}


def _pairs(
    examples: Sequence[Example], predictions: Sequence[Prediction]
) -> list[tuple[Example, Prediction]]:
    return list(zip(examples, predictions, strict=True))
