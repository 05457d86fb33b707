"""The reliability diagram: whether answers given with 80 % probability are right in 80 % of cases."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from stepdistill.evaluate.calibration import Bin
from stepdistill.evaluate.statistics import wilson
from stepdistill.study.figures.cells import cells_of
from stepdistill.study.figures.figure import Figure, Metrics, UndrawnError
from stepdistill.study.figures.frame import picture
from stepdistill.study.figures.layout import named, paged
from stepdistill.study.figures.measured import Measured, measured
from stepdistill.study.figures.series import Series
from stepdistill.study.figures.style import FAINT, TEACHERS, Look, house_style, in_percent, looks
from stepdistill.study.results import ResultRow

_COUNT = 7.0
"""Points, of the counts over the bars."""


@house_style
def reliability(rows: Sequence[ResultRow], metrics: Metrics, method: str, against: str) -> list[Figure]:
    """Accuracy against stated probability of the chief predictors, one page a task.

    Raises:
        UndrawnError: no predictor's metrics have probabilities.
    """
    found = [one for one in measured(rows, metrics, "reliability", method, against) if bins(one.lines)]
    if not found:
        raise UndrawnError("no predictor gives probabilities: they need a closed set of labels")
    style = looks(cell.series for cell in cells_of(rows))
    tasks = [
        [one for one in found if one.title == title] for title in dict.fromkeys(one.title for one in found)
    ]
    return paged(tasks, 1, lambda part, suffix: _figure(part[0], suffix, style))


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


def _figure(found: Sequence[Measured], suffix: str, style: Mapping[Series, Look]) -> Figure:
    figure, (above, below) = picture([2.3, 0.9])
    drawn = [(bins(one.lines), style[one.series] if one.series else TEACHERS, one) for one in found]
    above.plot([0, 1], [0, 1], color=FAINT, linewidth=1.0, linestyle=(0, (4, 3)), zorder=1)
    for some, look, one in drawn:
        _diagram(above, some, look, len(one.lines))
    _counts(below, [(some, look) for some, look, _ in drawn])
    title = found[0].title
    above.set_title(title)
    above.set_ylabel("right")
    in_percent(above.yaxis)
    above.set_ylim(-0.03, 1.03)
    above.tick_params(labelbottom=False)
    named(figure, [(_name(one), look) for _, look, one in drawn])
    seeds = max(len(one.lines) for one in found)
    together = f"answers of {seeds} seeds together" if seeds > 1 else "one seed"
    return Figure(
        name=f"reliability{suffix}",
        title=f"Reliability diagram, {title}",
        caption=(
            "How often answers are right against the probability they were given with; on the dashed "
            f"diagonal both agree, below it the predictor is too sure ({together}). Bars are 95 % Wilson "
            "intervals for the test examples of one seed. Below: the number of answers in each bin. ECE is "
            "the mean distance from the diagonal (mean over seeds)."
        ),
        alt="Reliability diagram. " + " ".join(_said(some, one) for some, _, one in drawn),
        picture=figure,
    )


def _name(one: Measured) -> str:
    errors = [line["ece"] for line in one.lines if line.get("ece") is not None]
    return one.label + (f", ECE {100 * sum(errors) / len(errors):.1f} %" if errors else "")


def _said(found: Sequence[Bin], one: Measured) -> str:
    said = [
        f"{100 * b.low:.0f} to {100 * b.high:.0f} %: {b.n} answers, stated {100 * b.confidence:.0f} %, "
        f"right {100 * b.accuracy:.0f} %"
        for b in found
    ]
    return f"{_name(one)}: {'; '.join(said)}."


def _diagram(axes: Any, found: Sequence[Bin], look: Look, seeds: int) -> None:
    for one in found:
        n = max(1, round(one.n / seeds))
        low, high = wilson(round(one.accuracy * n), n)
        axes.vlines(one.confidence, low, high, color=look.colour, linewidth=1.0, alpha=0.7)
    axes.plot(
        [b.confidence for b in found], [b.accuracy for b in found], **{**look.drawn(), "linewidth": 1.2}
    )
    _across(axes)


def _counts(axes: Any, drawn: Sequence[tuple[Sequence[Bin], Look]]) -> None:
    for place, (found, look) in enumerate(drawn):
        for one in found:
            wide = (one.high - one.low) / len(drawn)
            begin = one.low + place * wide
            axes.bar(begin, one.n, 0.9 * wide, align="edge", color=look.colour, alpha=0.8, linewidth=0)
            axes.annotate(
                f"{one.n:,}",
                (begin + wide / 2, one.n),
                (0, 2),
                textcoords="offset points",
                ha="center",
                fontsize=_COUNT,
                rotation=90 if len(drawn) > 1 else 0,
            )
    axes.set_ylim(0, (1.75 if len(drawn) > 1 else 1.3) * max(one.n for found, _ in drawn for one in found))
    axes.locator_params(axis="y", nbins=3)
    axes.set_ylabel("answers")
    axes.set_xlabel("stated probability of the answer")
    _across(axes)


def _across(axes: Any) -> None:
    axes.set_xlim(-0.03, 1.03)
    in_percent(axes.xaxis)
    axes.grid(alpha=0.35, linewidth=0.6)
