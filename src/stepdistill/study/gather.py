"""The results of a study, or of a single run, as rows: gathered from the folders of its trials."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepdistill.config.teacher import HTTP
from stepdistill.errors import DataError
from stepdistill.files import digest_file, read_text
from stepdistill.records import RunRecord
from stepdistill.study.folder import ORDER, TEACHER, RunFolder
from stepdistill.study.grid import SCRATCH, TRIALS
from stepdistill.study.results import RESULTS, ResultRow, write_results
from stepdistill.study.trial import OUTCOME, is_done, read_outcome

TEST = "test.jsonl"
INDEX = "index.json"
"""Names of the trials that the study is made of now."""
SINGLE = "."
"""The trial of a single run's rows."""
_BACKEND = re.compile(r"teachers?\.(\d+\.)?backend")


def gather(folder: Path) -> list[ResultRow]:
    """The results in a study's folder, or in the folder of a single run.

    Of a study: its finished trials; those of an earlier grid, which is no more, are left out.

    First one row for each task, teacher and test set; then students by task, student, arm, fraction, seed.

    Raises:
        DataError: the folder is neither, holds no result, or files of an earlier version.
    """
    if (folder / TRIALS).is_dir():
        rows = [row for path in _trials(folder / TRIALS) if is_done(path) for row in _rows(path, path.name)]
    elif RunFolder(folder).results.exists():
        rows = _rows(folder, SINGLE)
    else:
        what = "holds neither a study nor a finished run" if folder.is_dir() else "no such folder"
        raise DataError(f"{folder}: {what}; give the `out` of a study or run")
    if not rows:
        raise DataError(f"{folder}: no trial is finished yet; run `stepdistill study FILE` first")
    return sorted(_teachers_once(rows), key=_place)


def write_gathered(folder: Path) -> list[ResultRow]:
    """The rows of `gather`, written to the study's `results.jsonl` as well."""
    rows = gather(folder)
    write_results(folder / RESULTS, rows)
    return rows


@dataclass(frozen=True)
class _Mark:
    """What `run.json` says of a run, flat; it is read at once, where YAML would take seconds for 200 runs."""

    values: Mapping[str, Any]

    @property
    def teacher(self) -> str:
        kinds = [key.removesuffix("backend") for key in self.values if _BACKEND.fullmatch(key)]
        return " + ".join(str(self.values.get(f"{k}model") or self.values[f"{k}backend"]) for k in kinds)

    @property
    def cost_usd(self) -> float | None:
        """0 where the teachers' answers cost nothing for certain."""
        kinds = {value for k, value in self.values.items() if _BACKEND.fullmatch(k)}
        return 0.0 if kinds.isdisjoint(HTTP) else None

    @property
    def student(self) -> str:
        get, model = self.values.get, str(self.values["student.model"])
        if model == SCRATCH:
            return f"scratch-{get('student.scratch.d_model')}x{get('student.scratch.layers')}"
        rank = get("student.lora.rank")
        return f"{model} LoRA {rank}" if rank else model

    def lambda_(self, card: Mapping[str, Any]) -> float | str | None:
        """The weight of the rationales' loss, where the arm has such a loss."""
        written = card["form"] == "both" or card["test_rationales"] == "student"
        if not written or card["rationales"] in (None, "none"):
            return None
        alpha: float | None = self.values.get("train.alpha")
        found: float | str = self.values["train.lambda"]
        return found if alpha is None else (1 - alpha) / alpha


def _trials(folder: Path) -> list[Path]:
    index = folder / INDEX
    if index.exists():
        return [folder / name for name in json.loads(read_text(index))]
    return sorted(path.parent for path in folder.glob(f"*/{OUTCOME}"))


def _rows(path: Path, trial: str) -> list[ResultRow]:
    """The rows of one run folder: its teacher's, and one for each arm."""
    folder, test = RunFolder(path), path / TEST
    if not test.exists():
        raise DataError(
            f"{path}: has no {TEST}, so it was measured by an earlier version; start it again with "
            f"`stepdistill {'run FILE' if trial == SINGLE else f'trial {path}'}`: nothing is trained anew"
        )
    mark = _Mark(json.loads(read_text(path / "run.json")))
    outcome = read_outcome(path)
    shared = {"trial": trial, "teacher": mark.teacher, "test": digest_file(test)}
    rows = []
    for name, record in folder.records().items():
        own: dict[str, Any] = {}
        if name != TEACHER:
            card = folder.card(name)
            own = {
                "student": mark.student,
                "lambda_": mark.lambda_(card),
                "fraction": mark.values.get("data.fraction") or 1.0,
                "seed": record.seed,
                "cost_usd": outcome.cost_usd if outcome else mark.cost_usd,
                **folder.cost(name),
            }
        rows.append(_row(record, {**shared, **own}))
    return rows


def _row(record: RunRecord, found: Mapping[str, Any]) -> ResultRow:
    card = record.scorecard
    values: dict[str, Any] = {
        "student": None,
        "lambda_": None,
        "fraction": None,
        "seed": None,
        "train_seconds": None,
        "predict_seconds": None,
        "peak_memory_mb": None,
        "cost_usd": None,
        **found,
    }
    return ResultRow(
        name=record.name,
        task=record.task,
        labels=record.labels,
        rationales=record.rationales,
        parameters=record.parameters,
        n_train=record.n_train,
        value=card.value,
        low=card.low,
        high=card.high,
        n=card.n,
        unread=card.unread,
        outcomes=card.outcomes,
        validation=record.validation,
        config=record.config,
        data=record.data,
        reopened=record.reopened,
        **values,
    )


def _teachers_once(rows: Iterable[ResultRow]) -> list[ResultRow]:
    """Without the teachers' rows that tell the same again, from further trials."""
    kept, seen = [], set[tuple[str, str, str]]()
    for row in rows:
        place = (row.task, row.teacher, row.test)
        if row.name != TEACHER or place not in seen:
            kept.append(row)
        if row.name == TEACHER:
            seen.add(place)
    return kept


def _place(row: ResultRow) -> tuple[Any, ...]:
    is_student = row.name != TEACHER
    axes = (row.task, row.student or "", ORDER.index(row.name), row.labels, row.teacher)
    return (is_student, *axes, str(row.lambda_), row.fraction or 0.0, row.seed or 0, row.trial)
