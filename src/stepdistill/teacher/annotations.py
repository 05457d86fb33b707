"""The file `annotations.jsonl`: a row an example, with the teacher's words and what was read of them."""

from __future__ import annotations

import os
import weakref
from array import array
from collections import Counter
from collections.abc import ItemsView, Iterator, Mapping, Sequence, Sized, ValuesView
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepdistill.errors import DataError
from stepdistill.files import iter_jsonl, iter_placed, parse_object, reading
from stepdistill.records import Annotation, Example, Unparsed
from stepdistill.task.schema import Split
from stepdistill.teacher.settle import Heard, Settled

if TYPE_CHECKING:
    from stepdistill.teacher.lookup import Lookup

Annotations = Mapping[Split, Mapping[str, Annotation | Unparsed]]
"""What was read of the teacher's answers, by split and example id."""
_NEEDED = ("id", "split", "rationale", "label", "rule", "unread")
_KINDS = {"id": str, "split": str, "more": list}
_BLOCK = 1 << 13
"""Bytes read at once: most rows are shorter."""


def row_of(split: Split, example: Example, settled: Settled, heard: Sequence[Heard]) -> dict[str, Any]:
    """The row of one example: the answer that was chosen, verbatim, and the other answers behind it."""
    read, source = settled.read, settled.source
    row: dict[str, Any] = {
        "id": example.id,
        "split": split,
        "completion": source.words,
        "model": source.model,
    }
    if isinstance(read, Unparsed):
        row |= {"rationale": None, "label": None, "rule": None, "unread": read.reason}
    else:
        row |= {"rationale": read.rationale, "label": read.label, "rule": read.rule, "unread": None}
        row |= {"confidence": round(read.confidence, 4), "more": list(read.more)}
    if settled.left_out:
        row["left_out"] = settled.left_out
    if source.hinted:
        row["hinted"] = True
    chosen = (source.teacher, source.draw, source.hinted)
    others = [_other(one) for one in heard if (one.teacher, one.draw, one.hinted) != chosen]
    return {**row, "others": others} if others else row


class Stored(Mapping[str, Annotation | Unparsed]):
    """What was read of the answers on one split, by example id: rows of a file, read when they are asked for.

    It keeps a lookup of 24 bytes a row and holds the file open that was there at first: one that takes
    its place later changes nothing here. Rows stand in the order of the file; of several with one id,
    the last counts and stands in the place of the first.

    Raises:
        DataError: in any access: the file has been written over, or cannot be read.
    """

    def __init__(self, file: _Rows, lookup: Lookup) -> None:
        self._file, self._lookup = file, lookup

    def __getitem__(self, key: str) -> Annotation | Unparsed:
        for place in self._lookup.candidates(key) if isinstance(key, str) else ():
            row = self._file.at(place)
            if row["id"] == key:
                return _read(row)
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        return (row["id"] for row in self._rows())

    def __len__(self) -> int:
        return len(self._lookup)

    def items(self) -> ItemsView[str, Annotation | Unparsed]:
        """Ids and answers; a pass reads the file once, from its beginning to its end."""
        return _Items(self)

    def values(self) -> ValuesView[Annotation | Unparsed]:
        """The answers, in a pass like that of `items`."""
        return _Values(self)

    def pairs(self) -> Iterator[tuple[str, Annotation | Unparsed]]:
        """One pass of `items`."""
        return ((row["id"], _read(row)) for row in self._rows())

    def _rows(self) -> Iterator[dict[str, Any]]:
        return map(self._file.at, self._lookup)


class _Items(ItemsView[str, Annotation | Unparsed]):
    _mapping: Stored

    def __iter__(self) -> Iterator[tuple[str, Annotation | Unparsed]]:
        return self._mapping.pairs()


class _Values(ValuesView[Annotation | Unparsed]):
    _mapping: Stored

    def __iter__(self) -> Iterator[Annotation | Unparsed]:
        return (read for _, read in self._mapping.pairs())


