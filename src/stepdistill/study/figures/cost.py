"""What accuracy costs: the teacher's answers, training and serving together, and who is beaten on both."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.ticker import FuncFormatter, NullFormatter

from stepdistill.study.figures.cells import Cell, Panel, cells_of, panels
from stepdistill.study.figures.figure import Figure, UndrawnError
from stepdistill.study.figures.frame import picture
from stepdistill.study.figures.layout import examples, left_out, named, paged, shown, span, words
from stepdistill.study.figures.series import Series, shortened
from stepdistill.study.figures.style import (
    FAINT,
    INK,
    TEACHERS,
    Look,
    house_style,
    looks,
    percent,
)
from stepdistill.study.pairs import needed_teacher
from stepdistill.study.results import ResultRow

_HEIGHT = 2.5
_PAGE = 4
REQUESTS = 1000
"""What is served: the teacher is paid for each request, a student is trained once."""
MACHINE_USD_PER_HOUR = 0.10
"""What an hour of the machine counts, in money: about that of two rented processor cores."""


@dataclass(frozen=True, slots=True)
class Point:
    """Cost in dollars or seconds, accuracy as a share, and whose; `cell` is None for the teacher."""

    cost: float
    accuracy: float
    label: str
    cell: Cell | None


@house_style
def cost(rows: Sequence[ResultRow]) -> list[Figure]:
    """Accuracy against the cost of having `REQUESTS` answers, one panel a task, with the Pareto front.

    Raises:
        UndrawnError: fewer than two costs of any task are known.
    """
    money = in_money(rows)
    found = [(panel, points(panel, money)) for panel in panels(rows, by_student=False)]
    found = [(panel, some) for panel, some in found if len(some) > 1]
    if not found:
        raise UndrawnError(
            "fewer than two costs are known: neither training seconds nor the teacher's prices"
        )
    style = looks(cell.series for cell in cells_of(rows))
    return paged(found, _PAGE, lambda part, suffix: _figure(part, suffix, style, money))


def in_money(rows: Sequence[ResultRow]) -> bool:
    """Whether costs are dollars: the teacher is paid, and what was paid is known wherever it was needed."""
    paid = [row.cost_usd for row in rows if row.student is not None and needed_teacher(row)]
    return any(paid) and None not in paid


def points(panel: Panel, money: bool) -> list[Point]:
    """Every cell whose cost is known, and the teacher where it has a price.

    The cost of a cell is that of its teacher's answers, where it needs any, of training, and of `REQUESTS`
    answers; in seconds it is without the teacher. All are means over seeds.
    """
    found = []
    for cell in panel.cells:
        if cell.series in shown(panel):
            spent = cell.mean(_spent(row, money) for row in cell.rows)
            if spent:
                found.append(Point(spent, cell.accuracy.value, cell.series.label, cell))
    if money:
        for row in panel.teachers:
            price = price_of(row, panel)
            if price:
                found.append(Point(price, row.value, f"teacher {shortened(row.teacher, 22)}", None))
    return found


def price_of(teacher: ResultRow, panel: Panel) -> float | None:
    """Dollars for `REQUESTS` requests, by what the teacher's answers cost for each example trained on.

    Where several answers were drawn for an example, or some could not be read, one answer is cheaper.
    """
    known = [
        row.cost_usd / row.n_train * REQUESTS
        for cell in panel.cells
        for row in cell.rows
        if row.teacher == teacher.teacher and needed_teacher(row) and row.cost_usd and row.n_train
    ]
    return sum(known) / len(known) if known else None


def front(found: Sequence[Point]) -> list[Point]:
    """Those that no other beats: none is at least as good for less, or better for as much. By cost."""
    best: list[Point] = []
    for point in sorted(found, key=lambda point: (point.cost, -point.accuracy)):
        if not best or point.accuracy > best[-1].accuracy:
            best.append(point)
    return best


def _spent(row: ResultRow, money: bool) -> float | None:
    if row.train_seconds is None or row.predict_seconds is None:
        return None
    seconds = row.train_seconds + row.predict_seconds / row.n * REQUESTS
    if not money:
        return seconds
    asked = (row.cost_usd or 0.0) if needed_teacher(row) else 0.0
    return asked + seconds / 3600 * MACHINE_USD_PER_HOUR


def _figure(
    found: Sequence[tuple[Panel, list[Point]]], suffix: str, style: Mapping[Series, Look], money: bool
) -> Figure:
    figure, places = picture([_HEIGHT] * len(found))
    for axes, (panel, some) in zip(places, found, strict=True):
        _panel(axes, panel, some, style)
    unit = "dollars" if money else "seconds of the machine"
    places[-1].set_xlabel(f"cost of {REQUESTS:,} answers, in {unit}")
    entries = {one.label: style[one] for panel, _ in found for one in shown(panel)}
    teachers = {point.label: TEACHERS for _, some in found for point in some if not point.cell}
    named(figure, list({**entries, **teachers}.items()), line=False)
    return Figure(
        name=f"cost{suffix}",
        title="Accuracy against cost",
        caption=(
            f"Accuracy on the test examples ({examples(panel for panel, _ in found)}) against cost "
            "(logarithmic), both means over seeds. Cost is "
            f"{_meaning(money)} Thin lines join the parts of the data with which one student was trained. "
            "Ringed and joined: the front; every other point is matched or beaten by one that costs no "
            "more. "
            "No intervals are shown: neighbours on the front may differ by chance."
            + left_out(panel for panel, _ in found)
        ),
        alt="Scatter chart. " + " ".join(_said(panel, some, unit) for panel, some in found),
        picture=figure,
    )


def _meaning(money: bool) -> str:
    serving = (
        " Serving is the seconds of the test examples, scaled up: loading the student and the "
        "probabilities of its labels are in them, so it is counted too dear rather than too cheap."
    )
    if not money:
        return (
            f"training and serving {REQUESTS:,} requests on this machine, in seconds; the teacher's answers "
            f"and labels by people are not counted, since no price is known.{serving}"
        )
    return (
        "the teacher's answers on the training examples (where the method needs them), training, and serving "
        f"{REQUESTS:,} requests, an hour of the machine counted as ${MACHINE_USD_PER_HOUR:.2f}; of the "
        f"teacher, the price of {REQUESTS:,} requests, due again with every further {REQUESTS:,}: what its "
        "answers cost for each example that was trained on, with all answers that were drawn for one and "
        "those that could not be read, so one answer alone is cheaper. Labels by people are not counted."
        f"{serving}"
    )


def _panel(axes: Any, panel: Panel, found: Sequence[Point], style: Mapping[Series, Look]) -> None:
    axes.set_xscale("log")
    best = front(found)
    # Nothing between two points of the front is to be had, so it goes in steps.
    axes.step(
        [p.cost for p in best], [p.accuracy for p in best], where="post", color=FAINT, linewidth=1.0, zorder=1
    )
    for point in best:
        axes.plot([point.cost], [point.accuracy], "o", ms=11, mfc="none", mec=INK, mew=1.0, zorder=2)
    costs = [point.cost for point in found]
    ratio = max(costs) / min(costs)
    axes.set_xlim(min(costs) / max(ratio**0.12, 1.5), max(costs) * max(ratio**0.12, 1.5))
    span(axes, [point.accuracy for point in found], least=0.12)
    for point in found:
        look = style[point.cell.series] if point.cell else TEACHERS
        size = 6 if point.cell else 9
        axes.plot([point.cost], [point.accuracy], **look.points(size), linestyle="", zorder=3)
    for cells in _trails(found):
        look = style[cells[0][1].series]
        values = [cell.accuracy.value for _, cell in cells]
        axes.plot([spent for spent, _ in cells], values, color=look.colour, ls=look.line, lw=0.8, alpha=0.6)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_title(words(panel))
    axes.set_ylabel("accuracy")


def _trails(found: Sequence[Point]) -> list[list[tuple[float, Cell]]]:
    """Of each series and student its cells with their costs, from the least data to the most."""
    trails: dict[tuple[Series, str | None], list[tuple[float, Cell]]] = defaultdict(list)
    for point in found:
        if point.cell:
            trails[point.cell.series, point.cell.first.student].append((point.cost, point.cell))
    return [sorted(cells, key=lambda pair: pair[1].fraction) for cells in trails.values()]


def _said(panel: Panel, found: Sequence[Point], unit: str) -> str:
    said = []
    for point in front(found):
        cell = point.cell
        where = (
            f" ({shortened(cell.first.student or '', 24)}, {percent(cell.fraction)} of the data)"
            if cell
            else ""
        )
        said.append(f"{point.label}{where} {100 * point.accuracy:.1f} % for {point.cost:.3g} {unit}")
    return f"{panel.title}, the front: {'; '.join(said)}."
