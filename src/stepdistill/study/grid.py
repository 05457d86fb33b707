"""The grid of a study as trials: every experiment once, under a key that says what it is."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from stepdistill import weights
from stepdistill.config import (
    GridConfig,
    Model,
    RunConfig,
    StudentConfig,
    StudyConfig,
    TeacherConfig,
    TrainConfig,
    check,
)
from stepdistill.config.train import RationaleSource
from stepdistill.errors import ConfigError
from stepdistill.files import digest
from stepdistill.student.methods import JOIN, Arm, find_arm
from stepdistill.study.values import get, put, restore, told_apart
from stepdistill.task.load import Task, load_task, stream_examples
from stepdistill.task.stream import digest_examples
from stepdistill.teacher.ready import completion_digests

TRIALS = "trials"
"""Folder of the trials in a study's folder."""
SCRATCH = "scratch:"
_LONGEST = 90
_PATHS = re.compile(r"task$|data\.unlabelled$|student\.model$|teachers?\.(\d+\.)?completions")
"""Keys that say where something lies; what lies there is in the key of a trial instead."""


@dataclass(frozen=True)
class Trial:
    """One experiment: one arm, trained and measured once, in a folder of its own.

    Attributes:
        name: of its folder; it ends with the beginning of the key.
        key: hash of all that its result depends on; trials with equal keys are the same experiment.
        arm: METHOD where the rationales are those of the study's `run`, else METHOD+SOURCE.
        config: a run file's values with this arm as its only method; `out` is its folder.
        axes: where it stands in the grid: task, arm, rationales, labels, lambda, teacher, student,
            fraction, seed; None where an axis does not matter to the arm. Teachers and students of one
            name are followed by what they differ in.
    """

    name: str
    key: str
    arm: str
    config: RunConfig
    axes: Mapping[str, Any]

    @property
    def folder(self) -> Path:
        """Its folder, relative to where the study was started if `out` is."""
        return Path(self.config.out).expanduser()


def trials(study: StudyConfig) -> list[Trial]:
    """All trials of a study, each experiment once: seed by seed, small fractions first.

    Reads the data, to know what they are, and writes nothing.

    Raises:
        StepdistillError: of any kind that a run file can cause.
    """
    found: dict[str, Trial] = {}
    maker = _Maker(study)
    for grid in study.all_grids:
        for point in _points(grid):
            trial = maker.trial(grid, point)
            found.setdefault(trial.key, trial)
    return _told_apart(list(found.values()))


def arm_name(study: StudyConfig, name: str) -> str:
    """The name that an arm has among the trials: without its source where that is the study's own.

    Raises:
        ConfigError: there is no such method or source.
    """
    usual = _train(study.run).rationales
    return _named(find_arm(name, usual), usual)


def _named(arm: Arm, usual: str) -> str:
    return arm.method.name if arm.source in (None, usual) else arm.method.name + JOIN + str(arm.source)


def matters_lambda(arm: Arm, config: RunConfig) -> bool:
    """Whether the weight of the rationale's loss changes anything: only where rationales are written."""
    if arm.source in (None, "none"):
        return False
    writes = arm.method.form == "rationale-input" and config.train.test_rationales == "student"
    return arm.method.form == "both" or writes


def matters_teacher(arm: Arm, config: RunConfig) -> bool:
    """Whether the arm learns anything of the teacher's."""
    theirs = arm.method.labels_from(config.train.labels) != "gold"
    return theirs or arm.source not in (None, "none", "human")


def teacher_name(config: RunConfig) -> str:
    """The teachers of a run, by their models."""
    return " + ".join(str(teacher.model or teacher.backend) for teacher in config.asked)


@dataclass(frozen=True)
class _Point:
    """One combination of a grid's lists; None leaves what `run` says."""

    task: str | None
    student: StudentConfig | None
    seed: int
    fraction: float | None
    teacher: TeacherConfig | None
    labels: str | None
    rationales: RationaleSource | None
    lambda_: float | str | None
    method: str


def _points(grid: GridConfig) -> Iterator[_Point]:
    axes = (
        grid.tasks or (None,),
        grid.students or (None,),
        grid.seeds,
        sorted(grid.fractions) or (None,),
        grid.teachers or (None,),
        grid.labels or (None,),
        grid.rationales or (None,),
        grid.lambdas or (None,),
        grid.methods,
    )
    return itertools.starmap(_Point, itertools.product(*axes))


