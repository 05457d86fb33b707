"""A task file: what is asked, in what form it is answered, and where the data lie."""

from __future__ import annotations

import string
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from stepdistill.config import Model
from stepdistill.task.answers import KINDS, RULES, AnswerKind
from stepdistill.task.reading import normal

Split = Literal["train", "validation", "test"]


class AnswerSpec(Model):
    """How the answer is read and compared."""

    kind: Literal["label", "choice", "number", "equation", "text"]
    column: str | None = None
    rationale: str | None = None
    marker: str = Field("So the answer is", min_length=1)
    labels: tuple[str, ...] = Field((), strict=False)
    codes: dict[str, str] = {}
    options: str | None = None
    tolerance: float = Field(1e-6, ge=0, lt=1)
    read: str | None = None

    @field_validator("codes", mode="before")
    @classmethod
    def _codes_as_text(cls, value: Any) -> Any:
        # YAML reads 0: as an integer and the data may have 0 or "0"; both mean the same label.
        return {str(k): v for k, v in value.items()} if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _fits_kind(self) -> Self:
        if not self.marker.strip():
            raise ValueError("`marker` is only white space; name the words before the answer")
        if self.kind == "label" and len(set(self.labels)) < 2:
            raise ValueError("answer kind 'label' needs at least two different `labels`")
        forms = [normal(label) for label in self.labels]
        if "" in forms or len(set(forms)) < len(forms):
            raise ValueError(
                "`labels` must differ in more than case, punctuation and spaces; write them as words "
                "and give the data's own values as `codes`"
            )
        if self.kind == "choice" and not self.options:
            raise ValueError("answer kind 'choice' needs `options`, the column with the options")
        if self.read is not None and self.read not in RULES.get(self.kind, ()):
            rules = ", ".join(RULES.get(self.kind, ())) or "none"
            raise ValueError(f"`read: {self.read}` is not a rule of '{self.kind}'; rules: {rules}")
        wrong = sorted(set(self.codes.values()) - set(self.labels))
        if wrong:
            raise ValueError(f"codes name labels that are not in `labels`: {', '.join(wrong)}")
        return self

    def make(self) -> AnswerKind:
        """The answer kind that this section describes."""
        return KINDS[self.kind](self)


class ValidationSpec(Model):
    """A seeded share of another split that is kept for choosing the checkpoint."""

    from_: Split = Field("train", alias="from")
    n: int = Field(ge=1)
    seed: int = 0


class HubSpec(Model):
    """The same data as a Hugging Face data set, whose columns may have other names."""

    id: str
    config: str | None = None
    revision: str | None = None
    splits: dict[Split, str]
    input: str | None = None
    column: str | None = None
    rationale: str | None = None
    options: str | None = None


class GeneratorSpec(Model):
    """Data made by a seeded generator of the package (a simulation)."""

    name: Literal["claims"]
    seed: int = 0
    sizes: dict[Split, int]


class DataSpec(Model):
    """Where the data of a task lie."""

    files: dict[Split, str] = {}
    completions: dict[Split, str] = {}
    validation: ValidationSpec | None = None
    hub: HubSpec | None = None
    generator: GeneratorSpec | None = None

    @model_validator(mode="after")
    def _somewhere(self) -> Self:
        if not (self.files or self.hub or self.generator):
            raise ValueError("data needs `files` or `hub`")
        return self


class DemonstrationSpec(Model):
    """One prompt triplet: a row with the columns of the template, its rationale and label."""

    row: dict[str, Any]
    rationale: str = Field(min_length=1)
    label: str

    @field_validator("label", mode="before")
    @classmethod
    def _label_as_text(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int | float) else value


class TaskSpec(Model):
    """A whole task file."""

    name: str = Field(min_length=1)
    instruction: str = Field(min_length=1)
    input: str = Field(min_length=1)
    id: str | None = None
    answer: AnswerSpec
    data: DataSpec
    demonstrations: tuple[DemonstrationSpec, ...] = Field((), strict=False)

    @field_validator("input")
    @classmethod
    def _plain_fields(cls, value: str) -> str:
        template_fields(value)
        return value


def template_fields(template: str) -> list[str]:
    """Column names in a template; `{{` and `}}` stand for the braces themselves.

    Raises:
        ValueError: anything but plain `{column}` fields (attributes, indices and conversions would
            let a template reach into Python objects).

    >>> template_fields("Q: {question} {{sic}}")
    ['question']
    """
    names = []
    for _, name, form, conversion in string.Formatter().parse(template):
        if name is None:
            continue
        if form or conversion or not name or name.isdecimal() or any(mark in name for mark in ".[]!:"):
            field = name + (f"!{conversion}" if conversion else "") + (f":{form}" if form else "")
            raise ValueError(f"template field '{{{field}}}': only plain {{column}} fields are allowed")
        names.append(name)
    return names
