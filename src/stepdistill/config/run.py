"""The YAML file a user runs, as frozen values that are checked when they are made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import Field, model_validator

from stepdistill.config.evaluate import EvaluateConfig
from stepdistill.config.strict import Model, check, flatten, parse_yaml, read_yaml
from stepdistill.config.teacher import AnnotateConfig, TeacherConfig
from stepdistill.config.train import TrainConfig
from stepdistill.errors import ConfigError, brief
from stepdistill.files import digest

FREE = (
    "out",
    "data.root",
    "evaluate.explain",
    "evaluate.probabilities",
    "evaluate.slices",
    "train.gradient_checkpointing",
    "train.max_input_tokens",
    "train.max_target_tokens",
    "train.micro_batch_size",
    "train.report_to",
    "train.save_every",
    "train.workers",
)
"""Keys that can be changed in a run folder: where things lie, what is refused, how much fits in
memory, how finished predictions are looked at."""
FREE_OF_TEACHER = ("base_url", "key_variable", "key_header", "limits", "price", "batch_size")
"""Keys of a teacher that change no answer: the way to it, its pace and price."""
FREE_OF_ANNOTATE = ("annotate.ledger", "annotate.max_cost_usd")


class LimitConfig(Model):
    """How many examples of each split to use at most; the first ones, so that runs nest."""

    train: int | None = Field(None, ge=1)
    validation: int | None = Field(None, ge=1)
    test: int | None = Field(None, ge=1)


class DataConfig(Model):
    """Where the examples come from."""

    root: str | None = None
    source: Literal["auto", "files", "hub"] = "auto"
    limit: LimitConfig = LimitConfig()
    unlabelled: str | None = None
    fraction: float | None = Field(None, gt=0, le=1)
    fraction_seed: int | None = Field(None, ge=0, lt=2**31)


class ScratchConfig(Model):
    """Sizes of a T5 that starts from random weights, for `student.model: "scratch:"`."""

    d_model: int = Field(128, ge=8, le=4096)
    d_ff: int = Field(256, ge=8, le=16384)
    heads: int = Field(4, ge=1, le=128)
    layers: int = Field(2, ge=1, le=96)
    vocabulary: int = Field(4000, ge=16, le=100_000)
    dropout: float = Field(0.1, ge=0, lt=1)

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.d_model % self.heads:
            raise ValueError(f"d_model {self.d_model} is not a multiple of heads {self.heads}")
        return self


class LoraConfig(Model):
    """Sizes of the low-rank weights that are trained in place of the model's own (Hu et al. 2021)."""

    rank: int = Field(16, ge=1, le=1024)
    alpha: float = Field(32, gt=0)
    dropout: float = Field(0.05, ge=0, lt=1)


class StudentConfig(Model):
    """Which model is trained, whole or by LoRA."""

    model: str
    scratch: ScratchConfig = ScratchConfig()
    lora: LoraConfig | None = None
    trust_remote_code: bool = False


class RunConfig(Model):
    """One run: a task, a teacher, a student, the methods to compare."""

    task: str
    data: DataConfig = DataConfig()
    teacher: TeacherConfig = TeacherConfig()
    teachers: tuple[TeacherConfig, ...] = Field((), strict=False)
    annotate: AnnotateConfig = AnnotateConfig()
    student: StudentConfig
    methods: tuple[str, ...] = Field(("finetune", "distill", "step-by-step"), min_length=1, strict=False)
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    seed: int = Field(0, ge=0, lt=2**31)
    out: str = Field(min_length=1)

    @model_validator(mode="after")
    def _methods_once(self) -> Self:
        twice = sorted({name for name in self.methods if self.methods.count(name) > 1})
        if twice:
            raise ValueError(f"methods: {', '.join(twice)} stands there twice; name each once")
        return self

    @model_validator(mode="after")
    def _teachers_one_way(self) -> Self:
        if self.teachers and self.teacher != TeacherConfig():
            raise ValueError("give either `teacher` or the list `teachers`, not both")
        return self

    @property
    def asked(self) -> tuple[TeacherConfig, ...]:
        """The teachers, in order."""
        return self.teachers or (self.teacher,)

    def plain(self) -> dict[str, Any]:
        """The whole configuration, defaults included, as plain YAML values."""
        return self.model_dump(mode="json", by_alias=True)

    def identity(self) -> dict[str, Any]:
        """What the results depend on, flat: all but where files lie, money, pace, and which methods."""
        values = self.plain()
        del values["teacher"], values["teachers"]
        for number, teacher in enumerate(self.asked):
            name = "teacher" if not self.teachers else f"teachers.{number}"
            kept = teacher.model_dump(mode="json", by_alias=True, exclude=set(FREE_OF_TEACHER))
            values[name] = kept
        flat = flatten(values)
        left = {*FREE, *FREE_OF_ANNOTATE}
        if self.train.too_long == "drop":
            left -= {"train.max_input_tokens", "train.max_target_tokens"}  # they choose the examples then
        if self.train.lambda_ == "auto":
            left -= {"train.micro_batch_size"}  # by which the gradients are measured
        return {
            key: value for key, value in flat.items() if key not in left and not key.startswith("methods")
        }

    def digest(self) -> str:
        """Hash of `identity()`; runs with equal hash and data are the same experiment.

        Their figures are equal up to what the size of micro-batches does to dropout and rounding.
        """
        return digest(yaml.safe_dump(self.identity(), sort_keys=True))


def load_run(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a run file and lay `a.b=value` overrides over it.

    Raises:
        ConfigError: malformed YAML, an unknown key, a wrong value.
        DataError: there is no such file.
    """
    values = read_yaml(path)
    for text in overrides:
        override(values, text)
    return check(RunConfig, values, str(path))


def override(values: dict[str, Any], given: str) -> None:
    """Lay one `a.b=value` over plain values, in place.

    Raises:
        ConfigError: it is not of that form, or the value is not YAML.
    """
    key, equals, text = given.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {given}: write it as key.key=value, e.g. train.epochs=2")
    value = parse_yaml(text, f"--set {brief(given)}: the value is not YAML")
    *outer, last = key.strip().split(".")
    place: Any = values
    for part in outer:
        if not isinstance(place.get(part), dict):
            place[part] = {}
        place = place[part]
    place[last] = value
