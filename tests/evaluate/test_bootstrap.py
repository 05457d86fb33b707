"""Paired differences: against scipy, against exact distributions, and by simulation of seeds and examples."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepdistill.evaluate.bootstrap import (
    across_seeds,
    error,
    joint_means,
    mean_accuracy,
    paired,
    pooled,
)
from stepdistill.evaluate.resampling import _crossed, deviations, percentiles, resampled
from stepdistill.evaluate.statistics import mcnemar, wilson
from stepdistill.evaluate.variance import variance


def drawn(shares: list[float], n: int, seed: int = 0) -> list[str]:
    """Outcomes of predictors with these accuracies, the same examples hard for all of them."""
    rng = np.random.default_rng(seed)
    hard = rng.random(n)
    return [
        "".join("1" if (0.5 * h + 0.5 * own) < s else "0" for h, own in zip(hard, rng.random(n), strict=True))
        for s in shares
    ]


TABLES = st.integers(1, 40).flatmap(
    lambda n: st.tuples(st.text("01-", min_size=n, max_size=n), st.text("01-", min_size=n, max_size=n))
)
STUDIES = st.tuples(st.integers(2, 4), st.integers(1, 30)).flatmap(
    lambda size: st.tuples(
        *[st.lists(st.text("01-", min_size=size[1], max_size=size[1]), min_size=size[0], max_size=size[0])]
        * 2
    )
)


def test_the_interval_is_the_one_of_scipys_bootstrap() -> None:
    stats = pytest.importorskip("scipy.stats")
    first, second = drawn([0.45, 0.5], 400)
    gaps = np.array([(b == "1") - (a == "1") for a, b in zip(first, second, strict=True)], dtype=float)
    theirs = stats.bootstrap(
        (gaps,),
        np.mean,
        n_resamples=10_000,
        method="percentile",
        vectorized=True,
        rng=np.random.default_rng(1),
    ).confidence_interval
    found = paired(first, second)
    # Both are random and lie on a grid of 1/400.
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=0.004)
    assert found.value == pytest.approx(gaps.mean())


def test_drawn_counts_have_the_distribution_of_resampled_indices() -> None:
    seen = np.array([3, 5, 92])
    few = np.concatenate(list(resampled(seen, 20_000, np.random.default_rng(0))))
    # As many patterns as a fifth of the examples are drawn by index instead.
    many = np.concatenate(list(resampled(np.repeat(1, 20), 20_000, np.random.default_rng(0))))
    assert few.sum(axis=1).tolist() == [100] * 20_000
    assert few.mean(axis=0) == pytest.approx(seen, rel=0.02)
    assert few[:, 2].var() == pytest.approx(100 * 0.92 * 0.08, rel=0.05)
    assert many.sum(axis=1).tolist() == [20] * 20_000
    assert many[:, 7].var() == pytest.approx(20 * 0.05 * 0.95, rel=0.05)


def test_one_seed_has_mcnemars_exact_p_value_and_says_that_it_is_one() -> None:
    found = paired("1" * 30 + "0" * 70, "1" * 20 + "0" * 10 + "1" * 25 + "0" * 45)
    assert found.p == mcnemar(10, 25)
    assert (found.value, found.n, found.seeds) == (0.15, 100, 1)
    assert across_seeds(["10"], ["01"]) == paired("10", "01")


def test_what_is_unread_counts_as_wrong() -> None:
    assert paired("1-1-", "11--") == paired("1010", "1100")


@given(TABLES)
def test_changing_places_changes_signs(table: tuple[str, str]) -> None:
    found, turned = paired(*table, resamples=999), paired(*table[::-1], resamples=999)
    assert turned.value == pytest.approx(-found.value)
    assert turned.p == found.p
    assert found.low <= found.value + 1e-9
    assert found.value - 1e-9 <= found.high


@given(TABLES)
def test_one_seed_never_leaves_out_0_without_mcnemars_consent(table: tuple[str, str]) -> None:
    found = paired(*table, resamples=999)
    assert found.low <= 0 <= found.high or found.p <= 0.05


def test_five_of_five_are_not_enough() -> None:
    found = paired("0" * 5, "1" * 5)
    assert (found.p, found.low, found.high) == (0.0625, 0.0, 1.0)
    found = across_seeds(["0" * 5] * 3, ["1" * 5] * 3)
    assert (found.p, found.low, found.high) == (0.0625, 0.0, 1.0)


@settings(max_examples=60)
@given(STUDIES)
def test_over_seeds_interval_and_p_value_agree(study: tuple[list[str], list[str]]) -> None:
    found = across_seeds(*study, resamples=999)
    outside = not found.low <= 0 <= found.high
    assert outside == (found.p <= 0.05)
    assert 0 < found.p <= 1
    assert found.seeds == len(study[0])


def test_the_same_input_gives_the_same_numbers() -> None:
    first, second = drawn([0.4, 0.42, 0.41], 200), drawn([0.45, 0.44, 0.47], 200)
    assert across_seeds(first, second) == across_seeds(first, second)
    assert across_seeds(first, second, seed=1) != across_seeds(first, second)


def test_seeds_that_differ_widen_the_interval() -> None:
    calm = across_seeds(drawn([0.5] * 3, 1000), drawn([0.55] * 3, 1000, 1))
    wild = across_seeds(drawn([0.5] * 3, 1000), drawn([0.45, 0.55, 0.65], 1000, 1))
    assert wild.high - wild.low > 2 * (calm.high - calm.low)


def test_tasks_weigh_the_same_whatever_their_size() -> None:
    small = (["0" * 20 + "1" * 20], ["0" * 10 + "1" * 30])
    large = (["01" * 500], ["01" * 500])
    found = pooled([small, large])
    assert found.value == pytest.approx(0.125)
    assert (found.n, found.seeds) == (1040, 1)
    alone = paired(small[0][0], small[1][0])
    assert found.high - found.low == pytest.approx((alone.high - alone.low) / 2, rel=0.15)


@pytest.mark.parametrize(
    ("first", "second"),
    [(["01"], ["011"]), (["01", "0"], ["01", "00"]), (["01"], ["01", "01"]), ([""], [""]), ([], [])],
)
def test_what_does_not_match_is_an_error(first: list[str], second: list[str]) -> None:
    with pytest.raises(ValueError, match="example"):
        across_seeds(first, second)
    with pytest.raises(ValueError, match="no task"):
        pooled([])


@pytest.mark.parametrize(("seeds", "spread"), [(3, 0.0), (3, 0.3), (4, 0.05), (5, 0.1)])
def test_95_percent_intervals_hold_the_truth_in_90_to_100_of_100_studies(seeds: int, spread: float) -> None:
    """Latent normal abilities of seeds and examples; both methods have seeds of their own."""
    rng = np.random.default_rng(seeds)
    scale = (2 + spread**2) ** 0.5
    held, studies = 0, 150
    for _ in range(studies):
        hard = rng.normal(0, 1, 200)

        def outcomes(level: float, hard: np.ndarray = hard) -> list[str]:
            ability = level * scale + rng.normal(0, spread, (seeds, 1)) + rng.normal(0, 1, (seeds, 200))
            return ["".join("01"[int(right)] for right in row) for row in ability > hard]

        found = across_seeds(outcomes(0.0), outcomes(0.2533), resamples=600)
        held += found.low <= 0.1 <= found.high  # the normal distribution function of 0.2533 is 0.6
    assert 0.90 <= held / studies <= 1.0


def test_one_seed_has_wilsons_interval_and_more_seeds_that_agree_a_narrower_one() -> None:
    text = drawn([0.5], 500)[0]
    texts = [text, text[100:] + text[:100], text[200:] + text[:200]]
    one, three = mean_accuracy(texts[:1]), mean_accuracy(texts)
    assert (one.low, one.high) == wilson(texts[0].count("1"), 500)
    assert three.value == pytest.approx(sum(text.count("1") for text in texts) / 1500)
    assert three.high - three.low < one.high - one.low


@settings(max_examples=60)
@given(STUDIES)
def test_a_mean_accuracy_lies_in_its_interval_and_that_between_0_and_1(
    study: tuple[list[str], list[str]],
) -> None:
    found = mean_accuracy(study[0])
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.low < found.high


@pytest.mark.parametrize(("n", "reach"), [(5, 0.55), (50, 0.055), (1000, 0.0028)])
def test_a_sample_without_disagreement_is_not_certain(n: int, reach: float) -> None:
    """1.96 sqrt(1.92) / n either way, as in Agresti & Min (2005)."""
    text = "10" * (n // 2) + "1" * (n % 2)
    for found in (paired(text, text), across_seeds([text] * 3, [text] * 3)):
        assert (found.value, found.p) == (0.0, 1.0)
        assert (-found.low, found.high) == pytest.approx((reach, reach), rel=0.06)


def test_six_of_six_are_a_difference_whose_size_is_not_known() -> None:
    one, three = paired("0" * 6, "1" * 6), across_seeds(["0" * 6] * 3, ["1" * 6] * 3)
    for found in (one, three):
        assert found.p <= 0.05
        assert 0.4 < found.low < 0.65
        assert found.high == 1.0


@settings(max_examples=60)
@given(STUDIES)
def test_an_interval_has_a_width_and_lies_within_100_points(study: tuple[list[str], list[str]]) -> None:
    for found in (across_seeds(*study, resamples=999), paired(study[0][0], study[1][0], resamples=999)):
        assert -1 <= found.low < found.high <= 1


def test_few_seeds_that_differ_wildly_do_not_leave_100_points() -> None:
    found = across_seeds(["0" * 40] * 2, ["1" * 40, "01" * 20])
    assert (found.value, found.high) == (0.75, 1.0)
    assert found.low >= -1


@pytest.mark.parametrize("only_first", [0, 1, 4, 12, 30])
def test_what_mcnemar_rejects_at_the_edge_leaves_0_outside(only_first: int) -> None:
    wins = next(k for k in range(only_first, 200) if mcnemar(only_first, k) <= 0.05)
    table = "1" * only_first + "0" * wins, "0" * only_first + "1" * wins
    for same in ("", "1" * 1000):
        assert paired(table[0] + same, table[1] + same).low > 0


def test_where_draws_are_exhausted_p_is_that_of_students_t() -> None:
    """A p of 2/10001 would be above 0.05 after Holm over 251 comparisons, whatever the difference."""
    special = pytest.importorskip("scipy.special")
    first, second = drawn([0.2] * 4, 400), drawn([0.85] * 4, 400)
    found, known = across_seeds(first, second), error([(first, second)])
    expected = 2 * special.stdtr(min(known.freedom, 1e6), -found.value / known.total**0.5)
    assert found.p == pytest.approx(float(expected), rel=1e-6)
    assert 0 < found.p < 1e-5
    assert across_seeds(first, second, resamples=99).p == found.p


def test_a_p_of_students_t_is_not_surer_than_the_examples_that_differ() -> None:
    text = "1" * 300
    assert across_seeds(["0" * 11 + text] * 2, ["1" * 11 + text] * 2).p >= 2.0**-10


def test_resamples_that_are_larger_than_a_chunk_are_drawn_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stepdistill.evaluate.resampling.CELLS", 1000)
    pieces = list(resampled(np.repeat(1, 300), 10, np.random.default_rng(0)))
    assert [len(piece) for piece in pieces] == [3, 3, 3, 1]


def test_groups_of_seeds_are_resampled_on_the_same_examples() -> None:
    text = drawn([0.5], 300)[0]
    means, draws = joint_means([[text], [text, text]], resamples=500)
    assert means.tolist() == [text.count("1") / 300] * 2
    assert draws[:, 0].tolist() == pytest.approx(draws[:, 1].tolist())


def test_what_few_seeds_say_of_their_variance_is_said_with_students_tails() -> None:
    special = pytest.importorskip("scipy.special")
    rng = np.random.default_rng(0)
    level = np.array([[0.4], [0.5], [0.6]])
    before, after = ((rng.random((3, 2000)) < level).astype(float) for _ in range(2))
    known = variance(after, before)
    low, high = percentiles(deviations([(before, after)], 10_000, rng))
    assert known.freedom < 6
    wide = special.stdtrit(known.freedom, 0.975) * known.total**0.5
    assert (high - low) / 2 == pytest.approx(wide, rel=0.15)


def test_what_is_0_but_for_rounding_is_0() -> None:
    assert percentiles(np.full(999, 1e-17)) == (0.0, 0.0)


@pytest.mark.parametrize("seeds", [3, 8])
def test_seeds_and_examples_are_crossed_whichever_way_they_are_drawn(seeds: int) -> None:
    """Eight seeds have too many choices to be drawn for one by one; both ways have one distribution."""
    first, second = drawn([0.45] * seeds, 100), drawn([0.5] * seeds, 100, 1)
    rows = [
        [(b == "1") - (a == "1") for a, b in zip(*pair, strict=True)]
        for pair in zip(first, second, strict=True)
    ]
    table = np.array(rows, dtype=float)
    rng = np.random.default_rng(0)
    found = [_crossed(table, 4000, rng)]
    picked = rng.integers(0, seeds, (4000, seeds))
    stretch = (seeds / (seeds - 1)) ** 0.5
    for row in picked:
        columns = table[:, rng.integers(0, 100, 100)].mean(axis=1)
        found.append(columns.mean() + stretch * (columns[row].mean() - columns.mean()) - table.mean())
    ours, theirs = found[0], np.array(found[1:])
    assert ours.std() == pytest.approx(theirs.std(), rel=0.06)
    assert np.quantile(ours, [0.05, 0.5, 0.95]) == pytest.approx(
        np.quantile(theirs, [0.05, 0.5, 0.95]), abs=0.006
    )
