"""Which rows are one series of a figure, and what it is called."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from stepdistill.student.methods import ARMS, JOIN
from stepdistill.study.folder import TEACHER
from stepdistill.study.pairs import needed_teacher
from stepdistill.study.results import ResultRow

_LONGEST = 34
"""Letters of a name in a legend; a longer one loses its middle."""


@dataclass(frozen=True, slots=True)
class Series:
    """What is compared: an arm with its labels, rationales, weight and teacher, over all else.

    Two are equal where these are; `label`, its name in legends, says of them what varies in the study.
    `twin` counts those that differ in something else of their configuration.
    """

    name: str
    labels: str
    rationales: str
    weight: str
    teacher: str
    twin: int = 0
    label: str = field(default="", compare=False)

    @property
    def method(self) -> str:
        """The method of the arm, without the source of its rationales."""
        return self.name.partition(JOIN)[0]


def series_of(rows: Sequence[ResultRow]) -> Mapping[int, Series]:
    """The series of every student's row by the row's place, in the order of legends."""
    keys = {place: _key(row) for place, row in enumerate(rows) if row.name != TEACHER}
    values: dict[tuple[str, int], set[str]] = defaultdict(set)
    for key in keys.values():
        for part, value in enumerate(key):
            values[key[0], part].add(value)
    order = {name: place for place, name in enumerate(ARMS)}
    found = {
        place: Series(*key, label=_label(key, [len(values[key[0], part]) > 1 for part in range(len(key))]))
        for place, key in keys.items()
    }
    return dict(sorted(found.items(), key=lambda item: (order.get(item[1].name, len(order)), keys[item[0]])))


def shortened(name: str, longest: int = _LONGEST) -> str:
    """A name without its middle where it is too long for a figure.

    >>> shortened("HuggingFaceTB/SmolLM2-135M-Instruct", 20)
    'HuggingFa…M-Instruct'
    """
    if len(name) <= longest:
        return name
    end = longest // 2
    return f"{name[: longest - 1 - end]}…{name[-end:]}"


def _key(row: ResultRow) -> tuple[str, str, str, str, str]:
    weight = "" if row.lambda_ is None else str(row.lambda_)
    return row.name, row.labels, row.rationales or "", weight, needed_teacher(row)


def _label(key: tuple[str, str, str, str, str], varies: Sequence[bool]) -> str:
    _, labels, rationales, weight, teacher = key
    said = (
        f"{labels} labels",
        f"{rationales or 'no'} rationales",
        f"λ = {weight}" if weight else "no λ",
        f"by {shortened(teacher, 20)}" if teacher else "no teacher",
    )
    more = [words for words, differs in zip(said, varies[1:], strict=True) if differs]
    return shortened(key[0]) + (f" ({', '.join(more)})" if more else "")
