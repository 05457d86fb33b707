"""The arithmetic of a proof: how often two students agree, how right each is, how fast."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stepdistill.deploy.export.contest import BATCH, Clock
from stepdistill.deploy.export.job import LEAST
from stepdistill.errors import DataError, StudentError
from stepdistill.evaluate.scorecards import score
from stepdistill.evaluate.statistics import wilson
from stepdistill.records import Example, Prediction
from stepdistill.task.answers import AnswerKind

BOUND = 0.99
"""The least agreement of an export."""
BOUND_OF_EIGHT_BITS = 0.98
_EIGHT_BITS = ("int8", "q8_0")
FINER = {"int8": "bfloat16", "bfloat16": "float32", "q8_0": "f16", "f16": "f32"}
"""What to take where a precision loses too much."""


class UnprovenError(StudentError):
    """An export does not answer as the trained student does, or nobody can tell."""


@dataclass(frozen=True)
class Agreement:
    """How often two students give the same answer: `same` of `n`, with Wilson's 95 % interval."""

    same: int
    n: int

    @property
    def share(self) -> float:
        """Of all."""
        return self.same / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """Of the share."""
        return wilson(self.same, self.n)


def bound(precision: str) -> float:
    """The least agreement that an export in this precision must have."""
    return BOUND_OF_EIGHT_BITS if precision in _EIGHT_BITS else BOUND


def agreement(kind: AnswerKind, first: Sequence[Prediction], second: Sequence[Prediction]) -> Agreement:
    """Of two students on the same examples; where neither's answer can be read, the words must be the same.

    Raises:
        DataError: there is no example.
    """
    if not first:
        raise DataError("no example to prove an export on; give the task training or validation examples")
    same = sum(_alike(kind, a, b) for a, b in zip(first, second, strict=True))
    return Agreement(same, len(first))


def shortfall(found: Agreement, precision: str) -> str:
    """What a proof lacks, in words; nothing where it holds."""
    if found.n < LEAST:
        return f"{found.n} examples are no proof, {LEAST} are needed"
    least = bound(precision)
    # By whole numbers: 198 of 200 are 99 %, whatever floats make of it.
    if found.same < math.ceil(least * found.n - 1e-9):
        low, high = found.interval
        return (
            f"it agrees with the trained checkpoint on {found.same} of {found.n} examples "
            f"({100 * found.share:.2f} %, 95 %: {100 * low:.1f} to {100 * high:.1f}), and "
            f"{100 * least:g} % are needed"
        )
    return ""


def refuse(lacks: str, what: str, precision: str) -> None:
    """Fail an export for what its proof lacks.

    Raises:
        UnprovenError: always.
    """
    finer = f"choose --precision {FINER[precision]}, or " if precision in FINER else ""
    raise UnprovenError(f"{what}: not exported: {lacks}; {finer}give --accept to have it all the same")


def accuracy(
    kind: AnswerKind, examples: Sequence[Example], answers: Sequence[Prediction]
) -> dict[str, float | None]:
    """Share of right answers, with Wilson's 95 % interval; None where no example has a gold label."""
    if all(example.label is None for example in examples):
        return {"accuracy": None, "low": None, "high": None}
    card = score(kind, examples, answers)
    return {"accuracy": card.value, "low": card.low, "high": card.high}


def speed(clock: Clock) -> dict[str, Any]:
    """Latency of single requests in milliseconds, and examples a second in batches; None: not measured."""
    singles, batches = clock.singles, clock.batches
    milliseconds = {f"p{at}": _percentile(singles, at / 100) for at in (50, 95)}
    return {
        "latency_ms": {**milliseconds, "n": len(singles)},
        "examples_per_second": BATCH * len(batches) / math.fsum(batches) if batches else None,
        "batch": BATCH,
    }


def _percentile(seconds: Sequence[float], share: float) -> float | None:
    """The least value that so many do not exceed, in milliseconds."""
    ranked = sorted(seconds)
    return 1000 * ranked[max(0, math.ceil(share * len(ranked)) - 1)] if ranked else None


def _alike(kind: AnswerKind, first: Prediction, second: Prediction) -> bool:
    if first.label is None or second.label is None:
        return first.label is second.label and first.text == second.text
    return kind.same(first.label, second.label)
