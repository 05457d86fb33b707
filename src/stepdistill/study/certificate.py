"""The certificate of a search for the minimum: what was looked at, what was found, and in which words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stepdistill.study.folder import TEACHER
from stepdistill.study.looks import Decision, Look

Verdict = Literal["reached", "not reached", "undecided"]
Says = Literal["confirms", "leaves open", "contradicts"]
_MOST_DIGITS = 12
"""Further digits of a share in percent are noise of its arithmetic."""


@dataclass(frozen=True, slots=True)
class ProbeRecord:
    """One fraction that was tried.

    Attributes:
        fraction: of the training data.
        n_train: number of training examples.
        decision: of the last look.
        looks: one after each seed: method less target, in shares, with its interval.
        trials: names of the method's trials that were looked at.
    """

    fraction: float
    n_train: int
    decision: Decision
    looks: tuple[Look, ...]
    trials: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TestReading:
    """The one reading of test, for a recipe that validation has chosen.

    Attributes:
        look: method less target.
        n: number of test examples.
        confidence: of its interval.
        accuracy, target_accuracy: means over the seeds, as shares.
        says: of "reached".
    """

    __test__ = False  # no test class

    look: Look
    n: int
    confidence: float
    accuracy: float
    target_accuracy: float
    says: Says


@dataclass(frozen=True, slots=True)
class StudentVerdict:
    """What was found for one student.

    Attributes:
        student, parameters: which, and how large.
        verdict: on the examples that decide.
        fraction, n_train: the least that was enough, and None where none was.
        accuracy, target_accuracy: means at that fraction, or else at the largest; as shares.
        n: number of examples that decide.
        probes: the fractions that were measured, in the order of the search.
        inferred: those that were not, and what follows if accuracy does not fall with more data.
        test: None where nothing was chosen, or test itself decides.
    """

    student: str
    parameters: int
    verdict: Verdict
    fraction: float | None
    n_train: int | None
    accuracy: float
    target_accuracy: float
    n: int
    probes: tuple[ProbeRecord, ...]
    inferred: dict[str, Verdict]
    test: TestReading | None = None


@dataclass(frozen=True, slots=True)
class Certificate:
    """The result of a search.

    Attributes:
        sentences: one for each student, smallest first.
        notes: what holds for all of them.
        task, method, target: what was searched for; `target_student` trained the target on all the data,
            None of a teacher.
        margin, confidence: as asked for.
        on: the examples that decided: "validation", or "test".
        look_confidence: of each look's interval, such that all `planned_looks` hold at once.
        read_before: names of the trials whose test had been read before the search.
        looks: how many were made.
        students: smallest first.
    """

    sentences: tuple[str, ...]
    notes: tuple[str, ...]
    task: str
    method: str
    target: str
    target_student: str | None
    margin: float
    confidence: float
    on: Literal["validation", "test"]
    look_confidence: float
    planned_looks: int
    looks: int
    seeds: int
    read_before: tuple[str, ...]
    students: tuple[StudentVerdict, ...]


@dataclass(frozen=True, slots=True)
class Wording:
    """What the sentences of all students share; `once` if test had been read for no trial before."""

    method: str
    target: str
    target_student: str | None
    margin: float
    on: str
    look_confidence: float
    once: bool

    def sentence(self, found: StudentVerdict) -> str:
        """What was found for one student, with the interval that it rests on."""
        deciding = _deciding(found)
        data = f"{percent(deciding.fraction)} of the data ({deciding.n_train:,} examples)"
        bar = f"{self._bar()} ({percent(found.target_accuracy)})"
        said = {
            "reached": f"reaches {bar} with {data}",
            "not reached": f"does not reach {bar}, not with {data} either, the most in the grid",
            "undecided": f"is not shown to reach {bar}: undecided with {data}, the most in the grid",
        }[found.verdict]
        look = deciding.looks[-1]
        seeds = "1 seed" if look.seeds == 1 else f"{look.seeds} seeds"
        line = (
            f"{self.method} with {found.student} {said}: {interval(look, self.look_confidence)}, {seeds}, "
            f"on {found.n:,} {self.on} examples{self._allowed()}"
        )
        return f"{line}{self._below(found)}.{self._test(found)}"

    def _bar(self) -> str:
        if self.target == TEACHER:
            return "the teacher's accuracy"
        return f"the accuracy of {self.target} with {self.target_student} on all the data"

    def _allowed(self) -> str:
        return f" ({_points(self.margin)} below is still as good)" if self.margin else ""

    def _below(self, found: StudentVerdict) -> str:
        if found.verdict != "reached":
            return ""
        smaller = [p for p in found.probes if found.fraction and p.fraction < found.fraction]
        if not smaller:
            return "; no smaller part is in the grid"
        next_ = max(smaller, key=lambda p: p.fraction)
        return f"; {percent(next_.fraction)} " + (
            "does not" if next_.decision == "abandoned" else "is undecided, and so does not count"
        )

    def _test(self, found: StudentVerdict) -> str:
        test = found.test
        if test is None:
            return ""
        says = {
            "confirms": "which confirms it",
            "leaves open": "which leaves it open",
            "contradicts": "which contradicts it: take it as not reached",
        }[test.says]
        return (
            f" On {test.n:,} test examples{', read once' * self.once}: {percent(test.accuracy)} and "
            f"{percent(test.target_accuracy)}, {interval(test.look, test.confidence)}, {says}."
        )


def percent(share: float, digits: int = 1) -> str:
    """A share in percent, without needless zeros; with more digits where it would be taken for all.

    >>> percent(0.125), percent(0.25), percent(0.9934, 2)
    ('12.5 %', '25 %', '99.34 %')
    >>> percent(0.99996, 2), percent(1.0)
    ('99.996 %', '100 %')
    """
    while share < 1 and digits < _MOST_DIGITS and float(f"{100 * share:.{digits}f}") >= 100:
        digits += 1
    text = f"{100 * share:.{digits}f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text) + " %"


def interval(look: Look, confidence: float) -> str:
    """A difference with its interval, in points.

    >>> interval(Look(3, -0.004, -0.02, 0.013), 0.992)
    '-0.4 points (-2.0 to +1.3 at 99.2 %)'
    """
    low, high = 100 * look.low, 100 * look.high
    return f"{100 * look.value:+.1f} points ({low:+.1f} to {high:+.1f} at {percent(confidence, 2)})"


def _points(share: float) -> str:
    number = f"{100 * share:g}"
    return f"{number} point" + ("" if number == "1" else "s")


def _deciding(found: StudentVerdict) -> ProbeRecord:
    """The probe that the verdict rests on."""
    return next((p for p in found.probes if p.fraction == found.fraction), found.probes[0])