@dataclass(frozen=True)
class _Maker:
    """Makes trials of one study, and keeps what it has read of tasks, data and weights."""

    study: StudyConfig
    known: dict[str, Any] = field(default_factory=dict)

    def trial(self, grid: GridConfig, point: _Point) -> Trial:
        values = _laid(self.study.run, grid, point)
        usual = self._once("train", lambda: _train(self.study.run)).rationales
        arm = find_arm(point.method, point.rationales or _train(values).rationales)
        arm = Arm(_named(arm, usual), arm.method, arm.source)
        values |= {"methods": [arm.name], "seed": point.seed, "out": self.study.out}
        self._make_canonical(values, grid, arm)
        config = check(RunConfig, values, "run")
        task = self._once(f"task {config.task}", lambda: load_task(config.task))
        key = self._key(config, arm, task)
        axes = _axes(config, arm, task)
        folder = f"{_slug(self._title(config, arm, axes))[:_LONGEST]}-{key[:8]}"
        out = str(Path(self.study.out) / TRIALS / folder)
        return Trial(folder, key, arm.name, config.model_copy(update={"out": out}), axes)

    def _make_canonical(self, values: dict[str, Any], grid: GridConfig, arm: Arm) -> None:
        """Set what cannot matter to the arm as `run` has it, so that no experiment is done twice."""
        run, config = self.study.run, check(RunConfig, values, "run")
        # The source of the rationales stands in the arm's name.
        restore(values, run, "train.rationales")
        if arm.method.labels is not None:
            restore(values, run, "train.labels")
        if not matters_lambda(arm, config):
            restore(values, run, "train.lambda", "train.alpha")
        if not matters_teacher(arm, config) and (grid.teachers or "teacher" in run or "teachers" in run):
            restore(values, run, "teacher", "teachers")
            if not {"teacher", "teachers"} & run.keys():
                # Not the first of the list: another order of it is no other experiment.
                values["teacher"] = min((_plain(one) for one in grid.teachers), key=json.dumps)

    def _key(self, config: RunConfig, arm: Arm, task: Task) -> str:
        data = config.data.model_copy(update={"fraction": None, "fraction_seed": None})
        place = f"{config.task} {data.model_dump_json()}"
        sources = {"data": self._once(place, lambda: digest_examples(stream_examples(task, data)))}
        for number, teacher in enumerate(config.asked):
            given = f"{place} {teacher.model_dump_json()}"
            found = self._once(given, lambda t=teacher: completion_digests(task, data, t))
            sources |= {f"{name} of teacher {number}": value for name, value in found.items()}
        model = config.student.model
        sources |= self._once(
            f"weights {model}", lambda: weights.digests(model, "student.model") or {"model": model}
        )
        identity = {k: v for k, v in config.identity().items() if not _PATHS.match(k)}
        task_file = task.spec.model_dump_json()
        named = f"{arm.method.name}{JOIN}{arm.source}"
        return digest(
            json.dumps(identity, sort_keys=True), task_file, named, json.dumps(sources, sort_keys=True)
        )

    def _title(self, config: RunConfig, arm: Arm, axes: Mapping[str, Any]) -> str:
        """Name of the folder: task, arm, what differs from the study's `run`, fraction, seed."""
        run, parts = self.study.run, [axes["task"], arm.name]
        train = self._once("train", lambda: _train(run))
        if "student" not in run or config.student != check(StudentConfig, run["student"], "run.student"):
            parts.append(_student_name(config.student))
        if config.train.rationale_weight != train.rationale_weight:
            parts.append(f"lambda{config.train.rationale_weight}")
        if not {"teacher", "teachers"} & run.keys() and axes["teacher"]:
            parts.append(axes["teacher"])
        if config.train.labels != train.labels:
            parts.append(config.train.labels)
        return "-".join([*parts, f"{100 * axes['fraction']:g}pct", f"s{config.seed}"])

    def _once(self, what: str, find: Any) -> Any:
        if what not in self.known:
            self.known[what] = find()
        return self.known[what]


def _laid(run: Mapping[str, Any], grid: GridConfig, point: _Point) -> dict[str, Any]:
    """The values of `run` with the grid's `set` and then the point laid over them."""
    values = deepcopy(dict(run))
    for key, value in grid.set.items():
        if key.split(".")[0] in ("methods", "seed", "out"):
            raise ConfigError(f"grid.set.{key}: a study sets it; give methods and seeds in the grid")
        put(values, key, deepcopy(value))
    if point.task is not None:
        values["task"] = point.task
    if point.student is not None:
        values["student"] = _plain(point.student)
    if point.teacher is not None:
        values.pop("teachers", None)
        values["teacher"] = _plain(point.teacher)
    if point.lambda_ is not None:
        restore(values, {}, "train.alpha")
        put(values, "train.lambda", point.lambda_)
    if point.labels is not None:
        put(values, "train.labels", point.labels)
    if point.fraction is not None:
        whole = point.fraction == 1
        put(values, "data.fraction", None if whole else point.fraction)
        if whole or get(values, "data.fraction_seed") is None:
            put(values, "data.fraction_seed", None if whole else point.seed)
    return values


def _axes(config: RunConfig, arm: Arm, task: Task) -> dict[str, Any]:
    return {
        "task": task.spec.name,
        "arm": arm.name,
        "rationales": arm.source,
        "labels": arm.method.labels_from(config.train.labels),
        "lambda": config.train.rationale_weight if matters_lambda(arm, config) else None,
        "teacher": teacher_name(config) if matters_teacher(arm, config) else None,
        "student": _student_name(config.student),
        "fraction": config.data.fraction or 1.0,
        "seed": config.seed,
    }


def _told_apart(found: Sequence[Trial]) -> list[Trial]:
    """The trials; teachers and students of one task that differ in more than their names say, so named."""
    axes = [dict(trial.axes) for trial in found]
    for part in ("teacher", "student"):
        asked = [place for place, one in enumerate(axes) if one[part] is not None]
        facts = [
            {k: v for k, v in found[place].config.identity().items() if re.match(rf"{part}s?\.", k)}
            for place in asked
        ]
        names = told_apart([f"{axes[place]['task']}\n{axes[place][part]}" for place in asked], facts)
        for place, name in zip(asked, names, strict=True):
            axes[place][part] = name.partition("\n")[2]
    return [replace(trial, axes=one) for trial, one in zip(found, axes, strict=True)]


def _student_name(student: StudentConfig) -> str:
    """A student for people: the end of its path, or the sizes of one from scratch."""
    if student.model == SCRATCH:
        sizes = student.scratch
        return f"scratch-{sizes.d_model}x{sizes.layers}"
    name = student.model.rstrip("/").rsplit("/", 1)[-1].removesuffix(".gguf")
    return f"{name}-lora{student.lora.rank}" if student.lora else name


def _train(run: Mapping[str, Any]) -> TrainConfig:
    return check(TrainConfig, run.get("train") or {}, "run.train")


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._]+", "-", text).strip("-.") or "trial"


def _plain(model: Model) -> dict[str, Any]:
    return model.model_dump(mode="json", by_alias=True)
