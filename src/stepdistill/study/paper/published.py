"""What the paper and independent reruns report, as values."""

from __future__ import annotations

from functools import cache
from importlib import resources
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from stepdistill.config.strict import Model, check, read_yaml

FILE = "published.yaml"


class Scores(Model):
    """Accuracies of one source, in percent: method to task to value.

    `teacher` is whose rationales and labels were learned; `runs` is of how many runs a value is the mean.
    """

    source: str
    names: tuple[str, ...] = Field(strict=False)
    student: str | None = None
    teacher: str
    labels: str | None = None
    runs: int = Field(ge=1)
    judged: bool = True
    why: str = ""
    accuracy: dict[str, dict[str, float]]

    @model_validator(mode="after")
    def _says_why(self) -> Self:
        if self.judged == bool(self.why):
            raise ValueError("`why` belongs to what is not judged, and only to it")
        return self


class Shares(Model):
    """With which share of the data `method` passed `against` on all of it, by task."""

    source: str
    names: tuple[str, ...] = Field(strict=False)
    student: str
    labels: str
    method: str
    against: str
    share: dict[str, float]


class Published(Model):
    """The whole file; `tests` and `trains` have the number of test and training examples by task."""

    tests: dict[str, int]
    trains: dict[str, int]
    scores: tuple[Scores, ...] = Field(strict=False)
    shares: tuple[Shares, ...] = Field(strict=False)


@cache
def published() -> Published:
    """The shipped numbers."""
    path = Path(str(resources.files("stepdistill.study.paper") / FILE))
    return check(Published, read_yaml(path), str(path))
