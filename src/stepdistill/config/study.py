"""The YAML file of a study: one run, and what is varied over it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from stepdistill.config.run import StudentConfig, override
from stepdistill.config.strict import Model, check, read_yaml
from stepdistill.config.teacher import TeacherConfig
from stepdistill.config.train import LabelSource, RationaleSource
from stepdistill.errors import ConfigError

Fraction = Annotated[float, Field(gt=0, le=1)]
Weight = Annotated[float, Field(ge=0)] | Literal["auto"]
Seed = Annotated[int, Field(ge=0, lt=2**31)]


class GridConfig(Model):
    """Every combination of its lists is a trial; an empty list leaves what `run` says.

    `set` lays further keys of a run file, dotted, over `run` for this grid alone.
    """

    methods: tuple[str, ...] = Field(("finetune", "step-by-step"), min_length=1, strict=False)
    tasks: tuple[str, ...] = Field((), strict=False)
    fractions: tuple[Fraction, ...] = Field((), strict=False)
    students: tuple[StudentConfig, ...] = Field((), strict=False)
    teachers: tuple[TeacherConfig, ...] = Field((), strict=False)
    lambdas: tuple[Weight, ...] = Field((), strict=False)
    labels: tuple[LabelSource, ...] = Field((), strict=False)
    rationales: tuple[RationaleSource, ...] = Field((), strict=False)
    seeds: tuple[Seed, ...] = Field((0,), min_length=1, strict=False)
    set: dict[str, Any] = {}


class MinimumConfig(Model):
    """What `study --minimum` looks for: the least with which `method` reaches `target`.

    `target` is "teacher", or a method, trained on all the data, by the grid's largest student. Reached
    means: with this confidence its accuracy is at most `margin` (a share, 0.01 is one point) below the
    target's. `on` validation chooses the recipe, and test is read once, for the chosen one; `on` test has
    every look at test, and the confidence is split over all of them.
    """

    method: str = "step-by-step"
    target: str = "teacher"
    confidence: float = Field(0.95, gt=0.5, lt=1)
    margin: float = Field(0.0, ge=0, lt=1)
    on: Literal["validation", "test"] = "validation"


class StudyConfig(Model):
    """One study: what its runs have in common, what is varied, and which comparison it is about.

    `run` has the keys of a run file but `methods`, `seed` and `out`. `against` is whom `method` is
    compared with. `keep_students` false deletes the weights of a trial's student when it is measured.
    """

    title: str = ""
    run: dict[str, Any]
    grid: GridConfig | None = None
    grids: tuple[GridConfig, ...] = Field((), strict=False)
    method: str = "step-by-step"
    against: str = "finetune"
    minimum: MinimumConfig = MinimumConfig()
    keep_students: bool = True
    jobs: int = Field(1, ge=1, le=1024)
    published: str | None = None
    out: str = Field(min_length=1)

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.grid is None) == (not self.grids):
            raise ValueError("give either `grid` or the list `grids`")
        taken = sorted({"methods", "seed", "out"} & self.run.keys())
        if taken:
            raise ValueError(f"run.{taken[0]}: a study sets it; give methods and seeds in the grid")
        return self

    @property
    def all_grids(self) -> tuple[GridConfig, ...]:
        """The grids, in order."""
        return self.grids or ((self.grid,) if self.grid else ())


def load_study(path: Path, overrides: Sequence[str] = ()) -> StudyConfig:
    """Read a study file and lay `a.b=value` overrides over it.

    Raises:
        ConfigError: malformed YAML, an unknown key, a wrong value, or a run file instead.
        DataError: there is no such file.
    """
    values = read_yaml(path)
    if "task" in values and "run" not in values:
        raise ConfigError(f"{path}: this is a run file; `stepdistill run {path}` runs it")
    for text in overrides:
        override(values, text)
    return check(StudyConfig, values, str(path))
