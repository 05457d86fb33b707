"""What a study changes of the paper's own recipe, in one line."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from stepdistill.config import (
    DataConfig,
    GridConfig,
    StudentConfig,
    StudyConfig,
    TeacherConfig,
    TrainConfig,
    check,
    load_study,
)
from stepdistill.config.run import FREE
from stepdistill.study.paper.judge import PALM, called
from stepdistill.study.paper.shipped import shipped, students_of, tasks_of
from stepdistill.study.values import put
from stepdistill.task.load import load_task

RUNS = 4
"""Of how many runs the paper's numbers are means."""
_LOOKS = ("recipe", "epochs", "steps", "lambda_", "alpha", "patience", "evaluate_every")
"""Keys of `train` that are told together with others, or below."""
_MACHINE = ("threads", "device", "precision", "group_by_length")
"""Keys of `train` that follow the machine."""
_WORDS = {"batch_size": "batch", "learning_rate": "rate", "warmup_steps": "warm-up steps"}


@dataclass(frozen=True)
class _Setting:
    """What a grid runs with, of one source of labels and rationales: of `run`, its `set` and its lists."""

    train: TrainConfig
    data: DataConfig
    tasks: tuple[str, ...]
    fractions: tuple[float, ...]
    weights: tuple[float | str, ...]

    @property
    def steps(self) -> str:
        train = self.train
        return f"{train.epochs} epochs" if train.steps is None else f"{train.steps:,} steps"

    @property
    def chooses(self) -> bool:
        """Whether validation chooses among several checkpoints."""
        train = self.train
        if train.steps is None:
            return train.epochs > 1 or train.evaluate_every is not None
        return train.evaluate_every is None or train.evaluate_every < train.steps

    @property
    def stops(self) -> bool:
        """Whether a training may end before its last step."""
        train = self.train
        far = train.steps is None or train.evaluate_every is None
        return self.chooses and (far or train.patience * (train.evaluate_every or 0) < (train.steps or 0))


def deviations(study: StudyConfig, name: str) -> str:
    """What is otherwise than in the paper, in one line.

    All of `train` and `data` that is not as in the file of the paper's scale is named, of every grid.

    Args:
        study: what is run.
        name: the table or figure that it repeats, as `Wanted.name`.
    """
    paper = load_study(shipped(name, "paper"))
    wanted, found = _settings(paper), _settings(study)
    parts = [
        *_students(study, paper),
        *_tasks(study, paper),
        *_fractions(found, wanted),
        *_data(found),
        *_train(found, wanted[0]),
        *_seeds(study),
        *_teachers(study, name),
        *_choices(found),
    ]
    return "Otherwise than in the paper: " + "; ".join(parts)


def _settings(study: StudyConfig) -> list[_Setting]:
    return [one for grid in study.all_grids for one in _of_grid(study, grid)]


def _of_grid(study: StudyConfig, grid: GridConfig) -> Iterable[_Setting]:
    values: dict[str, Any] = deepcopy(dict(study.run))
    for key, value in grid.set.items():
        put(values, key, value)
    train = check(TrainConfig, values.get("train") or {}, "run.train")
    data = check(DataConfig, values.get("data") or {}, "run.data")
    tasks = grid.tasks or (str(values.get("task")),)
    fractions = grid.fractions or (data.fraction or 1.0,)
    weights = grid.lambdas or (train.rationale_weight,)
    for labels, source in itertools.product(
        grid.labels or [train.labels], grid.rationales or [train.rationales]
    ):
        own = train.model_copy(update={"labels": labels, "rationales": source})
        yield _Setting(own, data, tasks, fractions, weights)


def _students(study: StudyConfig, paper: StudyConfig) -> Iterable[str]:
    wanted = [_student(one) for one in students_of(paper)]
    if other := [name for one in students_of(study) if (name := _student(one)) not in wanted]:
        yield f"student{'s' if len(other) > 1 else ''} {', '.join(other)} ({', '.join(wanted)})"


def _student(student: StudentConfig) -> str:
    sizes = student.scratch
    name = f"scratch-{sizes.d_model}x{sizes.layers}" if student.model == "scratch:" else called(student.model)
    return f"{name} by LoRA of rank {student.lora.rank}" if student.lora else str(name)


def _tasks(study: StudyConfig, paper: StudyConfig) -> Iterable[str]:
    there, wanted = tasks_of(study), tasks_of(paper)
    if set(there) != set(wanted):
        yield f"task{'s' if len(there) > 1 else ''} {', '.join(there)} ({', '.join(wanted)})"


