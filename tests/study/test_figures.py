"""Each figure shows the numbers that are in the rows, says what its bands are, and what it lacks."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from pictures import labels, lines
from rows import SIZES, metrics, outcomes, row, study, teacher

from stepdistill.evaluate.bootstrap import mean_accuracy
from stepdistill.study.comparisons import compare_rows, p_value
from stepdistill.study.figures import (
    accuracy,
    bubbles,
    confusion,
    cost,
    forest,
    learning,
    methods,
    reliability,
)
from stepdistill.study.figures.cells import panels, teachers_of
from stepdistill.study.figures.figure import UndrawnError
from stepdistill.study.results import ResultRow

FINETUNE, STEP, TEACHER = "#0072B2", "#D55E00", "#000000"
GRID = study(fractions=(0.25, 0.5, 1.0), seeds=(0, 1, 2), n=100)
SIZED = study(fractions=(0.5, 1.0), seeds=(0, 1), students=tuple(SIZES), n=100)


def of(rows: list[ResultRow], **wanted: Any) -> list[ResultRow]:
    return [one for one in rows if all(getattr(one, key) == value for key, value in wanted.items())]


def mean(rows: list[ResultRow]) -> float:
    return sum(one.value for one in rows) / len(rows)


def test_accuracy_against_data_has_a_line_a_method_with_the_means_of_its_seeds() -> None:
    (figure,) = accuracy.by_data(GRID)
    (axes,) = figure.picture.axes
    for colour, name in ((FINETUNE, "finetune"), (STEP, "step-by-step")):
        xs, ys = lines(axes)[colour][0]
        assert xs == [0.25, 0.5, 1.0]
        assert ys == pytest.approx([mean(of(GRID, name=name, fraction=x)) for x in xs])
    assert labels(figure) == ["finetune", "step-by-step"]
    assert axes.get_title(loc="left").startswith("claims, small")
    ticks = [text.get_text() for text in axes.get_xticklabels()]
    assert ticks == ["25 %\n250", "50 %\n500", "100 %\n1,000"]


def test_bands_are_the_intervals_over_seeds_and_examples() -> None:
    (axes,) = accuracy.by_data(GRID)[0].picture.axes
    found = mean_accuracy([one.outcomes for one in of(GRID, name="step-by-step", fraction=0.5)])
    shape = axes.collections[1].get_paths()[0].vertices
    at_half = sorted({round(float(y), 9) for x, y in shape if x == 0.5})
    assert at_half == pytest.approx([found.low, found.high])


def test_teacher_and_finetuning_on_all_data_are_lines_across_with_their_words() -> None:
    (axes,) = accuracy.by_data(GRID)[0].picture.axes
    across = {colour: ys[0] for colour, found in lines(axes).items() for xs, ys in found if xs == [0, 1]}
    assert across == {TEACHER: 0.8, FINETUNE: pytest.approx(mean(of(GRID, name="finetune", fraction=1.0)))}
    words = {text.get_text().split("\n")[0] for text in axes.texts}
    assert words == {"teacher", "finetune,"}


@pytest.mark.parametrize(("seeds", "said"), [((0,), "choice of test examples only"), ((0, 1), "2 seeds")])
def test_the_caption_says_what_a_band_can_know(seeds: tuple[int, ...], said: str) -> None:
    (figure,) = accuracy.by_data(study(fractions=(0.5, 1.0), seeds=seeds))
    assert said in figure.caption
    assert "n = 200" in figure.picture.axes[0].get_title(loc="left")


def test_accuracy_against_size_uses_the_most_data_and_a_logarithmic_axis() -> None:
    (figure,) = accuracy.by_size(SIZED)
    (axes,) = figure.picture.axes
    assert axes.get_xscale() == "log"
    xs, ys = lines(axes)[STEP][0]
    assert xs == sorted(SIZES.values())
    expected = [mean(of(SIZED, name="step-by-step", fraction=1.0, student=name)) for name in SIZES]
    assert ys == pytest.approx(expected)
    assert "100 %" in figure.caption


def test_bubbles_are_filled_where_the_teacher_is_reached_and_the_least_is_ringed() -> None:
    weak = teacher(outcomes=outcomes(0.6, 100, "weak"), test="x")
    good, bad = outcomes(0.7, 100, 1), outcomes(0.5, 100, 2)
    rows = [
        weak,
        row(student="tiny", fraction=0.5, outcomes=bad, test="x"),
        row(student="tiny", fraction=1.0, outcomes=good, test="x", trial="least"),
        row(student="small", fraction=0.5, outcomes=good, test="x"),
    ]
    (figure,) = bubbles.bubbles(rows)
    found = [line for line in figure.picture.axes[0].lines if line.get_color() != TEACHER]
    faces = {
        (round(float(line.get_xdata()[0]), 3), float(line.get_ydata()[0])): line.get_markerfacecolor()
        for line in found
        if line.get_markeredgecolor() == STEP
    }
    assert {place: face[3] > 0 for place, face in faces.items()} == {
        (0.0, 0.5): False,
        (1.0, 0.7): True,
        (0.0, 0.7): True,
    }
    rings = [line for line in found if line.get_markeredgecolor() == "#222222"]
    assert [float(line.get_xdata()[0]) for line in rings] == [1.0]
    (panel,) = panels(rows, by_student=False)
    least = bubbles.least(panel, panel.series[0])
    assert least is not None
    assert least.first.trial == "least"
    assert "reaches it first with 100k parameters and 100 % of the data" in figure.alt


def test_bubbles_of_close_fractions_do_not_cover_each_other() -> None:
    rows = study(
        ("finetune", "distill", "step-by-step"), (0.01, 0.9, 0.95, 1.0), students=("tiny", "small"), n=50
    )
    (axes,) = bubbles.bubbles(rows)[0].picture.axes
    places = sorted({round(float(x[0]), 6) for line in axes.lines if len(x := line.get_xdata()) == 1})
    assert len(places) == 12
    assert min(b - a for a, b in pairwise(places)) == pytest.approx(0.8 / 3, abs=0.01)
    assert [text.get_text().split("\n")[0] for text in axes.get_xticklabels()][-1] == "100 %"


def test_the_learning_curve_goes_on_to_twice_the_data_and_says_where_it_is_not_measured() -> None:
    (figure,) = learning.learning(GRID, "step-by-step", "finetune")
    (axes,) = figure.picture.axes
    found = lines(axes)[STEP]
    points, measured, ahead = (xs for xs, _ in found)
    assert points == [250, 500, 1000]
    assert (min(measured), max(measured)) == (250, 1000)
    assert (min(ahead), max(ahead)) == pytest.approx((1000, 2000))
    hatches = [one.get_hatch() for one in axes.collections]
    assert hatches == [None, "////", None, "////"]
    assert "extrapolation" in figure.caption
    assert sum(text.get_text() == "extrapolated" for text in axes.texts) == 1


def test_a_size_of_the_learning_curve_is_the_mean_of_its_seeds() -> None:
    """What a teacher's answers leave to train on differs a little from seed to seed."""
    rows = [
        replace(one, n_train=(one.n_train or 0) + 10 * (one.seed or 0)) if one.student else one
        for one in GRID
    ]
    (axes,) = learning.learning(rows, "step-by-step", "finetune")[0].picture.axes
    assert lines(axes)[STEP][0][0] == [260, 510, 1010]


