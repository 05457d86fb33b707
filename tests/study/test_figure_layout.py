"""Nothing stands over anything else, whatever the shape of the study, and every method is named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from pictures import boxes, collisions, labels, outside
from rows import SIZES, metrics, study

from stepdistill.study.figures import draw
from stepdistill.study.figures.figure import Figure, UndrawnError
from stepdistill.study.figures.layout import apart
from stepdistill.study.results import ResultRow

ARMS = (
    "finetune",
    "distill",
    "step-by-step",
    "step-by-step+human",
    "step-by-step+shuffled",
    "rationale-input+human",
    "rationale-first",
    "label-first",
)
LONG = {
    "task": "a-task-with-a-name-that-nobody-would-want-to-read-aloud",
    "teacher": "organisation/Large-Teacher-Model-70B-Instruct-v0.3",
}


def long_names() -> list[ResultRow]:
    found = [replace(one, **LONG) for one in study(ARMS, (0.01, 0.1, 0.125, 0.25, 0.75, 1.0), (0, 1), n=60)]
    both = [
        replace(one, labels="teacher", trial=one.trial + "-t") for one in found if one.name == "step-by-step"
    ]
    return found + both


SHAPES: dict[str, tuple[list[ResultRow], int]] = {
    "a single run": (study(n=60), 3),
    "the usual": (study(ARMS[:3], (0.125, 0.25, 0.5, 1.0), (0, 1, 2), n=60), 3),
    "tasks and students": (study(ARMS[1:3], (0.25, 1.0), tasks=("a", "b"), students=list(SIZES), n=60), 2),
    "long names": (long_names(), 30),
    "hundreds": (
        study(ARMS[:3], (0.05, 0.1, 0.2, 0.5, 1.0), (0, 1, 2), ("a", "b"), tuple(SIZES), n=30),
        60,
    ),
}


def drawn(rows: Sequence[ResultRow], n_labels: int) -> list[Figure]:
    names = [f"a long label number {k}" for k in range(n_labels)]
    measured: dict[str, list[dict[str, Any]]] = {one.trial: [] for one in rows}
    for one in rows:
        measured[one.trial].append(metrics(one.name, names, seed=one.seed or 0))
    found: list[Figure] = []
    for kind in draw.kinds(rows, measured, "step-by-step", "finetune"):
        try:
            found += kind.draw()
        except UndrawnError:
            continue
    return found


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_no_text_is_covered_or_cut_and_every_series_is_named(shape: str) -> None:
    found = drawn(*SHAPES[shape])
    assert {figure.name for figure in found} >= {"accuracy", "cost", "reliability", "confusion"}
    assert len({figure.name for figure in found}) == len(found)
    for figure in found:
        texts = boxes(figure)
        assert collisions(texts) == [], figure.name
        assert outside(figure, texts) == [], figure.name
        assert "nan" not in " ".join([*(text for text, _ in texts), figure.caption, figure.alt])
        assert figure.title
        assert figure.alt.endswith(".")
        assert figure.caption.endswith(".")
        for axes in figure.picture.axes:
            low, high = sorted(axes.get_ylim())
            for line in axes.lines:
                if line.get_transform() == axes.transData:
                    assert all(low <= value <= high for value in line.get_ydata()), figure.name
        if figure.name.startswith(("accuracy-data", "accuracy-size", "minimum", "cost", "learning")):
            assert len(set(labels(figure))) == len(labels(figure)) > 0


def test_what_is_too_much_for_a_panel_is_named_in_the_caption() -> None:
    rows = study((*ARMS, "step-by-step+none"), (0.5, 1.0), n=30)
    figure = next(one for one in drawn(rows, 3) if one.name == "accuracy-data")
    assert len(labels(figure)) == 8
    assert "Not drawn, to keep the rest readable: label-first." in figure.caption


def test_a_series_looks_the_same_in_every_figure() -> None:
    found = drawn(study(ARMS[:3], (0.25, 0.5, 1.0), students=list(SIZES), n=60), 3)
    seen: dict[str, set[tuple[Any, ...]]] = {}
    for figure in found:
        for legend in figure.picture.legends:
            for handle, text in zip(legend.legend_handles, legend.get_texts(), strict=True):
                look = (handle.get_color(), handle.get_marker(), handle.get_fillstyle())
                seen.setdefault(text.get_text().partition(",")[0], set()).add(look)
    named = [seen[name] for name in ARMS[:3]]
    assert [len(looks) for looks in named] == [1, 1, 1]
    assert len(set.union(*named)) == 3
    assert len({next(iter(looks))[1] for looks in named}) == 3, "markers differ too, for greyscale"


@pytest.mark.parametrize("places", [[0.5, 0.5, 0.5], [0.0, 0.01], [0.99, 1.0], [0.1, 0.9]])
def test_words_are_pushed_apart_and_stay_inside(places: list[float]) -> None:
    found = apart(places, [0.2] * len(places))
    assert all(b - a >= 0.2 - 1e-6 for a, b in pairwise(found))
    assert found[0] >= 0.1 - 1e-6
    assert found[-1] <= 0.9 + 1e-6
