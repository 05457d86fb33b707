"""The reliability diagram: whether answers given with 80 % probability are right in 80 % of cases."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stepdistill.evaluate.statistics import wilson
from stepdistill.study.figures.figure import Figure, Metrics, UndrawnError
from stepdistill.study.figures.layout import paged
from stepdistill.study.figures.measured import MOST, Measured, measured
from stepdistill.study.figures.style import FAINT, SMALL, house_style, in_percent, picture
from stepdistill.study.results import ResultRow

_BLUE = "#0072B2"


@dataclass(frozen=True, slots=True)
class Bin:
    """Answers of all seeds with a probability from `low` to `high`: how many, how sure, how often right."""

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float


@house_style
def reliability(rows: Sequence[ResultRow], metrics: Metrics, method: str, against: str) -> list[Figure]:
    """Accuracy against stated probability of the chief predictors of each task, one page for each.

    Raises:
        UndrawnError: no predictor's metrics have probabilities.
    """
    found = [one for one in measured(rows, metrics, "reliability", method, against) if bins(one.lines)]
    if not found:
        raise UndrawnError("no predictor gives probabilities: they need a closed set of labels")
    return paged(found, 1, lambda part, suffix: _figure(part[0], suffix))


def bins(lines: Sequence[Mapping[str, Any]]) -> list[Bin]:
    """The bins of all seeds together, without empty ones, by probability."""
    groups: dict[tuple[float, float], list[Mapping[str, Any]]] = defaultdict(list)
    for line in lines:
        for one in line["reliability"]:
            if one["n"]:
                groups[one["low"], one["high"]].append(one)
    found = []
    for (low, high), parts in sorted(groups.items()):
        n = sum(part["n"] for part in parts)
        means = [sum(part["n"] * part[key] for part in parts) / n for key in ("confidence", "accuracy")]
        found.append(Bin(low, high, n, *means))
    return found


def _figure(one: Measured, suffix: str) -> Figure:
    figure, (above, below) = picture([2.9, 1.2])
    found = bins(one.lines)
    _diagram(above, found, len(one.lines))
    _counts(below, found)
    errors = [line["ece"] for line in one.lines if line.get("ece") is not None]
    words = f"  (ECE {100 * sum(errors) / len(errors):.1f} %)" if errors else ""
    above.set_title(f"{one.title}: {one.label}{words}")
    n = sum(bin_.n for bin_ in found)
    seeds = f"{len(one.lines)} seeds together" if len(one.lines) > 1 else "one seed"
    return Figure(
        name=f"reliability{suffix}",
        title=f"Reliability diagram, {one.title}: {one.label}",
        caption=(
            f"How often answers are right against the probability they were given with; on the diagonal both "
            f"agree, below it the predictor is too sure. {n:,} answers, {seeds}; bars are 95 % Wilson "
            "intervals for the test examples of one seed. Below: number of answers in each bin. ECE is the "
            f"mean distance from the diagonal (mean over seeds). At most {MOST} predictors a task are drawn."
        ),
        alt=f"Reliability diagram of {one.label} on {one.title}. "
        + " ".join(
            f"{100 * b.low:.0f} to {100 * b.high:.0f} %: {b.n} answers, stated {100 * b.confidence:.0f} %, "
            f"right {100 * b.accuracy:.0f} %."
            for b in found
        ),
        picture=figure,
    )


def _diagram(axes: Any, found: Sequence[Bin], seeds: int) -> None:
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1.0, linestyle=(0, (4, 3)), zorder=1)
    for one in found:
        n = max(1, round(one.n / seeds))
        low, high = wilson(round(one.accuracy * n), n)
        axes.vlines(one.confidence, low, high, color=_BLUE, linewidth=1.2)
    axes.plot(
        [b.confidence for b in found],
        [b.accuracy for b in found],
        "o-",
        color=_BLUE,
        markersize=5.5,
        linewidth=1.2,
    )
    axes.set_ylim(-0.03, 1.03)
    axes.set_ylabel("right")
    in_percent(axes.yaxis)
    _across(axes)
    axes.tick_params(labelbottom=False)


def _counts(axes: Any, found: Sequence[Bin]) -> None:
    for one in found:
        axes.bar(
            one.low, one.n, one.high - one.low, align="edge", color="#9CC3DE", edgecolor=_BLUE, linewidth=0.7
        )
        if len(found) <= 12:
            middle = (one.low + one.high) / 2
            axes.annotate(
                f"{one.n:,}",
                (middle, one.n),
                (0, 1.5),
                textcoords="offset points",
                ha="center",
                fontsize=SMALL - 1,
            )
    axes.set_ylim(0, 1.3 * max(one.n for one in found))
    axes.locator_params(axis="y", nbins=3)
    axes.set_ylabel("answers")
    axes.set_xlabel("stated probability of the answer")
    _across(axes)


def _across(axes: Any) -> None:
    axes.set_xlim(-0.03, 1.03)
    in_percent(axes.xaxis)
    axes.grid(alpha=0.35, linewidth=0.6)