def test_two_fractions_of_one_size_stand_together_in_the_learning_curve() -> None:
    four = study(fractions=(0.25, 0.5, 0.9, 1.0), seeds=(0, 1), n=100)
    rows = [replace(one, n_train=1000) if one.fraction == 0.9 else one for one in four]
    (axes,) = learning.learning(rows, "step-by-step", "finetune")[0].picture.axes
    assert lines(axes)[STEP][0][0] == [250, 500, 1000, 1000]
    (panel,) = panels(rows, by_student=True)
    cells = panel.of(panel.series[0])
    assert [len(texts) for texts in learning._points(cells).values()] == [2, 2, 4]
    assert [len(texts) for texts in learning._points([*cells, *cells]).values()] == [2, 2, 4]


def test_the_forest_plot_has_every_comparison_with_its_interval_and_p() -> None:
    (figure,) = forest.differences(GRID, "step-by-step", "finetune")
    (axes,) = figure.picture.axes
    expected = compare_rows(GRID, "step-by-step", "finetune")
    zero, *dots = axes.lines
    assert list(zero.get_xdata()) == [0, 0]
    assert [float(dot.get_xdata()[0]) for dot in dots] == pytest.approx(
        [100 * one.difference.value for one in expected]
    )
    spans = [sorted(float(x) for x, _ in one.get_segments()[0]) for one in axes.collections]
    assert spans == [pytest.approx([100 * one.difference.low, 100 * one.difference.high]) for one in expected]
    for one, text in zip(expected, axes.texts, strict=True):
        assert p_value(one.adjusted) in text.get_text()
        assert "3 seeds" in text.get_text()
    assert [text.get_text() for text in axes.get_yticklabels()] == ["25 %", "50 %", "100 %"]


def test_confusion_adds_the_seeds_and_keeps_what_could_not_be_read_apart() -> None:
    line = {"confusion": {"labels": ["a", "b"], "matrix": [[3, 1, 0], [0, 2, 4]]}}
    other = {"confusion": {"labels": ["b", "a"], "matrix": [[5, 0, 0], [2, 7, 1]]}}
    assert confusion.added([line, other]) == (["a", "b"], [[10, 3, 1], [0, 7, 4]])
    rows = study(("step-by-step",), n=30)[1:]
    (figure,) = confusion.confusion(
        rows, {rows[0].trial: [{"name": "step-by-step", **line}]}, "step-by-step", "x"
    )
    (axes,) = figure.picture.axes
    assert [text.get_text() for text in axes.get_xticklabels()] == ["a", "b", "unread"]
    assert [text.get_text() for text in axes.texts] == ["3", "1", "0", "0", "2", "4"]


