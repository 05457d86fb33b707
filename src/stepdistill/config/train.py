"""How a student is trained: the `train` section of a run file, and the recipes it can begin with."""

from __future__ import annotations

import math
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from stepdistill.config.strict import Model
from stepdistill.errors import brief

Tracker = Literal["tensorboard", "wandb", "mlflow", "trackio"]
RationaleSource = Literal["teacher", "human", "shuffled", "filler", "none"]
LabelSource = Literal["gold", "teacher", "gold-else-teacher"]

RECIPES: dict[str, dict[str, Any]] = {
    # Section 4 and appendix A.1 of the paper; the inputs' length is that of the authors' code.
    "paper": {
        "batch_size": 64,
        "steps": 10_000,
        "learning_rate": 5e-5,
        "max_input_tokens": 1024,
        "evaluate_every": 250,
    },
}
"""Settings under a name; what stands in the file beside `recipe` goes before them."""


class TrainConfig(Model):
    """How the student is trained; the same for every method."""

    recipe: Literal["paper"] | None = None
    epochs: int = Field(3, ge=1)
    steps: int | None = Field(None, ge=1)
    batch_size: int = Field(16, ge=1)
    micro_batch_size: int | None = Field(None, ge=1)
    learning_rate: float | None = Field(None, gt=0)
    warmup_steps: int = Field(0, ge=0)
    lambda_: float | Literal["auto"] = Field(1.0, alias="lambda")
    alpha: float | None = Field(None, gt=0, le=1)
    loss_mean: Literal["tokens", "examples"] = "tokens"
    labels: LabelSource = "gold"
    rationales: RationaleSource = "teacher"
    rationale_share: float = Field(1.0, gt=0, le=1)
    rationales_per_example: int = Field(1, ge=1)
    test_rationales: Literal["teacher", "student"] = "teacher"
    weights: Literal["equal", "votes"] = "equal"
    prefix: Literal["encoder", "decoder"] = "encoder"
    too_long: Literal["error", "drop"] = "error"
    max_input_tokens: int = Field(1024, ge=8)
    max_target_tokens: int = Field(256, ge=2)
    group_by_length: bool = True
    patience: int = Field(3, ge=1)
    evaluate_every: int | None = Field(None, ge=1)
    save_every: int | None = Field(None, ge=1)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    gradient_checkpointing: bool = False
    threads: int | None = Field(None, ge=1)
    workers: int = Field(0, ge=0, le=64)
    report_to: tuple[Tracker, ...] = Field((), strict=False)

    @model_validator(mode="before")
    @classmethod
    def _begin_with_recipe(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        # For what recipes set, a null is no wish against them. An unknown name falls through to the field's
        # own complaint.
        left = {key for recipe in RECIPES.values() for key in recipe if values.get(key) is None}
        given = {key: value for key, value in values.items() if key not in left}
        return {**RECIPES.get(str(values.get("recipe")), {}), **given}

    @field_validator("lambda_", mode="before")
    @classmethod
    def _a_weight(cls, value: Any) -> Any:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if value == "auto" or (number and 0 <= value < math.inf):
            return value
        raise ValueError(f"{brief(value)} is neither a number of 0 or more nor `auto`")

    @model_validator(mode="after")
    def _one_weight(self) -> Self:
        if self.alpha is not None and self.lambda_ != 1.0:
            raise ValueError("give either lambda or alpha, not both (lambda = (1 - alpha) / alpha)")
        size = self.micro_batch_size or self.batch_size
        if self.batch_size % size:
            raise ValueError(f"batch_size {self.batch_size} is not a multiple of {size}")
        return self

    @property
    def rationale_weight(self) -> float | Literal["auto"]:
        """The lambda of Eq. 3; alpha * L_label + (1 - alpha) * L_rationale is converted to it."""
        return self.lambda_ if self.alpha is None else (1 - self.alpha) / self.alpha
