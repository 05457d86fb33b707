"""How probable each answer of a closed set is: read off the model's numbers, never out of its words."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import get_args

from stepdistill.deploy.bundle import Readout, Settings
from stepdistill.deploy.engines import Engine, Question
from stepdistill.errors import StudentError

READOUTS: tuple[Readout, ...] = get_args(Readout)
"""From the cheapest on."""
DEFAULT: Readout = "sum"
"""Of a student that nobody has calibrated: the likelihood of the whole answer, as in its evaluation."""

Scores = tuple[float, ...]
"""One for each target of a question, in nats: their softmax gives the probabilities."""


def probabilities(engine: Engine, questions: Sequence[Question], settings: Settings) -> list[Scores]:
    """Of every target of every question: softmax(score / temperature), summing to 1.

    Raises:
        StudentError: the model's numbers are not finite.
    """
    found = scores(engine, questions, settings.readout or DEFAULT)
    return [softmax(row, settings.temperature) for row in found]


def scores(engine: Engine, questions: Sequence[Question], readout: Readout) -> list[Scores]:
    """The score of every target of every question, before any temperature.

    `first` takes one step of the decoder; only questions of which two targets begin with the same token
    are spelled out.
    """
    if readout != "first":
        return [_spelled(q, tokens, readout) for q, tokens in _spell(engine, questions)]
    apart = [question for question in questions if not _shares(question)]
    alike = [question for question in questions if _shares(question)]
    quick = iter(engine.first(apart) if apart else [])
    whole = iter([_spelled(q, tokens, readout) for q, tokens in _spell(engine, alike)])
    return [next(whole) if _shares(question) else tuple(next(quick)) for question in questions]


def all_scores(engine: Engine, questions: Sequence[Question]) -> list[dict[Readout, Scores]]:
    """The scores of every readout, out of one reading of the questions: what calibration chooses from."""
    spelled = _spell(engine, questions)
    return [{readout: _spelled(q, tokens, readout) for readout in READOUTS} for q, tokens in spelled]


def softmax(row: Scores, temperature: float = 1.0) -> Scores:
    """Shares that sum to 1, of scores in nats; a temperature above 1 levels them.

    Raises:
        StudentError: a score is no number, or none is finite.

    >>> softmax((0.0, math.log(3.0)))
    (0.25, 0.75)
    """
    peak = max(row)
    if any(map(math.isnan, row)) or math.isinf(peak):
        raise StudentError(
            "the student's numbers are not finite, so it cannot answer; its weights are damaged, or the "
            "precision of the export is too low: export again, as float32"
        )
    shares = [math.exp((score - peak) / temperature) for score in row]
    total = math.fsum(shares)
    return tuple(share / total for share in shares)


def _spell(engine: Engine, questions: Sequence[Question]) -> list[tuple[Question, Sequence[Sequence[float]]]]:
    return list(zip(questions, engine.spell(questions) if questions else [], strict=True))


def _shares(question: Question) -> bool:
    """Whether two targets begin with the same token."""
    return len({target[0] for target in question.targets}) < len(question.targets)


def _spelled(question: Question, tokens: Sequence[Sequence[float]], readout: Readout) -> Scores:
    """Scores out of the log-probabilities of every token of every target."""
    if readout == "sum":
        return tuple(math.fsum(spelled) for spelled in tokens)
    if readout == "mean":
        return tuple(math.fsum(spelled) / len(spelled) for spelled in tokens)
    # What targets share in their first token is divided among them by what follows it.
    begins = [target[0] for target in question.targets]
    rests = [math.fsum(spelled[1:]) for spelled in tokens]
    times = Counter(begins)
    total = {begin: _log_sum(rests, begins, begin) for begin in times}
    return tuple(
        spelled[0] + (rest - total[begin] if times[begin] > 1 else 0.0)
        for spelled, rest, begin in zip(tokens, rests, begins, strict=True)
    )


def _log_sum(rests: Sequence[float], begins: Sequence[int], begin: int) -> float:
    """log of the sum of exp over the targets that begin so."""
    chosen = [rest for rest, other in zip(rests, begins, strict=True) if other == begin]
    peak = max(chosen)
    return peak + math.log(math.fsum(math.exp(rest - peak) for rest in chosen))