def _fractions(found: Sequence[_Setting], wanted: Sequence[_Setting]) -> Iterable[str]:
    ours, theirs = _parts(found), _parts(wanted)
    for task, parts in ours.items():
        if parts != theirs.get(task, {1.0}):
            given = f" ({_percent(theirs[task])})" if task in theirs else ""
            yield f"{task} with {_percent(parts)} of the data{given}"


def _parts(settings: Sequence[_Setting]) -> dict[str, set[float]]:
    found: dict[str, set[float]] = {}
    for one in settings:
        for task in one.tasks:
            found.setdefault(task, set()).update(one.fractions)
    return found


def _data(found: Sequence[_Setting]) -> Iterable[str]:
    kept = [one.data.limit.model_dump() for one in found]
    for split in ("train", "validation", "test"):
        if said := _either(f"{one[split]:,}" for one in kept if one[split] is not None):
            yield f"at most {said} {'training' if split == 'train' else split} examples"
    if any(one.data.fraction_seed is not None for one in found):
        yield "every seed has the same part of the data"
    for added in dict.fromkeys(one.data.unlabelled for one in found if one.data.unlabelled):
        yield f"unlabelled examples of {added} are added"


def _train(found: Sequence[_Setting], wanted: _Setting) -> Iterable[str]:
    """All that is set otherwise, each key with the values of all grids and the paper's behind them."""
    if any(one.steps != wanted.steps for one in found):
        yield f"{_either(one.steps for one in found)} ({wanted.steps})"
    free = {key.removeprefix("train.") for key in FREE if key.startswith("train.")}
    for key in TrainConfig.model_fields:
        mine, theirs = [getattr(one.train, key) for one in found], getattr(wanted.train, key)
        if key not in {*_LOOKS, *_MACHINE, *free} and any(one != theirs for one in mine):
            word = _WORDS.get(key, key.replace("_", " "))
            yield f"{word} {_either(map(_value, mine))} ({_value(theirs)})"
    weights = [weight for one in found for weight in one.weights]
    if any(weight != wanted.weights[0] for weight in weights):
        yield f"lambda {_either(map(_value, weights))} ({_value(wanted.weights[0])})"


def _seeds(study: StudyConfig) -> Iterable[str]:
    seeds = [len(grid.seeds) for grid in study.all_grids]
    if min(seeds) < RUNS:
        least = f"{min(seeds)} to {max(seeds)}" if min(seeds) < max(seeds) else str(min(seeds))
        yield f"{least} seed{'s' if max(seeds) > 1 else ''} ({RUNS} runs)"


def _teachers(study: StudyConfig, name: str) -> Iterable[str]:
    usual = study.run.get("teachers") or [study.run.get("teacher") or {}]
    asked = [check(TeacherConfig, one, "run.teacher") for one in usual]
    more = [one for grid in study.all_grids for one in grid.teachers]
    for teacher in [*asked, *more]:
        if teacher.backend == "simulated":
            yield f"a simulated teacher ({PALM})"
        elif teacher.backend != "recorded":
            yield f"teacher {teacher.model or teacher.backend} ({PALM})"
    if name == "table1" and not more:
        yield "no rationales of GPT-NeoX-20B, whose outputs were not released"


def _choices(found: Sequence[_Setting]) -> Iterable[str]:
    unlabelled = [one for one in found if one.train.labels == "teacher"]
    if any(one.chooses for one in found):
        by = "human labels of validation" if unlabelled else "validation"
        yield f"the checkpoint is chosen on {by} (not stated there)"
    if any(one.stops for one in found):
        yield "training ends early where validation gains no more"
    if any(min(one.fractions) < 1 and any(map(_closed, one.tasks)) for one in unlabelled):
        yield "parts of unlabelled data keep the shares of the human labels"
    if any({"esnli", "anli-r1"} & set(one.tasks) for one in found):
        yield "inputs of e-SNLI and ANLI read as the task files say"


def _closed(task: str) -> bool:
    return bool(load_task(task).spec.answer.labels)


def _either(said: Iterable[str]) -> str:
    return " or ".join(dict.fromkeys(said))


def _percent(parts: Iterable[float]) -> str:
    return ", ".join(f"{100 * part:g}" for part in sorted(parts)) + " %"


def _value(value: Any) -> str:
    if value is None:
        return "as usual"
    return f"{value:g}" if isinstance(value, float) else f"{value:,}" if type(value) is int else str(value)
