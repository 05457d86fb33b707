"""The YAML file a user runs, as frozen values that are checked when they are made."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from stepdistill.errors import ConfigError, brief, unknown
from stepdistill.files import digest, read_text

FREE = ("out", "data.root", "train.max_input_tokens", "train.max_target_tokens", "train.micro_batch_size")
"""Keys that can be changed in a run folder: where things lie, what is refused, how much fits in memory."""


class Model(BaseModel):
    """A frozen value in which an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


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


class TeacherConfig(Model):
    """Who writes rationales and labels."""

    backend: Literal["recorded", "simulated"] = "recorded"
    completions: dict[Literal["train", "validation", "test"], str] | None = None
    error_rate: float = Field(0.25, ge=0, le=1)


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


class StudentConfig(Model):
    """Which model is trained."""

    model: str
    scratch: ScratchConfig = ScratchConfig()
    trust_remote_code: bool = False


class TrainConfig(Model):
    """How the student is trained; the same for every method."""

    epochs: int = Field(3, ge=1)
    batch_size: int = Field(16, ge=1)
    micro_batch_size: int | None = Field(None, ge=1)
    learning_rate: float = Field(2e-4, gt=0)
    warmup_steps: int = Field(0, ge=0)
    lambda_: float = Field(1.0, alias="lambda", ge=0)
    alpha: float | None = Field(None, gt=0, le=1)
    loss_mean: Literal["tokens", "examples"] = "tokens"
    labels: Literal["gold", "teacher"] = "gold"
    patience: int = Field(3, ge=1)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    threads: int | None = Field(None, ge=1)
    max_input_tokens: int = Field(1024, ge=8)
    max_target_tokens: int = Field(256, ge=2)

    @model_validator(mode="after")
    def _one_weight(self) -> Self:
        if self.alpha is not None and self.lambda_ != 1.0:
            raise ValueError("give either lambda or alpha, not both (lambda = (1 - alpha) / alpha)")
        size = self.micro_batch_size or self.batch_size
        if self.batch_size % size:
            raise ValueError(f"batch_size {self.batch_size} is not a multiple of {size}")
        return self

    @property
    def rationale_weight(self) -> float:
        """The lambda of Eq. 3; alpha * L_label + (1 - alpha) * L_rationale is converted to it."""
        return self.lambda_ if self.alpha is None else (1 - self.alpha) / self.alpha


class RunConfig(Model):
    """One run: a task, a teacher, a student, the methods to compare."""

    task: str
    data: DataConfig = DataConfig()
    teacher: TeacherConfig = TeacherConfig()
    student: StudentConfig
    methods: tuple[str, ...] = Field(("finetune", "distill", "step-by-step"), min_length=1, strict=False)
    train: TrainConfig = TrainConfig()
    seed: int = Field(0, ge=0, lt=2**31)
    out: str = Field(min_length=1)

    @model_validator(mode="after")
    def _methods_once(self) -> Self:
        twice = sorted({name for name in self.methods if self.methods.count(name) > 1})
        if twice:
            raise ValueError(f"methods: {', '.join(twice)} stands there twice; name each once")
        return self

    def plain(self) -> dict[str, Any]:
        """The whole configuration, defaults included, as plain YAML values."""
        return self.model_dump(mode="json", by_alias=True)

    def identity(self) -> dict[str, Any]:
        """What the results depend on, flat: all but where files lie and which methods are asked."""
        flat = flatten(self.plain())
        return {
            key: value for key, value in flat.items() if key not in FREE and not key.startswith("methods")
        }

    def digest(self) -> str:
        """Hash of `identity()`; runs with equal hash and equal data give equal results."""
        return digest(yaml.safe_dump(self.identity(), sort_keys=True))


