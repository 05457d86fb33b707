"""Stage 4 of a run: every student and the teacher answer test, once, and what came of it is written down."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property, partial
from typing import TYPE_CHECKING, Any

from stepdistill.errors import RunFolderError
from stepdistill.evaluate.predict import StudentPredictor, TeacherPredictor
from stepdistill.evaluate.scorecards import score
from stepdistill.files import digest, digest_file
from stepdistill.records import Predictor, RunRecord, Scorecard, Watcher
from stepdistill.student.machine import versions
from stepdistill.student.methods import Arm
from stepdistill.student.model import load_student
from stepdistill.student.scoring import answers_with_probabilities
from stepdistill.study.folder import ORDER, TEACHER, RunFolder
from stepdistill.study.measure import prediction_row
from stepdistill.study.reads import JOURNAL, Read, Reads
from stepdistill.task.stream import digest_examples

if TYPE_CHECKING:
    from stepdistill.study.run import Run

_FACTS = ["labels", "student", "parameters", "n_train", "n_left_out", "validation", "loss"]
_FACTS += ["precision", "versions", "rationales", "n_rationales", "n_unlabelled_left_out"]
_CARD = {*_FACTS, "prefix", "new_tokens", "limits", "explains"}
"""What a student's card must say to be measured and shown."""
_EXPLAINS = ("both", "label-first")
"""Forms in which a rationale is work beside the answer."""


@dataclass(frozen=True)
class Evaluation:
    """The last stage of one run, by its first process alone."""

    run: Run

    @property
    def folder(self) -> RunFolder:
        """The run's."""
        return self.run.folder

    @property
    def reads(self) -> Reads:
        """The journal of all readings of test, beside the run folder."""
        return Reads(self.folder.path.parent / JOURNAL)

    def check_test(self) -> None:
        """As `Run.check_test`; readings that a killed process has not noted are noted here."""
        records = self.folder.records()
        self.reads.need_writable()
        self.reads.settle([read for record in records.values() for read in self._recorded(record)])
        for arm in self.run.methods:
            if arm.name not in records and not self.run.reopen:
                self.reads.refuse(self._read(arm))

    def work(self) -> list[RunRecord]:
        """As `Run.evaluate`."""
        self.check_test()
        run = self.run
        if run.teacher_is_measured() and TEACHER not in self.folder.records():
            self._measure(TEACHER, TeacherPredictor(run.annotations["test"]), self._teacher_facts())
        for arm in run.methods:
            self._evaluate(arm, self._card(arm))
        found = self.folder.records()
        run.measures.write({name: found[name] for name in ORDER if name in found})
        names = [TEACHER, *(arm.name for arm in run.methods)]
        return [found[name] for name in names if name in found]

    def _card(self, arm: Arm) -> dict[str, Any]:
        where = self.folder.student(arm.name)
        if not where.exists():
            raise RunFolderError(f"{where}: not there yet; run `stepdistill train` first")
        card = self.folder.card(arm.name)
        if not _CARD.issubset(card):
            raise RunFolderError(f"{where}: made by an earlier version; train again in another `out`")
        return card

    def _evaluate(self, arm: Arm, card: Mapping[str, Any]) -> None:
        """Measure an arm's student and write its rationales, each where that is not done yet."""
        run, where, name = self.run, self.folder.student(arm.name), arm.name

        @cache
        def asked() -> StudentPredictor:
            code, device = run.config.student.trust_remote_code, run.config.train.device
            student = load_student(str(where), code, card["prefix"], device)
            predictor = run.predictor(arm, student, card["new_tokens"], "test")
            return self._surely(replace(predictor, watch=self._renamed(name)))

        if run.reopen or name not in self.folder.records():
            with self.folder.clock(f"predict {name}"):
                reopened = len(self.reads.of(self._read(arm)))
                facts = {key: card[key] for key in _FACTS}
                self._measure(name, asked(), {**facts, "reopened": reopened})
            self.reads.add(self._read(arm, reopened > 0))
        # A student whose weights were deleted after it was measured explains nothing any more.
        writes = card["explains"] and arm.method.form in _EXPLAINS and any(where.glob("*.safetensors"))
        if writes and not run.measures.is_explained(name):
            with self.folder.clock(f"explain {name}"):
                run.measures.explain(name, asked().explanations(run.measures.explained))

    def _surely(self, predictor: StudentPredictor) -> StudentPredictor:
        """The same, with the probabilities of all labels where they are wanted and the set is closed."""
        labels = self.run.task.spec.answer.labels
        if not labels or not self.run.config.evaluate.probabilities:
            return predictor
        ask = partial(
            answers_with_probabilities,
            predictor.student,
            labels=labels,
            new_tokens=predictor.new_tokens["label"],
            watch=predictor.watch,
        )
        return replace(predictor, surely=ask)

    def _measure(self, name: str, predictor: Predictor, facts: Mapping[str, Any]) -> None:
        examples = list(self.run.examples["test"])
        predictions = predictor.predict(examples)
        pairs = zip(examples, predictions, strict=True)
        rows = [prediction_row(name, e.label, asdict(p)) for e, p in pairs]
        record = self._record(name, score(self.run.task.kind, examples, predictions), facts)
        self.folder.add(record, rows)

    def _record(self, name: str, card: Scorecard, facts: Mapping[str, Any]) -> RunRecord:
        return RunRecord(
            name=name,
            task=self.run.task.spec.name,
            scorecard=card,
            seed=self.run.config.seed,
            config=self.run.config.digest(),
            data=self._data,
            annotations=digest_file(self.folder.annotations),
            **facts,
        )

    @cached_property
    def _data(self) -> str:
        return digest_examples(self.run.examples)

    @property
    def _here(self) -> str:
        return self.folder.path.resolve().name

    @cached_property
    def _sources(self) -> str:
        return digest(self.run.task.spec.model_dump_json(), json.dumps(self.run.sources, sort_keys=True))

    def _read(self, arm: Arm, reopened: bool = False) -> Read:
        name, config = self.run.task.spec.name, self.run.config.digest()
        return Read(name, config, arm.name, self._data, self._here, reopened, self._sources)

    def _recorded(self, record: RunRecord) -> list[Read]:
        """The readings that a record tells of; the teacher's answers were there before it was measured."""
        times = range(0 if record.name == TEACHER else record.reopened + 1)
        read = Read(record.task, record.config, record.name, record.data, self._here, sources=self._sources)
        return [replace(read, reopened=n > 0) for n in times]

    def _teacher_facts(self) -> dict[str, Any]:
        keys = ("student", "parameters", "n_train", "n_left_out", "validation", "loss", "precision")
        names = " + ".join(str(teacher.model or teacher.backend) for teacher in self.run.config.asked)
        return {"labels": names, "versions": versions(), **dict.fromkeys(keys)}

    def _renamed(self, name: str) -> Watcher:
        return lambda _, done, total, note="", /: self.run.watch(f"predict {name}", done, total, note)
