"""A configuration bound to its folder and data, and its first stage: annotate. It needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from stepdistill import weights
from stepdistill.config import RunConfig
from stepdistill.errors import ConfigError, DataError, RunFolderError, StudentError
from stepdistill.files import read_object
from stepdistill.records import Watcher
from stepdistill.student.methods import Arm, find_arm
from stepdistill.study.folder import RunFolder
from stepdistill.task.columns import read_columns
from stepdistill.task.load import Task, load_task, stream_examples
from stepdistill.task.schema import Split
from stepdistill.task.stream import Examples, digest_examples
from stepdistill.teacher.annotate import Asked, Files, Outcome, annotate
from stepdistill.teacher.annotations import Annotations, count, read_annotations
from stepdistill.teacher.ledger import LEDGER
from stepdistill.teacher.protocol import Tally
from stepdistill.teacher.ready import completion_digests
from stepdistill.weights import PACKAGE


@dataclass(frozen=True)
class Job:
    """A run as far as its data and its teacher; `tally` counts what the teacher is asked."""

    config: RunConfig
    watch: Watcher
    tally: Tally = field(default_factory=Tally)

    @cached_property
    def folder(self) -> RunFolder:
        """The output folder."""
        return RunFolder(Path(self.config.out).expanduser())

    @property
    def ledger(self) -> Path:
        """The file of the teachers' answers: one for all runs whose folders lie side by side."""
        given = self.config.annotate.ledger
        return Path(given).expanduser() if given else self.folder.path.parent / LEDGER

    @cached_property
    def task(self) -> Task:
        """What is asked."""
        return load_task(self.config.task)

    @cached_property
    def methods(self) -> list[Arm]:
        """The arms asked for, in order.

        Raises:
            ConfigError: an unknown name, or two names of one arm.
        """
        arms = [find_arm(name, self.config.train.rationales) for name in self.config.methods]
        named: dict[tuple[str, str | None], str] = {}
        for arm in arms:
            other = named.setdefault((arm.method.name, arm.source), arm.name)
            if other != arm.name:
                raise ConfigError(f"methods: '{other}' and '{arm.name}' are the same arm; leave one out")
        return arms

    @cached_property
    def streams(self) -> Mapping[Split, Examples]:
        """The examples by split, checked, read anew whenever they are gone through."""
        return stream_examples(self.task, self.config.data)

    @cached_property
    def annotations(self) -> Annotations:
        """What was read of the teacher's answers, from its file."""
        if not self.folder.annotations.exists():
            raise RunFolderError(
                f"{self.folder.annotations}: not there yet; run `stepdistill annotate` first"
            )
        return read_annotations(self.folder.annotations)

    @property
    def asked(self) -> Asked:
        """What the annotation works on."""
        return Asked(self.task, self.streams, self.config, self.ledger)

    def check(self) -> None:
        """Check what can be checked without the folder.

        Raises:
            StepdistillError: of any kind.
        """
        _ = self.methods, self.task.kind
        self._check_sources()
        if not self.asked.total:
            raise DataError(f"{self.task.spec.name}: no example in {', '.join(self.config.annotate.splits)}")

    def check_run(self) -> None:
        """As `check`; a run needs examples to train on and gold labels to measure by, too.

        Raises:
            StepdistillError: of any kind.
        """
        self._check_splits()
        names, test = self.config.evaluate.slices, self.streams["test"]
        read_columns(self.task, self.config.data, "test", names, [example.id for example in test])
        model = self.config.student.model
        local = model.startswith((".", "/", "~")) or (
            model.endswith(".gguf") and not model.startswith(PACKAGE)
        )
        if local and not Path(model).expanduser().exists():
            raise StudentError(
                f"student.model: {model}: no such file or folder; give `scratch:`, a hub id, or a path"
            )
        Job.check(self)

    def _check_splits(self) -> None:
        for split in ("train", "test"):
            if not self.streams.get(split):
                raise DataError(
                    f"{self.task.spec.name}: no '{split}' examples; a run trains on 'train' and "
                    "measures on 'test'"
                )
        for split, examples in self.streams.items():
            if split != "train" and examples and all(example.label is None for example in examples):
                raise DataError(
                    f"{self.task.spec.name}: no '{split}' example has a gold label to measure by; name "
                    "their column as `answer.column` in the task file"
                )

    def _check_sources(self) -> None:
        for arm in self.methods:
            if arm.source == "human" and not self.task.spec.answer.rationale:
                raise ConfigError(
                    f"methods: '{arm.name}': {self.task.spec.name} has no rationales of people; name their "
                    "column as `answer.rationale` in the task file, or take the teacher's"
                )
            if arm.method.form != "rationale-input" or self.config.train.test_rationales == "student":
                continue
            measured = (split for split in self.streams if split != "train" and self.streams[split])
            missing = [split for split in measured if split not in self.asked.splits]
            if missing and arm.source != "human":
                raise ConfigError(
                    f"methods: '{arm.name}' is asked with the teacher's rationales, and annotate.splits "
                    f"lacks {', '.join(missing)}; add it, or give train.test_rationales: student"
                )

    @cached_property
    def sources(self) -> dict[str, str]:
        """Hashes of what is read (data, completions, weights) by name."""
        found = {"data": digest_examples(self.streams)}
        for number, teacher in enumerate(self.config.asked):
            mark = f" of teacher {number}" if number else ""
            digests = completion_digests(self.task, self.config.data, teacher)
            found |= {f"{name}{mark}": value for name, value in digests.items()}
        return found | weights.digests(self.config.student.model, "student.model")

    def open(self, anew: bool = False) -> None:
        """Check everything that can be checked before any work, and take the folder.

        Args:
            anew: stored answers are going to be read anew, also in another way than before.

        Raises:
            StepdistillError: of any kind; no file of the run has been written then.
        """
        self.check()
        self.folder.claim(self.config, self.task.spec, self.sources, anew)

    def annotate(self, ask: bool = True) -> Outcome:
        """Stage 2: the teacher's answers, read, in `annotations.jsonl`.

        Where a student has been trained on them they stay as they are: only their report is given.

        Raises:
            RunFolderError: they are to be read anew (`ask` False), and a student has been trained on them.
            StepdistillError: as `teacher.annotate.annotate`.
        """
        folder = self.folder
        if folder.has_students() and ask and folder.annotations.exists():
            return Outcome(report=self.reported(), kept=True)
        if folder.has_students():
            raise RunFolderError(
                f"{folder.path}: a student has been trained on the annotations that are there; choose "
                "another `out` (the ledger keeps the answers, so nothing is paid again)"
            )
        with folder.clock("annotate"):
            files = Files(folder.annotations, folder.left_out, folder.parse_report)
            outcome = annotate(self.asked, files, self.watch, ask, self.tally)
        self.__dict__.pop("annotations", None)  # what was read before is of the file that was replaced
        return outcome

    def reported(self) -> dict[str, Any]:
        """The parse report in the folder."""
        path = self.folder.parse_report
        if not path.exists():
            return count(self.annotations, self.streams)
        return read_object(path)
