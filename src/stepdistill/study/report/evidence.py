"""What is found in the rows: verdicts, comparisons, figures, and published numbers beside ours."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stepdistill.errors import DataError
from stepdistill.files import read_text
from stepdistill.study.comparisons import Comparison, adjust, compare_rows, points, verdict
from stepdistill.study.folder import ORDER, TEACHER
from stepdistill.study.paper.judged import Judged
from stepdistill.study.report.clean import data_uri
from stepdistill.study.report.results import Scores, share, student_name
from stepdistill.study.report.table import Cell, Column, Table, number, p_value, words
from stepdistill.study.results import ResultRow

FIGURES = "figures"
"""Folder of the figures, in that of the study."""
_TOLD = ("task", "what", "published", "ours", "verdict")
"""Columns of the published numbers that are shown even where all rows say the same."""
_SIZES = {
    "width": re.compile(r'\swidth="([\d.]+)(pt|px|)"'),
    "height": re.compile(r'\sheight="([\d.]+)(pt|px|)"'),
}


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure as the page holds it; sizes in CSS pixels."""

    name: str
    title: str
    caption: str
    alt: str
    uri: str
    width: int
    height: int


def sides(rows: Sequence[ResultRow], method: str, against: str) -> tuple[str, str] | None:
    """Who is compared with whom: as asked for, else the last arm with the first; None for a single arm."""
    names = sorted(
        {row.name for row in rows if row.name != TEACHER},
        key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER),
    )
    if len(names) < 2:
        return None
    first = against if against in names else next(name for name in names if name != method)
    second = method if method in names and method != first else [name for name in names if name != first][-1]
    return second, first


def verdicts(rows: Sequence[ResultRow], method: str, against: str) -> list[str]:
    """One sentence on the method against the other, and one on it against the teacher, where there are."""
    said = []
    for second, first in _questions(rows, method, against):
        try:
            said.append(verdict(rows, second, first).sentence)
        except DataError as error:
            said.append(f"{second} and {first} cannot be compared: {error}")
    return said


def comparisons(rows: Sequence[ResultRow], method: str, against: str) -> list[Table]:
    """The method against the other, and against the teacher, cell by cell of the grid."""
    made = []
    for place, (second, first) in enumerate(_questions(rows, method, against)):
        try:
            found = compare_rows(rows, second, first)
        except DataError:
            continue  # the verdict says why
        if found:
            made.append(_comparisons(f"comparisons-{place}", f"{second} against {first}", found))
    others = _others(rows, method, against)
    if others:
        # A single row of it stands in the table of all arms as well.
        made = [table for table in made if len(table.rows) > 1 or table.title.endswith(TEACHER)]
    return [*made, others] if others else made


def _others(rows: Sequence[ResultRow], method: str, against: str) -> Table | None:
    """The method against every other arm, where the data and the student are the largest."""
    pair = sides(rows, method, against)
    names = [name for name in ORDER if any(row.name == name for row in rows if row.name != TEACHER)]
    if pair is None or len(names) < 3:
        return None
    second = pair[0]
    part = [row for row in rows if row.name == TEACHER or _is_largest(row, rows)]
    found: list[Comparison] = []
    for first in names:
        if first != second:
            with contextlib.suppress(DataError):
                found += compare_rows(part, second, first)
    title = f"{second} against every other arm"
    return _comparisons("comparisons-all", title, adjust(found)) if found else None


def _is_largest(row: ResultRow, rows: Sequence[ResultRow]) -> bool:
    alike = [one for one in rows if one.task == row.task]
    most, largest = max(one.fraction or 0.0 for one in alike), max(one.parameters or 0 for one in alike)
    return row.fraction == most and (row.parameters or 0) == largest


def _questions(rows: Sequence[ResultRow], method: str, against: str) -> list[tuple[str, str]]:
    """Who is compared with whom: the second named is the one it is measured by."""
    pair = sides(rows, method, against)
    names = {row.name for row in rows}
    second = pair[0] if pair else next(iter(sorted(names - {TEACHER})), None)
    taught = [(second, TEACHER)] if second and TEACHER in names else []
    return [pair, *taught] if pair else taught


