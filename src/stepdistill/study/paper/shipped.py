"""The paper's studies as files of this package."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from stepdistill.config import RunConfig, StudentConfig, StudyConfig, check, load_study
from stepdistill.errors import ConfigError, unknown
from stepdistill.study.paper.judge import called

NAMES = ("table1", "table2", "figure4", "figure5", "figure6", "figure7", "figure8", "figure9")
SCALES = ("paper", "small")
_IN_GRIDS = {"student": "students", "task": "tasks", "data.fraction": "fractions", "teacher": "teachers"}
"""Keys of `run` that have no effect where every grid has the list."""


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
        ConfigError: an unknown name, scale or task, or an override that is wrong or has no effect.
    """
    path = shipped(wanted.name, wanted.scale)
    given = {"run.data.root": wanted.data_root, "jobs": wanted.jobs, "out": wanted.out}
    plain = [f"{key}={_quoted(value)}" for key, value in given.items() if value is not None]
    study = load_study(path, [*plain, *wanted.overrides])
    study = _only(study, wanted) if wanted.tasks else study
    _refuse_no_effect(study, wanted)
    # Before what is missing on the disk is told: a wrong key is the smaller thing to mend.
    usual = {"task": tasks_of(study)[0], "student": {"model": "scratch:"}, **study.run}
    check(RunConfig, {**usual, "out": study.out}, "run")
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


def _refuse_no_effect(study: StudyConfig, wanted: Wanted) -> None:
    # A study of 24 trials with the student that was to be replaced costs hours.
    for text in wanted.overrides:
        given = text.partition("=")[0].strip()
        for key, axis in _IN_GRIDS.items():
            below = given == f"run.{key}" or given.startswith(f"run.{key}.")
            if below and all(getattr(grid, axis) for grid in study.all_grids):
                path = shipped(wanted.name, wanted.scale)
                raise ConfigError(
                    f"--set {given}: no effect, every grid of {wanted.name} at scale '{wanted.scale}' names "
                    f"its {axis}; change {axis} in a copy of {path} and run that by `stepdistill study`"
                )


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


def _quoted(value: object) -> str:
    return str(value) if isinstance(value, int) else "'" + str(value).replace("'", "''") + "'"
