"""The learning curve: a power law through the accuracies, carried on to twice the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stepdistill.evaluate.learning import SIZES, Curve, fit
from stepdistill.study.figures.cells import Cell, Panel, cells_of, panels
from stepdistill.study.figures.figure import Figure, UndrawnError
from stepdistill.study.figures.frame import picture
from stepdistill.study.figures.layout import beside, examples, legend, paged, span, ticks, words
from stepdistill.study.figures.series import Series
from stepdistill.study.figures.style import FAINT, SMALL, Look, house_style, looks
from stepdistill.study.results import ResultRow

_HEIGHT = 2.5
_PAGE = 4
_MOST = 2
"""Series of a panel: bands of more would cover each other."""
_RESAMPLES = 1000
"""A band does not show more, and the fit is the slow part of all figures."""
_STEPS = 24
AHEAD = 2.0
"""So many times the data is what is asked for."""


@dataclass(frozen=True, slots=True)
class _Fitted:
    """A series with its measured cells and the curve through them."""

    series: Series
    cells: tuple[Cell, ...]
    curve: Curve

    @property
    def most(self) -> int:
        return self.curve.sizes[-1]


@house_style
def learning(rows: Sequence[ResultRow], method: str, against: str) -> list[Figure]:
    """Fitted power laws of the largest student of each task: `method` and `against`, or others.

    Raises:
        UndrawnError: no series has enough different numbers of training examples.
    """
    largest: dict[tuple[str, str], Panel] = {}
    for panel in panels(rows, by_student=True):
        if _fittable(panel, method, against):
            largest[panel.task, panel.test] = panel
    if not largest:
        raise UndrawnError(
            f"a learning curve needs {SIZES} different numbers of training examples of one method"
        )
    style = looks(cell.series for cell in cells_of(rows))
    found = [(panel, _fitted(panel, method, against)) for panel in largest.values()]
    return paged(found, _PAGE, lambda part, suffix: _figure(part, suffix, style))


def _fittable(panel: Panel, method: str, against: str) -> list[Series]:
    """The first series that have enough sizes: `method`, `against`, then others."""
    ranked = sorted(panel.series, key=lambda one: {method: 0, against: 1}.get(one.name, 2))
    return [one for one in ranked if len({_size(cell) for cell in panel.of(one)} - {0}) >= SIZES][:_MOST]


def _size(cell: Cell) -> int:
    """Training examples of a cell, the mean of its seeds; 0 where a seed's are unknown."""
    return round(cell.mean(row.n_train for row in cell.rows) or 0)


def _points(cells: Sequence[Cell]) -> dict[int, list[str]]:
    """Outcomes of each size; cells of one size stand together, each trial of equal outcomes once."""
    found: dict[int, dict[tuple[int | None, str], str]] = {}
    for cell in cells:
        seen = found.setdefault(_size(cell), {})
        # Two fractions of the same examples give the same students: those are no further seeds.
        seen.update({(row.seed, row.outcomes): row.outcomes for row in cell.rows})
    return {size: list(seen.values()) for size, seen in found.items()}


def _fitted(panel: Panel, method: str, against: str) -> list[_Fitted]:
    found = []
    for one in _fittable(panel, method, against):
        cells = tuple(sorted((cell for cell in panel.of(one) if _size(cell)), key=_size))
        found.append(_Fitted(one, cells, fit(_points(cells), _RESAMPLES)))
    return found


