"""What is said of a run's predictions beside their accuracy: the `evaluate` section of a run file."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from stepdistill.config.strict import Model


class EvaluateConfig(Model):
    """How finished predictions are looked at; no training and no label depends on it.

    `explain`: of how many test examples, the first ones, a student's rationale is written. `slices`: columns
    of the data by whose values accuracy is shown apart. `probabilities`: whether a student's confidence in
    each label of a closed set is measured.
    """

    explain: int = Field(50, ge=0)
    slices: tuple[str, ...] = Field((), strict=False)
    probabilities: bool = True

    @model_validator(mode="after")
    def _slices_once(self) -> Self:
        twice = sorted({name for name in self.slices if self.slices.count(name) > 1})
        if twice:
            raise ValueError(f"slices: {', '.join(twice)} stands there twice; name each column once")
        return self
