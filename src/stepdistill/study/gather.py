"""The results of a study, or of a single run, as rows: gathered from the folders of its trials."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stepdistill.config.teacher import HTTP
from stepdistill.errors import DataError
from stepdistill.files import digest_all, digest_file, iter_jsonl, read_object, read_text
from stepdistill.records import RunRecord
from stepdistill.study.folder import ORDER, TEACHER, RunFolder
from stepdistill.study.grid import SCRATCH, TRIALS
from stepdistill.study.results import RESULTS, ResultRow, write_results
from stepdistill.study.trial import OUTCOME, is_done, read_outcome
from stepdistill.study.values import told_apart

INDEX = "index.json"
"""Names of the trials that the study is made of now."""
SINGLE = "."
"""The trial of a single run's rows."""
_BACKEND = re.compile(r"teachers?\.(\d+\.)?backend")


def gather(folder: Path) -> list[ResultRow]:
    """The results in a study's folder, or in the folder of a single run.

    Of a study: its finished trials; those of an earlier grid, which is no more, are left out.

    First one row for each task, teacher and test set, or for each seed of it where the teacher's answers are
    not the same; then students by task, student, arm, fraction, seed.

    Raises:
        DataError: the folder is neither, holds no result, or files of an earlier version.
    """
    if (folder / TRIALS).is_dir():
        done = [path for path in _trials(folder / TRIALS) if is_done(path)]
        known: dict[str, str] = {}
        rows = _told_apart([found for path in done for found in _rows(path, path.name, known)])
    elif RunFolder(folder).results.exists():
        rows = [row for row, _ in _rows(folder, SINGLE, {})]
    else:
        what = "holds neither a study nor a finished run" if folder.is_dir() else "no such folder"
        raise DataError(f"{folder}: {what}; give the `out` of a study or run")
    if not rows:
        raise DataError(f"{folder}: no trial is finished yet; run `stepdistill study FILE` first")
    return sorted(_teachers_once(_of_one_size(rows)), key=_place)


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

    def of(self, part: str) -> dict[str, Any]:
        """All that is said of the `student`, or of the `teacher`s."""
        return {key: value for key, value in self.values.items() if re.match(rf"{part}s?\.", key)}

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
        return [folder / name for name in _names(index)]
    return sorted(path.parent for path in folder.glob(f"*/{OUTCOME}"))


def _names(index: Path) -> list[str]:
    try:
        names = json.loads(read_text(index))
    except ValueError:
        names = None
    # A name with a slash would be read from outside of the study.
    if not isinstance(names, list) or any(not isinstance(n, str) or Path(n).name != n for n in names):
        raise DataError(f"{index}: damaged, it is no list of trials; run `stepdistill study FILE` again")
    return names


def _rows(path: Path, trial: str, known: dict[str, str]) -> list[tuple[ResultRow, _Mark]]:
    """The rows of one run folder: its teacher's, and one for each arm; `known` is of `_test_of`."""
    folder = RunFolder(path)
    if not folder.test.exists():
        raise DataError(
            f"{path}: has no {folder.test.name}, so it was measured by an earlier version; start it "
            f"again with `stepdistill {'run FILE' if trial == SINGLE else f'trial {path}'}`: nothing is "
            "trained anew"
        )
    mark = _Mark(read_object(folder.mark))
    outcome = read_outcome(path)
    shared = {"trial": trial, "teacher": mark.teacher, "test": _test_of(folder.test, known)}
    rows = []
    for name, record in folder.records().items():
        # A simulated teacher errs elsewhere under another seed, and demonstrations may be others.
        own: dict[str, Any] = {"seed": record.seed}
        if name != TEACHER:
            card = folder.card(name)
            own = {
                "student": mark.student,
                "lambda_": mark.lambda_(card),
                "fraction": mark.values.get("data.fraction") or 1.0,
                **own,
                "cost_usd": outcome.cost_usd if outcome else mark.cost_usd,
                **folder.cost(name),
            }
        rows.append((_row(record, {**shared, **own}), mark))
    return rows


def _test_of(test: Path, known: dict[str, str]) -> str:
    """Hash of what was asked and is right; a further column to slice by makes no other test examples.

    `known` keeps it by the file's bytes: 200 trials have the same 10,000 examples, and taking each row apart
    in each trial was two thirds of the time of a report.
    """
    content = digest_file(test)
    if content not in known:
        known[content] = _asked(test)
    return known[content]


def _asked(test: Path) -> str:
    asked = ("example_id", "text", "gold", "options")
    return digest_all(json.dumps([row.get(key) for key in asked]) for row in iter_jsonl(test))


def _told_apart(found: Sequence[tuple[ResultRow, _Mark]]) -> list[ResultRow]:
    """The rows; teachers and students of one task that differ in more than their names say, so named."""
    # Each task is looked at by itself: its teachers may be set up in their own way.
    teachers, students = (
        told_apart(
            [f"{row.task}\n{getattr(row, part)}" for row, _ in found], [mark.of(part) for _, mark in found]
        )
        for part in ("teacher", "student")
    )
    return [
        replace(
            row,
            teacher=teacher.partition("\n")[2],
            student=None if row.student is None else student.partition("\n")[2],
        )
        for (row, _), teacher, student in zip(found, teachers, students, strict=True)
    ]


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


def _of_one_size(rows: Sequence[ResultRow]) -> list[ResultRow]:
    """The rows; every student has the parameters of its largest trial.

    The vocabulary of a student from scratch grows with the texts of its part of the data. By its own count
    each part would be another student, and no line would lead from one part to the next.
    """
    sizes: dict[tuple[str, str | None], int] = defaultdict(int)
    for row in rows:
        sizes[row.task, row.student] = max(sizes[row.task, row.student], row.parameters or 0)
    return [replace(row, parameters=sizes[row.task, row.student] or None) for row in rows]


def _teachers_once(rows: Iterable[ResultRow]) -> Iterator[ResultRow]:
    """Without the teachers' rows that tell the same again, from further trials."""
    teachers: dict[tuple[str, str, str], dict[int | None, ResultRow]] = defaultdict(dict)
    for row in rows:
        if row.name == TEACHER:
            teachers[row.task, row.teacher, row.test].setdefault(row.seed, row)
        else:
            yield row
    for found in teachers.values():
        alike = len({row.outcomes for row in found.values()}) == 1
        yield from [replace(next(iter(found.values())), seed=None)] if alike else found.values()


def _place(row: ResultRow) -> tuple[Any, ...]:
    is_student = row.name != TEACHER
    axes = (row.task, row.student or "", ORDER.index(row.name), row.labels, row.teacher)
    return (is_student, *axes, str(row.lambda_), row.fraction or 0.0, row.seed or 0, row.trial)
