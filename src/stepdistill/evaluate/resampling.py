"""Resamples of a table of outcomes, seeds x examples: how they are drawn, and what is read off them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from stepdistill.evaluate.variance import Variance, mean_variance, unseen, variance

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Pair = tuple[Floats, Floats]
"""Two predictors, each seeds x examples."""

ALPHA = 0.05
"""One minus the confidence of every interval."""
KINDS = 500
"""The most different choices of seeds that are drawn for one by one (6 seeds: 462)."""
CELLS = 4_000_000
"""The most numbers of one chunk of resamples: 32 MB."""


def right(outcomes: Sequence[str]) -> Floats:
    """1 where an example was answered rightly, seeds x examples.

    Raises:
        ValueError: no seed, no example, or seeds of different numbers of examples.
    """
    sizes = {len(text) for text in outcomes}
    if len(sizes) != 1 or sizes == {0}:
        raise ValueError(f"outcomes of {sorted(sizes)} examples are not of the same examples")
    # An outcome is one ASCII character; what else there might be becomes "?", which is wrong as well.
    raw = [np.frombuffer(text.encode("ascii", "replace"), dtype=np.uint8) for text in outcomes]
    return np.asarray(np.stack(raw) == ord("1"), dtype=float)


def pair(first: Sequence[str], second: Sequence[str]) -> Pair:
    """Both as tables, seeds x examples.

    Raises:
        ValueError: seeds or examples do not match.
    """
    before, after = right(first), right(second)
    if before.shape != after.shape:
        raise ValueError(f"{before.shape} and {after.shape} seeds x examples cannot be compared in pairs")
    return before, after


def means(table: Floats, resamples: int, rng: np.random.Generator) -> Floats:
    """Each seed's mean over resampled examples: resamples x seeds."""
    patterns, seen = np.unique(table, axis=1, return_counts=True)
    return np.concatenate([counts @ patterns.T for counts in resampled(seen, resamples, rng)]) / len(table[0])


def resampled(seen: Ints, resamples: int, rng: np.random.Generator) -> Iterator[Floats]:
    """How often a resample holds each pattern, for patterns seen that often; in chunks."""
    n, kinds = int(seen.sum()), len(seen)
    # A multinomial costs one draw a pattern, and six times as much as an index, of which there are n.
    few = 6 * kinds < n
    size = max(1, CELLS // (kinds if few else n))
    owner = np.repeat(np.arange(kinds), seen)
    for start in range(0, resamples, size):
        rows = min(size, resamples - start)
        if few:
            yield rng.multinomial(n, seen / n, rows).astype(float)
            continue
        drawn = owner[rng.integers(0, n, (rows, n))] + kinds * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * kinds).reshape(rows, kinds).astype(float)


def deviations(pairs: Sequence[Pair], resamples: int, rng: np.random.Generator) -> Floats:
    """Draws of the error of the mean difference over pairs of tables; see `bootstrap.pooled`."""
    total = np.zeros(resamples)
    for before, after in pairs:
        raw = _crossed(after - before, resamples, rng)
        spread = float(raw.std())
        total += raw * (variance(after, before).total ** 0.5 / spread) if spread > 0 else 0.0
        total += unseen_draws(after.shape[1], resamples, rng)
    freedom = known(pairs).freedom
    if np.isfinite(freedom):
        total *= np.sqrt(freedom / rng.chisquare(freedom, resamples))
    return total / len(pairs)


def known(pairs: Sequence[Pair]) -> Variance:
    """Variance of the mean difference over pairs of tables, with what no sample shows (`unseen`)."""
    found = mean_variance([variance(after, before) for before, after in pairs])
    more = sum(unseen(after.shape[1]) for _, after in pairs) / len(pairs) ** 2
    return Variance(found.total + more, found.freedom)


def unseen_draws(n: int, resamples: int, rng: np.random.Generator) -> Floats:
    """Draws of the disagreement over n examples that no sample shows; see `variance.unseen`."""
    return np.asarray(rng.normal(0.0, unseen(n) ** 0.5, resamples))


def _crossed(table: Floats, resamples: int, rng: np.random.Generator) -> Floats:
    """Deviations of the mean under seeds and examples drawn independently, seeds stretched."""
    weights = _seed_weights(resamples, len(table), rng)
    kinds, which = np.unique(weights, axis=0, return_inverse=True)
    if len(kinds) > KINDS:
        return np.asarray((means(table, resamples, rng) * weights).sum(axis=1) - table.mean())
    patterns, seen = np.unique(table, axis=1, return_counts=True)
    drawn = np.empty(resamples)
    for kind, weight in enumerate(kinds):
        # Under one choice of seeds most patterns come to the same value: far fewer counts are to be drawn.
        values, owner = np.unique(np.round(weight @ patterns, 9), return_inverse=True)
        rows = np.flatnonzero(which.ravel() == kind)
        counts = resampled(np.bincount(owner.ravel(), seen).astype(np.int64), len(rows), rng)
        drawn[rows] = np.concatenate([part @ values for part in counts])
    return np.asarray(drawn / table.shape[1] - table.mean())


def seeds_drawn(found: Floats, rng: np.random.Generator) -> Floats:
    """The mean over drawn seeds, their deviations stretched by sqrt(S/(S - 1)), of resamples x seeds."""
    return np.asarray((found * _seed_weights(len(found), found.shape[1], rng)).sum(axis=1))


def _seed_weights(resamples: int, seeds: int, rng: np.random.Generator) -> Floats:
    """What each seed weighs in a resample of seeds, stretched: resamples x seeds."""
    if seeds == 1:
        return np.ones((resamples, 1))
    drawn = rng.multinomial(seeds, np.full(seeds, 1 / seeds), resamples) / seeds
    return np.asarray(1 / seeds + (seeds / (seeds - 1)) ** 0.5 * (drawn - 1 / seeds))


def percentiles(draws: Floats) -> tuple[float, float]:
    """The 2.5 % and 97.5 % points of draws: those of rank 0.025 (B + 1) from either end."""
    rank = max(int(ALPHA / 2 * (len(draws) + 1)), 1)
    ordered = np.sort(_snapped(draws))
    return float(ordered[rank - 1]), float(ordered[-rank])


def two_sided(draws: Floats) -> float:
    """Twice the share of draws on the far side of 0; at most 0.05 exactly where `percentiles` omit 0."""
    near = _snapped(draws)
    far = min(int((near <= 0).sum()), int((near >= 0).sum()))
    return min(1.0, 2 * (far + 1) / (len(draws) + 1))


def _snapped(draws: Floats) -> Floats:
    # A draw of no difference is 1e-18 or so: counted as beyond 0, it would part p from the interval.
    return np.where(np.abs(draws) < 1e-12, 0.0, draws)
