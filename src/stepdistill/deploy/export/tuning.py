"""How an export is to answer: readout, temperature and threshold, chosen on validation by its own scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from stepdistill.deploy import calibrate, coverage
from stepdistill.deploy.bundle import Readout, Settings
from stepdistill.deploy.coverage import Point
from stepdistill.deploy.readout import softmax
from stepdistill.records import Example

_MARGIN = 1e-4
"""How far below a confidence its threshold may stand."""


@dataclass(frozen=True)
class Target:
    """What a threshold is to bring; at most one of the two, as shares."""

    accuracy: float | None = None
    share: float | None = None

    @property
    def wanted(self) -> bool:
        """Whether there is to be a threshold."""
        return self.accuracy is not None or self.share is not None


@dataclass(frozen=True)
class Tuning:
    """What was chosen, and what it was chosen by; `point` is where the threshold stands on the curve."""

    settings: Settings
    calibration: dict[str, Any] | None = None
    curve: tuple[Point, ...] = ()
    point: Point | None = None


def gradable(examples: Sequence[Example], candidates: Sequence[Sequence[str]]) -> list[int]:
    """Places of the examples whose gold label is among their candidates."""
    pairs = enumerate(zip(examples, candidates, strict=True))
    return [place for place, (example, found) in pairs if example.label in found]


def tune(
    by_readout: Mapping[Readout, Sequence[Sequence[float]]], gold: Sequence[int], target: Target
) -> Tuning:
    """Settings for scores whose right column is `gold`.

    Raises:
        ConfigError: no threshold reaches the target.
        StudentError: a score is not finite.
    """
    choices = calibrate.compared(by_readout, gold)
    readout = calibrate.choose(by_readout, gold)
    fitted = calibrate.fit(by_readout[readout], gold)
    shares = [softmax(tuple(row), fitted.temperature) for row in by_readout[readout]]
    right = [row.index(max(row)) == place for row, place in zip(shares, gold, strict=True)]
    sure = [min(1.0, max(row)) for row in shares]
    curve = coverage.curve(sure, right)
    point = (
        _lowered(coverage.point_for(curve, target.accuracy, target.share), sure) if target.wanted else None
    )
    settings = Settings(
        readout=readout, temperature=fitted.temperature, threshold=point.threshold if point else None
    )
    described = {"readout": readout, "reason": calibrate.reason(choices), **asdict(fitted)}
    return Tuning(settings, described, tuple(curve), point)


def _lowered(point: Point, confidences: Sequence[float]) -> Point:
    """A point whose threshold stands below the confidence that it is, where no other one is.

    The same text in another batch is rounded otherwise in its last digits, and must not fall below.
    """
    below = max((value for value in confidences if value < point.threshold), default=0.0)
    return replace(point, threshold=max((point.threshold + below) / 2, point.threshold - _MARGIN, 0.0))
