"""A picture of panels one above the other, sized by what stands around them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Picture

WIDTH = 5.2
"""Inches. Pictures are narrow and tall: at the 390 pixels of a phone the letters keep their size nearly."""
ABOVE, BELOW = "legend-above", "legend-below"
_PAD = 0.08
_GAP = 0.16
_FIRST = 3.4
"""Inches that the axes are wide until it is known what stands beside them; about what it comes to."""


def picture(heights: Sequence[float]) -> tuple[Any, list[Any]]:
    """An empty picture, and its axes from top to bottom, each of its height in inches."""
    # The unit of an SVG: the words measured for the layout need not be measured again for it.
    figure = Picture(figsize=(WIDTH, sum(heights)), dpi=72)
    FigureCanvasAgg(figure)
    total, edge, found = sum(heights), sum(heights), []
    for height in heights:
        edge -= height
        found.append(figure.add_axes((0.2, edge / total, _FIRST / WIDTH, height / total)))
    return figure, found


def settle(figure: Any) -> None:
    """Give every axes the place that its words leave, and the figure the height that all take together.

    matplotlib's own layout measures everything twice and again at each drawing: it takes longer than the
    drawing. Here axes keep their height, so that one measurement holds.
    """
    renderer = figure.canvas.get_renderer()
    rooms = [_room(axes, renderer, figure.dpi) for axes in figure.axes]
    legends = {legend.get_gid(): legend for legend in figure.legends}
    tall = {gid: legend.get_window_extent(renderer).height / figure.dpi for gid, legend in legends.items()}
    left = max(room[0] for room in rooms) + _PAD
    width = WIDTH - left - max(room[1] for room in rooms) - _PAD
    heights = [axes.bbox.height / figure.dpi for axes in figure.axes]
    labels = [_labels(axes, figure.dpi) for axes in figure.axes]
    total = 2 * _PAD + sum(heights) + sum(top + bottom for _, _, top, bottom in rooms)
    total += _GAP * (len(rooms) - 1) + sum(height + _GAP for height in tall.values())
    figure.set_size_inches(WIDTH, total)
    edge = total - _PAD
    if ABOVE in legends:
        legends[ABOVE].set_bbox_to_anchor((_PAD / WIDTH, edge / total), figure.transFigure)
        edge -= tall[ABOVE] + _GAP
    for axes, height, (_, _, top, bottom), (aside, under) in zip(
        figure.axes, heights, rooms, labels, strict=True
    ):
        edge -= top + height
        axes.set_position((left / WIDTH, edge / total, width / WIDTH, height / total))
        axes.yaxis.set_label_coords(-aside / width, 0.5)
        axes.xaxis.set_label_coords(0.5, -under / height)
        edge -= bottom + _GAP
    if BELOW in legends:
        legends[BELOW].set_bbox_to_anchor((_PAD / WIDTH, _PAD / total), figure.transFigure)


def _room(axes: Any, renderer: Any, dpi: float) -> tuple[float, float, float, float]:
    """Inches that stand out at the left, the right, above and below."""
    title = axes._left_title if axes.get_title(loc="left") else axes.title
    title.set_in_layout(False)
    words, inside = axes.get_tightbbox(renderer), axes.bbox
    top = max(words.y1, title.get_window_extent(renderer).y1 if title.get_text() else 0) - inside.y1
    sides = (inside.x0 - words.x0, words.x1 - inside.x1, top, inside.y0 - words.y0)
    left, right, above, below = (max(0.0, side) / dpi for side in sides)
    return left, right, above, below


def _labels(axes: Any, dpi: float) -> tuple[float, float]:
    """Inches from the axes to the anchors of its two labels, where measuring has put them."""
    aside = axes.bbox.x0 - axes.yaxis.label.get_position()[0]
    under = axes.bbox.y0 - axes.xaxis.label.get_position()[1]
    return aside / dpi, under / dpi
