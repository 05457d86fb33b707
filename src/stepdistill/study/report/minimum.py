"""The certificate of the minimum recipe, as `minimum.json` has it: its sentences, students and looks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stepdistill.errors import DataError
from stepdistill.study import certificate
from stepdistill.study.comparisons import points
from stepdistill.study.minimum import MINIMUM
from stepdistill.study.report.place import Place
from stepdistill.study.report.results import share
from stepdistill.study.report.table import Cell, Column, Table, number, percent, words


@dataclass(frozen=True, slots=True)
class Minimum:
    """What was found, in words, in single values, student by student and look by look."""

    sentences: Sequence[str]
    facts: Sequence[tuple[str, str]]
    tables: Sequence[Table]


def read_minimum(place: Place) -> Minimum | None:
    """The `certificate.Certificate` in a study's folder; None where no search has ended.

    Raises:
        DataError: it is damaged, or of an earlier version.
    """
    found = place.object(MINIMUM)
    if not found:
        return None
    try:
        made = f"{found['looks']} of at most {found['planned_looks']}"
        facts = [
            *((name, str(found[name])) for name in ("task", "method", "target")),
            ("margin, points", f"{100 * found['margin']:g}"),
            ("decided on", found["on"]),
            ("looks", f"{made}, each with an interval at {certificate.percent(found['look_confidence'], 2)}"),
        ]
        students = found["students"]
        sentences = [*found["sentences"], *found["notes"]]
        return Minimum(sentences, facts, [_students(students), _looks(students)])
    except (KeyError, TypeError, AttributeError) as error:
        path = place.path / MINIMUM
        raise DataError(f"{path}: damaged ({error!r}); `stepdistill study --minimum` writes it") from None


def _students(found: Sequence[Mapping[str, Any]]) -> Table:
    titles = ("parameters", "data", "n train", "accuracy", "target's", "n", "on test", "target's on test")
    columns = [Column("student"), Column("verdict"), *(Column(title, number=True) for title in titles)]
    columns += [Column("test says"), Column("not measured", hint="follows if more data does not harm")]
    body = []
    for one in found:
        test = one["test"] or {}
        told = [words(one["student"]), words(one["verdict"]), number(one["parameters"])]
        told += [share(one["fraction"]), number(one["n_train"])]
        told += [percent(one["accuracy"]), percent(one["target_accuracy"]), number(one["n"])]
        told += [percent(test.get("accuracy")), percent(test.get("target_accuracy")), words(test.get("says"))]
        body.append([*told, words("; ".join(f"{part}: {says}" for part, says in one["inferred"].items()))])
    return Table("minimum-students", "Students", columns, body).short(("student", "verdict", "data"))


def _looks(found: Sequence[Mapping[str, Any]]) -> Table:
    """A row a look: what the seeds so far said of one part of the data."""
    titles = ("data", "n train", "seeds", "difference, points", "interval")
    columns = [Column("student"), *(Column(title, number=True) for title in titles)]
    columns += [Column("in the end"), Column("trials")]
    body = []
    for one in found:
        for probe in one["probes"]:
            for look in probe["looks"]:
                value, low, high = look["value"], look["low"], look["high"]
                told = [words(one["student"]), share(probe["fraction"]), number(probe["n_train"])]
                told += [number(look["seeds"]), Cell(points(value), value)]
                told += [Cell(f"{points(low)} to {points(high)}", low, (low, value, high))]
                body.append([*told, words(probe["decision"]), words(", ".join(probe["trials"]))])
    table = Table("minimum-looks", "Looks", columns, body, "The method less its target.")
    return table.short(("data", "seeds", "difference, points", "in the end"))
