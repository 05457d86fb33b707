"""How sure a student says it is, set right on validation: temperature scaling (Guo et al. 2017)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stepdistill.deploy.bundle import Readout
from stepdistill.errors import DataError, StudentError
from stepdistill.evaluate.calibration import ece, reliability
from stepdistill.evaluate.statistics import holm, mcnemar

COLDEST, HOTTEST = 0.05, 20.0
"""Temperatures beyond these say that the scores mean nothing, or that there are too few examples."""
FOLDS = 5
LEVEL = 0.05
"""Of the test by which another readout takes the place of the first."""
READOUTS: tuple[Readout, ...] = ("first", "sum", "mean")
"""In the order of their price."""
_DRAWS = 100
_HALVINGS = 48

Array = np.ndarray[Any, np.dtype[np.float64]]
Scores = Sequence[Sequence[float]]
"""Log scores before any temperature, (examples, labels); where options differ, rows may differ in length."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """A temperature, and what it does to the student's confidence; NLL in nats for an example.

    The temperature is fitted on all `n` examples. `ece_after` and `nll_after` are of temperatures fitted on
    the other folds (`folds` in all; 1: on the same examples, which flatters). `ece_perfect` is what a student
    without any error of calibration would show on so few examples: ECE is never 0 and falls with `n`, so only
    what is above this is an error. `notes` has what a reader must know, in sentences.
    """

    temperature: float
    ece_before: float
    ece_after: float
    ece_perfect: float
    nll_before: float
    nll_after: float
    n: int
    folds: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Choice:
    """One readout's accuracy on validation, and McNemar's p against the first (Holm's, where several)."""

    readout: Readout
    accuracy: float
    p: float | None


@dataclass(frozen=True)
class _Validation:
    """Scores shifted so that the best of a row is 0, short rows filled with -inf; and the gold columns."""

    scores: Array
    gold: np.ndarray[Any, np.dtype[np.intp]]

    def part(self, chosen: np.ndarray[Any, np.dtype[np.bool_]]) -> _Validation:
        return _Validation(self.scores[chosen], self.gold[chosen])

    def of_gold(self, values: Array) -> Array:
        found: Array = values[np.arange(len(self.gold)), self.gold]
        return found

    def probabilities(self, temperatures: Array) -> Array:
        """(examples, labels), each example at its own temperature."""
        shares = np.exp(self.scores / temperatures[:, None])
        found: Array = shares / shares.sum(axis=1, keepdims=True)
        return found

    def nll(self, temperatures: Array) -> float:
        """In logarithms throughout, where a share would be rounded to 0."""
        rest = np.log(np.exp(self.scores / temperatures[:, None]).sum(axis=1))
        return float((rest - self.of_gold(self.scores) / temperatures).mean())

    def slope(self, temperature: float) -> float:
        """d(mean NLL) / d(1/T): the mean score under the probabilities less the gold label's."""
        shares = self.probabilities(np.full(len(self.gold), temperature))
        scores = np.where(np.isfinite(self.scores), self.scores, 0.0)
        return float(((shares * scores).sum(axis=1) - self.of_gold(self.scores)).mean())


def fit(scores: Scores, gold: Sequence[int]) -> Calibration:
    """The temperature T at which softmax(score / T) gives the gold labels the least mean NLL.

    NLL is convex in 1/T (Guo et al. 2017, section 4.2), so bisection of its slope over [0.05, 20] finds the
    only minimum. Where the student is right on every example NLL only falls as T nears 0: the data then says
    nothing of how sure is too sure, and T stays 1.

    Args:
        scores: of every label, for each validation example.
        gold: the gold label's place in each row.

    Raises:
        DataError: there is no example.
        StudentError: a score is not finite.
        ValueError: the numbers of rows differ, or a gold label is not in its row.
    """
    data = _checked(scores, gold)
    n, (temperature, note) = len(gold), _best(data)
    held_out, folds = np.full(n, temperature), _folds(n)
    for fold in np.unique(folds) if n > 1 else ():
        held_out[folds == fold] = _best(data.part(folds != fold))[0]
    before, after = np.ones(n), held_out
    nll_before, nll_after = data.nll(before), data.nll(after)
    notes = [note] if note else []
    if nll_after > nll_before:
        notes.append("on held-out folds the temperature does not help: little to mend, or too few examples")
    return Calibration(
        temperature=temperature,
        ece_before=_ece(data, before),
        ece_after=_ece(data, after),
        ece_perfect=_ece_perfect(data, after),
        nll_before=nll_before,
        nll_after=nll_after,
        n=n,
        folds=min(FOLDS, n),
        notes=tuple(notes),
    )


def compared(by_readout: Mapping[Readout, Scores], gold: Sequence[int]) -> list[Choice]:
    """Accuracy of each readout, the cheapest first, and McNemar's p of each further one against it.

    Raises:
        DataError, StudentError, ValueError: as `fit`.
    """
    names = [name for name in READOUTS if name in by_readout]
    right = [_right(_checked(by_readout[name], gold)) for name in names]
    raw = [mcnemar(int((right[0] & ~one).sum()), int((one & ~right[0]).sum())) for one in right[1:]]
    ps = [None, *holm(raw)]
    return [Choice(name, float(one.mean()), p) for name, one, p in zip(names, right, ps, strict=True)]


def choose(by_readout: Mapping[Readout, Scores], gold: Sequence[int]) -> Readout:
    """The readout to answer with: the cheapest, unless another is more accurate with p < 0.05.

    A readout that is a little better on a few hundred examples is so by chance as often as not, and the
    first costs one step however long the labels are.

    Raises:
        DataError, StudentError, ValueError: as `fit`.
    """
    return _winner(compared(by_readout, gold)).readout


def reason(choices: Sequence[Choice]) -> str:
    """Why `choose` chose so, in one sentence for the model card."""
    first, winner = choices[0], _winner(choices)
    said = ", ".join(f"{one.readout} {100 * one.accuracy:.1f} %" for one in choices)
    if winner is first:
        others = (
            "no other is better by McNemar's test at 0.05" if len(choices) > 1 else "nothing else was tried"
        )
        return f"'{first.readout}' is the cheapest readout, and {others} (validation: {said})"
    return (
        f"'{winner.readout}' is more accurate than '{first.readout}' by McNemar's test, "
        f"p = {winner.p:.2g} (validation: {said})"
    )


def _winner(choices: Sequence[Choice]) -> Choice:
    first = choices[0]
    better = [one for one in choices if one.p is not None and one.p < LEVEL and one.accuracy > first.accuracy]
    return max(better, key=lambda one: one.accuracy) if better else first


def _checked(scores: Scores, gold: Sequence[int]) -> _Validation:
    if not len(gold):
        raise DataError("no validation example: nothing to calibrate on; give the task a validation split")
    if len(scores) != len(gold):
        raise ValueError(f"{len(scores)} rows of scores and {len(gold)} gold labels")
    padded = np.full((len(gold), max(map(len, scores), default=0)), -np.inf)
    for i, (row, place) in enumerate(zip(scores, gold, strict=True)):
        if not 0 <= place < len(row):
            raise ValueError(f"row {i}: gold label {place} of {len(row)}")
        if not np.isfinite(row).all():
            raise StudentError(
                f"the scores of validation example {i} are not finite; train the student again"
            )
        padded[i, : len(row)] = row
    return _Validation(padded - padded.max(axis=1, keepdims=True), np.array(gold, dtype=np.intp))


def _right(data: _Validation) -> np.ndarray[Any, np.dtype[np.bool_]]:
    found: np.ndarray[Any, np.dtype[np.bool_]] = data.scores.argmax(axis=1) == data.gold
    return found


def _best(data: _Validation) -> tuple[float, str]:
    """The temperature of least NLL, and what is to be said of it."""
    if not data.of_gold(data.scores).any():
        return 1.0, "right on all of validation, which cannot show how sure is too sure: temperature stays 1"
    low, high = np.log(1 / HOTTEST), np.log(1 / COLDEST)
    if data.slope(HOTTEST) >= 0:
        return HOTTEST, f"temperature at its upper bound {HOTTEST:g}: the scores say next to nothing"
    if data.slope(COLDEST) <= 0:
        return COLDEST, f"temperature at its lower bound {COLDEST:g}: hardly an error, or very flat scores"
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if data.slope(float(np.exp(-middle))) < 0 else (low, middle)
    # Six digits: the last ones are other machines' rounding.
    return float(f"{np.exp(-(low + high) / 2):.6g}"), ""


def _folds(n: int) -> np.ndarray[Any, np.dtype[np.intp]]:
    """A fold for each example, of sizes that differ by 1 at most; by hash, for files are often sorted."""
    order = sorted(range(n), key=lambda i: hashlib.sha256(str(i).encode()).digest())
    folds = np.empty(n, dtype=np.intp)
    folds[order] = np.arange(n) % FOLDS
    return folds


def _ece(data: _Validation, temperatures: Array) -> float:
    return ece(reliability(_confidences(data, temperatures), _right(data).tolist()))


def _ece_perfect(data: _Validation, temperatures: Array) -> float:
    """Mean ECE where each answer is right with the probability that it claims (Bröcker & Smith 2007)."""
    confidences = _confidences(data, temperatures)
    chance = np.random.Generator(np.random.PCG64(0)).random((_DRAWS, len(confidences)))
    drawn = (chance < np.array(confidences)).tolist()
    return float(np.mean([ece(reliability(confidences, right)) for right in drawn]))


def _confidences(data: _Validation, temperatures: Array) -> list[float]:
    # A sum of shares is rounded: a confidence of 1 must not come out as a little more.
    found: list[float] = np.minimum(data.probabilities(temperatures).max(axis=1), 1.0).tolist()
    return found
