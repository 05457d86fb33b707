"""How often `annotate --until-flat` stops too early and in time: simulated students, no model is trained.

Each example has a difficulty, shared by all students of a curve (correlation 0.7); each training is off
its curve by 1 point (SD) besides. Curves are acc(n) = 0.85 - b n^-0.5, measured at 100, 200, ... examples,
with b such that the part after the last point truly gains what the row says.
Prints the table of docs/minimum.md. Takes about half a minute.
"""

from __future__ import annotations

import sys
from functools import partial
from statistics import NormalDist
from unittest.mock import patch

import numpy as np

from stepdistill.evaluate import learning
from stepdistill.study.flat import judge, stops

PARTS = (100, 200, 400, 800)
WANTED, SHARED, TRAINING = 0.005, 0.7, 0.01


def curve(next_gain: float, parts: tuple[int, ...]) -> list[float]:
    """True accuracies at the parts, of a curve whose next part gains that much."""
    last = parts[-1]
    b = next_gain / (last**-0.5 - (2 * last) ** -0.5)
    return [0.85 - b * n**-0.5 for n in parts]


def outcomes(accuracies: list[float], n: int, random: np.random.Generator) -> list[str]:
    """What each student answers on the same n examples."""
    hard = random.normal(size=n)
    found = []
    for accuracy in accuracies:
        really = min(max(accuracy + random.normal(0, TRAINING), 0.01), 0.99)
        trial = SHARED**0.5 * hard + (1 - SHARED) ** 0.5 * random.normal(size=n)
        found.append("".join("1" if right else "0" for right in trial < NormalDist().inv_cdf(really)))
    return found


def stopped(next_gain: float, n: int, points: int, random: np.random.Generator) -> bool:
    """Whether annotation stops at the last of some points, or has stopped before; 3: after one estimate."""
    parts = PARTS[:points]
    answered = outcomes(curve(next_gain, parts), n, random)
    gains = []
    for upto in range(3, points + 1):
        seen = dict(zip(parts[:upto], answered[:upto], strict=True))
        gains.append(judge(seen, 2 * parts[upto - 1], WANTED, floor=0.2)[0])
    if points == 3:
        return gains[0] is not None and gains[0].value < WANTED
    return stops(gains, WANTED)


def main(simulations: int) -> None:
    """Print the table."""
    print("| the next part truly gains | validation examples | one estimate, 400 | two in a row, 800 |")
    print("|---:|---:|---:|---:|")
    for gain in (0.022, 0.016, 0.001):
        for n in (100, 300, 1000):
            random = np.random.default_rng([round(1e4 * gain), n])
            shares = [
                sum(stopped(gain, n, points, random) for _ in range(simulations)) / simulations
                for points in (3, 4)
            ]
            print(
                f"| {100 * gain:.1f} points | {n:,} | "
                + " | ".join(f"{share:.0%}" for share in shares)
                + " |"
            )


if __name__ == "__main__":
    # The intervals are not looked at, and cost most of the time.
    with patch.object(learning, "fit", partial(learning.fit, resamples=10)):
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