class _Rows:
    """The rows of an open `annotations.jsonl`, one after another or by the bytes at which they begin."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with reading(path):
            self._file = path.open("rb")
        weakref.finalize(self, self._file.close)
        self._stamp = self._stamped()

    def __iter__(self) -> Iterator[tuple[int, dict[str, Any]]]:
        with reading(self._path):
            for number, (place, row) in enumerate(iter_placed(self._file, self._path), start=1):
                yield place, _checked(row, self._path, number)

    def at(self, place: int) -> dict[str, Any]:
        with reading(self._path):
            if self._stamped() != self._stamp:
                raise DataError(f"{self._path}: the file has changed since it was opened; run again")
            line = self._line(place)
        return parse_object(line.decode("utf-8"), f"{self._path}, byte {place}")

    def _line(self, place: int) -> bytes:
        # With a place in each call: processes that were forked share the file's own position.
        line = bytearray()
        while piece := os.pread(self._file.fileno(), _BLOCK, place + len(line)):
            head, end, _ = piece.partition(b"\n")
            line += head
            if end:
                break
        return bytes(line)

    def _stamped(self) -> tuple[int, int]:
        here = os.fstat(self._file.fileno())
        return here.st_size, here.st_mtime_ns


def read_annotations(path: Path) -> Annotations:
    """Open `annotations.jsonl` and check every row of it.

    A row that is left out of training is given as unread, with the reason.

    Raises:
        DataError: no such file, or a malformed line.
    """
    # Here, since whoever only asks a teacher needs no numpy.
    from stepdistill.teacher.lookup import Lookup, hash_id

    file = _Rows(path)
    found: dict[Split, tuple[array[int], array[int]]] = {}
    for place, row in file:
        hashes, places = found.setdefault(row["split"], (array("Q"), array("q")))
        hashes.append(hash_id(row["id"]))
        places.append(place)

    def id_at(place: int) -> str:
        return str(file.at(place)["id"])

    return {split: Stored(file, Lookup(*columns, id_at)) for split, columns in found.items()}


def iter_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of `annotations.jsonl` as they stand, one at a time.

    Raises:
        DataError: no such file, or a malformed line.
    """
    return (_checked(row, path, number) for number, row in enumerate(iter_jsonl(path), start=1))


def _checked(row: dict[str, Any], path: Path, number: int) -> dict[str, Any]:
    missing = [key for key in _NEEDED if key not in row]
    wrong = [key for key, kind in _KINDS.items() if not isinstance(row.get(key, kind()), kind)]
    if missing or wrong:
        what = f"no {', '.join(missing)}" if missing else f"{', '.join(wrong)} of the wrong kind"
        raise DataError(f"{path}, row {number}: {what}; run `stepdistill annotate` again")
    return row


def _read(row: Mapping[str, Any]) -> Annotation | Unparsed:
    if row["label"] is None:
        return Unparsed(row["id"], row["unread"])
    if left_out := row.get("left_out"):
        return Unparsed(row["id"], left_out)
    confidence, more = row.get("confidence", 1.0), tuple(row.get("more", ()))
    return Annotation(row["id"], row["rationale"], row["label"], row["rule"], confidence, more)


def count(annotations: Annotations, examples: Mapping[Split, Sized]) -> dict[str, Any]:
    """The parse report by split, without its details: asked, read, unread by reason, read by rule."""
    report: dict[str, Any] = {}
    for split, answers in annotations.items():
        unread, rules = Counter[str](), Counter[str]()
        for read in answers.values():
            if isinstance(read, Unparsed):
                unread[read.reason] += 1
            else:
                rules[read.rule] += 1
        report[split] = {
            "examples": len(examples.get(split, ())),
            "answers": len(answers),
            "read": sum(rules.values()),
            "unread": dict(unread.most_common()),
            "rules": dict(rules.most_common()),
        }
    return report


def _other(one: Heard) -> dict[str, Any]:
    read = one.read
    said = {"unread": read.reason} if isinstance(read, Unparsed) else {"label": read.label, "rule": read.rule}
    row = {"teacher": one.teacher, "draw": one.draw, "completion": one.words, **said}
    return {**row, "hinted": True} if one.hinted else row