def _comparisons(name: str, title: str, found: Sequence[Comparison]) -> Table:
    is_mixed = len({one.first for one in found}) > 1
    columns = [
        Column("task"),
        *([Column("against")] if is_mixed else []),
        Column("difference, points", number=True),
        Column("95 % interval", number=True),
        Column("data", number=True),
        Column("student"),
        Column("labels"),
        Column("p", number=True),
        Column("p, Holm", number=True, hint="adjusted for the number of comparisons in this table"),
        Column("seeds", number=True),
        Column("n test", number=True),
    ]
    body = [
        [
            words(one.task),
            *([words(one.first)] if is_mixed else []),
            Cell(points(one.difference.value), one.difference.value),
            _range(one.difference.low, one.difference.value, one.difference.high),
            share(one.fraction),
            words(student_name(one.student)),
            words(one.labels),
            p_value(one.difference.p),
            p_value(one.adjusted),
            number(len(one.seeds) or one.difference.seeds),
            number(one.difference.n),
        ]
        for one in found
    ]
    note = "The difference of accuracies on the same test examples; above 0, the first named is better. Two "
    note += "methods are told apart where the interval leaves out 0 and the adjusted p is at most 0.05."
    return Table(name, title, columns, body, note).short(
        ("difference, points", "95 % interval", "p", "p, Holm")
    )


def figures(
    rows: Sequence[ResultRow], scores: Scores, folder: Path, method: str, against: str
) -> tuple[list[Picture], list[tuple[str, str]]]:
    """The figures, written into the folder too, and those that were not drawn with the reason."""
    from stepdistill.study.figures.draw import draw_all

    drawn = draw_all(rows, scores, folder / FIGURES, method, against)
    made, missing = [], []
    for one in drawn:
        if one.svg is None:
            missing.append((one.title, one.missing))
            continue
        text = read_text(one.svg)
        uri = data_uri("image/svg+xml", text.encode())
        made.append(Picture(one.name, one.title, one.caption, one.alt, uri, *_pixels(text)))
    return made, missing


def published(rows: Sequence[ResultRow], name: str) -> Table | None:
    """Published numbers beside ours, each judged; None where there are none under this name."""
    from stepdistill.study.paper.judge import judge

    columns = [
        Column("task"),
        Column("what"),
        Column("published", number=True),
        Column("its 95 % interval", number=True, hint="what its number of test examples implies"),
        Column("ours", number=True),
        Column("our 95 % interval", number=True),
        Column("seeds", number=True),
        Column("data", number=True, hint="share of the training examples that ours were trained on"),
        Column("n train", number=True),
        Column("n test", number=True),
        Column("verdict"),
        Column("source"),
    ]
    body = [_judged(one) for one in judge(rows, name)]
    note = "In per cent, of differences in points, of shares the part of the data that is enough."
    table = Table("published", f"Published and ours: {name}", columns, body, note)
    return table.short(_TOLD) if body else None


def _judged(one: Judged) -> list[Cell]:
    given, ours = one.published, one.ours
    form = points if one.kind == "difference" else lambda part: f"{100 * part:.1f}"

    def ends(low: float | None, high: float | None) -> Cell:
        return Cell("" if low is None or high is None else f"{form(low)} to {form(high)}", low)

    def value(given: float | None) -> Cell:
        return Cell("" if given is None else form(given), given)

    return [
        words(one.task),
        words(one.what),
        value(given.value),
        ends(given.low, given.high),
        value(ours.value if ours else None),
        ends(ours.low, ours.high) if ours else words(None),
        number(ours.seeds if ours else None),
        share(ours.fraction if ours else None),
        number(ours.n_train if ours else None),
        number(ours.n if ours else None),
        words(one.verdict),
        words(given.source),
    ]


def _range(low: float, value: float, high: float) -> Cell:
    return Cell(f"{points(low)} to {points(high)}", low, (low, value, high))


def _pixels(text: str) -> tuple[int, int]:
    """Size of an SVG; matplotlib writes points, of which 72 are an inch and 96 pixels."""
    head = text[text.find("<svg") : text.find(">", text.find("<svg"))]
    size = []
    for pattern in _SIZES.values():
        found = pattern.search(head)
        size.append(round(float(found[1]) * (4 / 3 if found[2] == "pt" else 1)) if found else 640)
    return size[0], size[1]