def test_of_many_labels_the_most_frequent_are_shown_and_no_answer_is_lost() -> None:
    names = [f"l{k}" for k in range(50)]
    matrix = [[0] * 51 for _ in names]
    for k in range(50):
        matrix[k][k], matrix[k][50], matrix[k][(k + 1) % 50] = 10 + k, 1, 2
    labels_, condensed = confusion.condensed(names, matrix)
    assert labels_ == [*names[21:], "others"]
    assert sum(map(sum, condensed)) == sum(map(sum, matrix))
    assert condensed[0] == [31, 2, *[0] * 28, 1]
    assert condensed[-1][-1] == 21


def test_reliability_puts_the_bins_of_all_seeds_together() -> None:
    first = {"reliability": [{"low": 0.5, "high": 0.6, "n": 30, "confidence": 0.55, "accuracy": 0.5}]}
    second = {
        "reliability": [
            {"low": 0.5, "high": 0.6, "n": 10, "confidence": 0.59, "accuracy": 0.9},
            {"low": 0.6, "high": 0.7, "n": 0, "confidence": None, "accuracy": None},
        ]
    }
    (only,) = reliability.bins([first, second])
    assert (only.n, only.confidence, only.accuracy) == (40, pytest.approx(0.56), pytest.approx(0.6))
    rows = study(("step-by-step",), n=30)[1:]
    measured = {rows[0].trial: [metrics("step-by-step", ["a", "b"])]}
    (figure,) = reliability.reliability(rows, measured, "step-by-step", "finetune")
    assert [text.get_text() for text in figure.picture.axes[1].texts] == ["16", "20", "24", "28", "32", "36"]
    assert labels(figure) == ["step-by-step, ECE 7.0 %"]


def test_cost_counts_the_teacher_only_for_those_who_need_it_and_for_itself() -> None:
    rows = [
        teacher(test="x", outcomes=outcomes(0.9, 100, 0)),
        row(
            name="finetune", test="x", outcomes=outcomes(0.6, 100, 1), train_seconds=3600, predict_seconds=360
        ),
        row(test="x", outcomes=outcomes(0.7, 100, 2), train_seconds=3600, predict_seconds=0, cost_usd=2.0),
    ]
    (panel,) = panels(rows, by_student=False)
    found = {point.label: round(point.cost, 6) for point in cost.points(panel, money=True)}
    assert found == {"finetune": 0.2, "step-by-step": 2.1, "teacher oracle": 2.0}
    seconds = {point.label: point.cost for point in cost.points(panel, money=False)}
    assert seconds == {"finetune": 7200, "step-by-step": 3600}
    best = [point.label for point in cost.front(cost.points(panel, money=True))]
    assert best == ["finetune", "teacher oracle"]


@pytest.mark.parametrize(("price", "unit"), [(1.5, "dollars"), (None, "seconds"), (0.0, "seconds")])
def test_cost_is_in_dollars_where_all_prices_are_known(price: float | None, unit: str) -> None:
    rows = [replace(one, cost_usd=price) if one.name == "step-by-step" else one for one in GRID]
    (figure,) = cost.cost(rows)
    assert unit in figure.picture.axes[-1].get_xlabel()
    assert "loading the student and the probabilities" in figure.caption
    assert ("all answers that were drawn for one" in figure.caption) == (unit == "dollars")


def test_a_single_run_shows_teacher_and_methods_with_their_intervals() -> None:
    rows = study()
    (figure,) = methods.by_method(rows)
    (axes,) = figure.picture.axes
    assert [text.get_text() for text in axes.get_yticklabels()] == ["teacher", "finetune", "step-by-step"]
    assert [float(line.get_xdata()[0]) for line in axes.lines] == pytest.approx([one.value for one in rows])
    spans = [[float(x) for x, _ in one.get_segments()[0]] for one in axes.collections]
    assert spans == [pytest.approx([one.low, one.high]) for one in rows]


@pytest.mark.parametrize(
    ("draw", "reason"),
    [
        (accuracy.by_data, "training fraction does not vary"),
        (accuracy.by_size, "student's size does not vary"),
        (bubbles.bubbles, "several `fractions`"),
        (lambda rows: learning.learning(rows, "step-by-step", "finetune"), "3 different numbers"),
        (lambda rows: forest.differences(rows, "distill", "finetune"), "no cell of the grid has both"),
        (lambda rows: confusion.confusion(rows, {}, "step-by-step", "finetune"), "closed set of labels"),
        (lambda rows: reliability.reliability(rows, {}, "step-by-step", "finetune"), "no predictor gives"),
        (lambda rows: methods.by_method(rows[:1]), "no student"),
        (lambda rows: cost.cost(rows[:2]), "fewer than two costs"),
    ],
)
def test_what_cannot_be_shown_says_why(draw: Any, reason: str) -> None:
    with pytest.raises(UndrawnError, match=reason):
        draw([replace(one, cost_usd=None) for one in study()])


def test_a_teacher_with_a_row_for_each_seed_has_their_mean() -> None:
    rows = [teacher(seed=seed, outcomes="1" * (70 + 10 * seed) + "0" * (30 - 10 * seed)) for seed in range(3)]
    (one,) = teachers_of([*rows, row(), teacher(task="other")], "claims", rows[0].test)
    assert one.value == pytest.approx(0.8)
    assert one.low < 0.8 < one.high
