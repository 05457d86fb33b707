"""The learning curve: accuracy against the number of training examples, as a power law."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from stepdistill.errors import DataError
from stepdistill.evaluate.bootstrap import Interval, joint_means
from stepdistill.evaluate.resampling import Floats, percentiles
from stepdistill.evaluate.variance import unseen

RESAMPLES = 2_000
RATES = np.geomspace(0.02, 5.0, 120)
"""Exponents c that are tried; slower curves than the first are straight on any scale that can be measured."""
SIZES = 3


@dataclass(frozen=True, slots=True)
class Curve:
    """acc(n) = a - b (n / scale)^-c with a <= 1, b >= 0 and c > 0, and what is known of it.

    `sizes` are the numbers of training examples it was fitted to, `seeds` the fewest seeds of any of them:
    with 1, the intervals say nothing of other seeds.
    """

    a: float
    b: float
    c: float
    scale: float
    sizes: tuple[int, ...]
    seeds: int
    draws: Floats = field(repr=False, compare=False)

    def at(self, n: float) -> Interval:
        """Accuracy after n training examples; beyond the largest size it is an extrapolation."""
        value = float(_curve(np.array([[self.a, self.b, self.c]]), n / self.scale)[0])
        return _interval(value, _curve(self.draws, n / self.scale))

    def gain(self, n: float, m: float) -> Interval:
        """What m training examples give over n; a curve that does not rise gains 0."""
        own = np.array([[self.a, self.b, self.c]])
        value = float((_curve(own, m / self.scale) - _curve(own, n / self.scale))[0])
        return _interval(value, _curve(self.draws, m / self.scale) - _curve(self.draws, n / self.scale))


def fit(points: Mapping[int, Sequence[str]], resamples: int = RESAMPLES, seed: int = 0) -> Curve:
    """The power law through the mean accuracies, by least squares weighted with the number of seeds.

    Args:
        points: number of training examples -> outcomes of each seed (`1` right, all else wrong), all on the
            same test examples. The seeds of one size need not be those of another.
        resamples: number of refits for the intervals.

    For a given c, a and b are a linear least-squares problem; scipy's bounded search finds c. The intervals
    are percentiles over refits to resampled accuracies: the same drawn examples for every size and seed, and
    drawn seeds within each size, their deviations stretched by sqrt(S/(S - 1)). Unlike in `bootstrap.pooled`
    nothing is scaled to an unbiased variance, and there are no Student's tails: with two or three seeds the
    intervals are too narrow where trainings differ much. What no sample shows is added to each size, half of
    it, so that between two sizes it is that of a difference (`variance.unseen`): equal outcomes at all sizes
    do not make a curve certain.

    Raises:
        DataError: fewer than three different sizes, or different numbers of test examples.
    """
    sizes = tuple(sorted(size for size, outcomes in points.items() if outcomes))
    if len(sizes) < SIZES or sizes[0] <= 0:
        raise DataError(
            f"a learning curve needs results of at least {SIZES} different numbers of training examples, "
            f"and there are {len(sizes)} ({', '.join(map(str, sizes)) or 'none'}); add fractions"
        )
    outcomes = [points[size] for size in sizes]
    if len({len(text) for texts in outcomes for text in texts}) != 1:
        raise DataError("a learning curve needs results on the same test examples; some are on others")
    means, drawn = joint_means(outcomes, resamples, seed)
    weights = np.array([float(len(texts)) for texts in outcomes])
    half = (unseen(len(outcomes[0][0])) / 2) ** 0.5
    drawn = drawn + np.random.default_rng(seed).normal(0.0, half, drawn.shape)
    scaled = np.array(sizes, dtype=float) / sizes[-1]
    best = _best(means[None], scaled, weights)[0]
    a, b, c = _refined(means, scaled, weights, float(best[2]))
    seeds = min(len(texts) for texts in outcomes)
    return Curve(a, b, c, float(sizes[-1]), sizes, seeds, _best(drawn, scaled, weights))


def _curve(found: Floats, n: float) -> Floats:
    return np.asarray(np.clip(found[:, 0] - found[:, 1] * n ** -found[:, 2], 0.0, 1.0))


def _interval(value: float, draws: Floats) -> Interval:
    low, high = percentiles(draws)
    return Interval(value, min(low, value), max(high, value))


def _linear(means: Floats, basis: Floats, weights: Floats) -> tuple[Floats, Floats, Floats]:
    """a, b and the weighted squared error of the best a - b * basis with a <= 1 and b >= 0, a row each."""
    share = weights / weights.sum()
    middle, level = float(share @ basis), means @ share
    centred = basis - middle
    spread = float(share @ (centred * centred))
    slope = -((means - level[:, None]) * centred) @ share / spread if spread > 0 else np.zeros(len(means))
    b = np.maximum(slope, 0.0)
    a = level + b * middle
    over = a > 1
    # On the bound a = 1 what is left is a slope through one point.
    b = np.where(over, np.maximum((1 - means) @ (share * basis) / (share @ (basis * basis)), 0.0), b)
    a = np.where(over, 1.0, a)
    wrong = means - a[:, None] + b[:, None] * basis
    return a, b, np.asarray((wrong * wrong) @ share)


def _best(means: Floats, scaled: Floats, weights: Floats) -> Floats:
    """a, b, c of each row of mean accuracies, c among `RATES`."""
    found = np.zeros((len(means), 3))
    least = np.full(len(means), np.inf)
    for rate in RATES:
        a, b, error = _linear(means, scaled**-rate, weights)
        better = error < least - 1e-15
        least = np.where(better, error, least)
        found[better] = np.stack([a, b, np.full(len(means), rate)], axis=1)[better]
    return found


def _refined(means: Floats, scaled: Floats, weights: Floats, near: float) -> tuple[float, float, float]:
    """a, b, c with c between the neighbours of the best of `RATES`."""
    from scipy.optimize import minimize_scalar

    step = RATES[1] / RATES[0]
    bounds = (max(near / step, RATES[0]), min(near * step, RATES[-1]))
    row = means[None]
    found = minimize_scalar(
        lambda c: float(_linear(row, scaled**-c, weights)[2][0]), bounds=bounds, method="bounded"
    )
    a, b, _ = _linear(row, scaled**-found.x, weights)
    return float(a[0]), float(b[0]), float(found.x)
