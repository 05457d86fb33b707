"""What an export is of: a run, one of its students, and the examples that it is proven on."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepdistill.config import RunConfig, load_run
from stepdistill.deploy.bundle import is_bundle
from stepdistill.deploy.cards import CARD, choose, students
from stepdistill.errors import RunFolderError, StudentError
from stepdistill.files import read_object
from stepdistill.records import Example, unwatched
from stepdistill.study.folder import RunFolder
from stepdistill.study.job import Job
from stepdistill.task.load import Task
from stepdistill.task.schema import Split
from stepdistill.task.stream import Examples, digest_examples

LEAST = 200
"""Examples of a proof; where validation has fewer, training inputs are added."""
MOST = 2000
"""Examples of a proof at most: of a larger validation set a seeded sample is asked."""


@dataclass(frozen=True)
class Source:
    """A trained student in its run, with the data that it was trained on."""

    run: Path
    student: Path
    card: Mapping[str, Any]
    config: RunConfig
    task: Task
    examples: Mapping[Split, Examples]

    @property
    def job(self) -> Job:
        """The run as far as its data and its teacher."""
        return Job(self.config, unwatched)


@dataclass(frozen=True)
class Exam:
    """The questions of a proof: `validation`, then training inputs, which have no gold label here.

    `of` is how many examples the validation split has.
    """

    validation: Sequence[Example]
    added: Sequence[Example]
    of: int
    seed: int

    @property
    def examples(self) -> list[Example]:
        """All of them."""
        return [*self.validation, *self.added]


def find(where: Path, student: str | None = None) -> Source:
    """The student of this name in a run folder, by default the best on validation; or the one whose own
    folder this is, where that lies in its run.

    Raises:
        RunFolderError: no student or no run is there, or the run's data have changed.
        StudentError: the student answers with the help of somebody else's rationale.
        StepdistillError: the run's configuration or data cannot be read.
    """
    if is_bundle(where):
        raise RunFolderError(f"{where}: is an export already; give the folder of its run")
    folder, card = choose(where, students(where), student, False)
    run = folder.resolve().parent.parent if (where / CARD).exists() else where
    if card["test_rationales"] == "teacher":
        raise StudentError(
            f"{folder}: '{card['name']}' answers with the help of a rationale that somebody else writes for "
            "each new text, so it cannot be exported; choose another student with --student"
        )
    if not (run / "config.yaml").exists() or not RunFolder(run).mark.exists():
        raise RunFolderError(
            f"{folder}: lies in no run folder, by whose data an export is proven; give the folder of the run"
        )
    config = load_run(run / "config.yaml").model_copy(update={"out": str(run)})
    job = Job(config, unwatched)
    _check_data(job)
    return Source(run, folder, card, config, job.task, job.streams)


def exam(source: Source) -> Exam:
    """The validation split (of a large one a sample), topped up with training inputs to `LEAST`."""
    draw = random.Random(source.config.seed)  # noqa: S311 - no secret
    split = source.examples.get("validation") or ()
    validation = _sample(split, MOST, draw)
    train = source.examples.get("train") or ()
    added = _sample(train, max(0, LEAST - len(validation)), draw)
    bare = [Example(f"train {one.id}", one.text, options=one.options) for one in added]
    return Exam(validation, bare, len(split), source.config.seed)


def _sample(examples: Examples | Sequence[Example], most: int, draw: random.Random) -> list[Example]:
    """At most so many, in their order; read in one pass."""
    chosen = set(draw.sample(range(len(examples)), min(most, len(examples))))
    return [example for place, example in enumerate(examples) if place in chosen] if chosen else []


def _check_data(job: Job) -> None:
    """Refuse other examples than those of the training: the proof would be of something else."""
    was = read_object(job.folder.mark).get("(data)")
    if was != digest_examples(job.streams):
        raise RunFolderError(
            f"{job.folder.path}: the data of this run have changed since ({job.config.task}), so nothing can "
            "be proven by them; put the old ones back, or run again"
        )
