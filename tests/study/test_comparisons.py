"""Which rows of a study are compared, what is refused, and what the verdict says."""

from __future__ import annotations

import random
from typing import Any

import pytest
from rows import row, teacher

from stepdistill.errors import DataError
from stepdistill.evaluate.bootstrap import across_seeds, error, paired
from stepdistill.evaluate.power import smallest_difference, smallest_over_seeds
from stepdistill.study.comparisons import adjust, against_teacher, compare_rows, p_value, verdict
from stepdistill.study.results import ResultRow

BASE = {"name": "finetune"}
OURS = {"name": "step-by-step"}


def answers(accuracy: float, n: int, key: object) -> str:
    """Outcomes of this accuracy, with a hardness that all predictors of `n` examples share."""
    hard, own = random.Random(n), random.Random(repr(key))
    return "".join("1" if 0.7 * hard.random() + 0.3 * own.random() < accuracy else "0" for _ in range(n))


def pair(gap: float, n: int = 400, seeds: tuple[int, ...] = (0, 1, 2), **changes: Any) -> list[ResultRow]:
    """Both methods under these seeds, the second ahead by about `gap`."""
    return [
        row(
            **{
                **given,
                "seed": seed,
                "outcomes": answers(level, n, (given["name"], seed, *changes)),
                **changes,
            }
        )
        for seed in seeds
        for given, level in ((BASE, 0.5), (OURS, 0.5 + gap))
    ]


def test_every_cell_with_both_methods_is_compared_on_its_own_seeds() -> None:
    rows = pair(0.1, fraction=0.5) + pair(0.1) + pair(0.1, seeds=(7,), student="tiny")
    rows.append(row(**BASE, fraction=0.25))
    found = compare_rows(rows, "step-by-step", "finetune")
    assert [(c.fraction, c.student, c.seeds) for c in found] == [
        (0.5, "small", (0, 1, 2)),
        (1.0, "small", (0, 1, 2)),
        (1.0, "tiny", (7,)),
    ]
    assert [(c.first, c.second) for c in found] == [("finetune", "step-by-step")] * 3
    mine = [
        [r.outcomes for r in rows if r.fraction == 0.5 and r.name == name]
        for name in ("finetune", "step-by-step")
    ]
    assert found[0].difference == across_seeds(*mine)
    assert found[0].difference.value > 0


def test_seeds_are_paired_by_their_number_not_their_order() -> None:
    rows = pair(0.1)
    assert compare_rows(rows[::-1], "step-by-step", "finetune") == compare_rows(
        rows, "step-by-step", "finetune"
    )


def test_a_seed_that_only_one_was_run_with_is_left_out() -> None:
    rows = [*pair(0.1, seeds=(0, 1)), row(**OURS, seed=2)]
    assert compare_rows(rows, "step-by-step", "finetune")[0].seeds == (0, 1)
    assert compare_rows([rows[0], row(**OURS, seed=2)], "step-by-step", "finetune") == []


def test_different_test_examples_are_never_paired() -> None:
    rows = [row(**BASE), row(**OURS, test="f" * 16)]
    with pytest.raises(DataError, match=r"different test examples of claims"):
        compare_rows(rows, "step-by-step", "finetune")
    mixed = [*pair(0.1, seeds=(0,)), *pair(0.1, seeds=(1,), test="f" * 16)]
    with pytest.raises(DataError, match="different test examples"):
        compare_rows(mixed, "step-by-step", "finetune")


def test_two_rows_in_one_place_are_refused_by_name() -> None:
    rows = [*pair(0.1, seeds=(0,)), row(**OURS, seed=0, trial="other")]
    with pytest.raises(DataError, match="t and other stand in the same place"):
        compare_rows(rows, "step-by-step", "finetune")


def test_labels_part_the_cells_where_both_methods_have_them() -> None:
    rows = pair(0.1, labels="gold") + pair(0.1, labels="teacher")
    assert [c.labels for c in compare_rows(rows, "step-by-step", "finetune")] == ["gold", "teacher"]


def test_methods_that_learn_different_labels_by_their_nature_are_compared() -> None:
    rows = [row(name="distill", labels="teacher"), row(**OURS, labels="gold")]
    assert [c.labels for c in compare_rows(rows, "step-by-step", "distill")] == ["gold against teacher"]


