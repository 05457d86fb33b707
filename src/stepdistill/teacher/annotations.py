"""The file `annotations.jsonl`: a row an example, with the teacher's words and what was read of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Sized
from pathlib import Path
from typing import Any

from stepdistill.errors import DataError
from stepdistill.files import iter_jsonl
from stepdistill.records import Annotation, Example, Unparsed
from stepdistill.task.schema import Split
from stepdistill.teacher.settle import Heard, Settled

Annotations = dict[Split, dict[str, Annotation | Unparsed]]
"""What was read of the teacher's answers, by split and example id."""
_NEEDED = ("id", "split", "rationale", "label", "rule", "unread")


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


def read_annotations(path: Path) -> Annotations:
    """Read `annotations.jsonl`; a row that is left out of training is given as unread, with the reason.

    Raises:
        DataError: no such file, or a malformed line.
    """
    found: Annotations = {}
    for row in iter_rows(path):
        found.setdefault(row["split"], {})[row["id"]] = _read(row)
    return found


def iter_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of `annotations.jsonl` as they stand, one at a time.

    Raises:
        DataError: no such file, or a malformed line.
    """
    for number, row in enumerate(iter_jsonl(path), start=1):
        missing = [key for key in _NEEDED if key not in row]
        if missing:
            what = f"{path}, row {number}: no {', '.join(missing)}"
            raise DataError(f"{what}; run `stepdistill annotate` again")
        yield row


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
    for split, rows in annotations.items():
        unread = Counter(r.reason for r in rows.values() if isinstance(r, Unparsed))
        rules = Counter(r.rule for r in rows.values() if isinstance(r, Annotation))
        report[split] = {
            "examples": len(examples.get(split, ())),
            "answers": len(rows),
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
