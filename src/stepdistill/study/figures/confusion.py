"""The confusion matrix: which label is given for which, and how many answers could not be read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.collections import PolyCollection

from stepdistill.study.figures.figure import Figure, Metrics, UndrawnError
from stepdistill.study.figures.frame import picture
from stepdistill.study.figures.layout import paged
from stepdistill.study.figures.measured import Measured, measured
from stepdistill.study.figures.series import shortened
from stepdistill.study.figures.style import INK, SMALL, house_style
from stepdistill.study.results import ResultRow

MOST_LABELS = 30
_NUMBERED = 12
"""Up to so many labels the cells have their numbers; in smaller cells they could not be read."""
_GAP = 0.25
"""Of a cell's width, before the column of those that could not be read, which is no label."""
_WIDE = 3.6
"""Inches of the matrix, about."""
OTHERS, UNREAD = "others", "unread"


@house_style
def confusion(rows: Sequence[ResultRow], metrics: Metrics, method: str, against: str) -> list[Figure]:
    """Gold labels against read labels of the chief predictors of each task, one page for each.

    Raises:
        UndrawnError: no predictor's metrics have a confusion matrix.
    """
    found = measured(rows, metrics, "confusion", method, against)
    if not found:
        raise UndrawnError("no task has a closed set of labels with metrics, or none was measured")
    return paged(found, 1, lambda part, suffix: _figure(part[0], suffix))


def _figure(one: Measured, suffix: str) -> Figure:
    labels, matrix = condensed(*added(one.lines))
    size = len(labels)
    figure, (axes,) = picture([max(0.8, min(4.0, 0.36 * size))])
    _panel(axes, labels, matrix)
    axes.set_title(
        f"{one.title}: {one.label}" if len(one.title + one.label) < 44 else f"{one.title}:\n{one.label}"
    )
    answers = sum(map(sum, matrix))
    seeds = f"{len(one.lines)} seeds together" if len(one.lines) > 1 else "one seed"
    cut = (
        f" The {MOST_LABELS - 1} most frequent labels; all else is in '{OTHERS}'."
        if OTHERS in labels[-1:]
        else ""
    )
    return Figure(
        name=f"confusion{suffix}",
        title=f"Confusion matrix, {one.title}: {one.label}",
        caption=(
            f"Gold labels (rows) against the labels read from the answers (columns), {answers:,} answers, "
            f"{seeds}. Dark: a large share of its row; framed: right answers."
            + (" Numbers are counts." if size <= _NUMBERED else " Counts are in metrics.jsonl.")
            + cut
        ),
        alt=f"Confusion matrix of {one.label} on {one.title}. " + _said(labels, matrix),
        picture=figure,
    )


def added(lines: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[int]]]:
    """Labels and the sum of the matrices of several seeds; a label that one lacks counts 0 there."""
    labels = sorted({label for line in lines for label in line["confusion"]["labels"]})
    first = lines[0]["confusion"]["labels"]
    if set(first) == set(labels):
        labels = list(first)
    place = {label: k for k, label in enumerate(labels)}
    total = [[0] * (len(labels) + 1) for _ in labels]
    for line in lines:
        names = line["confusion"]["labels"]
        columns = [*(place[name] for name in names), len(labels)]
        for name, row in zip(names, line["confusion"]["matrix"], strict=True):
            for column, number in zip(columns, row, strict=True):
                total[place[name]][column] += number
    return labels, total


def condensed(labels: Sequence[str], matrix: Sequence[Sequence[int]]) -> tuple[list[str], list[list[int]]]:
    """At most `MOST_LABELS` labels: the most frequent gold ones in their order, and the others as one."""
    if len(labels) <= MOST_LABELS:
        return list(labels), [list(row) for row in matrix]
    frequent = sorted(range(len(labels)), key=lambda k: (-sum(matrix[k]), k))[: MOST_LABELS - 1]
    kept = sorted(frequent)
    place = {k: new for new, k in enumerate(kept)}
    total = [[0] * (MOST_LABELS + 1) for _ in range(MOST_LABELS)]
    for k, row in enumerate(matrix):
        for column, number in enumerate(row):
            target = MOST_LABELS if column == len(labels) else place.get(column, MOST_LABELS - 1)
            total[place.get(k, MOST_LABELS - 1)][target] += number
    return [*(labels[k] for k in kept), OTHERS], total


def _panel(axes: Any, labels: Sequence[str], matrix: Sequence[Sequence[int]]) -> None:
    size = len(labels)
    shares = [[number / max(1, sum(row)) for number in row] for row in matrix]
    settings = {"cmap": "Blues", "vmin": 0, "vmax": 1, "interpolation": "none", "aspect": "auto"}
    right = size + _GAP
    axes.imshow([row[:size] for row in shares], extent=(-0.5, size - 0.5, size - 0.5, -0.5), **settings)
    axes.imshow(
        [row[size:] for row in shares], extent=(right - 0.5, right + 0.5, size - 0.5, -0.5), **settings
    )
    frames = [
        [(k - 0.5, k - 0.5), (k + 0.5, k - 0.5), (k + 0.5, k + 0.5), (k - 0.5, k + 0.5)] for k in range(size)
    ]
    axes.add_collection(
        PolyCollection(frames, facecolors="none", edgecolors=INK, linewidths=0.7, clip_on=False)
    )
    axes.set_xlim(-0.5, right + 0.5)
    axes.set_ylim(size - 0.5, -0.5)
    if size <= _NUMBERED:
        _numbers(axes, matrix, shares)
    letters = SMALL if size <= 20 else 6.5
    names = [shortened(label, 16) for label in labels]
    upright = max(map(len, [*names, UNREAD])) * letters * 0.0088 > _WIDE / (right + 1)
    axes.set_xticks([*range(size), right], [*names, UNREAD], fontsize=letters, rotation=90 if upright else 0)
    axes.set_yticks(range(size), names, fontsize=letters)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("label read from the answer")
    axes.set_ylabel("gold label")


def _numbers(axes: Any, matrix: Sequence[Sequence[int]], shares: Sequence[Sequence[float]]) -> None:
    for k, row in enumerate(matrix):
        for column, number in enumerate(row):
            place = column if column < len(matrix) else column + _GAP
            colour = "white" if shares[k][column] > 0.55 else INK
            axes.text(place, k, str(number), ha="center", va="center", fontsize=SMALL, color=colour)


def _said(labels: Sequence[str], matrix: Sequence[Sequence[int]]) -> str:
    said = []
    for k, row in enumerate(matrix[:12]):
        wrong = max((column for column in range(len(row)) if column != k), key=lambda column: row[column])
        name = labels[wrong] if wrong < len(labels) else UNREAD
        most = f", most often {name} instead ({row[wrong]})" if row[wrong] else ""
        said.append(f"{labels[k]}: {row[k]} of {sum(row)} right{most}.")
    return " ".join(said) + (f" And {len(matrix) - 12} more labels." if len(matrix) > 12 else "")