def test_a_method_without_lambda_is_compared_with_each_lambda_and_teachers_stay_apart() -> None:
    rows = [row(**BASE), row(**OURS, lambda_=0.5), row(**OURS, lambda_=1.0)]
    assert [c.lambda_ for c in compare_rows(rows, "step-by-step", "finetune")] == [0.5, 1.0]
    rows = [row(name="distill", teacher="a"), row(**OURS, teacher="a"), row(**OURS, teacher="b")]
    assert [c.teacher for c in compare_rows(rows, "step-by-step", "distill")] == ["a"]
    # Finetuning on gold labels asked no teacher: it is the same beside either.
    rows[0] = row(**BASE, teacher="a")
    assert [c.teacher for c in compare_rows(rows, "step-by-step", "finetune")] == ["a", "b"]


def test_an_arm_is_compared_with_its_control_of_other_rationales() -> None:
    rows = [row(**OURS), row(name="step-by-step+shuffled", rationales="shuffled")]
    assert len(compare_rows(rows, "step-by-step", "step-by-step+shuffled")) == 1


def test_p_values_are_corrected_over_the_table() -> None:
    rows = [r for k in range(4) for r in pair(0.05, seeds=(0,), fraction=(k + 1) / 4)]
    found = compare_rows(rows, "step-by-step", "finetune")
    least = min(found, key=lambda c: c.difference.p)
    assert least.adjusted == pytest.approx(min(1.0, 4 * least.difference.p))
    assert adjust([least])[0].adjusted == least.difference.p


def test_students_are_compared_with_their_own_teacher() -> None:
    texts = [answers(0.6, 400, seed) for seed in range(2)]
    rows = [teacher(outcomes=answers(0.7, 400, "t")), teacher(teacher="other", outcomes="0" * 400)]
    rows += [row(**OURS, seed=seed, outcomes=text) for seed, text in enumerate(texts)]
    (found,) = against_teacher(rows, "step-by-step")
    assert (found.first, found.second, found.seeds) == ("teacher", "step-by-step", (0, 1))
    assert found.difference == across_seeds([answers(0.7, 400, "t")] * 2, texts)
    assert compare_rows(rows, "step-by-step", "teacher") == [found]
    assert against_teacher(rows[2:], "step-by-step") == []
    with pytest.raises(DataError, match="different test examples"):
        against_teacher([teacher(test="f" * 16), rows[-1]], "step-by-step")


def test_the_verdict_is_about_all_the_data_and_the_largest_student() -> None:
    rows = pair(-0.2, fraction=0.5) + pair(0.2) + pair(-0.2, student="tiny")
    found = verdict(rows, "step-by-step", "finetune")
    assert found.found == "ahead"
    assert [(c.fraction, c.student) for c in found.about] == [(1.0, "small")]
    assert len(found.table) == 3
    assert found.adjusted == found.about[0].adjusted
    assert (
        "On claims with all of the training data, student small, step-by-step is ahead of finetune by +"
        in (found.sentence)
    )
    assert "after Holm over 3 comparisons; 3 seeds x 400 test examples)" in found.sentence


def test_of_lambdas_the_verdict_takes_the_best_on_validation_not_on_test() -> None:
    rows = [row(**BASE, outcomes="01" * 100)]
    rows.append(row(**OURS, lambda_=0.5, validation=0.8, outcomes="01" * 100))
    rows.append(row(**OURS, lambda_=1.0, validation=0.7, outcomes="1" * 200))
    found = verdict(rows, "step-by-step", "finetune")
    assert found.about[0].lambda_ == 0.5
    assert "lambda 0.5" in found.sentence


def test_behind_is_said_as_plainly_as_ahead() -> None:
    found = verdict(pair(-0.2), "step-by-step", "finetune")
    assert found.found == "behind"
    assert "step-by-step is behind finetune: -" in found.sentence


def test_where_nothing_is_shown_it_says_what_could_be() -> None:
    rows = pair(0.01, n=200, seeds=(0,))
    found = verdict(rows, "step-by-step", "finetune")
    difference = paired(rows[0].outcomes, rows[1].outcomes)
    assert found.found == "not shown"
    assert found.difference == difference
    assert found.smallest is not None
    assert found.sentence.endswith(
        "200 test examples; one seed, so nothing is said of other seeds); such a test can show differences "
        f"of {100 * found.smallest:.1f} points or more at 80 % power."
    )
    assert 0.03 < found.smallest < 0.15


