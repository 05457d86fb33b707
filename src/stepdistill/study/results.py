"""The results of a study as rows: what its tables, figures and verdicts are functions of."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from stepdistill.errors import DataError
from stepdistill.files import iter_jsonl, write_jsonl

RESULTS = "results.jsonl"


@dataclass(frozen=True, slots=True)
class ResultRow:
    """One predictor measured in one trial: where it stands in the grid, its score, what it cost.

    Of a teacher, all that only students have is None, and there is one row for each task, teacher and
    test set. Where his answers differ from seed to seed, as a simulated teacher's do, there is one for each
    seed, and `seed` says which.

    Args:
        trial: folder of the trial below the study's `trials/`; of a single run: ".".
        name: "teacher", or the arm: a method, or METHOD+SOURCE.
        labels: what labels it learned: "gold", "teacher", "gold-else-teacher"; of a teacher: its model.
        rationales: their source, None for an arm without.
        lambda_: weight of the rationale's loss, "auto", or None for an arm without.
        teacher: name of the teacher that annotated; where several have the same, with what they differ in.
        student: the model it started from, named in the same way.
        fraction: share of the training examples, 1.0 is all.
        n_train: number of examples it was trained on.
        value, low, high: accuracy and its 95 % Wilson interval, as shares.
        outcomes: one character a test example: `1` right, `0` wrong, `-` unread (counts as wrong).
        validation: score on validation, as a share.
        train_seconds, predict_seconds, peak_memory_mb: of this machine, at this time.
        cost_usd: what the teacher's answers on the training examples cost; None where unknown.
        config, data, test: hashes: configuration, all examples, test examples (what is asked and gold).
        reopened: how often test was read again for this configuration.
    """

    trial: str
    name: str
    task: str
    labels: str
    rationales: str | None
    lambda_: float | str | None
    teacher: str
    student: str | None
    parameters: int | None
    fraction: float | None
    n_train: int | None
    seed: int | None
    value: float
    low: float
    high: float
    n: int
    unread: int
    outcomes: str
    validation: float | None
    train_seconds: float | None
    predict_seconds: float | None
    peak_memory_mb: float | None
    cost_usd: float | None
    config: str
    data: str
    test: str
    reopened: int = 0


_KEYS = {field.name for field in fields(ResultRow)}


def write_results(path: Path, rows: Iterable[ResultRow]) -> None:
    """Write the rows as JSON lines, in their order."""
    write_jsonl(path, (asdict(row) for row in rows))


def read_results(path: Path) -> list[ResultRow]:
    """The rows of a study's `results.jsonl`.

    Raises:
        DataError: there is no such file, or a line is no result.
    """
    return [_row(values, path) for values in iter_jsonl(path)]


def _row(values: dict[str, Any], path: Path) -> ResultRow:
    missing = sorted(_KEYS - {"reopened"} - values.keys())
    if missing:
        raise DataError(f"{path}: a line lacks '{missing[0]}'; run the study again to write it anew")
    return ResultRow(**{key: value for key, value in values.items() if key in _KEYS})
