"""All figures of a study into its folder, and the reasons for those that are not drawn."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from stepdistill.errors import DataError
from stepdistill.files import writing
from stepdistill.study.figures.accuracy import by_data, by_size
from stepdistill.study.figures.bubbles import bubbles
from stepdistill.study.figures.confusion import confusion
from stepdistill.study.figures.cost import cost
from stepdistill.study.figures.figure import Drawn, Figure, Metrics, UndrawnError
from stepdistill.study.figures.forest import differences
from stepdistill.study.figures.learning import learning
from stepdistill.study.figures.methods import by_method
from stepdistill.study.figures.reliability import reliability
from stepdistill.study.figures.write import write
from stepdistill.study.results import ResultRow


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of figure: its name, its title, and what draws it (one figure, or several pages)."""

    name: str
    title: str
    draw: Callable[[], list[Figure]]


def draw_all(
    rows: Sequence[ResultRow],
    metrics: Metrics,
    folder: Path,
    method: str = "step-by-step",
    against: str = "finetune",
) -> list[Drawn]:
    """Write every figure that the rows allow as SVG and PNG; the same rows give the same bytes.

    Args:
        rows: the study's results; their order says nothing.
        metrics: rows of each trial's `metrics.jsonl`; a trial may be missing.
        folder: made if there is none. Figures of earlier rows that are no longer drawn are deleted.
        method, against: whom the paired differences compare.

    Returns:
        One entry a figure, in the order of a report; of a figure that is not drawn `missing` says why.

    Raises:
        DataError: there are no rows.
        RunFolderError: the disk is full or not writable.
    """
    if not rows:
        raise DataError("no results, so no figures; run the study first")
    drawn: list[Drawn] = []
    found = kinds(rows, metrics, method, against)
    for kind in found:
        try:
            drawn += [write(figure, folder) for figure in kind.draw()]
        except UndrawnError as reason:
            drawn.append(Drawn(kind.name, kind.title, "", "", None, None, str(reason)))
    _sweep(folder, [kind.name for kind in found], drawn)
    return drawn


def kinds(rows: Sequence[ResultRow], metrics: Metrics, method: str, against: str) -> list[Kind]:
    """All kinds of figures, in the order of a report."""
    return [
        Kind("accuracy", "Accuracy of every method", lambda: by_method(rows)),
        Kind("difference", f"{method} against {against}, paired", lambda: differences(rows, method, against)),
        Kind("accuracy-data", "Accuracy against training data", lambda: by_data(rows)),
        Kind("learning-curve", "Learning curve", lambda: learning(rows, method, against)),
        Kind("accuracy-size", "Accuracy against student size", lambda: by_size(rows)),
        Kind("minimum", "Least data and smallest student", lambda: bubbles(rows)),
        Kind("cost", "Accuracy against cost", lambda: cost(rows)),
        Kind("reliability", "Reliability diagram", lambda: reliability(rows, metrics, method, against)),
        Kind("confusion", "Confusion matrix", lambda: confusion(rows, metrics, method, against)),
    ]


def _sweep(folder: Path, names: Iterable[str], drawn: Iterable[Drawn]) -> None:
    """Delete pages of earlier rows: a reader would take them for these rows'."""
    ours = re.compile(rf"({'|'.join(map(re.escape, names))})(-\d+)?\.(svg|png)")
    kept = {path for one in drawn for path in (one.svg, one.png)}
    with writing(folder):
        for path in folder.glob("*.*"):
            if ours.fullmatch(path.name) and path not in kept:
                path.unlink()
