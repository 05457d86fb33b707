"""What rationales are worth: length, likeness to people's, and whether they lead to the label beside them."""

from __future__ import annotations

import importlib
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from stepdistill.task.answers import AnswerKind

Verdict = Literal["consistent", "contradicts", "silent"]


@dataclass(frozen=True)
class Explained:
    """A written rationale, the label that was given beside it, and what a person wrote, if anybody did."""

    rationale: str
    label: str | None
    read: str | None
    human: str | None = None


@dataclass(frozen=True)
class RationaleScores:
    """Scores of rationales.

    Attributes:
        n: how many were written; empty ones are none.
        words_mean, words_median: of their lengths.
        consistent, contradicts, silent: shares of the n; None for free text, out of which any label could
            be read.
        chrf: against people's, 0 to 100; None where there are none, or no sacrebleu.
        chrf_note: why there is no chrF although people wrote rationales; None where all is well.
    """

    n: int
    words_mean: float
    words_median: float
    consistent: float | None
    contradicts: float | None
    silent: float | None
    chrf: float | None
    chrf_note: str | None = None


def read_label(kind: AnswerKind, rationale: str | None, options: Sequence[str] = ()) -> str | None:
    """The label that a rationale leads to, read as the task reads answers; None where it says none.

    >>> from stepdistill.task.closed import LabelKind
    >>> read_label(LabelKind(("yes", "no")), "Nobody came, so no.")
    'no'
    """
    return kind.read(rationale, options).label if rationale else None


def judge(kind: AnswerKind, one: Explained) -> Verdict:
    """Whether a rationale leads to the label beside it, to another, or to none.

    Silent too is one beside an answer that could not be read.
    """
    if one.read is None or one.label is None:
        return "silent"
    return "consistent" if kind.same(one.read, one.label) else "contradicts"


def rationale_scores(
    kind: AnswerKind, given: Sequence[Explained], closed: bool = True
) -> RationaleScores | None:
    """Scores of the rationales among these that are not empty; None where all are.

    Args:
        kind: of the task's answers.
        given: one for each example.
        closed: whether a label can be told from other words; not so for free text.
    """
    written = [one for one in given if one.rationale.strip()]
    if not written:
        return None
    lengths = [len(one.rationale.split()) for one in written]
    verdicts = [judge(kind, one) for one in written]
    names: tuple[Verdict, ...] = ("consistent", "contradicts", "silent")
    shares = {name: verdicts.count(name) / len(written) if closed else None for name in names}
    score, note = chrf([(one.rationale, one.human) for one in written if one.human])
    return RationaleScores(
        n=len(written),
        words_mean=statistics.fmean(lengths),
        words_median=float(statistics.median(lengths)),
        **shares,
        chrf=score,
        chrf_note=note,
    )


def chrf(pairs: Sequence[tuple[str, str]]) -> tuple[float | None, str | None]:
    """chrF2 (Popovic 2015) over all pairs of a rationale and a person's, 0 to 100, by sacrebleu.

    Without pairs there is none; without sacrebleu there is none and a note that says so.
    """
    if not pairs:
        return None, None
    try:
        sacrebleu = importlib.import_module("sacrebleu")
    except ImportError:
        return None, "chrF needs an optional package; install it: pip install 'stepdistill[metrics]'"
    found = sacrebleu.corpus_chrf([first for first, _ in pairs], [[second for _, second in pairs]])
    return float(found.score), None
