"""The certificate of the minimum recipe, as `minimum.json` has it: its sentences, its probes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from stepdistill.study.report.place import Place
from stepdistill.study.report.table import Cell, Column, Table

_WORDS = ("sentence", "sentences", "notes")
_SHARES = ("fraction", "accuracy", "confidence")
_DIFFERENCES = ("value", "low", "high", "margin")


@dataclass(frozen=True, slots=True)
class Minimum:
    """What was found, in words, in single values, and look by look."""

    sentences: Sequence[str]
    facts: Sequence[tuple[str, str]]
    tables: Sequence[Table]


def read_minimum(place: Place) -> Minimum | None:
    """The certificate in a study's folder; None where the search was not asked for, or has not ended."""
    values = place.object("minimum.json")
    if not values:
        return None
    sentences: list[str] = []
    facts: list[tuple[str, str]] = []
    tables: list[Table] = []
    for key, value in _flat(values):
        if key in _WORDS:
            sentences += [value] if isinstance(value, str) else [str(one) for one in value]
        elif _is_rows(value):
            tables += _tables(key, value)
        else:
            facts.append((key, _said(key, value)))
    return Minimum(sentences, facts, [replace(one, name=f"minimum-{at}") for at, one in enumerate(tables)])


def _flat(values: Mapping[str, Any], before: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in values.items():
        name = f"{before} {key}".strip().replace("_", " ")
        found += _flat(value, name) if isinstance(value, Mapping) else [(name, value)]
    return found


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, Mapping) for one in value)


def _tables(title: str, rows: Sequence[Mapping[str, Any]]) -> list[Table]:
    """A table of the rows, and one for each list of rows in them, which begin with what theirs is of."""
    flat, inner = [], dict[str, list[dict[str, Any]]]()
    for row in rows:
        values = dict(_flat(row))
        plain = {key: value for key, value in values.items() if not _is_rows(value)}
        flat.append(plain)
        for key in values.keys() - plain.keys():
            # Enough to tell the rows apart: the student, then its part of the data.
            of = {name: plain[name] for name in _own(key) if name in plain}
            inner.setdefault(key, []).extend({**of, **one} for one in values[key])
    names = list(dict.fromkeys(name for row in flat for name in row))
    numeric = [all(_is_number(row.get(name, 0)) for row in flat) for name in names]
    columns = [Column(name, number=is_number) for name, is_number in zip(names, numeric, strict=True)]
    body = [[_cell(name, row.get(name)) for name in names] for row in flat]
    made = [Table(title, title.capitalize(), columns, body)]
    return made + [table for key, found in inner.items() for table in _tables(f"{title}: {key}", found)]


def _own(key: str) -> Sequence[str]:
    # A probe has a fraction of its own; that of its student is what was found.
    return ("student",) if key == "probes" else ("student", "fraction")


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _cell(key: str, value: Any) -> Cell:
    return Cell(_said(key, value), value if _is_number(value) or isinstance(value, str) else None)


def _said(key: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    last = key.rpartition(" ")[2]
    if isinstance(value, int | float) and last in _SHARES:
        return f"{100 * value:.4g} %"
    if isinstance(value, int | float) and last in _DIFFERENCES:
        return f"{100 * value:+.1f} points"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return "; ".join(_said(key, one) for one in value)
    return value if isinstance(value, str) else json.dumps(value)
