"""How figures look: one colour, marker and line a method everywhere, told apart in greyscale too."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import matplotlib
from matplotlib.ticker import FuncFormatter

from stepdistill.study.figures.series import Series

P = ParamSpec("P")
T = TypeVar("T")

DPI = 200
"""Of the PNG: two pixels for each of the screen's."""
SMALL = 8.5
"""Points, of the smallest letters."""
INK = "#222222"
FAINT = "#767676"
TEACHER = "#000000"

_METHODS: dict[str, tuple[str, str, Any]] = {
    "finetune": ("#0072B2", "s", "--"),
    "distill": ("#009E73", "D", (0, (4, 1.5, 1, 1.5))),
    "step-by-step": ("#D55E00", "o", "-"),
    "rationale-input": ("#CC79A7", "^", (0, (1, 1))),
    "rationale-first": ("#B07800", "v", (0, (6, 1.5, 1, 1.5, 1, 1.5))),
    "label-first": ("#3F9BD0", "P", (0, (8, 2))),
}
"""Colour, marker and line. Colours are those of Okabe and Ito; their orange and sky blue are too pale for
lines on white and are darkened."""
_OTHER = ("#555555", "X", "-")
_FILLS = ("full", "none", "left", "bottom", "right", "top")
"""Variants of one method (its controls, other weights) keep its colour and differ by the marker's filling."""

_SETTINGS = {
    # Words stay words in the SVG. The first typeface comes with matplotlib, so the PNG is the same
    # everywhere; Verdana is as wide and the others are narrower, so that no word outgrows its place.
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Helvetica", "Arial", "sans-serif"],
    "svg.hashsalt": "stepdistill",
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    # A fixed place; to find it anew at each drawing takes a tenth of the time.
    "axes.titley": 1.0,
    "axes.labelsize": 9.5,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "axes.formatter.use_mathtext": False,
    "text.color": INK,
    "text.usetex": False,
    "text.parse_math": False,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "savefig.bbox": None,
    "path.simplify": True,
}


def house_style(draw: Callable[P, T]) -> Callable[P, T]:
    """Run a function under the house's settings of matplotlib alone, whatever the user's are."""

    @wraps(draw)
    def styled(*args: P.args, **kwargs: P.kwargs) -> T:
        logger = logging.getLogger("matplotlib")
        before = logger.level
        # Its remarks on typefaces and caches look like errors of ours.
        logger.setLevel(logging.ERROR)
        try:
            with matplotlib.rc_context():
                matplotlib.rcdefaults()
                matplotlib.rcParams.update(_SETTINGS)
                return draw(*args, **kwargs)
        finally:
            logger.setLevel(before)

    return styled


@dataclass(frozen=True, slots=True)
class Look:
    """How one series is drawn, in every figure of a study."""

    colour: str
    marker: str
    line: Any
    fill: str

    def points(self, size: float = 5.5) -> dict[str, Any]:
        """Keyword arguments of `Axes.plot` for its markers."""
        return {
            "color": self.colour,
            "marker": self.marker,
            "fillstyle": self.fill,
            "markerfacecoloralt": "white",
            "markeredgewidth": 1.1,
            "markersize": size,
        }

    def drawn(self) -> dict[str, Any]:
        """Keyword arguments of `Axes.plot` for line and markers."""
        return {**self.points(), "linestyle": self.line, "linewidth": 1.6}


TEACHERS = Look(TEACHER, "*", "-", "full")
"""Of a teacher among others."""


def looks(series: Iterable[Series]) -> Mapping[Series, Look]:
    """The look of every series, each given once or more often; a method's first is filled."""
    found: dict[Series, Look] = {}
    counts: dict[str, int] = {}
    for one in dict.fromkeys(series):
        colour, marker, line = _METHODS.get(one.method, _OTHER)
        place = counts.get(one.method, 0)
        counts[one.method] = place + 1
        found[one] = Look(colour, marker, line, _FILLS[place % len(_FILLS)])
    return found


def percent(share: float, _: int | None = None) -> str:
    """A share as it stands on an axis.

    >>> percent(0.25), percent(0.125)
    ('25 %', '12.5 %')
    """
    return f"{100 * share:.4g} %"


def in_percent(axis: Any) -> None:
    """Let an axis of shares be read in percent."""
    axis.set_major_formatter(FuncFormatter(percent))
