"""Published numbers beside ours: the right ones are set side by side, and what is said of them is so."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rows import outcomes, row

from stepdistill.study.paper.judge import TWINS, judge
from stepdistill.study.paper.judged import Judged
from stepdistill.study.paper.published import published
from stepdistill.study.paper.shipped import NAMES
from stepdistill.study.results import ResultRow

SMALLER = "a test set of 100 examples"
T5 = "google/t5-v1_1-base"
GAP = "step-by-step - finetune"
SHARE = "step-by-step against finetune on all data"


def ours(name: str, share: float, **changes: Any) -> ResultRow:
    values = {"task": "svamp", "teacher": "recorded", "student": T5, "test": "t", "seed": 0} | changes
    seed = values["seed"]
    n = values.pop("n", 100 if values["test"] == SMALLER else 200)
    return row(name=name, outcomes=outcomes(share, n, ("svamp", seed)), **values)


def one(found: list[Judged], kind: str, what: str, task: str = "svamp") -> Judged:
    (judged,) = (
        j
        for j in found
        if (j.kind, j.what, j.task) == (kind, what, task) and "rerun" not in j.published.source
    )
    return judged


def test_the_published_differences_are_as_sure_as_their_test_sets_allow() -> None:
    """Unpaired z of step-by-step minus finetuning: e-SNLI 2.5, ANLI 2.7, CQA 0.6, SVAMP 0.6."""
    found = judge([], "figure4")
    for task, points, z in (
        ("esnli", 1.13, 2.5),
        ("anli-r1", 6.0, 2.7),
        ("cqa", 1.1, 0.6),
        ("svamp", 2.87, 0.6),
    ):
        judged = one(found, "difference", GAP, task)
        assert 100 * judged.published.value == pytest.approx(points)
        error = ((judged.published.high or 0) - judged.published.value) / 1.96
        assert judged.published.value / error == pytest.approx(z, abs=0.05)
        assert judged.published_shown is (z > 1.96)


def test_the_interval_of_a_published_accuracy_is_that_of_its_test_set() -> None:
    judged = one(judge([], "table1"), "accuracy", "finetune")
    assert (judged.published.n, judged.published.runs) == (200, 4)
    assert (judged.published.low, judged.published.high) == (
        pytest.approx(0.557, abs=1e-3),
        pytest.approx(0.690, abs=1e-3),
    )
    assert "mean of 4 runs; 55.75 to 69.04 by its 200 test examples alone" in judged.sentence


def test_without_results_everything_published_is_there_and_nothing_is_judged() -> None:
    for name in NAMES:
        found = judge([], name)
        assert found
        assert all(j.ours is None and j.why_not and j.published_inside is None for j in found)
    assert judge([], "figure1") == []


@pytest.mark.parametrize(
    ("share", "published_inside", "ours_inside", "words"),
    [
        (0.625, True, True, "each lies in the other's interval"),
        (0.90, False, False, "neither lies in the other's interval"),
        (0.40, False, False, "neither lies in the other's interval"),
    ],
)
def test_ours_of_the_same_student_is_judged(
    share: float, published_inside: bool, ours_inside: bool, words: str
) -> None:
    judged = one(judge([ours("finetune", share)], "table1"), "accuracy", "finetune")
    assert judged.ours is not None
    assert judged.ours.value == share
    assert judged.ours.same_student
    assert (judged.published_inside, judged.ours_inside) == (published_inside, ours_inside)
    assert words in judged.sentence


def test_of_another_student_only_the_direction_compares() -> None:
    rows = [
        ours(name, share, student="package:x/Smol.gguf")
        for name, share in (("finetune", 0.5), ("step-by-step", 0.6))
    ]
    found = judge(rows, "figure4")
    judged = one(found, "difference", GAP)
    assert judged.ours is not None
    assert not judged.ours.same_student
    assert judged.same_sign
    assert "ours +10.00 points" in judged.sentence
    assert "of Smol.gguf, 1 seed" in judged.sentence
    assert "the same direction" in judged.sentence
    assert judged.sentence.endswith("another student, so only the direction compares")
    assert "another student" in one(found, "accuracy", "finetune").sentence


def test_a_difference_is_of_the_seeds_and_the_part_of_the_data_that_both_have() -> None:
    rows = [ours("finetune", 0.5, seed=seed) for seed in (0, 1, 2)]
    rows += [ours("step-by-step", 0.6, seed=seed) for seed in (1, 2, 3)]
    rows += [ours("finetune", 0.1, fraction=0.5), ours("step-by-step", 0.9, fraction=0.5)]
    judged = one(judge(rows, "figure4"), "difference", GAP)
    assert judged.ours is not None
    assert (judged.ours.seeds, judged.ours.fraction) == (2, 1.0)
    assert judged.ours.value == pytest.approx(0.1)
    assert judged.shown is (judged.ours.p is not None and judged.ours.p <= 0.05)


def test_results_on_a_part_of_the_data_are_shown_and_not_judged() -> None:
    found = judge([ours(name, 0.5, fraction=0.125) for name in ("finetune", "step-by-step")], "figure4")
    for judged in (one(found, "difference", GAP), one(found, "accuracy", "finetune")):
        assert judged.ours is not None
        assert "on 12.5 % of the data); not judged: on a part of the data" in judged.sentence
        assert (judged.published_inside, judged.ours_inside, judged.same_sign) == (None, None, None)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"n": 20}, "another test set (20 examples, published of 200)"),
        ({"n_train": 50}, "fewer training examples (50, published of 720)"),
        ({"n_train": 50, "fraction": 0.5}, "fewer training examples (50, published of 360)"),
        ({"n_train": 700}, ""),
    ],
)
def test_what_is_cut_down_is_shown_and_not_judged(changes: dict[str, Any], why: str) -> None:
    rows = [ours("finetune", 0.6, **changes), ours("step-by-step", 0.7, **changes)]
    found = judge(rows, "figure4")
    for judged in (one(found, "difference", GAP), one(found, "accuracy", "step-by-step")):
        assert judged.ours is not None
        assert judged.ours.n == changes.get("n", 200)
        assert judged.ours.n_train == changes.get("n_train", 1000)
        assert judged.why_not == why
        assert (judged.published_inside is None) is bool(why)


@pytest.mark.parametrize(
    ("changes", "why"), [({"n": 20}, "another test set"), ({"n_train": 50}, "fewer training")]
)
def test_a_share_of_data_that_were_cut_down_is_not_judged(changes: dict[str, Any], why: str) -> None:
    rows = [ours("step-by-step", 0.8, fraction=part, **changes) for part in (0.5, 1.0)]
    judged = one(judge([*rows, ours("finetune", 0.5, **changes)], "figure4"), "share", SHARE)
    assert judged.ours is not None
    assert judged.why_not.startswith(why)


@pytest.mark.parametrize("twin", [{"config": "other"}, {"config": "other", "share": 0.9}])
def test_of_twins_none_is_taken(twin: dict[str, Any]) -> None:
    plain = {"share": 0.6, "config": "one"}
    rows = [ours("step-by-step", **plain), ours("step-by-step", **(plain | twin)), ours("finetune", 0.5)]
    rows.append(ours("step-by-step", 0.5, fraction=0.5))
    for order in (rows, rows[::-1]):
        found = judge(order, "figure4")
        for what in (("accuracy", "step-by-step"), ("difference", GAP), ("share", SHARE)):
            judged = one(found, *what)
            assert (judged.ours, judged.why_not) == (None, TWINS)
        assert one(found, "accuracy", "finetune").why_not == ""


def test_the_same_trial_of_two_studies_is_no_twin() -> None:
    rows = [ours("step-by-step", 0.6, trial=trial, config="one") for trial in ("a", "b")]
    assert one(judge(rows, "figure4"), "accuracy", "step-by-step").why_not == ""


def test_other_test_sets_are_not_paired() -> None:
    rows = [ours("finetune", 0.5, test="a"), ours("step-by-step", 0.6, test="b")]
    assert one(judge(rows, "figure4"), "difference", GAP).ours is None


def test_an_arm_with_two_test_sets_stands_there_for_each() -> None:
    rows = [ours("step-by-step", 0.6), ours("step-by-step", 0.7, test=SMALLER, seed=1)]
    rows += [ours("finetune", 0.5, test=SMALLER, seed=1)]
    found = judge(rows, "figure4")
    mine = [
        j
        for j in found
        if (j.what, j.task) == ("step-by-step", "svamp") and "rerun" not in j.published.source
    ]
    assert [(j.ours.value, j.ours.n, bool(j.why_not)) for j in mine if j.ours] == [
        (0.6, 200, False),
        (0.7, 100, True),
    ]
    judged = one(found, "difference", GAP)
    assert judged.ours is not None
    assert judged.ours.n == 100


@pytest.mark.parametrize(
    "changes",
    [
        {"labels": "teacher"},
        {"rationales": "shuffled"},
        {"lambda_": 0.5},
        {"teacher": "gpt-4o"},
        {"task": "claims"},
    ],
)
def test_what_is_another_experiment_is_not_set_beside_it(changes: dict[str, Any]) -> None:
    found = judge([ours("step-by-step", 0.6, **changes)], "table1")
    assert all(judged.ours is None for judged in found)


def test_the_rationales_of_another_teacher_have_numbers_of_their_own() -> None:
    rows = [ours("finetune", 0.5), ours("step-by-step", 0.6, teacher="GPT-NeoX-20B")]
    found = judge(rows, "table1")
    assert one(found, "difference", GAP + ", rationales of GPT-NeoX-20B").ours is not None
    assert one(found, "difference", GAP).ours is None


@pytest.mark.parametrize(
    ("mine", "source", "why"),
    [
        (
            ours("teacher", 0.775, student=None, fraction=None, seed=None, rationales=None),
            "PaLM",
            "the outputs are the same",
        ),
        (ours("step-by-step", 0.665), "best step on test", "chosen on the test set"),
    ],
)
def test_what_does_not_compare_is_shown_and_never_judged(mine: ResultRow, source: str, why: str) -> None:
    name = "figure6" if mine.student is None else "table1"
    (judged,) = (j for j in judge([mine], name) if source in j.published.source and j.task == "svamp")
    assert judged.ours is not None
    assert judged.ours.value == mine.value
    assert (judged.published_inside, judged.ours_inside) == (None, None)
    assert f"; not judged: {why}" in judged.sentence


def by_data(*shares: float) -> list[ResultRow]:
    parts = (0.25, 0.5, 1.0)
    rows = [ours("step-by-step", share, fraction=part) for part, share in zip(parts, shares, strict=True)]
    return [*rows, ours("finetune", 0.6)]


@pytest.mark.parametrize(
    ("shares", "reached", "shown"),
    [((0.5, 0.62, 0.7), 0.5, False), ((0.9, 0.9, 0.9), 0.25, True), ((0.1, 0.2, 0.3), None, False)],
)
def test_the_share_of_the_data_that_passes_is_the_smallest_one(
    shares: tuple[float, ...], reached: float | None, shown: bool
) -> None:
    judged = one(judge(by_data(*shares), "figure4"), "share", SHARE)
    assert judged.ours is not None
    assert judged.ours.value == reached
    assert judged.shown is shown
    assert judged.published.value == 0.8
    assert ("with no part that was run" in judged.sentence) is (reached is None)


@given(
    st.lists(
        st.builds(
            ours,
            st.sampled_from(["finetune", "step-by-step", "rationale-first", "distill", "teacher"]),
            st.floats(0, 1),
            seed=st.integers(0, 2),
            test=st.sampled_from(["t", SMALLER]),
            fraction=st.sampled_from([0.5, 1.0]),
            student=st.sampled_from([T5, "other"]),
        ),
        max_size=6,
    ),
    st.sampled_from(NAMES),
)
def test_flags_agree_with_the_numbers(rows: list[ResultRow], name: str) -> None:
    for judged in judge(rows, name):
        given = judged.published
        assert judged.sentence
        assert judged.ours is not None or judged.why_not
        assert judged.published_inside is None or not judged.why_not
        if judged.why_not or judged.ours is None or judged.kind == "share":
            continue
        mine = judged.ours
        assert judged.published_inside is (mine.low <= given.value <= mine.high)  # type: ignore[operator]
        assert judged.ours_inside is (given.low <= mine.value <= given.high)  # type: ignore[operator]
        if judged.kind == "difference":
            assert given.value > 0
            assert judged.same_sign is (mine.value > 0)  # type: ignore[operator]


def test_every_published_task_has_its_test_set_and_every_name_is_one_of_the_paper() -> None:
    found = published()
    for block in found.scores:
        assert all(set(values) <= set(found.tests) for values in block.accuracy.values())
    assert set(found.tests) == set(found.trains)
    assert {n for block in (*found.scores, *found.shares) for n in block.names} == set(NAMES)
