"""Where things stand in a figure: pages, legends, and words that keep out of each other's way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from textwrap import wrap
from typing import Any, TypeVar

from matplotlib.lines import Line2D
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from stepdistill.study.figures.cells import Cell, Panel
from stepdistill.study.figures.figure import Figure
from stepdistill.study.figures.frame import ABOVE, WIDTH
from stepdistill.study.figures.series import Series
from stepdistill.study.figures.style import SMALL, Look, in_percent

T = TypeVar("T")
MOST_SERIES = 8
"""More lines than these in one panel cannot be told apart."""
_LETTER = 0.0088
"""Inches that a letter takes, for each point of its size."""


def paged(items: Sequence[T], size: int, draw: Callable[[Sequence[T], str], Figure]) -> list[Figure]:
    """Figures of at most `size` panels; `draw` is given them and what to put behind the figure's name."""
    starts = range(0, len(items), size)
    return [draw(items[k : k + size], f"-{k // size + 1}" if k else "") for k in starts]


def shown(panel: Panel) -> list[Series]:
    """The series of a panel that are drawn: the first ones of the legend's order."""
    return panel.series[:MOST_SERIES]


def left_out(panels: Iterable[Panel]) -> str:
    """A sentence on the series that are not drawn, or nothing."""
    names = sorted({one.label for panel in panels for one in panel.series[MOST_SERIES:]})
    return f" Not drawn, to keep the rest readable: {', '.join(names)}." if names else ""


def legend(figure: Any, looks: Mapping[Series, Look], series: Iterable[Series]) -> None:
    """Name the series, each with its line, above all panels, where no data can be covered."""
    named(figure, [(one.label, looks[one]) for one in dict.fromkeys(series)])


def named(figure: Any, entries: Sequence[tuple[str, Look]], line: bool = True) -> None:
    """A legend above all panels; `line` False: of markers alone."""
    handles = [
        Line2D([], [], label=label, **(look.drawn() if line else {**look.points(7), "ls": ""}))
        for label, look in entries
    ]
    longest = max(len(label) for label, _ in entries) * 9 * _LETTER + 0.55
    columns = max(1, min(len(entries), int((WIDTH - 0.2) / longest)))
    found = figure.legend(
        handles=handles,
        loc="upper left",
        ncols=columns,
        handlelength=2.6 if line else 1.0,
        borderpad=0.1,
        borderaxespad=0,
    )
    found.set_gid(ABOVE)


def span(axes: Any, values: Iterable[float], least: float = 0.06) -> None:
    """Limits of an axis of accuracies that hold all values, within 0 and 1, with room around them."""
    known = list(values)
    low, high = min(known), max(known)
    room = max(least * (high - low), (least - (high - low)) / 2, 0.01)
    axes.set_ylim(max(-0.015, low - room), min(1.015, high + room))
    in_percent(axes.yaxis)
    axes.grid(axis="y", alpha=0.35, linewidth=0.6)


def beside(axes: Any, height: float, words: Iterable[tuple[float, str, str]]) -> None:
    """Words (value, text, colour) in the right margin at their values, pushed apart where they would meet.

    `height` is that of the axes in inches.
    """
    low, high = axes.get_ylim()
    ordered = sorted(words)
    sizes = [(text.count("\n") + 1) * SMALL * 1.35 / 72 / height for _, text, _ in ordered]
    places = apart([(value - low) / (high - low) for value, _, _ in ordered], sizes)
    for (_, text, colour), place in zip(ordered, places, strict=True):
        axes.text(1.015, place, text, transform=axes.transAxes, color=colour, fontsize=SMALL, va="center")


def apart(places: Sequence[float], sizes: Sequence[float]) -> list[float]:
    """Middles of things of these sizes, in order, near `places`, within 0 and 1, none over another.

    Where they do not fit, they run over the upper end.

    >>> apart([0.5, 0.5], [0.2, 0.2])
    [0.4, 0.6]
    """
    found: list[float] = []
    for place, size in zip(places, sizes, strict=True):
        floor = found[-1] + (sizes[len(found) - 1] + size) / 2 if found else size / 2
        found.append(max(place, floor))
    # Half the push goes back down, so that a pair stands around its common value.
    shift = sum(f - p for f, p in zip(found, places, strict=True)) / max(1, len(found))
    top = 1.0
    for k in reversed(range(len(found))):
        found[k] = min(found[k] - max(0.0, shift), top - sizes[k] / 2)
        top = found[k] - sizes[k] / 2
    bottom = 0.0
    for k in range(len(found)):
        found[k] = round(max(found[k], bottom + sizes[k] / 2), 6)
        bottom = found[k] + sizes[k] / 2
    return found


def ticks(axes: Any, places: Mapping[float, str], width: float) -> None:
    """Ticks of an x axis at the given places, without those labels that would meet another's.

    `width` is that of the axes in inches. The largest place keeps its label.
    """
    from math import log

    scaled: Callable[[float], float] = log if axes.get_xscale() == "log" else float
    low, high = (scaled(limit) for limit in axes.get_xlim())
    named: dict[float, str] = {}
    edge = float("inf")
    for place in sorted(places, reverse=True):
        middle = (scaled(place) - low) / (high - low) * width
        half = max(map(len, places[place].split("\n"))) * SMALL * _LETTER / 2 + 0.03
        if middle + half <= edge:
            named[place] = places[place]
            edge = middle - half
    ordered = sorted(places)
    axes.xaxis.set_major_locator(FixedLocator(ordered))
    axes.xaxis.set_major_formatter(FixedFormatter([named.get(place, "") for place in ordered]))
    axes.xaxis.set_minor_locator(NullLocator())


def band(axes: Any, look: Look, points: Sequence[tuple[float, Cell]], filled: bool) -> None:
    """A series: its means as a line, their intervals as a band, or as bars where bands would mix."""
    places = [place for place, _ in points]
    intervals = [cell.accuracy for _, cell in points]
    values = [found.value for found in intervals]
    axes.plot(places, values, **look.drawn(), zorder=3)
    lows, highs = [found.low for found in intervals], [found.high for found in intervals]
    if filled and len(points) > 1:
        axes.fill_between(places, lows, highs, color=look.colour, alpha=0.12, linewidth=0, zorder=1)
        for edge in (lows, highs):
            axes.plot(places, edge, color=look.colour, linestyle=look.line, linewidth=0.5, zorder=1.2)
    else:
        axes.vlines(places, lows, highs, color=look.colour, linewidth=1.1, zorder=2)


def examples(panels: Iterable[Panel]) -> str:
    """How many test examples panels have, for a caption."""
    counts = sorted({panel.n for panel in panels})
    return f"n = {counts[0]:,}" + (f" to {counts[-1]:,}" if len(counts) > 1 else "")


def wrapped(text: str, width: int = 21) -> str:
    """A name on several lines, broken at spaces and at the joint of method and source."""
    return "\n".join(wrap(text.replace("+", " +"), width)).replace(" +", "+")


def words(panel: Panel) -> str:
    """Task, student and number of test examples, for a panel's title, on two lines where it is long."""
    return f"{panel.title}{'  ' if len(panel.title) < 32 else chr(10)}(n = {panel.n:,})"
