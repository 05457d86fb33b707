"""The paper's studies as files of this package, and what they change of the paper's own recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from stepdistill.config import (
    StudentConfig,
    StudyConfig,
    TeacherConfig,
    TrainConfig,
    check,
    load_study,
)
from stepdistill.config.train import RECIPES
from stepdistill.errors import ConfigError, unknown
from stepdistill.study.paper.judge import PALM, called

NAMES = ("table1", "table2", "figure4", "figure5", "figure6", "figure7", "figure8", "figure9")
SCALES = ("paper", "small")
RUNS = 4
"""Of how many runs the paper's numbers are means."""


@dataclass(frozen=True)
class Wanted:
    """What is to be repeated, and what of the shipped file is to be otherwise.

    Args:
        name: one of `NAMES`.
        scale: one of `SCALES`.
        tasks: of the study's tasks only these; empty: all.
        data_root: folder of the data, and of students under the end of their hub id.
        jobs: trials side by side; None leaves the file's number.
        out: folder of the study; None leaves the file's.
        overrides: `KEY=VALUE` laid over the file, as `stepdistill study --set` does.
    """

    name: str
    scale: str = "small"
    tasks: Sequence[str] = ()
    data_root: Path | None = None
    jobs: int | None = None
    out: Path | None = None
    overrides: Sequence[str] = ()


def shipped(name: str, scale: str) -> Path:
    """The study file of a table or figure; `stepdistill study` takes it too.

    Raises:
        ConfigError: an unknown name or scale.
    """
    if name not in NAMES:
        raise ConfigError(unknown("table or figure", name, NAMES))
    if scale not in SCALES:
        raise ConfigError("--scale: " + unknown("scale", scale, SCALES))
    return Path(str(resources.files("stepdistill.study.paper") / f"{name}-{scale}.yaml"))


def load(wanted: Wanted) -> StudyConfig:
    """The study that is wanted.

    Raises:
        ConfigError: an unknown name, scale or task, or a wrong override.
    """
    path = shipped(wanted.name, wanted.scale)
    given = {"run.data.root": wanted.data_root, "jobs": wanted.jobs, "out": wanted.out}
    plain = [f"{key}={_quoted(value)}" for key, value in given.items() if value is not None]
    study = load_study(path, [*plain, *wanted.overrides])
    study = _only(study, wanted) if wanted.tasks else study
    return _students_below(wanted.data_root, study) if wanted.data_root else study


def tasks_of(study: StudyConfig) -> list[str]:
    """The tasks of a study, in order, each once."""
    named = (grid.tasks or (str(study.run.get("task")),) for grid in study.all_grids)
    return list(dict.fromkeys(task for tasks in named for task in tasks))


def students_of(study: StudyConfig) -> list[StudentConfig]:
    """The students of a study, in order, each once."""
    usual = check(StudentConfig, study.run.get("student") or {}, "run.student")
    found = [one for grid in study.all_grids for one in (grid.students or (usual,))]
    return [one for place, one in enumerate(found) if one not in found[:place]]


def deviations(study: StudyConfig) -> str:
    """What is otherwise than in the paper, in one line."""
    train = check(TrainConfig, study.run.get("train") or {}, "run.train")
    recipe, parts = RECIPES["paper"], []
    students = [called(one.model) if one.model != "scratch:" else _sizes(one) for one in students_of(study)]
    if other := [str(name) for name in students if not str(name).startswith("t5-v1_1")]:
        parts.append(f"students {', '.join(other)} (T5 v1.1)")
    amounts = {"steps": f"{train.epochs} epochs" if train.steps is None else f"{train.steps:,}"}
    rate = "its usual rate" if train.learning_rate is None else f"rate {train.learning_rate:g}"
    amounts |= {"batch_size": f"batch {train.batch_size}", "learning_rate": rate}
    for key, said in amounts.items():
        if getattr(train, key) != recipe[key]:
            parts.append(f"{said} ({recipe[key]:,}{' steps' if key == 'steps' else ''})")
    seeds = [len(grid.seeds) for grid in study.all_grids]
    if min(seeds) < RUNS:
        least = f"{min(seeds)} to {max(seeds)}" if min(seeds) < max(seeds) else str(min(seeds))
        parts.append(f"{least} seed{'s' if max(seeds) > 1 else ''} ({RUNS} runs)")
    parts.append(_teachers(study))
    return "Otherwise than in the paper: " + "; ".join(filter(None, parts))


def _teachers(study: StudyConfig) -> str:
    teacher = check(TeacherConfig, study.run.get("teacher") or {}, "run.teacher")
    if teacher.backend == "simulated":
        return f"a simulated teacher ({PALM})"
    missing = study.published == "table1" and not any(grid.teachers for grid in study.all_grids)
    if missing:
        return "rationales of PaLM-540B alone (also GPT-NeoX-20B: its outputs were not released)"
    return "the checkpoint is chosen on validation (not stated there); inputs read as the task files say"


def _only(study: StudyConfig, wanted: Wanted) -> StudyConfig:
    there = tasks_of(study)
    for task in wanted.tasks:
        if task not in there:
            message = unknown("task", task, there)
            raise ConfigError(f"--task: {wanted.name} at scale '{wanted.scale}': {message}")
    grids = [
        grid.model_copy(update={"tasks": kept} if grid.tasks else {})
        for grid in study.all_grids
        if (kept := tuple(t for t in grid.tasks or (str(study.run.get("task")),) if t in wanted.tasks))
    ]
    return study.model_copy(update={"grid": None, "grids": tuple(grids)})


def _students_below(root: Path, study: StudyConfig) -> StudyConfig:
    """The study with each hub id replaced by its folder below the data root, where there is one."""

    def found(student: StudentConfig) -> StudentConfig:
        folder = root.expanduser() / str(called(student.model))
        is_id = student.model.count("/") == 1 and ":" not in student.model
        here = is_id and (folder / "config.json").is_file()
        return student.model_copy(update={"model": str(folder)}) if here else student

    usual = check(StudentConfig, study.run.get("student") or {}, "run.student")
    run: dict[str, Any] = {**study.run, "student": found(usual).model_dump(mode="json", by_alias=True)}
    grids = [
        grid.model_copy(update={"students": tuple(map(found, grid.students))}) for grid in study.all_grids
    ]
    return study.model_copy(update={"run": run, "grid": None, "grids": tuple(grids)})


def _sizes(student: StudentConfig) -> str:
    return f"scratch-{student.scratch.d_model}x{student.scratch.layers}"


def _quoted(value: object) -> str:
    return str(value) if isinstance(value, int) else "'" + str(value).replace("'", "''") + "'"
