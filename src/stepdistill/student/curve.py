"""A training to look at: loss of each task and validation accuracy over the steps, as PNG and SVG."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stepdistill.files import writing

CURVE = "curve.svg"
"""The file that is written last."""

# Blue and vermillion of Okabe and Ito, told apart by colour-blind eyes; the dashes by a printer's grey.
_LOSSES = (
    ("loss_label", "label", "#0072B2", "-", "o"),
    ("loss_rationale", "rationale", "#D55E00", "--", "s"),
)
_TOTAL = ("loss", "both tasks", "#000000", "-", "o")
_ACCURACY = ("eval_accuracy", "validation", "#009E73", "-", "o")
_MARKED = 40
"""Up to so many points are marked singly; more would hide the line."""


def draw(rows: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """Write `curve.png` and `curve.svg` into `folder`; the same rows give the same bytes.

    Args:
        rows: of log.json: `step`, and where known `loss_label` and `loss_rationale` (or `loss` alone), in
            nats a token, and `eval_accuracy`, from 0 to 1. A value that is not finite is a gap.
        folder: made if there is none.

    Raises:
        RunFolderError: the disk is full or not writable.
    """
    with _quiet():
        _draw(rows, folder)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without matplotlib's remarks on its caches, which look like errors at the first drawing."""
    logger = logging.getLogger("matplotlib")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _draw(rows: Sequence[Mapping[str, Any]], folder: Path) -> None:
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    losses = [line for line in _LOSSES if _points(rows, line[0])] or [_TOTAL]
    panels = [(losses, "loss (nats per token)")]
    if _points(rows, "eval_accuracy"):
        panels.append(([_ACCURACY], "validation accuracy"))
    # Words stay words in the SVG, and its ids do not come from a random number.
    settings = {"svg.fonttype": "none", "svg.hashsalt": "stepdistill", "font.size": 10}
    with matplotlib.rc_context(settings), writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        figure = Figure(figsize=(6.4, 2.6 * len(panels)), dpi=150, layout="constrained")
        FigureCanvasAgg(figure)
        for axes, (lines, name) in zip(_axes(figure, len(panels)), panels, strict=True):
            for line in lines:
                _plot(axes, _points(rows, line[0]), line)
            axes.set_ylabel(name)
            axes.grid(alpha=0.3, linewidth=0.5)
            axes.spines[["top", "right"]].set_visible(False)
            if lines is losses and _points(rows, losses[0][0]):
                axes.legend(frameon=False)
        figure.axes[-1].set_xlabel("optimizer step")
        figure.savefig(folder / "curve.png", metadata={"Software": None})
        figure.savefig(folder / CURVE, metadata={"Date": None, "Creator": None})


def _points(rows: Sequence[Mapping[str, Any]], key: str) -> list[tuple[int, float]]:
    return [(int(row["step"]), float(row[key])) for row in rows if row.get(key) is not None]


def _axes(figure: Any, count: int) -> list[Any]:
    return list(figure.subplots(count, 1, sharex=True, squeeze=False)[:, 0])


def _plot(axes: Any, points: Sequence[tuple[int, float]], line: tuple[str, str, str, str, str]) -> None:
    key, name, colour, style, marker = line
    axes.plot(
        [step for step, _ in points],
        [value for _, value in points],
        style,
        color=colour,
        label=name,
        gid=key,
        linewidth=1.5,
        marker=marker if len(points) <= _MARKED else "",
        markersize=3.5,
    )
