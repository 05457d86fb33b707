"""What a deployed student gives back for one text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one input text.

    `label` is None where nothing could be read of the words, or where the student abstained; `reason` says
    which. `guess` is the student's label in either case, also where it was not sure enough to say it.
    `text` has the raw words where some were written, else the guess. `probabilities` are those of every
    label of a closed set, calibrated, summing to 1, and `confidence` is the largest of them; both are None
    for open answers. `by` says who gave the label.
    """

    example_id: str
    text: str
    label: str | None
    guess: str | None = None
    reason: str | None = None
    rationale: str | None = None
    probabilities: Mapping[str, float] | None = None
    confidence: float | None = None
    abstained: bool = False
    by: Literal["student", "teacher"] = "student"
