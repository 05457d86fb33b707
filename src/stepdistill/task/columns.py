"""Further columns of the data, for those who want to see results apart by what stands in them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from stepdistill.config import DataConfig
from stepdistill.errors import ConfigError, unknown
from stepdistill.task.load import Task, choose_place
from stepdistill.task.schema import Split
from stepdistill.task.sources import column


def read_columns(
    task: Task, data: DataConfig, split: Split, names: Sequence[str], ids: Collection[str]
) -> dict[str, dict[str, Any]]:
    """The values of named columns by example id; None where a row lacks a column that others have.

    Args:
        task: whose rows are read.
        data: where they lie.
        split: the file or part in which the examples stand.
        names: columns as the data call them; a dotted name reaches into nested ones.
        ids: the examples that are wanted.

    Raises:
        ConfigError: no row has a column of that name.
        DataError: the rows cannot be read.
    """
    if not names:
        return {id_: {} for id_ in ids}
    place, wanted = choose_place(task, data), set(ids)
    found: dict[str, dict[str, Any]] = {}
    met: set[str] = set()
    known: set[str] = set()
    for index, row in enumerate(place.open(split).rows()):
        known |= set(row)
        values = {name: _value(row, name) for name in names}
        met |= {name for name, value in values.items() if value is not _ABSENT}
        id_ = place.id_of(row, index, split)
        if id_ in wanted:
            found[id_] = {name: None if value is _ABSENT else value for name, value in values.items()}
    for name in names:
        if name not in met:
            raise ConfigError("evaluate.slices: " + unknown("column", name, known))
    return found


_ABSENT = object()


def _value(row: dict[str, Any], name: str) -> Any:
    try:
        return column(row, name)
    except KeyError:
        return _ABSENT
