"""How many inputs share a call: rows are padded to the longest, and attention grows with its square."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

LONG = 512
"""Tokens of an input up to which a call has all its rows; with longer ones it has fewer, and needs no more
memory than a full one of this length."""


def rows_at_once(longest: int, most: int) -> int:
    """How many rows of at most this many tokens need no more than `most` rows of `LONG` tokens; at least one.

    >>> rows_at_once(512, 32), rows_at_once(513, 32), rows_at_once(1024, 32), rows_at_once(100_000, 32)
    (32, 31, 8, 1)
    """
    return most if longest <= LONG else max(1, most * LONG**2 // longest**2)


def batches(lengths: Sequence[int], most: int) -> Iterator[list[int]]:
    """Places of inputs with these lengths in tokens, the shortest first, at most `most` at once.

    The same lengths always come in the same batches.

    >>> list(batches([9, 4096, 7, 2048, 2048, 2048], 32))
    [[2, 0], [3, 4], [5], [1]]
    """
    chosen: list[int] = []
    for place in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        if len(chosen) >= rows_at_once(lengths[place], most):
            yield chosen
            chosen = []
        chosen.append(place)
    if chosen:
        yield chosen