def _figure(
    found: Sequence[tuple[Panel, list[_Fitted]]], suffix: str, style: Mapping[Series, Look]
) -> Figure:
    figure, places = picture([_HEIGHT] * len(found))
    for axes, (panel, fitted) in zip(places, found, strict=True):
        _panel(axes, panel, fitted, style)
    places[-1].set_xlabel("training examples")
    legend(figure, style, (one.series for _, fitted in found for one in fitted))
    seeds = min(one.curve.seeds for _, fitted in found for one in fitted)
    chance = (
        "seeds and test examples" if seeds > 1 else "test examples only (there is one seed at some sizes)"
    )
    return Figure(
        name=f"learning-curve{suffix}",
        title="Learning curve and what twice the data would give",
        caption=(
            f"Accuracy on the test examples ({examples(panel for panel, _ in found)}) against the number "
            "of training examples (logarithmic) with the power law "
            f"a - b·n^-c through it; bands are 95 % intervals over {chance}. The hatched part is an "
            "extrapolation: nothing was measured there, and its interval takes the power law for true. "
            "At the right: the gain that twice the data is expected to bring, in points."
        ),
        alt="Line chart with extrapolation. " + " ".join(_said(*one) for one in found),
        picture=figure,
    )


def _panel(axes: Any, panel: Panel, fitted: Sequence[_Fitted], style: Mapping[Series, Look]) -> None:
    axes.set_xscale("log")
    values: list[float] = []
    for one in fitted:
        values += _curve(axes, one, style[one.series])
    most, least = max(one.most for one in fitted), min(one.curve.sizes[0] for one in fitted)
    span(axes, values)
    axes.set_xlim(least / 1.15, most * AHEAD * 1.1)
    axes.axvline(most, color=FAINT, linewidth=0.8, linestyle=(0, (2, 2)), zorder=1)
    axes.text(
        most * 1.03,
        0.02,
        "extrapolated",
        transform=axes.get_xaxis_transform(),
        fontsize=SMALL,
        color=FAINT,
        va="bottom",
    )
    sizes = {float(size): f"{size:,}" for one in fitted for size in one.curve.sizes}
    ticks(axes, {**sizes, most * AHEAD: f"{most * AHEAD:,.0f}"}, width=3.3)
    gains = [(one.curve.at(AHEAD * one.most).value, _gain(one), style[one.series].colour) for one in fitted]
    beside(axes, _HEIGHT, gains)
    axes.set_title(words(panel))
    axes.set_ylabel("accuracy")


def _curve(axes: Any, one: _Fitted, look: Look) -> list[float]:
    """Draw points and curve; what the y axis must hold."""
    import numpy as np

    sizes = [_size(cell) for cell in one.cells]
    intervals = [cell.accuracy for cell in one.cells]
    axes.plot(sizes, [found.value for found in intervals], **look.points(), linestyle="", zorder=3)
    values = [found.value for found in intervals]
    for begin, end, line, hatch in (
        (sizes[0], one.most, look.line, None),
        (one.most, AHEAD * one.most, ":", "////"),
    ):
        grid = np.geomspace(begin, end, _STEPS if hatch is None else 8)
        found = [one.curve.at(float(n)) for n in grid]
        axes.plot(grid, [f.value for f in found], color=look.colour, linestyle=line, linewidth=1.6, zorder=2)
        fill = {"facecolor": look.colour, "alpha": 0.12, "linewidth": 0}
        if hatch:
            fill = {
                "facecolor": "none",
                "edgecolor": look.colour,
                "alpha": 0.5,
                "hatch": hatch,
                "linewidth": 0.4,
            }
        axes.fill_between(grid, [f.low for f in found], [f.high for f in found], **fill, zorder=1)
        values += [limit for f in found for limit in (f.low, f.high)]
    return values


def _gain(one: _Fitted) -> str:
    gain = one.curve.gain(one.most, AHEAD * one.most)
    return f"{AHEAD:.0f}× data:\n{100 * gain.value:+.1f}\n({100 * gain.low:.1f}–{100 * gain.high:.1f})"


def _said(panel: Panel, fitted: Sequence[_Fitted]) -> str:
    said = [
        f"{one.series.label}: {100 * one.curve.at(one.most).value:.1f} % fitted at {one.most:,} examples, "
        f"{' '.join(_gain(one).split())} points"
        for one in fitted
    ]
    return f"{panel.title}: {'; '.join(said)}."