def load_run(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a run file and lay `a.b=value` overrides over it.

    Raises:
        ConfigError: malformed YAML, an unknown key, a wrong value.
        DataError: there is no such file.
    """
    values = read_yaml(path)
    for override in overrides:
        _override(values, override)
    return check(RunConfig, values, str(path))


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping in which no key stands twice (PyYAML alone would keep the last, silently).

    Raises:
        ConfigError: malformed YAML, not a mapping, or a key given twice.
        DataError: there is no such file, or it is not UTF-8.
    """
    values = _load_yaml(read_text(path), str(path))
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: a mapping with keys is expected, not {brief(values)}")
    return values


T = TypeVar("T", bound=BaseModel)


def check(model: type[T], values: Mapping[str, Any], source: str) -> T:
    """Make a config value, or say in one line what is wrong where.

    Raises:
        ConfigError: an unknown key (with a suggestion), a missing key, a wrong value.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "file"
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise ConfigError(f"{source}: {_complaint(model, first, place)}{more}") from None


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Turn nested mappings into one with dotted keys.

    >>> flatten({"a": {"b": 1}, "c": 2})
    {'a.b': 1, 'c': 2}
    """
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _override(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {override}: write it as key.key=value, e.g. train.epochs=2")
    value = _load_yaml(text, f"--set {brief(override)}: the value is not YAML")
    *outer, last = key.strip().split(".")
    place: Any = values
    for part in outer:
        if not isinstance(place.get(part), dict):
            place[part] = {}
        place = place[part]
    place[last] = value


def _load_yaml(text: str, source: str) -> Any:
    try:
        return yaml.load(text, Loader=_StrictLoader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        raise ConfigError(f"{source}: {_one_line(error)}") from None
    except RecursionError:
        raise ConfigError(f"{source}: nested too deeply") from None
    except (ValueError, AttributeError) as error:
        # PyYAML's own, from text that looks like a date or a number and is none (2020-13-45, 0b_).
        raise ConfigError(f"{source}: a value is malformed ({error}); put it in quotes") from None


def _complaint(model: type[BaseModel], error: Any, place: str) -> str:
    kind, given = error["type"], error.get("input")
    if kind == "extra_forbidden":
        *outer, last = error["loc"]
        said = unknown("key", last, _keys(model, outer))
        return said.replace(brief(str(last)), f"'{place}'", 1)
    if kind == "missing":
        return f"the key '{place}' is missing; add it"
    if kind == "literal_error":
        allowed = error["ctx"]["expected"].replace("'", "").replace(" or ", ", ").split(", ")
        return f"{place}: " + unknown("value", given, allowed)
    message = error["msg"].removeprefix("Value error, ")
    if kind == "value_error":
        return message if place == "file" else f"{place}: {message}"
    hint = "; put it in quotes" if kind == "string_type" else ""
    return f"{place}: {message.replace('tuple', 'list')}, not {brief(given)}{hint}"


def _keys(model: type[BaseModel], path: Sequence[Any]) -> list[str]:
    """Names of the keys allowed at a place of the config tree."""
    here: Any = model
    for part in path:
        if isinstance(part, int):
            continue
        field = next((f for name, f in here.model_fields.items() if part in (name, f.alias)), None)
        found = _inner_model(field.annotation) if field else None
        if found is None:
            return []
        here = found
    return [field.alias or name for name, field in here.model_fields.items()]


def _inner_model(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return annotation if issubclass(annotation, BaseModel) else None
    return next(filter(None, map(_inner_model, typing.get_args(annotation))), None)


def _one_line(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error)
    return f"line {mark.line + 1}: {problem}" if mark else " ".join(str(problem).split())


class _StrictLoader(yaml.SafeLoader):
    """PyYAML's safe loader, refusing a key that stands twice in one mapping."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, typing.Hashable) and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key '{key}' stands twice", key_node.start_mark
                )
            seen.add(key if isinstance(key, typing.Hashable) else None)
        return super().construct_mapping(node, deep)


# PyYAML knows YAML 1.1 only, in which `1e-3` without a dot is a text; everybody means the number.
_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+\Z"), list("-+0123456789")
)
