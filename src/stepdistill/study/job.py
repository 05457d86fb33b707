"""A configuration bound to its folder and data, and its first stage: annotate. It needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from stepdistill import weights
from stepdistill.config import RunConfig
from stepdistill.errors import DataError, RunFolderError
from stepdistill.records import Watcher
from stepdistill.student.methods import Method, find_method
from stepdistill.study.folder import RunFolder
from stepdistill.task.load import Task, digest_examples, load_task, stream_examples
from stepdistill.task.schema import Split
from stepdistill.task.stream import Examples
from stepdistill.teacher.annotate import Asked, Files, Outcome, annotate
from stepdistill.teacher.annotations import Annotations, read_annotations
from stepdistill.teacher.ready import completion_digests

LEDGER = "ledger.sqlite"


@dataclass(frozen=True)
class Job:
    """A run as far as its data and its teacher."""

    config: RunConfig
    watch: Watcher

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
    def methods(self) -> list[Method]:
        """The methods asked for, in order."""
        return [find_method(name) for name in self.config.methods]

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

    def open(self) -> None:
        """Check everything that can be checked before any work, and take the folder.

        Raises:
            StepdistillError: of any kind; no file of the run has been written then.
        """
        _ = self.methods, self.task.kind
        if not self.asked.total:
            raise DataError(f"{self.task.spec.name}: no example in {', '.join(self.config.annotate.splits)}")
        sources = {"data": digest_examples(self.streams)}
        for number, teacher in enumerate(self.config.asked):
            mark = f" of teacher {number}" if number else ""
            found = completion_digests(self.task, self.config.data, teacher)
            sources |= {f"{name}{mark}": value for name, value in found.items()}
        sources |= weights.digests(self.config.student.model, "student.model")
        self.folder.claim(self.config, self.task.spec, sources)

    def annotate(self, ask: bool = True) -> Outcome:
        """Stage 2: the teacher's answers, read, in `annotations.jsonl`.

        Raises:
            RunFolderError: a student has been trained on the annotations that are there.
            StepdistillError: as `teacher.annotate.annotate`.
        """
        folder = self.folder
        if folder.has_students():
            raise RunFolderError(
                f"{folder.path}: a student has been trained on the annotations that are there; choose "
                "another `out` (the ledger keeps the answers, so nothing is paid again)"
            )
        with folder.clock("annotate"):
            files = Files(folder.annotations, folder.left_out, folder.parse_report)
            return annotate(self.asked, files, self.watch, ask)
