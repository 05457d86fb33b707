"""Parts of the training examples nest, keep the labels' shares, and depend on ids and seed alone."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepdistill.records import Example
from stepdistill.task.stream import Examples
from stepdistill.task.subset import portion

LABELS = st.lists(st.sampled_from(["a", "b", "c", None]), min_size=1, max_size=60)
FRACTIONS = st.floats(0.01, 1.0)


def _examples(labels: list[str | None]) -> Examples:
    made = [Example(f"e{i}", f"text {i}", label) for i, label in enumerate(labels)]
    return Examples(lambda: iter(made), len(made))


def _ids(examples: Examples) -> list[str]:
    found = [example.id for example in examples]
    assert len(found) == len(examples)
    return found


@given(LABELS, FRACTIONS, FRACTIONS, st.integers(0, 9), st.booleans())
def test_parts_of_one_seed_nest_and_stand_in_order(
    labels: list[str | None], one: float, other: float, seed: int, by_label: bool
) -> None:
    small, large = sorted((one, other))
    whole = _examples(labels)
    part = _ids(portion(whole, small, seed, by_label))
    assert set(part) <= set(_ids(portion(whole, large, seed, by_label)))
    assert part == [id_ for id_ in _ids(whole) if id_ in set(part)]
    assert len(part) == max(1, round(small * len(labels)))


@given(LABELS, FRACTIONS, st.integers(0, 9))
def test_each_label_has_its_share_to_within_a_few(
    labels: list[str | None], fraction: float, seed: int
) -> None:
    part = portion(_examples(labels), fraction, seed, by_label=True)
    kept, all_ = Counter(example.label for example in part), Counter(labels)
    share = len(part) / len(labels)
    # One for the label's own rounding, and as many as the other labels' roundings can move the end by.
    assert all(abs(kept[label] - share * n) <= 1 + len(all_) * n / len(labels) for label, n in all_.items())


def test_labels_with_one_example_enter_a_few_at_a_time() -> None:
    labels: list[str | None] = [*["common"] * 900, *(f"rare {i}" for i in range(100))]
    rare = [
        sum((example.label or "") != "common" for example in portion(_examples(labels), f, 0, True))
        for f in (0.2, 0.4, 0.6, 0.8)
    ]
    assert rare == pytest.approx([20, 40, 60, 80], abs=12)


def test_the_order_of_the_file_changes_nothing() -> None:
    labels: list[str | None] = ["a", "b", "b", "a", "b", "a", "a"] * 5
    whole = list(_examples(labels))
    turned = Examples(lambda: reversed(whole), len(whole))
    assert set(_ids(portion(turned, 0.4, 3, True))) == set(_ids(portion(_examples(labels), 0.4, 3, True)))


def test_another_seed_is_another_part_and_the_whole_is_the_whole() -> None:
    whole = _examples(["a", "b"] * 50)
    assert _ids(portion(whole, 0.5, 0, True)) != _ids(portion(whole, 0.5, 1, True))
    assert portion(whole, 1.0, 0, True) is whole
