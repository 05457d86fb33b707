"""The nouns that cross a stage boundary, as frozen values with no behaviour of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

TaskName = Literal["label", "rationale"]
"""The two things a student learns at once: `[label] x -> y` and `[rationale] x -> r` (paper, 3.2)."""


class Watcher(Protocol):
    """Told of progress; `done == total` ends the count. `note` is shown beside it."""

    def __call__(self, what: str, done: int, total: int, note: str = "", /) -> None:
        """Take notice."""
        ...


def unwatched(what: str, done: int, total: int, note: str = "", /) -> None:
    """Take no notice of progress; the default `Watcher`."""


@dataclass(frozen=True, slots=True)
class Example:
    """One input text x; `label` is the gold y, None where nobody labelled it.

    `rationale` is what a person wrote as reasons, where the data set has such a column.
    """

    id: str
    text: str
    label: str | None = None
    options: tuple[str, ...] = ()
    rationale: str | None = None


@dataclass(frozen=True, slots=True)
class Demonstration:
    """The paper's prompt triplet (x^p, r^p, y^p) (section 3.1)."""

    text: str
    rationale: str
    label: str
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Completion:
    """The teacher's words for one example, verbatim; they are paid for and never edited.

    `finish` is "stop", "length" (cut by the token limit), "content_filter" or None where nobody said.
    `cost` is in billionths of a US dollar.
    """

    example_id: str
    text: str
    model: str
    draw: int = 0
    finish: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cost: int | None = None


@dataclass(frozen=True, slots=True)
class Annotation:
    """A completion read as rationale r and label y-hat; `rule` says how the label was read.

    `rationale` is empty where the teacher gave a label and no reasons. Of several draws, `confidence`
    is the share of votes for the label, and `more` are the further rationales that are kept.
    """

    example_id: str
    rationale: str
    label: str
    rule: str
    confidence: float = 1.0
    more: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Unparsed:
    """A completion in which no label could be read, and why; counted, kept, never trained on."""

    example_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Target:
    """One training pair: `source` text (without the task's marker) to `target` text.

    `weight` is what it counts in the loss of its task, beside the others.
    """

    example_id: str
    source: str
    target: str
    task: TaskName
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Prediction:
    """Raw output text and the label read from it; `label` is None where none could be read.

    `probabilities` has the student's own of each label of a closed set, in the order of the task file; None
    where they were not measured.
    """

    example_id: str
    text: str
    label: str | None
    reason: str | None = None
    rationale: str | None = None
    probabilities: tuple[float, ...] | None = None


class Predictor(Protocol):
    """What teacher, baselines and students have in common, so that one code measures them all."""

    def predict(self, examples: Sequence[Example]) -> list[Prediction]:
        """Answer every example, in order."""
        ...


@dataclass(frozen=True, slots=True)
class Scorecard:
    """A metric over n examples with its 95 % interval and every single outcome.

    `outcomes` has one character an example, in the order of the split: `1` right, `0` wrong,
    `-` unread (which counts as wrong).
    """

    metric: str
    value: float
    low: float
    high: float
    n: int
    unread: int
    outcomes: str


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One line of `results.jsonl`: what was measured, and all that determines it.

    Seconds and memory stand in `timings.json` beside it, so that the same configuration, data and
    seed give the same file, byte for byte, interrupted or not. `reopened` says how often test had been read
    for this arm and configuration before.
    """

    name: str
    task: str
    labels: str
    student: str | None
    parameters: int | None
    n_train: int | None
    n_left_out: int | None
    validation: float | None
    scorecard: Scorecard
    loss: str | None
    precision: str | None
    seed: int
    config: str
    data: str
    annotations: str
    versions: dict[str, Any]
    rationales: str | None = None
    n_rationales: int | None = None
    n_unlabelled_left_out: int | None = None
    reopened: int = 0
