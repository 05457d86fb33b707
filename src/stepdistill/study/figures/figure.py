"""What a figure is before and after it is written, and why there may be none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepdistill.errors import DataError

Metrics = Mapping[str, Sequence[Mapping[str, Any]]]
"""Rows of each trial's `metrics.jsonl`, by the trial's name as in `ResultRow.trial`."""


class UndrawnError(DataError):
    """The rows hold nothing that this figure could show; the message is the reason, for readers."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A picture with its words.

    Args:
        name: of its files, and the beginning of every id in its SVG; no two of a study are the same.
        title: a few words.
        caption: what is shown: what bands are, n, seeds, and what it does not show.
        alt: the picture in words, for those who do not see it.
        picture: a `matplotlib.figure.Figure`.
    """

    name: str
    title: str
    caption: str
    alt: str
    picture: Any


@dataclass(frozen=True, slots=True)
class Drawn:
    """A figure in its files, or the reason why there is none.

    Args:
        svg, png: the files; None where nothing was drawn.
        missing: why nothing was drawn; empty where something was.
    """

    name: str
    title: str
    caption: str
    alt: str
    svg: Path | None
    png: Path | None
    missing: str = ""
