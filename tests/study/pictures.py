"""What is to be read in a matplotlib figure, and where it stands."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg

from stepdistill.study.figures.figure import Figure
from stepdistill.study.figures.frame import settle
from stepdistill.study.figures.style import house_style


@house_style
def boxes(figure: Figure) -> list[tuple[str, Any]]:
    """Every text that is seen, with its box in pixels, as the figure is written."""
    canvas = FigureCanvasAgg(figure.picture)
    settle(figure.picture)
    canvas.draw()
    renderer = canvas.get_renderer()
    return [(text.get_text(), text.get_window_extent(renderer)) for text in _texts(figure.picture)]


def collisions(found: list[tuple[str, Any]]) -> list[tuple[str, str]]:
    """Pairs of texts of which one stands over the other."""
    return [
        (a, b)
        for (a, first), (b, second) in itertools.combinations(found, 2)
        if min(first.x1, second.x1) - max(first.x0, second.x0) > 1
        and min(first.y1, second.y1) - max(first.y0, second.y0) > 1
    ]


def outside(figure: Figure, found: list[tuple[str, Any]]) -> list[str]:
    """Texts that run over the edge of the picture."""
    width, height = figure.picture.bbox.width, figure.picture.bbox.height
    return [
        text for text, box in found if box.x0 < -1 or box.y0 < -1 or box.x1 > width + 1 or box.y1 > height + 1
    ]


def labels(figure: Figure) -> list[str]:
    """Texts of its legends."""
    return [text.get_text() for legend in figure.picture.legends for text in legend.get_texts()]


def lines(axes: Any) -> dict[str, list[tuple[list[float], list[float]]]]:
    """Its lines by colour, each as x and y."""
    found: dict[str, list[tuple[list[float], list[float]]]] = {}
    for line in axes.lines:
        xs, ys = ([float(value) for value in values] for values in (line.get_xdata(), line.get_ydata()))
        found.setdefault(line.get_color(), []).append((xs, ys))
    return found


def _texts(picture: Any) -> Iterator[Any]:
    for axes in picture.axes:
        ticks = [tick.label1 for axis in (axes.xaxis, axes.yaxis) for tick in axis._update_ticks()]
        titles = [axes.title, axes._left_title, axes._right_title]
        yield from _seen([*titles, *axes.texts, axes.xaxis.label, axes.yaxis.label, *ticks])
    for legend in picture.legends:
        yield from _seen([*legend.get_texts(), legend.get_title()])


def _seen(texts: list[Any]) -> Iterator[Any]:
    return (text for text in texts if text.get_visible() and text.get_text().strip())
