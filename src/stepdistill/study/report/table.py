"""Tables as the page shows them: what stands in a cell, and what it is sorted by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from stepdistill.study import comparisons

Value = str | float | int | None


@dataclass(frozen=True, slots=True)
class Cell:
    """What is read (`text`) and what is sorted by (`sort`; None stands last).

    `span` is a share's interval as (low, value, high), to be drawn in the column's `scale`.
    """

    text: str
    sort: Value = None
    span: tuple[float, float, float] | None = None


@dataclass(frozen=True, slots=True)
class Column:
    """A heading; `number` columns stand to the right and are sorted as numbers; `hint` explains it.

    Of a column of `students`, empty cells are those of a teacher, who has no such thing.
    """

    title: str
    number: bool = False
    hint: str = ""
    students: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A table with its words. `same` are columns that say the same in every row, taken out of it."""

    name: str
    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    same: Sequence[tuple[str, str]] = field(default=())

    def short(self, keep: Sequence[str] = ()) -> Table:
        """The table without empty columns; those with one value for all rows are said once, in `same`."""
        if not self.rows:
            return self
        left, said = [], []
        for place, column in enumerate(self.columns):
            texts = {row[place].text for row in self.rows}
            if texts == {""}:
                continue
            if column.students:
                texts.discard("")
            if len(texts) == 1 and len(self.rows) > 1 and column.title not in keep:
                said.append((column.title, texts.pop()))
            else:
                left.append(place)
        columns = [self.columns[place] for place in left]
        rows = [[row[place] for place in left] for row in self.rows]
        return replace(self, columns=columns, rows=rows, same=said)

    @property
    def scale(self) -> tuple[float, float]:
        """From where to where the drawn intervals of the table go."""
        spans = [cell.span for row in self.rows for cell in row if cell.span]
        low, high = min((s[0] for s in spans), default=0.0), max((s[2] for s in spans), default=1.0)
        return low, high if high > low else low + 0.01

    @property
    def crosses(self) -> bool:
        """Whether the scale has its zero inside, to be drawn."""
        low, high = self.scale
        return low < 0 < high

    def place(self, share: float) -> float:
        """Where a share stands in the scale, 0 to 100."""
        low, high = self.scale
        return round(100 * (share - low) / (high - low), 1)


def words(text: Value) -> Cell:
    """A cell of words."""
    return Cell("" if text is None else str(text), None if text is None else str(text))


def number(value: float | None, form: str = ",.0f", unit: str = "") -> Cell:
    """A cell of a number."""
    return Cell("", None) if value is None else Cell(f"{value:{form}}{unit}", value)


def percent(share: float | None, digits: int = 1) -> Cell:
    """A cell of a share, in per cent.

    >>> percent(0.125).text
    '12.5 %'
    """
    return Cell("", None) if share is None else Cell(f"{100 * share:.{digits}f} %", share)


def interval(low: float, value: float, high: float) -> Cell:
    """A cell of a 95 % interval, drawn and in words; sorted by its lower end."""
    return Cell(f"{100 * low:.1f} – {100 * high:.1f}", low, (low, value, high))


def p_value(p: float | None) -> Cell:
    """A cell of a p-value.

    >>> p_value(0.00001).text, p_value(0.0421).text
    ('< 0.001', '0.042')
    """
    if p is None:
        return Cell("", None)
    return Cell(comparisons.p_value(p).removeprefix("p ").removeprefix("= "), p)
