"""What a model card tells of a student beside its manifest and its proof: gathered from the run's folder."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from stepdistill.config import RunConfig, TeacherConfig, load_run
from stepdistill.files import read_object
from stepdistill.records import Example, RunRecord, unwatched
from stepdistill.study.bill import answer_usd
from stepdistill.study.folder import RunFolder
from stepdistill.study.job import Job
from stepdistill.task.schema import Split

_HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")


@dataclass(frozen=True)
class Lengths:
    """How long the training inputs are, in characters."""

    median: int
    most: int
    longest: int


@dataclass(frozen=True)
class Facts:
    """The run that a student comes from.

    Args:
        name: the student's, among the run's records.
        records: of all predictors on the test split, the teacher's first; empty where none is measured.
        teachers: who was asked, in order.
        examples: how many there are, by split.
        lengths: of the training inputs; None where there is none.
        digests: of what the run read, by name: the first 16 hex digits of a SHA-256.
        base_model: the hub id of the model that training began with, None where it is none.
        batch_size: examples of a step of training.
        usd_per_request: what the teacher takes for an answer, None where the ledger knows no price.
    """

    name: str
    records: tuple[RunRecord, ...]
    teachers: tuple[TeacherConfig, ...]
    examples: Mapping[str, int]
    lengths: Lengths | None
    digests: Mapping[str, str]
    base_model: str | None
    batch_size: int
    usd_per_request: float | None = None

    @property
    def record(self) -> RunRecord | None:
        """The student's own."""
        return next((one for one in self.records if one.name == self.name), None)


def facts(folder: Path, name: str, examples: Mapping[Split, Iterable[Example]]) -> Facts:
    """What the card of the run's student `name` is to tell.

    Args:
        folder: the run's.
        name: of the student, a folder in `students/`.
        examples: of the run, by split.

    Raises:
        DataError, ConfigError, LedgerError: a file of the run is missing or damaged.
    """
    run = RunFolder(folder)
    config = load_run(folder / "config.yaml")
    mark = read_object(run.mark)
    digests = {key.strip("()"): str(value) for key, value in mark.items() if key.startswith("(")}
    records = tuple(run.records().values())
    for record in records[:1]:
        digests |= {"configuration": record.config, "data": record.data, "annotations": record.annotations}
    return Facts(
        name=name,
        records=records,
        teachers=config.asked,
        examples={split: sum(1 for _ in found) for split, found in examples.items()},
        lengths=_lengths(examples.get("train", ())),
        digests=digests,
        base_model=_hub_id(config),
        batch_size=config.train.batch_size,
        usd_per_request=answer_usd(Job(config.model_copy(update={"out": str(folder)}), unwatched)),
    )


def _lengths(examples: Iterable[Example]) -> Lengths | None:
    found = sorted(len(example.text) for example in examples)
    if not found:
        return None
    return Lengths(found[len(found) // 2], found[math.ceil(0.95 * len(found)) - 1], found[-1])


def _hub_id(config: RunConfig) -> str | None:
    model = config.student.model
    # What is a folder here was read from there, though it looks like the id of a stranger's model.
    if not _HUB_ID.fullmatch(model) or model.endswith(".gguf") or Path(model).expanduser().exists():
        return None
    return model
