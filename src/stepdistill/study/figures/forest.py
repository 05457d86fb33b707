"""Paired differences of two methods, cell by cell, with their intervals: who is ahead, and how surely."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stepdistill.errors import DataError
from stepdistill.study.comparisons import LEVEL, Comparison, compare_rows, p_value
from stepdistill.study.figures.figure import Figure, UndrawnError
from stepdistill.study.figures.frame import picture
from stepdistill.study.figures.layout import paged, wrapped
from stepdistill.study.figures.series import shortened
from stepdistill.study.figures.style import FAINT, INK, SMALL, house_style, percent
from stepdistill.study.results import ResultRow

_PAGE = 16


@house_style
def differences(rows: Sequence[ResultRow], method: str, against: str) -> list[Figure]:
    """`method` minus `against` in every cell that has both, in points of accuracy.

    Raises:
        UndrawnError: no cell has both, or they cannot be compared.
    """
    try:
        found = compare_rows(sorted(rows, key=_place), method, against)
    except DataError as error:
        raise UndrawnError(str(error)) from None
    if not found:
        raise UndrawnError(f"no cell of the grid has both {method} and {against}")
    names = _names(found)
    pairs = list(zip(found, names, strict=True))
    return paged(pairs, _PAGE, lambda part, suffix: _figure(part, suffix, method, against))


def _figure(pairs: Sequence[tuple[Comparison, str]], suffix: str, method: str, against: str) -> Figure:
    figure, (axes,) = picture([0.1 + 0.42 * len(pairs)])
    _panel(axes, pairs)
    axes.set_title(f"{method} minus {against}")
    axes.set_xlabel(f"difference in accuracy (points); right of 0: {method} ahead")
    seeds = sorted({one.difference.seeds for one, _ in pairs})
    counts = sorted({one.difference.n for one, _ in pairs})
    chance = (
        "One seed: intervals show the choice of test examples only."
        if seeds == [1]
        else f"Intervals are over seeds ({_range(seeds)}) and test examples"
        + (", where there is one seed over test examples only." if seeds[0] == 1 else ".")
    )
    return Figure(
        name=f"difference{suffix}",
        title=f"{method} against {against}, paired",
        caption=(
            f"Accuracy of {method} minus that of {against} on the same test examples (n = {_range(counts)}), "
            f"with 95 % intervals. {chance} p is corrected for the number of comparisons (Holm); filled: "
            f"p ≤ {LEVEL}. An interval over 0 does not show that they are equal."
        ),
        alt=f"Forest plot, {method} minus {against} in points. "
        + " ".join(_said(one, name) for one, name in pairs),
        picture=figure,
    )


def _panel(axes: Any, pairs: Sequence[tuple[Comparison, str]]) -> None:
    axes.axvline(0, color="black", linewidth=1.0, zorder=1)
    for place, (one, _) in enumerate(pairs):
        gap, sure = one.difference, one.adjusted <= LEVEL
        colour = INK if sure else FAINT
        axes.hlines(place, 100 * gap.low, 100 * gap.high, color=colour, linewidth=2.0 if sure else 1.4)
        face = colour if sure else "white"
        axes.plot([100 * gap.value], [place], "o", color=colour, markerfacecolor=face, markersize=6.5)
        words = f"{100 * gap.value:+.1f}  {p_value(one.adjusted)}\n{gap.seeds} seed{'s' * (gap.seeds != 1)}"
        axes.text(1.015, place, words, transform=axes.get_yaxis_transform(), va="center", fontsize=SMALL)
    axes.set_yticks(range(len(pairs)), [name for _, name in pairs])
    axes.set_ylim(len(pairs) - 0.4, -0.6)
    ends = [0.0, *(100 * end for one, _ in pairs for end in (one.difference.low, one.difference.high))]
    room = max(0.05 * (max(ends) - min(ends)), 0.2)
    axes.set_xlim(min(ends) - room, max(ends) + room)
    axes.locator_params(axis="x", nbins=5)
    axes.grid(axis="x", alpha=0.35, linewidth=0.6)
    axes.tick_params(axis="y", length=0)


def _place(row: ResultRow) -> tuple[str, int, str, float, str, str, int]:
    size, share = row.parameters or 0, row.fraction or 0.0
    return row.task, size, row.student or "", share, row.trial, row.name, row.seed or 0


def _names(found: Sequence[Comparison]) -> list[str]:
    """What tells the cells apart; where there is one alone, its task."""
    parts = [
        [
            one.task,
            "" if one.fraction is None else percent(one.fraction),
            shortened((one.student or "").split("/")[-1], 20),
            f"{one.labels} labels",
            f"by {shortened(one.teacher, 16)}",
            f"{one.rationales or 'no'} rationales",
            f"λ = {one.lambda_}",
        ]
        for one in found
    ]
    varies = [len({one[k] for one in parts}) > 1 for k in range(len(parts[0]))]
    kept = [[word for word, differs in zip(one, varies, strict=True) if differs and word] for one in parts]
    return [wrapped(", ".join(words) or one.task, 20) for words, one in zip(kept, found, strict=True)]


def _range(values: Sequence[int]) -> str:
    return f"{values[0]:,}" if len(values) == 1 else f"{values[0]:,} to {values[-1]:,}"


def _said(one: Comparison, name: str) -> str:
    gap = one.difference
    ends = f"{100 * gap.low:+.1f} to {100 * gap.high:+.1f}"
    flat = name.replace("\n", " ")
    return f"{flat}: {100 * gap.value:+.1f} ({ends}), {p_value(one.adjusted)}, {gap.seeds} seeds."