def test_what_a_test_can_show_is_said_after_holm() -> None:
    """Of 9 comparisons the least p must be below 0.05 / 9, which takes a larger difference."""
    alone = verdict(pair(0.01, n=200, seeds=(0,)), "step-by-step", "finetune")
    rows = [r for k in range(1, 10) for r in pair(0.01, n=200, seeds=(0,), fraction=k / 9)]
    found = verdict(rows, "step-by-step", "finetune")
    assert found.found == alone.found == "not shown"
    (first,), (second,) = found.about[0].outcomes
    share = sum((a == "1") != (b == "1") for a, b in zip(first, second, strict=True)) / 200
    assert found.smallest == smallest_difference(200, share, alpha=0.05 / 9)
    assert found.smallest is not None
    assert found.smallest > 1.2 * (smallest_difference(200, share) or 1)


@pytest.mark.parametrize("seeds", [(0, 1), (0, 1, 2)])
def test_over_seeds_it_is_said_with_their_degrees_of_freedom_and_about(seeds: tuple[int, ...]) -> None:
    rows = pair(0.01, n=200, seeds=seeds) + pair(0.01, n=200, seeds=seeds, fraction=0.5)
    found = verdict(rows, "step-by-step", "finetune")
    known = error([found.about[0].outcomes])
    assert found.found == "not shown"
    assert found.smallest == smallest_over_seeds(known, alpha=0.05 / 2)
    assert f"can show differences of about {100 * (found.smallest or 0):.1f} points" in found.sentence


def test_two_seeds_that_differ_wildly_promise_nothing() -> None:
    rows = [row(**BASE, seed=seed, outcomes="01" * 50) for seed in (0, 1)]
    rows += [row(**OURS, seed=seed, outcomes=text * 100) for seed, text in enumerate("01")]
    found = verdict(rows, "step-by-step", "finetune")
    assert (found.found, found.smallest) == ("not shown", None)
    assert "or seeds that differ too much, for any difference" in found.sentence


def test_a_large_difference_is_shown_among_hundreds_of_comparisons() -> None:
    rows = []
    for k in range(1, 301):
        for seed in (0, 1):
            rows.append(row(**BASE, seed=seed, fraction=k / 300, outcomes=answers(0.2, 150, ("b", seed))))
            rows.append(row(**OURS, seed=seed, fraction=k / 300, outcomes=answers(0.8, 150, ("o", seed))))
    found = verdict(rows, "step-by-step", "finetune")
    assert found.found == "ahead"
    assert "after Holm over 300 comparisons" in found.sentence


@pytest.mark.parametrize("p", [0.0496, 0.0499999, 0.05, 0.0500001, 0.0504, 0.051])
def test_no_p_value_is_rounded_over_the_level(p: float) -> None:
    assert (float(p_value(p).removeprefix("p = ")) <= 0.05) == (p <= 0.05)


def test_a_p_value_that_holm_takes_back_is_no_difference() -> None:
    first = "1" * 8 + "0" * 392
    rows = [row(**BASE, outcomes="0" * 400), row(**OURS, outcomes=first)]
    for k in range(1, 9):
        rows += [
            row(**BASE, outcomes="01" * 200, fraction=k / 10),
            row(**OURS, outcomes="01" * 200, fraction=k / 10),
        ]
    found = verdict(rows, "step-by-step", "finetune")
    assert found.difference is not None
    assert found.difference.p < 0.05 < (found.adjusted or 0)
    assert found.found == "not shown"
    assert "p = 0.0078 by itself, p = 0.07 after Holm over 9 comparisons" in found.sentence


def test_tasks_are_pooled_and_the_pooled_p_value_is_corrected_too() -> None:
    rows = pair(0.15) + pair(0.1, n=200, task="svamp", test="f" * 16)
    found = verdict(rows, "step-by-step", "finetune")
    assert found.difference is not None
    values = [c.difference.value for c in found.table]
    assert found.difference.value == pytest.approx(sum(values) / 2)
    assert found.difference.n == 600
    assert "On the mean of 2 tasks (claims, svamp)" in found.sentence
    assert "over 3 comparisons" in found.sentence


def test_equal_answers_are_no_difference_and_no_promise() -> None:
    found = verdict(
        [row(**BASE, outcomes="01" * 50), row(**OURS, outcomes="01" * 50)], "step-by-step", "finetune"
    )
    assert (found.found, found.smallest) == ("not shown", None)
    assert "0.0 points (95 %: -2.7 to +2.7; p = 1" in found.sentence
    assert "too few test examples" in found.sentence


def test_nothing_to_compare_is_said() -> None:
    found = verdict([row(**BASE)], "step-by-step", "finetune")
    assert (found.found, found.difference, found.about) == ("nothing", None, ())
    assert found.sentence == "There is nothing to compare: no result of step-by-step."
    apart = [row(**BASE, seed=0), row(**OURS, seed=1)]
    assert "no seed of a common cell" in verdict(apart, "step-by-step", "finetune").sentence
