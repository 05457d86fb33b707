"""A published number beside ours, and what is to be said of the two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["accuracy", "difference", "share"]


@dataclass(frozen=True, slots=True)
class Reported:
    """A published number, as a share, with the interval that its test set implies.

    Of a mean of several runs it is the interval of the n test examples alone: the runs share them, and how
    far the runs lie apart is not published. Of a difference it is that of two unpaired shares, since
    which examples were right is not published either. A share of the data has none.
    """

    value: float
    low: float | None
    high: float | None
    n: int
    runs: int
    source: str


@dataclass(frozen=True, slots=True)
class Measured:
    """The same of ours: mean over seeds with its 95 % interval, as shares.

    `value` is None where a share of the data was not reached. `fraction` is the part of the training
    examples, `p` of differences alone, `same_student` whether it is the paper's. `n` is the number of test
    examples, `n_train` that of training examples, of the seed with fewest; None of a teacher.
    """

    value: float | None
    low: float | None
    high: float | None
    p: float | None
    seeds: int
    fraction: float
    student: str | None
    same_student: bool
    n: int
    n_train: int | None


@dataclass(frozen=True, slots=True)
class Judged:
    """One published number beside ours.

    Args:
        kind: an accuracy, a difference of two, or the share of the data with which one method passes the
            other on all of it.
        what: the method, or "METHOD - OTHER".
        ours: None where nothing comparable was run.
        published_inside: whether the published number lies in our interval; None where nothing is judged.
        ours_inside: whether ours lies in the published number's interval.
        same_sign: of differences: whether both point the same way.
        shown: of differences and shares: whether ours is beyond chance.
        published_shown: of differences: whether the published one is.
        why_not: why nothing is judged, though ours may stand beside it, or "".
    """

    kind: Kind
    task: str
    what: str
    published: Reported
    ours: Measured | None = None
    published_inside: bool | None = None
    ours_inside: bool | None = None
    same_sign: bool | None = None
    shown: bool | None = None
    published_shown: bool | None = None
    why_not: str = ""

    @property
    def sentence(self) -> str:
        """All of it in one plain sentence."""
        begin = f"{self.task}, {self.what}: {_reported(self)}"
        if self.ours is not None:
            begin += f"; {_measured(self, self.ours)}"
        joint = "; " if self.why_not else ": "
        return f"{begin}{joint}{self.verdict}" if self.verdict else begin

    @property
    def verdict(self) -> str:
        """What is to be said of the two, in a few words; "" where the numbers say it."""
        if self.why_not or self.ours is None:
            return f"not judged: {self.why_not}"
        return _verdict(self, self.ours)


def _reported(judged: Judged) -> str:
    given, difference = judged.published, judged.kind == "difference"
    if given.low is None or given.high is None:
        return f"published with {100 * given.value:g} % of the data ({given.source})"
    of = f"mean of {given.runs} runs; " if given.runs > 1 else ""
    between = f"{_number(given.low, difference)} to {_number(given.high, difference)}"
    alone = f"{between} by its {given.n:,} test examples alone"
    if difference and judged.published_shown is False:
        alone += ", not beyond chance"
    unit = " points" if difference else " %"
    return f"published {_number(given.value, difference)}{unit} ({of}{alone}; {given.source})"


def _measured(judged: Judged, ours: Measured) -> str:
    seeds = f"{ours.seeds} seed{'s' if ours.seeds > 1 else ''}" if ours.student else "asked once"
    part = f" on {100 * ours.fraction:g} % of the data" if ours.fraction != 1 else ""
    who = f"of {ours.student}, " if ours.student and not ours.same_student else ""
    if judged.kind == "share":
        beyond = _beyond(judged, ours).removeprefix("ours ")
        with_ = (
            f"with {100 * ours.value:g} %, {beyond}"
            if ours.value is not None
            else "with no part that was run"
        )
        return f"ours {with_} ({who}{seeds})"
    difference = judged.kind == "difference"
    value, low, high = (_number(one or 0.0, difference) for one in (ours.value, ours.low, ours.high))
    return f"ours {value}{' points' if difference else ' %'} ({low} to {high}; {who}{seeds}{part})"


def _verdict(judged: Judged, ours: Measured) -> str:
    if judged.kind == "share":
        return "" if ours.same_student else "another student"
    parts = []
    if judged.kind == "difference":
        parts.append("the same direction" if judged.same_sign else "not the same direction")
        parts.append(_beyond(judged, ours))
    if not ours.same_student:
        alike = "only the direction compares" if judged.kind == "difference" else "the numbers do not compare"
        parts.append(f"another student, so {alike}")
    elif judged.published_inside and judged.ours_inside:
        parts.append("each lies in the other's interval")
    elif judged.published_inside or judged.ours_inside:
        one, other = (
            ("the published one", "our") if judged.published_inside else ("ours", "the published one's")
        )
        parts.append(f"{one} lies in {other} interval, and not the other way round")
    else:
        parts.append("neither lies in the other's interval")
    return ", ".join(parts)


def _beyond(judged: Judged, ours: Measured) -> str:
    if not judged.shown:
        return "ours not beyond chance"
    return "ours beyond chance" + (" in its test examples, of one seed" if ours.seeds == 1 else "")


def _number(share: float, signed: bool) -> str:
    return f"{100 * share:{'+' if signed else ''}.2f}"
